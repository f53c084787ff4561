"""The scripts that change the packet filter, and the listings that say whether it stands."""

from __future__ import annotations

import pytest

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError
from nodecache.host import nftables
from nodecache.host.chains import compose_install, compose_removal, is_complete, own_rules
from nodecache.host.flows import VERSIONS, addresses
from nodecache.host.saved import parse_table

PLAN = NodePlan("nodelocaldns", ("169.254.20.10", "10.96.0.10", "fd00:20:0::10"))
ONLY_4 = NodePlan("nodelocaldns", ("169.254.20.10",))
EMPTY = ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
FOREIGN = "-A OUTPUT -d 192.0.2.1/32 -j DROP\n"

# nft 1.0.6, `nft list table inet nodecache`, for ONLY_4.
LISTING = """table inet nodecache {
	set addresses4 {
		type ipv4_addr
		elements = { 169.254.20.10 }
	}

	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		tcp dport 53 ip daddr @addresses4 fib daddr type local notrack comment "nodecache: tcp to port 53 of addresses4"
		udp dport 53 ip daddr @addresses4 fib daddr type local notrack comment "nodecache: udp to port 53 of addresses4"
	}

	chain output {
		type filter hook output priority raw; policy accept;
		tcp sport 53 ip saddr @addresses4 fib saddr type local notrack comment "nodecache: tcp from port 53 of addresses4"
		udp sport 53 ip saddr @addresses4 fib saddr type local notrack comment "nodecache: udp from port 53 of addresses4"
		tcp dport 53 ip daddr @addresses4 fib daddr type local notrack comment "nodecache: tcp to port 53 of addresses4"
		udp dport 53 ip daddr @addresses4 fib daddr type local notrack comment "nodecache: udp to port 53 of addresses4"
		tcp dport 8080 ip daddr @addresses4 fib daddr type local notrack comment "nodecache: tcp to port 8080 of addresses4"
		tcp sport 8080 ip saddr @addresses4 fib saddr type local notrack comment "nodecache: tcp from port 8080 of addresses4"
	}
}
"""  # noqa: E501 # as nft prints it
FOREIGN_CHAIN = "\tchain input {\n\t\ttype filter hook input priority raw; policy accept;\n\t}\n"


def after(script: str, saved: str) -> str:
    """What iptables-save would print after a script, for the commands that we use."""
    lines = saved.splitlines()
    for line in script.splitlines():
        command, _, rest = line.partition(" ")
        if line.startswith(":"):
            chain = command[1:]
            lines = [kept for kept in lines if not kept.startswith((f"-A {chain} ", f":{chain} "))]
            lines.insert(0, line)
        elif command == "-D":
            lines.remove(f"-A {rest}")
        elif command == "-I":
            lines.append(f"-A {rest}")
        elif command == "-A":
            lines.append(line)
        elif command == "-X":
            lines = [kept for kept in lines if not kept.startswith(f":{rest} ")]
    return "\n".join(lines) + "\n"


def test_nft_script_replaces_the_table_in_one_piece() -> None:
    lines = nftables.compose(PLAN).splitlines()
    assert lines[:3] == [
        "add table inet nodecache",
        "delete table inet nodecache",
        "table inet nodecache {",
    ]
    assert "elements = { 169.254.20.10, 10.96.0.10 }" in lines[3]
    assert "elements = { fd00:20::10 }" in lines[4]
    rules = [line for line in lines if " notrack " in line]
    assert len(rules) == 16
    assert all(" type local " in rule for rule in rules)


def test_family_without_an_address_is_in_no_script() -> None:
    assert "ip6" not in nftables.compose(ONLY_4)
    assert own_rules(ONLY_4, 6, "raw") == []


