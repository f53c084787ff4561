from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.webhook.certificates.model import (
    Authority,
    Entry,
    Held,
    Leaf,
    Pair,
    Trust,
)
from nodecache.webhook.certificates.planning import (
    BACKDATE_S,
    Sighting,
    Step,
    choose_leaf,
    plan_bundle,
    plan_secret,
    sight,
)
from tests.webhook.certificates.lives import DAY, SETTINGS

NOW = 1_900_000_000.0
SECOND = 1.0
SETTLE_S = SETTINGS.settle_s


def authority(name: str, age_days: float = 1, life_days: float = 365) -> Authority:
    made = NOW - age_days * DAY
    return Authority(name, name.encode(), made - BACKDATE_S, made + life_days * DAY)


def leaf(issuer: str, age_days: float = 1, life_days: float = 90) -> Leaf:
    made = NOW - age_days * DAY
    pair = Pair(f"{issuer} {age_days}".encode(), b"key")
    return Leaf(pair, SETTINGS.names, issuer, made - BACKDATE_S, made + life_days * DAY)


OLD, NEW, THIRD = authority("old", 200), authority("new"), authority("third")
CALM = Held((NEW,), NEW, b"key", leaf("new"))
ADDED = Held((NEW, OLD), NEW, b"key", leaf("old"))  # step one is done
CHANGED = Held((NEW, OLD), NEW, b"key", leaf("new"))  # and step two


def trusting(*authorities: Authority, manager: str = "") -> Trust:
    return Trust((Entry("a", authorities), Entry("b", authorities)), manager)


# Each state of the Secret, and what it needs.
STATES: dict[str, tuple[Held, Step]] = {
    "empty": (Held(), Step.START),
    "as it should be": (CALM, Step.NOTHING),
    "a CA without a certificate": (replace(CALM, leaf=None), Step.RENEW_LEAF),
    "a certificate without its CA": (Held(leaf=leaf("")), Step.START),
    "a certificate of somebody else's CA": (
        replace(CALM, leaf=leaf("")),
        Step.RENEW_LEAF,
    ),
    "a CA without its key": (replace(CALM, signer=None), Step.ADD_CA),
    "neither key nor certificate": (Held((NEW,)), Step.START),
    "wrong names": (
        replace(CALM, leaf=replace(leaf("new"), names=frozenset({"other.svc"}))),
        Step.RENEW_LEAF,
    ),
    "no names": (
        replace(CALM, leaf=replace(leaf("new"), names=frozenset())),
        Step.RENEW_LEAF,
    ),
    "more names than needed": (
        replace(CALM, leaf=replace(leaf("new"), names=SETTINGS.names | {"more.svc"})),
        Step.NOTHING,
    ),
    "certificate before two thirds": (
        replace(CALM, leaf=leaf("new", 59.9)),
        Step.NOTHING,
    ),
    "certificate at two thirds": (
        replace(CALM, leaf=leaf("new", 60)),
        Step.RENEW_LEAF,
    ),
    "certificate expired": (replace(CALM, leaf=leaf("new", 91)), Step.RENEW_LEAF),
    "certificate that expires before the second look": (
        replace(CALM, leaf=leaf("new", 0, 2 * SETTINGS.look_s / DAY)),
        Step.RENEW_LEAF,
    ),
    "certificate from the future": (
        replace(CALM, leaf=leaf("new", -1)),
        Step.RENEW_LEAF,
    ),
    "certificate by a clock some minutes ahead": (
        replace(CALM, leaf=leaf("new", -BACKDATE_S / DAY)),
        Step.NOTHING,
    ),
    "CA before two thirds": (
        Held((authority("new", 243),), authority("new", 243), b"key", leaf("new")),
        Step.NOTHING,
    ),
    "CA at two thirds": (
        Held((authority("new", 244),), authority("new", 244), b"key", leaf("new")),
        Step.ADD_CA,
    ),
    "CA at two thirds, and no certificate": (
        Held((authority("new", 244),), authority("new", 244), b"key"),
        Step.RENEW_LEAF,
    ),
    "CA expired": (
        Held((authority("new", 366),), authority("new", 366), b"key", leaf("new", 91)),
        Step.START,
    ),
    "CA from the future": (
        Held((authority("new", -1), OLD), authority("new", -1), b"key", leaf("old")),
        Step.ADD_CA,
    ),
    "CA added": (ADDED, Step.NOTHING),
    "CA added, the old one's certificate is due": (
        replace(ADDED, leaf=leaf("old", 70)),
        Step.NOTHING,
    ),
    "CA added, the old one's certificate has expired": (
        replace(ADDED, leaf=leaf("old", 91)),
        Step.RENEW_LEAF,
    ),
    "CA added in vain until it is due itself": (
        replace(ADDED, signer=authority("new", 250)),
        Step.ADD_CA,
    ),
    "CA and certificate changed": (CHANGED, Step.NOTHING),
}

