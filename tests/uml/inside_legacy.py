"""Rules by legacy iptables, on a kernel where nft has no tables."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from nodecache.config.node import Backend
from tests.daemon.processes import PATIENCE_S, ROOT
from tests.uml.stage import (
    ADDRESSES,
    CLUSTER_DNS,
    CLUSTER_DNS6,
    CLUSTER_IP,
    CLUSTER_IP6,
    IPTABLES,
    LOCAL_IP,
    NO_RULES,
    KubeProxy,
    done,
    flows_to,
    flush,
    held_lock,
    link,
    make_namespaces,
    rule_counts,
    run,
    saved,
    start_echo,
    tool,
    tool_words,
    who_answers,
    within,
)
from tests.uml.stage import PLAN as AUTO_PLAN

PLAN = replace(AUTO_PLAN, backend=Backend.IPTABLES_LEGACY, fails_over=False)
SKIP = "NodeLocal DNS Cache: skip conntrack"
ALLOW = "NodeLocal DNS Cache: allow DNS traffic"
KILLS = 8
# Table, chain, transport, which end is ours, port, target: what node-cache has for each address.
TWELVE = [
    *[("raw", "PREROUTING", transport, "d", 53, "NOTRACK") for transport in ("tcp", "udp")],
    *[("filter", "INPUT", transport, "d", 53, "ACCEPT") for transport in ("tcp", "udp")],
    *[("raw", "OUTPUT", transport, "s", 53, "NOTRACK") for transport in ("tcp", "udp")],
    *[("filter", "OUTPUT", transport, "s", 53, "ACCEPT") for transport in ("tcp", "udp")],
    *[("raw", "OUTPUT", transport, "d", 53, "NOTRACK") for transport in ("tcp", "udp")],
    ("raw", "OUTPUT", "tcp", "d", 8080, "NOTRACK"),
    ("raw", "OUTPUT", "tcp", "s", 8080, "NOTRACK"),
]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    flush()
    yield
    flush()


@pytest.fixture(scope="module")
def _two_answer() -> Iterator[None]:
    """A pod, and who answers there: the node itself, and the cluster behind the ClusterIP."""
    with ExitStack() as stack:
        make_namespaces(stack)
        proxy = KubeProxy(stack)
        for address, server in ((CLUSTER_IP, CLUSTER_DNS), (CLUSTER_IP6, CLUSTER_DNS6)):
            proxy.lead(address)
            start_echo(stack, server, "the cluster", within("cluster"))
        yield


def leave_as_node_cache(times: int) -> None:
    """Makes node-cache's rules for all addresses, each so many times."""
    for address in ADDRESSES:
        program = IPTABLES[6 if ":" in address else 4]
        for table, chain, transport, end, port, target in TWELVE:
            comment = SKIP if table == "raw" else ALLOW
            for _ in range(times):
                run(
                    program, "-w", "-t", table, "-I", chain, "-p", transport, f"-{end}", address,
                    f"--{end}port", str(port), "-j", target,
                    "-m", "comment", "--comment", comment,
                )  # fmt: skip


def effective(version: int) -> set[tuple[str, str, str, str, str, int, str]]:
    """Returns what the rules do, with the chains that are jumped to put in their places."""
    found = set()
    for table in ("raw", "filter"):
        rules = [line.split() for line in saved(version, table)]
        homes = {words[words.index("-j") + 1]: words[1] for words in rules}
        for words in rules:
            if "--dport" not in words and "--sport" not in words:
                continue
            end = "d" if "--dport" in words else "s"
            chain = homes.get(words[1], words[1])
            target = "NOTRACK" if "--notrack" in words else words[words.index("-j") + 1]
            address = words[words.index(f"-{end}") + 1].split("/")[0]
            port = int(words[words.index(f"--{end}port") + 1])
            transport = words[words.index("-p") + 1]
            found.add((table, chain, address, transport, end, port, target))
    return found


def expected(version: int) -> set[tuple[str, str, str, str, str, int, str]]:
    return {
        (table, chain, address, transport, end, port, target)
        for address in ADDRESSES
        if (version == 6) == (":" in address)
        for table, chain, transport, end, port, target in TWELVE
    }


def test_legacy_iptables_is_chosen_where_nft_does_not_work() -> None:
    done("interface", AUTO_PLAN)
    ran = done("redirect", AUTO_PLAN)
    print(f"{ran.took_s:.2f} s: {ran.said}")
    assert "iptables-legacy" in ran.said
    assert rule_counts() != NO_RULES
    done("cleanup", AUTO_PLAN)


@pytest.mark.parametrize("version", [4, 6])
def test_the_rules_do_what_those_of_node_cache_do(version: int) -> None:
    done("interface", PLAN)
    done("redirect", PLAN)
    assert effective(version) == expected(version)


def test_rules_hold_only_while_the_address_is_local() -> None:
    done("redirect", PLAN)
    for version in IPTABLES:
        for table in ("raw", "filter"):
            for line in saved(version, table):
                assert "port" not in line or "-type LOCAL" in line


