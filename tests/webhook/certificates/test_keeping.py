from __future__ import annotations

import base64
import logging
from dataclasses import replace

import pytest

from nodecache.errors import ApiError, CertificateError
from nodecache.webhook.certificates import keeping, planning
from nodecache.webhook.certificates.api import Reply
from nodecache.webhook.certificates.making import make_data
from nodecache.webhook.certificates.model import Held, Settings
from nodecache.webhook.certificates.planning import Step
from tests.webhook.certificates.lives import (
    BEGIN,
    DAY,
    HOUR,
    SETTINGS,
    Call,
    Faults,
    Replica,
    World,
    bundle_of,
    held_of,
)

CALM = Faults()
DONE = Reply(200, b"{}", BEGIN)
ROUGH = Faults(fails=0.05, is_lost=0.03, kills=0.03, stalls=0.03, cuts=0.01, skew_s=240, lag_s=HOUR)
YEAR = 365.0


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the same few certificates once, not in each of a year's looks."""
    monkeypatch.setattr("nodecache.webhook.certificates.keeping.read_held", held_of)
    monkeypatch.setattr("nodecache.webhook.certificates.objects.read_bundle", bundle_of)


def started(replicas: int = 2, faults: Faults = CALM, seed: int = 1) -> World:
    """Returns a world a day after its first start."""
    world = World(replicas, faults, seed)
    world.run(1)
    assert world.cas() == 1
    return world


def strange_ca() -> bytes:
    return make_data(Step.START, Held(), BEGIN, SETTINGS)["ca.crt"]


def set_bundles(world: World, pem: bytes) -> None:
    """Does what somebody by hand does to the configuration."""
    for each in world.configuration["webhooks"]:
        each["clientConfig"]["caBundle"] = base64.b64encode(pem).decode()
    world.change(world.configuration)


def shown(world: World) -> set[bytes]:
    return {each.shown[0] for each in world.replicas if each.shown}


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_an_empty_secret_is_filled_once_and_all_serve_the_same(replicas: int) -> None:
    world = started(replicas)
    assert len(world.leaves) == 1
    assert shown(world) == set(world.leaves)
    assert all(each.shown for each in world.replicas)
    assert set(world.bundles()) == {world.data("ca.crt")}


def test_replicas_that_start_at_once_agree_by_the_version_of_the_secret() -> None:
    conflicts = sum(started(5, CALM, seed).conflicts for seed in range(5))
    assert conflicts > 0


def test_years_go_by_and_what_is_shown_is_always_verified() -> None:
    world = started()
    world.run(3 * YEAR)
    assert world.complaints == []
    # One each 60 days; a CA's last ones are shorter.
    assert 18 <= len(world.leaves) <= 26
    assert shown(world) == {world.data("tls.crt")}
    assert world.cas() <= 2


@pytest.mark.parametrize("seed", range(4))
def test_calls_that_fail_deaths_and_clocks_apart_cost_no_handshake(seed: int) -> None:
    world = World(3, ROUGH, seed)
    world.run(2 * YEAR)
    assert world.deaths > 100
    assert len(world.leaves) > 10
    assert world.complaints == []


def test_the_world_notices_a_ca_that_goes_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_the_newest(held: Held, *_: object) -> object:
        return held.authorities[:1] if held.authorities else None

    monkeypatch.setattr(keeping, "plan_bundle", only_the_newest)
    world = World(2, CALM, 1)
    world.run(YEAR)
    assert "no CA in a caBundle signed" in world.complaints[0]


def test_the_world_notices_a_certificate_that_comes_too_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "plan_secret", _hasty)
    monkeypatch.setattr(keeping, "choose_leaf", lambda held, *_: held.leaf)
    world = World(2, replace(CALM, lag_s=12 * HOUR), 1)
    world.run(YEAR)
    assert "no CA in a caBundle signed" in world.complaints[0]


def test_the_world_notices_a_certificate_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "plan_secret", lambda held, *_: _start_only(held))
    world = World(2, CALM, 1)
    world.run(YEAR)
    assert "out of its time" in world.complaints[0]


def _hasty(held: Held, known_s: float, now: float, settings: Settings) -> Step:
    return planning.plan_secret(held, settings.settle_s, now, settings)


def _start_only(held: Held) -> Step:
    return Step.NOTHING if held.leaf else Step.START


def test_a_secret_that_is_emptied_costs_no_handshake_and_its_ca_leaves() -> None:
    world = started()
    before = world.data("ca.crt")
    world.run(30)
    world.change(world.secret, data={})
    world.run(5)
    assert world.complaints == []
    assert len(world.leaves) == 2
    assert shown(world) == {world.data("tls.crt")}
    assert set(world.bundles()) == {world.data("ca.crt")}
    assert before != world.data("ca.crt")


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
@pytest.mark.parametrize("octets", [b"", b"nonsense"])
def test_a_secret_that_lost_something_is_mended_at_no_handshakes_cost(
    name: str, octets: bytes
) -> None:
    world = started()
    data = dict(world.secret["data"]) | {name: base64.b64encode(octets).decode()}
    world.change(world.secret, data=data)
    world.run(5)
    assert world.complaints == []
    held = held_of({key: world.data(key) for key in data})
    assert planning.plan_secret(held, SETTINGS.settle_s, world.now, SETTINGS) is Step.NOTHING
    assert shown(world) == {world.data("tls.crt")}


