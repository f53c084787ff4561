"""The scripts that change the packet filter, and the listings that say whether it stands."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError
from nodecache.host.flows import addresses
from nodecache.host.table import compose, count_unserved, covered
from nodecache.host.table import is_complete as is_whole

PLAN = NodePlan(
    "nodelocaldns", ("169.254.20.10", "10.96.0.10", "fd00:20:0::10"), cluster_dns=("10.96.0.10",)
)
ONLY_4 = NodePlan("nodelocaldns", ("169.254.20.10",), cluster_dns=("10.96.0.10",))
FOREIGN_CHAIN = "\tchain input {\n\t\ttype filter hook input priority raw; policy accept;\n\t}\n"


def listed(script: str, elements: str = "") -> str:
    """What nft prints of the table that a script makes, for the statements that we use."""
    lines = []
    for line in script.splitlines()[2:]:
        text = line.replace("  ", "\t")
        if text.startswith("\tset "):
            head, _, body = text.partition(" { ")
            words = [f"\t\t{word}" for word in body.removesuffix(" }").rstrip(";").split("; ")]
            lines += [f"{head} {{", *words, *([elements] if elements else []), "\t}", ""]
        else:
            text = text.replace("counter ", "counter packets 7 bytes 420 ")
            lines += [text.replace("iif lo", 'iif "lo"').replace("priority -300", "priority raw")]
            lines += [""] * (text == "\t}")
    return "\n".join(lines) + "\n"


LISTING = listed(compose(ONLY_4))


def test_nft_script_replaces_the_table_in_one_piece() -> None:
    assert compose(PLAN).splitlines()[:3] == [
        "add table inet nodecache",
        "delete table inet nodecache",
        "table inet nodecache {",
    ]


def test_no_script_has_sets_or_maps_that_another_nft_cannot_read() -> None:
    for plan in (PLAN, ONLY_4, replace(PLAN, is_tracked=True), replace(PLAN, fails_over=False)):
        script = compose(plan)
        assert "type ipv" not in script
        assert " map " not in script


def test_family_without_an_address_is_in_no_script() -> None:
    assert "ip6" not in compose(ONLY_4)


def test_addresses_of_the_cluster_are_not_rewritten_and_all_others_to_their_family() -> None:
    script = compose(replace(PLAN, cluster_dns=("10.96.0.10", "fd96:0::10")))
    assert "ip daddr 169.254.20.10 ct original zone set 53 ip daddr set 10.96.0.10" in script
    assert "ip6 daddr fd00:20::10 ct original zone set 53 ip6 daddr set fd96::10" in script
    assert script.count("ip daddr set") == 1
    everything = covered(replace(PLAN, cluster_dns=("10.96.0.10", "fd96::10")))
    assert everything == ("169.254.20.10", "10.96.0.10", "fd00:20::10")


def test_several_addresses_have_a_zone_each() -> None:
    plan = replace(ONLY_4, addresses=("169.254.20.10", "169.254.20.11"), zone=100)
    script = compose(plan)
    for place, address in enumerate(plan.addresses):
        assert f"ip daddr {address} ct original zone set {100 + place} " in script
        assert script.count(f"zone {100 + place} ip saddr 10.96.0.10 ip saddr set {address} ") == 2
    assert script.count("ct original zone 100-101 ct direction reply goto ") == 2


def test_family_without_a_server_is_served_but_not_covered() -> None:
    assert covered(PLAN) == ("169.254.20.10", "10.96.0.10")
    script = compose(PLAN)
    assert "ip6 daddr { fd00:20::10 } goto query" in script
    assert "ip6 daddr set" not in script


@pytest.mark.parametrize("change", [{"fails_over": False}, {"cluster_dns": ()}])
def test_rules_that_nobody_beats_for_lead_to_us_whatever_happens(change: dict[str, Any]) -> None:
    plan = replace(PLAN, **change)
    assert covered(plan) == ()
    script = compose(plan)
    assert "beat" not in script
    assert "nat" not in script
    rules = [line for line in script.splitlines() if " notrack " in line]
    assert len(rules) == 16
    assert all(" type local " in rule for rule in rules)
    assert is_whole(plan, listed(script))
    assert not is_whole(PLAN, listed(script))


def test_tracked_mode_keeps_nothing_of_others_from_connection_tracking() -> None:
    """Only what the node asks itself: a policy for pods does not see that."""
    script = compose(replace(PLAN, is_tracked=True, cluster_dns=("10.96.0.10", "fd96::10")))
    untracked = [line for line in script.splitlines() if " notrack " in line]
    assert untracked
    assert all("127.0.0.1" in line or "::1 " in line or "th dport" in line for line in untracked)
    for address in (*PLAN.addresses[:2], "fd00:20::10"):
        assert script.count(f" dnat {'ip6' if ':' in address else 'ip'} to {address} ") == 2


def test_listing_of_nft_is_recognised() -> None:
    assert is_whole(ONLY_4, LISTING)
    assert is_whole(ONLY_4, LISTING.replace("priority raw", "priority -300"))
    assert is_whole(ONLY_4, LISTING.replace("priority 111", "priority srcnat + 11"))
    assert is_whole(ONLY_4, LISTING.replace("priority 89", "priority srcnat - 11"))


def test_elements_of_the_set_and_counts_do_not_matter() -> None:
    elements = "\t\telements = { 53 expires 980ms,\n\t\t\t     5353 timeout 1s expires 20ms }"
    assert is_whole(ONLY_4, listed(compose(ONLY_4), elements))
    assert count_unserved(LISTING) == 7
    assert count_unserved("") is None


def test_form_without_sockets_is_another_table() -> None:
    lesser = listed(compose(ONLY_4, has_socket=False))
    assert "socket" not in lesser.replace("no socket", "")
    assert is_whole(ONLY_4, lesser, has_socket=False)
    assert not is_whole(ONLY_4, lesser)
    assert not is_whole(ONLY_4, LISTING, has_socket=False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\tset beat {", "\tset beats {"),
        ("timeout 1s\n", "timeout 2s\n"),
        ("priority raw", "priority filter"),
        ("priority 111", "priority 100"),
        ("hook output", "hook input"),
        ("type nat", "type filter"),
        ("policy accept", "policy drop"),
        ("nodecache: no socket", "nodecache: socket"),
        ("table inet nodecache {", "table inet nodecache {\n\tflags dormant"),
        ("\t}\n\n}", "\t\tdrop\n\t}\n\n}"),
        ("\t}\n\n}", f"\t}}\n\n{FOREIGN_CHAIN}}}"),
    ],
)
def test_listing_that_differs_does_not_stand(old: str, new: str) -> None:
    assert old in LISTING
    assert not is_whole(ONLY_4, LISTING.replace(old, new))


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": ("169.254.20.10", "169.254.20.11")},
        {"addresses": ("169.254.20.11",)},
        {"dns_port": 5353},
        {"health_port": 8081},
        {"cluster_dns": ("10.96.0.11",)},
        {"cluster_dns": ()},
        {"zone": 54},
        {"is_tracked": True},
        {"is_wildcard": True},
        {"fails_over": False},
    ],
)
def test_listing_for_another_plan_does_not_stand(change: dict[str, Any]) -> None:
    other = replace(ONLY_4, **change)
    assert not is_whole(other, LISTING)
    assert is_whole(other, listed(compose(other)))


def test_empty_listing_does_not_stand() -> None:
    assert not is_whole(ONLY_4, "")
    assert not is_whole(replace(ONLY_4, fails_over=False), "")


def test_comments_fit_into_what_the_kernel_keeps() -> None:
    longest = NodePlan("x", (f"{'1111:' * 7}2222",), cluster_dns=("fd96::10",), is_tracked=True)
    comments = re.findall('comment "([^"]*)"', compose(longest))
    assert comments
    assert max(map(len, comments)) < 128


@pytest.mark.parametrize(
    "literal", ["fe80::1%eth0", "fe80::1%\nflush ruleset", "node", "1.2.3", ""]
)
def test_what_is_no_plain_address_is_refused(literal: str) -> None:
    with pytest.raises(NodeError, match="without a zone") as caught:
        compose(NodePlan("nodelocaldns", (literal,)))
    assert caught.value.kind == "iptables"


def test_addresses_are_canonical_and_once() -> None:
    plan = NodePlan("x", ("fd00:0::1", "fd00::0:1", "10.0.0.1", "10.0.0.1"))
    assert addresses(plan, 6) == ("fd00::1",)
    assert addresses(plan, 4) == ("10.0.0.1",)
