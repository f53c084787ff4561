"""iptables leads queries to who serves, and to the cluster's DNS while nobody does.

A pod, a node with kube-proxy's kind of rules, and a cluster DNS behind it. Who answers says his
name; nodecache is a few sockets here, of which the test says whether they serve.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nodecache.config.node import Backend, NodePlan
from nodecache.host import rules
from nodecache.host.beat import LIFE_S
from tests.daemon.processes import PATIENCE_S, wait_until
from tests.daemon.servers import program
from tests.netns.failing_over import (
    CLUSTER_NAME,
    NODE_NAME,
    SILENCE,
    TRANSPORTS,
    Answerer,
    Speaker,
    any_source,
    ask,
    write_checksums,
)
from tests.netns.node import figure
from tests.netns.test_pod import ip
from tests.netns.topology import (
    ADDRESSES,
    CLUSTER,
    CLUSTER6,
    LOCAL,
    LOCAL6,
    UPSTREAM,
    UPSTREAM6,
    inside,
    make_topology,
)

pytestmark = [pytest.mark.root, pytest.mark.netns]

VARIANTS = ("nft", "legacy")
CLUSTERS = (CLUSTER, CLUSTER6)
PLAN = NodePlan("nodelocaldns", ADDRESSES, cluster_dns=CLUSTERS)
WITH_ENDPOINTS = replace(PLAN, cluster_dns=(UPSTREAM, UPSTREAM6))
LARGE = 4000  # octets; a datagram of that comes in three fragments


class IptablesNode:
    """The namespaces, and whom to ask there."""

    def __init__(self, stack: ExitStack, variant: str) -> None:
        self.variant = variant
        self.backend = Backend(f"iptables-{variant}")
        names = make_topology(stack, partial(lead_by_kube_proxy, variant))
        self.node, self.pod = names.node, names.pods[0]
        for address in ADDRESSES:
            ip("-n", self.node, "address", "add", address, "dev", "lo")
        write_checksums(names.cluster, "eth0")
        cluster = Answerer(names.cluster, (UPSTREAM, UPSTREAM6), CLUSTER_NAME)
        stack.callback(cluster.close)
        self.stack = stack

    def start(
        self, addresses: Sequence[str] = ADDRESSES, speaks_to: Sequence[str] = (LOCAL, LOCAL6)
    ) -> Speaker:
        """Starts who answers on the node; it ends with the test."""
        speaker = Speaker(self.node, addresses, speaks_to)
        self.stack.callback(speaker.close)
        return speaker

    def install(self, plan: NodePlan) -> rules.RulesReport:
        with inside(self.node):
            return rules.install(replace(plan, backend=self.backend), PATIENCE_S)

    def stands(self, plan: NodePlan) -> bool:
        with inside(self.node):
            return rules.stands(replace(plan, backend=self.backend))

    def run(self, *command: str) -> str:
        """Runs a program on the node, which has to succeed; returns what it printed."""
        with inside(self.node):
            done = subprocess.run(
                [program(command[0]), *command[1:]],
                capture_output=True, text=True, timeout=PATIENCE_S, check=True,
            )  # fmt: skip
        return done.stdout

    def iptables(self, *words: str) -> None:
        """Has both families' iptables do something."""
        for family in ("iptables", "ip6tables"):
            self.run(f"{family}-{self.variant}", "-w", *words)

    def saved(self) -> list[str]:
        """Returns all rules, without counts."""
        text = "".join(self.run(f"{f}-{self.variant}-save") for f in ("iptables", "ip6tables"))
        lines = [re.sub(r" \[\d+:\d+\]$", "", line) for line in text.splitlines()]
        return [line for line in lines if not line.startswith("#")]

    def beats(self) -> int:
        """Returns in how many families the rules know of a beat, of whatever age."""
        with inside(self.node):
            return len(Path("/proc/thread-self/net/xt_recent/NODECACHE").read_text().splitlines())

    def tracked(self) -> list[str]:
        """Returns the entries of connection tracking that name one of our addresses."""
        text = "".join(self.run("conntrack", "-L", "-f", family) for family in ("ipv4", "ipv6"))
        return [line for line in text.splitlines() if any(f"={a} " in line for a in ADDRESSES)]

    def ask(self, address: str, transport: str = "udp", *, where: str = "", **more: Any) -> str:
        """Returns the name of who answers the pod, or somebody else; see ``failing_over.ask``."""
        return ask(where or self.pod, address, transport, **more)

    def expect(self, who: str, addresses: Sequence[str], serving: Speaker | None = None) -> None:
        """Holds who answers, over both transports, pods as well as the node's processes.

        ``serving`` says so right before each question.
        """
        timeout_s = 0.3 if who == SILENCE else PATIENCE_S
        for address in addresses:
            for transport in TRANSPORTS:
                for where in (self.pod, self.node):
                    if serving is not None:
                        assert serving.beat() == [True, True]
                    found = self.ask(address, transport, where=where, patience_s=timeout_s)
                    assert found == who, (address, transport, where, self.saved())