def test_a_backup_from_before_the_ca_was_changed_is_taken_without_a_gap() -> None:
    world = started()
    old = dict(world.secret["data"])
    world.run(40)
    world.change(world.secret, data={})
    world.run(3)
    world.change(world.secret, data=old)
    world.run(3)
    assert world.complaints == []
    assert shown(world) == {world.data("tls.crt")}


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_to_the_secret_amid_failing_calls_costs_no_handshake(seed: int) -> None:
    world = started(3, Faults(fails=0.2, is_lost=0.05, stalls=0.01, skew_s=240, lag_s=HOUR), seed)
    world.run(10)
    backups = []
    for _ in range(8):
        data = dict(world.secret["data"])
        backups.append(dict(data))
        name, backup = world.random.choice(sorted(data)), world.random.choice(backups)
        changes: tuple[dict[str, str], ...] = (
            {},
            {**data, name: "eHg="},
            {**data, name: backup.get(name, "")},
            backup,
        )
        world.change(world.secret, data=world.random.choice(changes))
        world.run(10)
        assert world.complaints == []
        assert shown(world) == {world.data("tls.crt")}


def test_a_bundle_that_is_emptied_is_filled_at_the_next_look() -> None:
    world = started()
    set_bundles(world, b"")
    world.run(SETTINGS.look_s / DAY)
    assert set(world.bundles()) == {world.data("ca.crt")}
    assert len(world.leaves) == 1


def test_a_strangers_ca_is_kept_for_a_while_and_then_dropped() -> None:
    world = started()
    set_bundles(world, strange_ca() + world.data("ca.crt"))
    world.run(SETTINGS.settle_s / DAY / 2)
    assert world.cas() == 2
    world.run(3)
    assert set(world.bundles()) == {world.data("ca.crt")}


def test_what_is_not_ours_in_both_objects_stays() -> None:
    world = started()
    world.change(world.secret, data=world.secret["data"] | {"note": "eHg="}, type="Opaque")
    world.configuration["webhooks"][0]["failurePolicy"] = "Ignore"
    world.change(world.configuration)
    world.run(YEAR)
    assert (world.secret["data"]["note"], world.secret["type"]) == ("eHg=", "Opaque")
    first = world.configuration["webhooks"][0]
    assert (first["failurePolicy"], first["clientConfig"]["service"]) == ("Ignore", {})


def test_a_ca_is_exchanged_in_three_steps() -> None:
    world = started()
    old = bundle_of(world.data("ca.crt"))
    world.run(242.7)
    assert world.cas() == 2
    before = world.data("tls.crt")
    world.run(2)
    after = world.data("tls.crt")
    assert before != after
    world.run(SETTINGS.ca_life_s / DAY - 246.7)
    assert old[0] in bundle_of(world.bundles()[0])
    world.run(5)
    assert world.cas() == 1
    assert world.complaints == []


def test_a_restarted_replica_serves_at_its_first_look() -> None:
    world = started()
    world.restart(world.replicas[0])
    world.run(10 / DAY)
    assert world.replicas[0].shown is not None
    assert len(world.leaves) == 1


def look(replica: Replica, *replies: Reply | ApiError) -> float:
    """Lets a replica look once; each call gets the next reply."""
    assert replica.keeper is not None
    coroutine = replica.keeper.look(0)
    try:
        coroutine.send(None)
        for reply in replies:
            if isinstance(reply, ApiError):
                coroutine.throw(reply)
            else:
                coroutine.send(reply)
    except StopIteration as stop:
        return float(stop.value)
    raise AssertionError("it asks for more")


def test_pauses_grow_to_a_look_while_the_api_is_away() -> None:
    replica = Replica()
    replica.start()
    pauses = [look(replica, ApiError("away")) for _ in range(20)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == SETTINGS.look_s


def test_a_complaint_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    replica = Replica()
    replica.start()
    secret = Reply(200, b'{"metadata": {"resourceVersion": "1"}}', BEGIN)
    trust = Reply(200, b'{"metadata": {"resourceVersion": "1"}, "webhooks": []}', BEGIN)
    for _ in range(3):
        look(replica, ApiError("no right"))
    assert caplog.messages == ["no right"]
    look(replica, secret, ApiError("no other right"), DONE)
    look(replica, secret, ApiError("no other right"), DONE)
    assert caplog.messages.count("no other right") == 1
    look(replica, secret, trust, DONE)
    assert caplog.messages[-1] == "certificates are kept again"


def test_a_certificate_that_the_server_refuses_is_a_complaint(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CertificateError("too small")

    monkeypatch.setattr(Replica, "show", refuse)
    world = World(1, CALM, 1)
    world.run(5)
    text = "the certificate in Secret kube-system/nodecache-webhook-tls is refused: too small"
    assert caplog.messages.count(text) == 1
    assert world.complaints == []


def test_cert_managers_bundle_is_not_touched_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(2, CALM, 1)
    world.configuration["metadata"]["annotations"] = {"cert-manager.io/inject-ca-from": "x/y"}
    world.run(1)
    assert world.bundles() == (b"", b"")
    assert sum("cert-manager.io/inject-ca-from" in text for text in caplog.messages) == 2


def test_a_secret_without_a_readable_configuration_is_kept_all_the_same() -> None:
    replica = Replica()
    replica.start()
    secret = Reply(200, b'{"metadata": {"resourceVersion": "1"}}', BEGIN)
    assert look(replica, secret, ApiError("no right"), DONE) == 1


def test_without_a_date_of_the_api_server_the_own_clock_counts() -> None:
    world = started()
    replica = Replica()
    replica.start()
    asked = (Call("GET", path, b"") for path in ("/secrets/", "/other/"))
    look(replica, *(replace(world.answer(each), date=None) for each in asked), DONE)
    assert replica.shown is None  # it was made for another year
