"""The whole daemon on a node with a real dummy device, and legacy iptables beside kube-proxy's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.daemon.processes import PATIENCE_S, wait_until
from tests.daemon.zone import ORIGIN
from tests.netns.children import NodeDaemon
from tests.netns.node import By, NodeBed, bed_in, figure
from tests.netns.topology import ADDRESSES, CLUSTER, CLUSTER6, LOCAL, UPSTREAM, UPSTREAM6
from tests.uml.stage import LINK, NO_RULES, Counts, held_lock, rule_counts, within

KILLS = 6  # a start takes seconds here; tests/netns kills twenty times
CLUSTER_IPS = (CLUSTER, CLUSTER6)


def proxy_by_legacy() -> None:
    """Leads the ClusterIPs to the cluster DNS, as kube-proxy does on an old node."""
    for program, address, target in (
        ("iptables-legacy", CLUSTER, UPSTREAM),
        ("ip6tables-legacy", CLUSTER6, UPSTREAM6),
    ):
        rules = [f"-A {chain} -j KUBE-SERVICES" for chain in ("PREROUTING", "OUTPUT")]
        rules += [
            f"-A KUBE-SERVICES -d {address} -p {transport} -m {transport} --dport 53"
            f" -j DNAT --to-destination {target}"
            for transport in ("udp", "tcp")
        ]
        text = "\n".join(["*nat", ":KUBE-SERVICES - [0:0]", *rules, "COMMIT\n"])
        subprocess.run([f"{program}-restore", "-w"], input=text, text=True, check=True)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeBed]:
    with bed_in(tmp_path_factory.mktemp("bed"), proxy_by_legacy) as bed:
        yield bed


@pytest.fixture
def daemon(bed: NodeBed) -> Iterator[NodeDaemon]:
    """A daemon that pods reach by every address."""
    daemon = bed.start()
    yield daemon
    if daemon.process.poll() is None:
        assert daemon.stop() == 0, daemon.tail()


def counts(bed: NodeBed) -> Counts:
    return rule_counts(within(bed.node))


def clean_up(bed: NodeBed) -> str:
    """Runs ``nodecache cleanup`` on the node; returns what it says."""
    words = ("-localip", ",".join(ADDRESSES), "-rundir", str(bed.rundir))
    return bed.run(sys.executable, "-m", "nodecache", "cleanup", *words)


def tracked(bed: NodeBed) -> str:
    """Returns what connection tracking on node and pods knows of our addresses."""
    found = bed.connections()
    for pod in bed.pods:
        for family in ("ipv4", "ipv6"):
            listed = bed.run("conntrack", "-L", "-f", family, namespace=pod)
            found += "".join(line for line in listed.splitlines() if "port=53 " in line)
    return found


def test_the_device_is_a_dummy_and_the_rules_are_legacy(bed: NodeBed, daemon: NodeDaemon) -> None:
    [link] = json.loads(bed.run("ip", "-d", "-json", "link", "show", "dev", LINK))
    assert link["linkinfo"]["info_kind"] == "dummy"
    assert {"UP", "NOARP"} <= set(link["flags"])
    assert bed.addresses() == sorted(ADDRESSES)
    assert min(counts(bed).values()) > 0
    assert "iptables-legacy" in daemon.log()


def test_pods_are_answered_by_every_address_untracked(bed: NodeBed, daemon: NodeDaemon) -> None:
    bed.run("conntrack", "-F")
    for server in ADDRESSES:
        for tcp in (False, True):
            for number in range(3):
                reply = bed.ask(server, f"n{number}.wild.{ORIGIN}", tcp=tcp, pod=number % 2)
                assert reply.answer[0].ttl <= 30, daemon.tail()
    assert tracked(bed) == ""


def test_without_the_daemon_the_same_queries_are_tracked(bed: NodeBed) -> None:
    bed.run("conntrack", "-F")
    for server in CLUSTER_IPS:
        assert bed.answerer(server) is By.CLUSTER
    for server in CLUSTER_IPS:
        assert f"dst={server} " in tracked(bed)


def test_a_stop_removes_the_device_and_leaves_rules_that_lead_to_the_cluster(bed: NodeBed) -> None:
    daemon = bed.start()
    before = counts(bed)
    started_at = time.monotonic()
    assert daemon.stop() == 0, daemon.tail()
    figure(f"stop in {time.monotonic() - started_at:.2f} s")
    assert bed.addresses() == [], daemon.tail()
    assert counts(bed) == before
    for server in CLUSTER_IPS:
        assert bed.answerer(server) is By.CLUSTER
    assert "removed: chains NODECACHE-" in clean_up(bed)
    assert counts(bed) == NO_RULES
    for server in CLUSTER_IPS:
        assert bed.answerer(server) is By.CLUSTER


def test_a_stop_with_the_lock_held_takes_no_longer(bed: NodeBed) -> None:
    daemon = bed.start()
    with held_lock():
        started_at = time.monotonic()
        assert daemon.stop() == 0, daemon.tail()
        took_s = time.monotonic() - started_at
    figure(f"stop in {took_s:.2f} s, the xtables lock held")
    assert bed.addresses() == []
    for server in CLUSTER_IPS:
        assert bed.answerer(server) is By.CLUSTER


def test_a_device_pulled_away_comes_back(bed: NodeBed, daemon: NodeDaemon) -> None:
    bed.run("ip", "link", "del", LINK)
    gone_at = time.monotonic()
    wait_until(lambda: bed.addresses() == sorted(ADDRESSES), daemon.tail)
    figure(f"device back after {time.monotonic() - gone_at:.2f} s")
    bed.wait_for(By.NODE, LOCAL, daemon)


def test_kill_and_fresh_start_leave_counts_constant(bed: NodeBed) -> None:
    daemon = bed.start()
    first = counts(bed)
    gaps_s = []
    for _ in range(KILLS):
        daemon.kill_all()
        killed_at = time.monotonic()
        assert counts(bed) == first
        for server in CLUSTER_IPS:
            assert bed.answerer(server, PATIENCE_S) is By.CLUSTER
        daemon = bed.launch()
        bed.wait_for(By.NODE, CLUSTER, daemon)
        gaps_s.append(time.monotonic() - killed_at)
        assert counts(bed) == first, daemon.tail()
        assert bed.addresses() == sorted(ADDRESSES), daemon.tail()
    bed.wait_for_rules(daemon)
    assert counts(bed) == first, daemon.tail()
    figure(
        f"{KILLS} x SIGKILL and start: rules {sum(first.values())} each time; answers after"
        f" {sorted(gaps_s)[KILLS // 2]:.2f} s median, {max(gaps_s):.2f} s at most"
    )
    assert daemon.stop() == 0, daemon.tail()
    clean_up(bed)
    assert counts(bed) == NO_RULES