def lead_by_kube_proxy(variant: str) -> None:
    """Leads the ClusterIPs to the cluster DNS, in the namespace that this is called in."""
    for family, address, target in (
        ("iptables", CLUSTER, UPSTREAM),
        ("ip6tables", CLUSTER6, f"[{UPSTREAM6}]"),
    ):
        lines = [f"-A {chain} -j KUBE-SERVICES" for chain in ("PREROUTING", "OUTPUT")]
        lines += [
            f"-A KUBE-SERVICES -d {address} -p {transport} -m {transport} --dport 53"
            f" -j DNAT --to-destination {target}:53"
            for transport in TRANSPORTS
        ]
        text = "\n".join(["*nat", ":KUBE-SERVICES - [0:0]", *lines, "COMMIT\n"])
        command = [program(f"{family}-{variant}-restore")]
        subprocess.run(command, input=text, text=True, check=True)


@pytest.fixture(params=VARIANTS)
def bed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[IptablesNode]:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    variant: str = request.param
    with ExitStack() as stack:
        yield IptablesNode(stack, variant)


def test_who_serves_gets_the_queries_untracked_and_the_cluster_dns_all_others(
    bed: IptablesNode,
) -> None:
    report = bed.install(WITH_ENDPOINTS)
    assert sorted(report.covered) == sorted(ADDRESSES)
    assert not [note for note in report.notes if "cannot" in note]
    node = bed.start()
    bed.expect(CLUSTER_NAME, ADDRESSES)
    bed.run("conntrack", "-F")
    bed.expect(NODE_NAME, ADDRESSES, node)
    assert bed.tracked() == []
    assert node.say_goodbye() == [True, True]
    bed.expect(CLUSTER_NAME, ADDRESSES)
    assert node.say_goodbye() == [True, True]  # there is nothing to take back, and it is heard


def test_silence_ends_it_within_the_life_of_a_beat(bed: IptablesNode) -> None:
    bed.install(WITH_ENDPOINTS)
    node = bed.start()
    for address in ADDRESSES:
        assert node.beat() == [True, True]
        began = time.monotonic()
        while bed.ask(address) != CLUSTER_NAME:
            assert time.monotonic() < began + PATIENCE_S
        took_s = time.monotonic() - began
        figure(f"iptables-{bed.variant}: {address} in fall-back {took_s:.2f} s after a beat")
        assert took_s > LIFE_S - 0.1
        bed.expect(NODE_NAME, (address,), node)


def test_packet_that_finds_no_socket_ends_it_at_once(bed: IptablesNode) -> None:
    bed.install(WITH_ENDPOINTS)
    for where in (bed.pod, bed.node):
        for transport in TRANSPORTS:
            node = bed.start()
            bed.expect(NODE_NAME, ADDRESSES, node)
            node.beat()
            node.close()
            assert bed.beats() == 2
            bed.ask(CLUSTER, transport, where=where, patience_s=0.2)
            assert bed.beats() == 1
            bed.ask(CLUSTER6, transport, where=where, patience_s=0.2)
            assert bed.beats() == 0
    bed.expect(CLUSTER_NAME, ADDRESSES)


def test_local_address_without_endpoints_is_nobodys_but_ours(bed: IptablesNode) -> None:
    report = bed.install(PLAN)
    assert sorted(report.covered) == sorted(CLUSTERS)
    said = [note for note in report.notes if "iptables cannot lead" in note]
    assert len(said) == 2
    assert LOCAL in said[0]
    assert bed.stands(PLAN)
    node = bed.start()
    bed.expect(NODE_NAME, (LOCAL, LOCAL6))
    bed.expect(CLUSTER_NAME, CLUSTERS)
    bed.expect(NODE_NAME, ADDRESSES, node)
    node.say_goodbye()
    bed.run("conntrack", "-F")
    bed.expect(NODE_NAME, (LOCAL, LOCAL6))
    assert bed.tracked() == []
    node.close()
    bed.expect(SILENCE, (LOCAL, LOCAL6))
    bed.expect(CLUSTER_NAME, CLUSTERS)