# What some need instead when all its CAs have been in the caBundles for long enough.
SETTLED = {
    "CA added": Step.RENEW_LEAF,
    "CA added, the old one's certificate is due": Step.RENEW_LEAF,
}


@pytest.mark.parametrize("name", STATES)
def test_each_state_of_the_secret_has_its_next_step(name: str) -> None:
    held, step = STATES[name]
    assert plan_secret(held, SETTLE_S - SECOND, NOW, SETTINGS) is step
    assert plan_secret(held, SETTLE_S, NOW, SETTINGS) is SETTLED.get(name, step)


def test_needed_cas_are_added_at_once_beside_those_of_others() -> None:
    assert plan_bundle(CALM, trusting(), 0, NOW, SETTINGS) == (NEW,)
    assert plan_bundle(ADDED, trusting(OLD), 0, NOW, SETTINGS) == (NEW, OLD)
    assert plan_bundle(CALM, trusting(THIRD), 0, NOW, SETTINGS) == (NEW, THIRD)


def test_complete_bundles_are_left_alone() -> None:
    assert plan_bundle(CALM, trusting(NEW), 0, NOW, SETTINGS) is None
    assert plan_bundle(CALM, trusting(NEW), 2 * SETTLE_S, NOW, SETTINGS) is None
    assert plan_bundle(ADDED, trusting(OLD, NEW), 2 * SETTLE_S, NOW, SETTINGS) is None


def test_one_entry_that_lacks_something_is_enough_to_mend_all() -> None:
    trust = Trust((Entry("a", (NEW,)), Entry("b", ())))
    assert plan_bundle(CALM, trust, 0, NOW, SETTINGS) == (NEW,)


def test_cas_of_others_go_when_each_replica_had_time_to_read() -> None:
    trust = trusting(NEW, THIRD)
    assert plan_bundle(CALM, trust, 2 * SETTLE_S - SECOND, NOW, SETTINGS) is None
    assert plan_bundle(CALM, trusting(NEW, THIRD), 2 * SETTLE_S, NOW, SETTINGS) == (NEW,)


def test_an_old_ca_stays_until_it_ends() -> None:
    ended = authority("old", 366)
    assert plan_bundle(CHANGED, trusting(NEW, OLD), 2 * SETTLE_S, NOW, SETTINGS) is None
    held = replace(CHANGED, authorities=(NEW, ended))
    assert plan_bundle(held, trusting(NEW, ended), 2 * SETTLE_S, NOW, SETTINGS) == (NEW,)
    assert plan_bundle(held, trusting(ended), 0, NOW, SETTINGS) == (NEW,)


def test_what_cert_manager_keeps_is_not_touched() -> None:
    trust = trusting(THIRD, manager="cert-manager.io/inject-ca-from")
    assert plan_bundle(CALM, trust, 2 * SETTLE_S, NOW, SETTINGS) is None


@pytest.mark.parametrize(
    "held", [Held(), Held((authority("new", 366),)), Held((authority("x", -1),))]
)
def test_bundles_stay_while_the_secret_has_no_ca(held: Held) -> None:
    assert plan_bundle(held, trusting(OLD), 2 * SETTLE_S, NOW, SETTINGS) is None


