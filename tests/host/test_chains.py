"""What iptables-restore is told to do with a table, for each form of the rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.config.node import NodePlan
from nodecache.host.chains import compose_install, compose_removal, is_complete
from nodecache.host.flows import VERSIONS, Version
from nodecache.host.iptables_save import parse_table
from nodecache.host.own_rules import JUMPS, PREFIX, compose_trial, covered, endpoints, own_rules

PLAN = NodePlan("nodelocaldns", ("169.254.20.10", "10.96.0.10", "fd00:20:0::10"))
WITH_ENDPOINTS = replace(PLAN, cluster_dns=("10.244.0.2", "10.244.1.2", "fd00:244::2"))
TRACKED = replace(WITH_ENDPOINTS, is_tracked=True)
PLAIN = replace(PLAN, fails_over=False)
ONLY_4 = NodePlan("nodelocaldns", ("169.254.20.10", "10.96.0.10"), cluster_dns=("10.244.0.2",))
FORMS = {
    "services": PLAN,
    "endpoints": WITH_ENDPOINTS,
    "tracked": TRACKED,
    "plain": PLAIN,
    "plain-tracked": replace(PLAIN, is_tracked=True),
}
EMPTY = "".join(f":{chain} ACCEPT [0:0]\n" for chain in ("PREROUTING", "OUTPUT", "POSTROUTING"))
FOREIGN = "-A OUTPUT -d 192.0.2.1/32 -j DROP\n"
KUBE_JUMP = '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES\n'

every_form = pytest.mark.parametrize("plan", FORMS.values(), ids=FORMS)
every_table = pytest.mark.parametrize("table", JUMPS)
every_version = pytest.mark.parametrize("version", VERSIONS)


def after(script: str, printed: str) -> str:
    """What iptables-save would print after a script, for the commands that we use."""
    lines = printed.splitlines()
    for line in script.splitlines():
        command, _, rest = line.partition(" ")
        if line.startswith(":"):
            chain = command[1:]
            lines = [kept for kept in lines if not kept.startswith((f"-A {chain} ", f":{chain} "))]
            lines.insert(0, line)
        elif command == "-D":
            lines.remove(f"-A {rest}")
        elif command == "-I":
            first = [number for number, kept in enumerate(lines) if kept.startswith("-A ")]
            lines.insert(first[0] if first else len(lines), f"-A {rest}")
        elif command == "-A":
            lines.append(line)
        elif command == "-X":
            lines = [kept for kept in lines if not kept.startswith(f":{rest} ")]
    return "\n".join(lines) + "\n"


def install(plan: NodePlan, version: Version, table: str, printed: str = EMPTY) -> str:
    """What a table holds after an install."""
    return after(compose_install(plan, version, table, parse_table(printed)).script, printed)


@every_form
@every_table
@every_version
def test_second_install_has_nothing_to_do(plan: NodePlan, version: Version, table: str) -> None:
    done = install(plan, version, table, EMPTY + FOREIGN)
    assert is_complete(plan, version, table, parse_table(done))
    assert compose_install(plan, version, table, parse_table(done)).script == ""


@every_form
@every_table
def test_other_forms_are_brought_up_to_date_with_nothing_left(plan: NodePlan, table: str) -> None:
    wanted = sorted(install(plan, 4, table).splitlines())
    for other in FORMS.values():
        former = install(other, 4, table)
        is_alike = own_rules(plan, 4, table) == own_rules(other, 4, table)
        assert is_complete(plan, 4, table, parse_table(former)) == is_alike
        assert sorted(install(plan, 4, table, former).splitlines()) == wanted


@every_form
@every_table
def test_duplicate_jump_and_foreign_rule_in_our_chain_are_repaired(
    plan: NodePlan, table: str
) -> None:
    first = install(plan, 4, table)
    jumps = [line for line in first.splitlines() if line.endswith(tuple(JUMPS[table].values()))]
    chains = {line.split()[-1] for line in jumps}
    assert bool(chains) == bool(own_rules(plan, 4, table))
    for damage in [f"{jump}\n" for jump in jumps] + [f"-A {chain} -j DROP\n" for chain in chains]:
        damaged = first + damage
        assert not is_complete(plan, 4, table, parse_table(damaged))
        repaired = install(plan, 4, table, damaged)
        assert sorted(repaired.splitlines()) == sorted(first.splitlines())


@every_form
@every_table
def test_removal_leaves_what_was_there_before(plan: NodePlan, table: str) -> None:
    printed = EMPTY + FOREIGN
    done = install(plan, 4, table, printed)
    change = compose_removal(plan, 4, table, parse_table(done), has_known=True)
    assert sorted(after(change.script, done).splitlines()) == sorted(printed.splitlines())
    assert len(change.removed) == bool(own_rules(plan, 4, table))
    assert compose_removal(plan, 4, table, parse_table(printed), has_known=True).script == ""


def test_rules_in_another_order_do_not_stand() -> None:
    lines = install(ONLY_4, 4, "raw").splitlines()
    places = [place for place, line in enumerate(lines) if line.startswith("-A NODECACHE-SERVED")]
    lines[places[0]], lines[places[1]] = lines[places[1]], lines[places[0]]
    assert not is_complete(ONLY_4, 4, "raw", parse_table("\n".join(lines)))


def test_family_without_an_address_has_no_rule() -> None:
    assert [own_rules(ONLY_4, 6, table) for table in JUMPS] == [[], [], []]


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (PLAN, ("10.96.0.10",)),
        (WITH_ENDPOINTS, ("169.254.20.10", "10.96.0.10")),
        (replace(PLAN, cluster_dns=("10.96.0.10",)), ("10.96.0.10",)),
        (replace(PLAN, cluster_dns=("fd00:244::2",)), ("10.96.0.10",)),
        (replace(PLAN, addresses=PLAN.addresses[:1]), ()),
        (PLAIN, ()),
        (TRACKED, ("169.254.20.10", "10.96.0.10")),
    ],
)
def test_local_address_is_covered_only_if_endpoints_are_known(
    plan: NodePlan, found: tuple[str, ...]
) -> None:
    assert covered(plan, 4) == found
    assert bool(endpoints(plan, 4)) == ("169.254.20.10" in found)


def test_local_address_without_endpoints_is_served_without_a_beat() -> None:
    rules = own_rules(PLAN, 4, "raw")
    [query] = [rule for rule in rules if "-A NODECACHE-QUERY -d 169.254.20.10/32" in rule]
    assert "--rcheck" not in query
    assert query.endswith("-j NOTRACK")
    assert not any("169.254.20.10" in rule for rule in own_rules(PLAN, 4, "nat"))


def test_local_address_goes_to_the_endpoints_by_turns() -> None:
    rules = [rule for rule in own_rules(WITH_ENDPOINTS, 4, "nat") if "-p udp" in rule]
    assert [rule.rpartition(" ")[2] for rule in rules] == ["10.244.0.2:53", "10.244.1.2:53"]
    assert "--every 2 --packet 0" in rules[0]
    assert "statistic" not in rules[1]
    [*_, rule] = [rule for rule in own_rules(WITH_ENDPOINTS, 6, "nat") if "-p tcp" in rule]
    assert rule.endswith("-j DNAT --to-destination [fd00:244::2]:53")


@every_version
def test_probe_and_word_to_itself_are_never_tracked(version: Version) -> None:
    for plan in (PLAN, WITH_ENDPOINTS, TRACKED):
        rules = own_rules(plan, version, "raw")
        host = "127.0.0.1/32" if version == 4 else "::1/128"
        asked = [rule for rule in rules if f"-A {PREFIX}ASK -s {host} " in rule]
        ours = [address for address in plan.addresses if (":" in address) == (version == 6)]
        assert len(asked) == len(ours)
        assert all(rule.endswith("-j NOTRACK") for rule in asked)


@every_form
def test_every_rule_is_about_an_address_of_the_host(plan: NodePlan) -> None:
    """What sees packets of others names their port or address, in the chains they come in by."""
    hooked = {chain for jumps in JUMPS.values() for chain in jumps.values()}
    for table in JUMPS:
        for rule in own_rules(plan, 4, table):
            if rule.split()[1] in hooked and "-j NODECACHE-" not in rule:
                assert "-type LOCAL" in rule
            elif "NOTRACK" in rule and " -s 127" not in rule and "-A NODECACHE-OURS" not in rule:
                assert "-type LOCAL" in rule or " -s " in rule


def test_tracked_mode_tracks_all_but_what_the_node_asks_itself() -> None:
    for plan in (TRACKED, replace(PLAIN, is_tracked=True)):
        untracked = [rule for rule in own_rules(plan, 4, "raw") if "NOTRACK" in rule]
        assert all("our own probe" in rule for rule in untracked)
        kept = [rule for rule in own_rules(plan, 4, "nat") if "we serve" in rule]
        assert len(kept) == 4
    assert any("-j CT --zone-orig 53" in rule for rule in own_rules(TRACKED, 4, "raw"))


def test_tracked_mode_is_asked_before_kube_proxy() -> None:
    done = install(TRACKED, 4, "nat")
    assert is_complete(TRACKED, 4, "nat", parse_table(done + KUBE_JUMP))
    behind = KUBE_JUMP + done
    assert not is_complete(TRACKED, 4, "nat", parse_table(behind))
    repaired = install(TRACKED, 4, "nat", behind)
    assert is_complete(TRACKED, 4, "nat", parse_table(repaired))
    untracked = KUBE_JUMP + install(WITH_ENDPOINTS, 4, "nat")
    assert is_complete(WITH_ENDPOINTS, 4, "nat", parse_table(untracked))


def test_listener_without_an_address_counts_as_ours() -> None:
    [usual] = [rule for rule in own_rules(PLAN, 4, "raw") if "-m socket" in rule]
    assert "--nowildcard" not in usual
    wildcard = replace(PLAN, is_wildcard=True)
    [other] = [rule for rule in own_rules(wildcard, 4, "raw") if "-m socket" in rule]
    assert "-m socket --nowildcard " in other


def test_what_a_trial_left_behind_goes() -> None:
    make, _ = compose_trial(TRACKED, 4)
    left = after(make.partition("*nat")[0], EMPTY)
    assert "NODECACHE-TRIAL" in left
    assert "-j CT --zone-orig 53" in left
    for done in (
        install(PLAN, 4, "raw", left),
        after(compose_removal(PLAN, 4, "raw", parse_table(left), has_known=False).script, left),
    ):
        assert "NODECACHE-TRIAL" not in done