def test_service_is_no_place_to_lead_to(bed: IptablesNode) -> None:
    """A flow is led once, by one chain of table nat, wherever kube-proxy's stands."""
    plan = replace(PLAN, addresses=(LOCAL, LOCAL6))
    report = bed.install(plan)
    assert report.covered == ()
    assert sum("name endpoints with -fallback" in note for note in report.notes) == 2
    assert bed.stands(plan)
    for place in ("-I", "-A"):
        rule = ("PREROUTING", "-d", LOCAL, "-p", "udp", "--dport", "53", "-j", "DNAT")
        command = (f"iptables-{bed.variant}", "-w", "-t", "nat")
        bed.run(*command, place, *rule, "--to-destination", CLUSTER)
        with inside(bed.node):
            rules.withdraw(replace(plan, backend=bed.backend), PATIENCE_S)
        assert bed.ask(LOCAL, patience_s=0.3) == SILENCE
        bed.run(*command, "-D", *rule, "--to-destination", CLUSTER)


def test_second_install_changes_nothing_and_withdrawal_leaves_nothing(bed: IptablesNode) -> None:
    before = bed.saved()
    for plan in (
        WITH_ENDPOINTS,
        PLAN,
        replace(WITH_ENDPOINTS, is_tracked=True, is_wildcard=True),
        replace(PLAN, fails_over=False),
    ):
        assert not bed.stands(plan)
        bed.install(plan)
        first = bed.saved()
        assert bed.stands(plan)
        bed.install(plan)
        assert bed.saved() == first
        assert not [line for line in first if "TRIAL" in line]
    with inside(bed.node):
        rules.withdraw(replace(PLAN, backend=bed.backend), PATIENCE_S)
    left = [line for line in bed.saved() if line not in before]
    assert [line for line in left if not re.match(r"[*:]|COMMIT", line)] == []
    assert not [line for line in left if "NODECACHE" in line]


def test_beat_outlives_a_repair(bed: IptablesNode) -> None:
    bed.install(WITH_ENDPOINTS)
    node = bed.start()
    node.beat()
    bed.iptables("-t", "raw", "-D", "PREROUTING", "1")
    assert not bed.stands(WITH_ENDPOINTS)
    bed.install(WITH_ENDPOINTS)
    assert bed.beats() == 2
    bed.expect(NODE_NAME, ADDRESSES, node)


def test_flushed_rules_do_not_hear(bed: IptablesNode) -> None:
    bed.install(WITH_ENDPOINTS)
    node = bed.start()
    assert node.beat() == [True, True]
    bed.iptables("-t", "raw", "-F")
    assert node.beat() == [False, False]


def test_own_probe_reaches_our_socket_whoever_serves(bed: IptablesNode) -> None:
    for plan in (WITH_ENDPOINTS, PLAN, replace(WITH_ENDPOINTS, is_tracked=True)):
        bed.install(plan)
        node = bed.start()
        bed.run("conntrack", "-F")
        for says in (node.say_goodbye, node.beat):
            says()
            for address in ADDRESSES:
                source = "::1" if ":" in address else "127.0.0.1"
                for transport in TRANSPORTS:
                    assert bed.ask(address, transport, where=bed.node, source=source) == NODE_NAME
        assert bed.tracked() == []
        node.close()


def test_datagram_from_our_port_to_itself_passes(bed: IptablesNode) -> None:
    for plan in (WITH_ENDPOINTS, PLAN, replace(WITH_ENDPOINTS, is_tracked=True)):
        bed.install(plan)
        for address in ADDRESSES:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with inside(bed.node), socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind((address, 53))
                sock.settimeout(PATIENCE_S)
                for _ in range(2):
                    sock.sendto(b"itself", (address, 53))
                    assert sock.recvfrom(64)[1][:2] == (address, 53)
        assert bed.tracked() == []


def test_listener_without_an_address_serves(bed: IptablesNode) -> None:
    bed.install(replace(WITH_ENDPOINTS, is_wildcard=True))
    node = bed.start([any_source(LOCAL)], [LOCAL])
    for address in (LOCAL, CLUSTER):
        assert node.beat() == [True]
        assert bed.ask(address, "tcp") == NODE_NAME
    bed.install(WITH_ENDPOINTS)
    node.beat()
    assert bed.ask(CLUSTER, "tcp") == CLUSTER_NAME