def test_a_configuration_without_entries_is_left_alone() -> None:
    assert plan_bundle(CALM, Trust(()), 2 * SETTLE_S, NOW, SETTINGS) is None


def test_few_cas_of_others_are_carried_along() -> None:
    many = [authority(str(number)) for number in range(100)]
    bundle = plan_bundle(CALM, trusting(*many), 0, NOW, SETTINGS)
    assert bundle is not None
    assert len(bundle) == 17


def test_the_first_certificate_is_served_whoever_trusts_it() -> None:
    assert choose_leaf(CALM, None, trusting(), 0, NOW, SETTINGS) == CALM.leaf
    assert choose_leaf(CALM, None, None, 0, NOW, SETTINGS) == CALM.leaf


def test_what_is_served_is_not_served_anew() -> None:
    assert choose_leaf(CALM, CALM.leaf, trusting(NEW), 0, NOW, SETTINGS) is None


def test_a_certificate_that_nobody_verifies_waits_for_the_bundle() -> None:
    served = leaf("old", 30)
    assert choose_leaf(CALM, served, trusting(OLD), 0, NOW, SETTINGS) is None
    trust = trusting(OLD, NEW)
    assert choose_leaf(CALM, served, trust, SETTLE_S - SECOND, NOW, SETTINGS) is None
    assert choose_leaf(CALM, served, trust, SETTLE_S, NOW, SETTINGS) == CALM.leaf


def test_a_certificate_of_the_same_ca_is_served_at_once() -> None:
    served = leaf("new", 30)
    assert choose_leaf(CALM, served, trusting(NEW), 0, NOW, SETTINGS) == CALM.leaf


def test_it_waits_no_longer_than_the_one_in_use_is_good_for() -> None:
    assert choose_leaf(CALM, leaf("old", 91), trusting(OLD), 0, NOW, SETTINGS) == CALM.leaf
    assert choose_leaf(CALM, leaf("old", 30), trusting(THIRD), 0, NOW, SETTINGS) == CALM.leaf


def test_the_secret_is_believed_while_the_configuration_cannot_be_read() -> None:
    assert choose_leaf(CALM, leaf("old", 30), None, 0, NOW, SETTINGS) == CALM.leaf


def test_a_certificate_of_no_use_is_never_served() -> None:
    for bad in (leaf("new", 91), leaf("new", -1), leaf("")):
        held = replace(CALM, leaf=bad)
        assert choose_leaf(held, leaf("old", 91), trusting(NEW), 0, NOW, SETTINGS) is None


def test_settling_counts_from_when_all_were_first_seen_in_all_entries() -> None:
    first = sight(None, ADDED, trusting(OLD), NOW, 10)
    assert first is None
    seen = sight(first, ADDED, trusting(OLD, NEW), NOW, 20)
    assert seen == Sighting(frozenset({"old", "new"}), 20)
    assert sight(seen, ADDED, trusting(NEW, OLD), NOW, 30) == seen


@pytest.mark.parametrize(
    ("held", "trust"),
    [
        (ADDED, trusting(NEW)),
        (ADDED, Trust((Entry("a", (NEW, OLD)), Entry("b", (OLD,))))),
        (Held(), trusting(NEW)),
    ],
)
def test_settling_begins_anew_when_one_is_missing(held: Held, trust: Trust | None) -> None:
    seen = Sighting(frozenset({"old", "new"}), 0)
    assert sight(seen, held, trust, NOW, 30) is None


def test_settling_goes_on_while_the_configuration_cannot_be_read() -> None:
    seen = Sighting(frozenset({"old", "new"}), 0)
    assert sight(seen, ADDED, None, NOW, 30) == seen
    assert sight(seen, CALM, None, NOW, 30) is None
    assert sight(None, ADDED, None, NOW, 30) is None


def test_settling_begins_anew_with_another_ca() -> None:
    seen = Sighting(frozenset({"old", "new"}), 0)
    held = replace(ADDED, authorities=(THIRD, NEW, OLD))
    found = sight(seen, held, trusting(OLD, NEW, THIRD), NOW, 30)
    assert found is not None
    assert found.since == 30