def test_listing_of_nft_is_recognised() -> None:
    assert nftables.is_complete(ONLY_4, LISTING)
    assert nftables.is_complete(ONLY_4, LISTING.replace("priority raw", "priority -300"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("169.254.20.10 ", "169.254.20.11 "),
        ("elements = { 169.254.20.10 }", ""),
        ("priority raw", "priority filter"),
        ("hook output", "hook input"),
        ("policy accept", "policy drop"),
        (" notrack", " accept"),
        ("to port 8080", "to port 8081"),
        ("table inet nodecache {", "table inet nodecache {\n\tflags dormant"),
        ("\t}\n}", "\t\tdrop\n\t}\n}"),
        ("\t}\n}", f"\t}}\n{FOREIGN_CHAIN}}}"),
    ],
)
def test_listing_that_differs_does_not_stand(old: str, new: str) -> None:
    assert old in LISTING
    assert not nftables.is_complete(ONLY_4, LISTING.replace(old, new))


def test_listing_of_other_addresses_or_ports_does_not_stand() -> None:
    assert not nftables.is_complete(PLAN, LISTING)
    other = NodePlan("nodelocaldns", ONLY_4.addresses, dns_port=5353)
    assert not nftables.is_complete(other, LISTING)
    assert not nftables.is_complete(ONLY_4, "")


@pytest.mark.parametrize("table", ["raw", "filter"])
def test_second_install_has_nothing_to_do(table: str) -> None:
    for version in VERSIONS:
        saved = EMPTY + FOREIGN
        script = compose_install(PLAN, version, table, parse_table(saved)).script
        done = after(script, saved)
        assert is_complete(PLAN, version, table, parse_table(done))
        assert compose_install(PLAN, version, table, parse_table(done)).script == ""


@pytest.mark.parametrize("table", ["raw", "filter"])
def test_duplicate_jump_and_foreign_rule_in_our_chain_are_repaired(table: str) -> None:
    first = after(compose_install(ONLY_4, 4, table, parse_table(EMPTY)).script, EMPTY)
    jumps = [line for line in first.splitlines() if "-j NODECACHE-" in line]
    for damage in (f"{jumps[0]}\n{jumps[0]}\n", "-A NODECACHE-OUT -j DROP\n"):
        damaged = first + damage
        assert not is_complete(ONLY_4, 4, table, parse_table(damaged))
        repaired = after(compose_install(ONLY_4, 4, table, parse_table(damaged)).script, damaged)
        assert sorted(repaired.splitlines()) == sorted(first.splitlines())


@pytest.mark.parametrize("table", ["raw", "filter"])
def test_removal_leaves_what_was_there_before(table: str) -> None:
    saved = EMPTY + FOREIGN
    done = after(compose_install(PLAN, 4, table, parse_table(saved)).script, saved)
    change = compose_removal(PLAN, 4, table, parse_table(done), has_known=True)
    assert after(change.script, done) == saved
    assert len(change.removed) == 1
    assert compose_removal(PLAN, 4, table, parse_table(saved), has_known=True).script == ""


def test_every_own_rule_matches_only_local_addresses() -> None:
    rules = [rule for table in ("raw", "filter") for rule in own_rules(PLAN, 4, table)]
    assert len(rules) == 2 * 12
    assert all("-m addrtype --" in rule and "-type LOCAL" in rule for rule in rules)


@pytest.mark.parametrize(
    "literal", ["fe80::1%eth0", "fe80::1%\nflush ruleset", "node", "1.2.3", ""]
)
def test_what_is_no_plain_address_is_refused(literal: str) -> None:
    with pytest.raises(NodeError, match="without a zone") as caught:
        nftables.compose(NodePlan("nodelocaldns", (literal,)))
    assert caught.value.kind == "iptables"


def test_addresses_are_canonical_and_once() -> None:
    plan = NodePlan("x", ("fd00:0::1", "fd00::0:1", "10.0.0.1", "10.0.0.1"))
    assert addresses(plan, 6) == ("fd00::1",)
    assert addresses(plan, 4) == ("10.0.0.1",)