@pytest.mark.parametrize("is_tracked", [False, True])
def test_answers_in_fragments_come_through(bed: IptablesNode, is_tracked: bool) -> None:
    bed.install(replace(WITH_ENDPOINTS, is_tracked=is_tracked))
    node = bed.start()
    for who in (CLUSTER_NAME, NODE_NAME):
        for address in ADDRESSES:
            for where in (bed.pod, bed.node):
                if who == NODE_NAME:
                    node.beat()
                assert bed.ask(address, where=where, octets=LARGE) == who, (address, where)


@pytest.mark.parametrize("is_tracked", [False, True])
def test_one_socket_may_ask_all_addresses_whoever_serves(
    bed: IptablesNode, is_tracked: bool
) -> None:
    """As musl does; and the same port is used again when somebody else serves."""
    bed.install(replace(WITH_ENDPOINTS, is_tracked=is_tracked))
    node = bed.start()
    families = ((socket.AF_INET, ADDRESSES[:2]), (socket.AF_INET6, ADDRESSES[2:]))
    for where in (bed.pod, bed.node):
        for family, addresses in families:
            with inside(where), socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.settimeout(PATIENCE_S)
                sock.bind(("", 0))
                for who in (CLUSTER_NAME, NODE_NAME, CLUSTER_NAME, NODE_NAME):
                    for address in addresses:
                        _ = node.beat() if who == NODE_NAME else node.say_goodbye()
                        sock.sendto(b"0", (address, 53))
                        reply, peer = sock.recvfrom(64)
                        assert (peer[0], reply.decode()) == (address, who)


def drop_what_is_not_established(bed: IptablesNode) -> None:
    """Denies pods what comes in, but for answers, before any other rule has a say."""
    for transport in TRANSPORTS:
        for chain in ("OUTPUT", "FORWARD"):
            bed.iptables(
                "-I", chain, "-o", "veth1", "-p", transport, "-m", "conntrack", "!",
                "--ctstate", "ESTABLISHED,RELATED", "-j", "DROP",
            )  # fmt: skip


def test_policy_that_drops_untracked_answers_is_met_by_tracking(bed: IptablesNode) -> None:
    node = bed.start()
    bed.install(WITH_ENDPOINTS)
    drop_what_is_not_established(bed)
    node.beat()
    assert bed.ask(LOCAL, patience_s=0.3) == SILENCE
    tracked = replace(WITH_ENDPOINTS, is_tracked=True)
    assert sorted(bed.install(tracked).covered) == sorted(ADDRESSES)
    node.say_goodbye()
    bed.run("conntrack", "-F")
    bed.expect(CLUSTER_NAME, ADDRESSES)
    bed.run("conntrack", "-F")
    bed.expect(NODE_NAME, ADDRESSES, node)
    entries = len(bed.tracked())
    figure(f"iptables-{bed.variant}: {entries} entries tracked for {len(ADDRESSES) * 4} questions")
    assert entries >= len(ADDRESSES) * 4
    node.say_goodbye()
    bed.expect(CLUSTER_NAME, ADDRESSES)
    node.beat()
    node.close()
    wait_until(lambda: bed.ask(LOCAL, patience_s=0.3) == CLUSTER_NAME, "the cluster's DNS")


def test_tracked_without_fall_back_and_local_without_endpoints_are_served(
    bed: IptablesNode,
) -> None:
    drop_what_is_not_established(bed)
    node = bed.start()
    for plan in (replace(PLAN, is_tracked=True), replace(PLAN, fails_over=False, is_tracked=True)):
        report = bed.install(plan)
        assert sorted(report.covered) == (sorted(CLUSTERS) if plan.fails_over else [])
        bed.expect(NODE_NAME, ADDRESSES, node if plan.fails_over else None)
        node.say_goodbye()
        bed.expect(NODE_NAME, (LOCAL, LOCAL6))


def test_kube_proxy_that_comes_first_costs_the_cache_and_no_answer(bed: IptablesNode) -> None:
    """Until the next look: it starts after us on a node that boots."""
    plan = replace(WITH_ENDPOINTS, is_tracked=True)
    bed.install(plan)
    node = bed.start()
    for chain in ("PREROUTING", "OUTPUT"):
        bed.iptables("-t", "nat", "-D", chain, "-j", "KUBE-SERVICES")
        bed.iptables("-t", "nat", "-I", chain, "-j", "KUBE-SERVICES")
    bed.expect(CLUSTER_NAME, CLUSTERS, node)
    assert not bed.stands(plan)
    bed.install(plan)
    assert bed.stands(plan)
    bed.expect(NODE_NAME, ADDRESSES, node)