def test_a_second_time_changes_nothing() -> None:
    done("redirect", PLAN)
    first = {(v, t): saved(v, t) for v in IPTABLES for t in ("raw", "filter")}
    print(rule_counts())
    done("redirect", PLAN)
    assert {(v, t): saved(v, t) for v in IPTABLES for t in ("raw", "filter")} == first


def test_withdraw_leaves_nothing_and_may_be_repeated() -> None:
    done("redirect", PLAN)
    done("withdraw", PLAN)
    assert rule_counts() == NO_RULES
    done("withdraw", PLAN)


def test_check_misses_a_rule_that_somebody_flushed() -> None:
    done("interface", PLAN)
    done("redirect", PLAN)
    done("check", PLAN)
    run("iptables-legacy", "-w", "-t", "raw", "-F")
    assert tool("check", PLAN).report["ok"] is False
    done("redirect", PLAN)
    done("check", PLAN)


def test_rules_of_node_cache_are_taken_over_with_all_duplicates() -> None:
    done("redirect", PLAN)
    ours = rule_counts()
    done("withdraw", PLAN)
    leave_as_node_cache(3)
    assert rule_counts()[4, "raw"] == 2 * 8 * 3
    ran = done("redirect", PLAN)
    print(ran.report["removed"])
    assert rule_counts() == ours


def test_rules_of_others_stay() -> None:
    rule = ["INPUT", "-p", "udp", "-d", LOCAL_IP, "--dport", "53", "-j", "ACCEPT"]
    other = [*rule, "-m", "comment", "--comment", "somebody else's"]
    run("iptables-legacy", "-w", "-A", *other)
    run("iptables-legacy", "-w", "-t", "raw", "-N", "CALICO")
    done("redirect", PLAN)
    done("withdraw", PLAN)
    done("cleanup", PLAN)
    assert rule_counts() == {**NO_RULES, (4, "filter"): 1}
    assert "-N CALICO" in run("iptables-legacy", "-w", "-t", "raw", "-S")


def test_cleanup_removes_what_both_left_and_says_so() -> None:
    done("interface", PLAN)
    done("redirect", PLAN)
    leave_as_node_cache(2)
    ran = done("cleanup", AUTO_PLAN)
    print(ran.report["removed"])
    assert ran.report["removed"]
    assert rule_counts() == NO_RULES
    assert link() is None


def test_a_held_lock_does_not_hold_up_the_stop() -> None:
    done("interface", PLAN)
    done("redirect", PLAN)
    before = rule_counts()
    with held_lock():
        withdrawn = tool("withdraw", PLAN)
        removed = tool("remove", PLAN)
    print(f"withdraw {withdrawn.took_s:.2f} s, remove {removed.took_s:.2f} s, the lock held")
    assert withdrawn.report["ok"] is False
    assert withdrawn.report["kind"] == "iptables_lock"
    assert withdrawn.took_s < 10  # 1.5 s, and what a busy guest needs to start Python
    assert removed.took_s < 10
    assert link() is None
    assert rule_counts() == before
    done("withdraw", PLAN)
    assert rule_counts() == NO_RULES


def test_a_held_lock_does_not_hold_up_the_start() -> None:
    with held_lock():
        ran = tool("redirect", PLAN)
    print(f"redirect {ran.took_s:.2f} s, the lock held")
    assert ran.report["kind"] == "iptables_lock"
    assert ran.took_s < 15


@pytest.mark.usefixtures("_two_answer")
@pytest.mark.parametrize("address", [CLUSTER_IP, CLUSTER_IP6])
def test_a_cluster_ip_is_steered_here_untracked(address: str) -> None:
    assert who_answers(address) == "the cluster"
    run("conntrack", "-F")
    done("interface", PLAN)
    done("redirect", PLAN)
    with ExitStack() as stack:
        start_echo(stack, address, "the node")
        assert who_answers(address) == "the node"
    assert flows_to(address) == []


@pytest.mark.usefixtures("_two_answer")
@pytest.mark.parametrize("address", [CLUSTER_IP, CLUSTER_IP6])
def test_rules_that_a_held_lock_kept_steer_nothing(address: str) -> None:
    done("interface", PLAN)
    done("redirect", PLAN)
    with held_lock():
        tool("withdraw", PLAN)
        tool("remove", PLAN)
    assert rule_counts() != NO_RULES
    assert who_answers(address) == "the cluster"
    assert flows_to(address) != []


def test_a_killed_tool_leaves_nothing_that_adds_up() -> None:
    took_s = done("redirect", PLAN).took_s
    whole = rule_counts()
    seen = set()
    for number in range(KILLS):
        if number % 2:
            flush()
        process = subprocess.Popen(
            tool_words("redirect", PLAN), stdout=subprocess.DEVNULL, cwd=ROOT
        )
        time.sleep(took_s * (number + 1) / KILLS)
        process.kill()
        process.wait(PATIENCE_S)
        counts = rule_counts()
        seen.add(tuple(counts.values()))
        assert all(count in (0, whole[key]) for key, count in counts.items()), counts
        if number % 10 == 9:
            done("redirect", PLAN)
            assert rule_counts() == whole
    print(f"{KILLS} kills; counts met: {sorted(seen)}; a whole run takes {took_s:.2f} s")
    done("withdraw", PLAN)
    assert rule_counts() == NO_RULES
