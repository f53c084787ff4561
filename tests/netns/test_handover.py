"""Upgrades under load: one daemon takes over from the other, and no pod notices."""

from __future__ import annotations

import time

import pytest

from tests.daemon.processes import wait_until
from tests.daemon.stubs import total
from tests.netns.children import NodeDaemon, Report
from tests.netns.node import By, NodeBed, figure
from tests.netns.topology import ADDRESSES, CLUSTER, LOCAL

pytestmark = [pytest.mark.root, pytest.mark.netns]

HAND_OVERS = 10
FLAGS = ("-rules", "nftables")
# What a ratio is taken from: two queries in a hundred are for names that nobody asked before.
ENOUGH = 1000
# 50 ms on a quiet machine; one that does other things beside needs room.
LONGEST_MS, P999_MS = 1500.0, 500.0


def wait_for_hit_ratio(bed: NodeBed, daemon: NodeDaemon) -> float:
    """Returns the hit ratio of the daemon's next queries, once there were enough."""
    first = bed.scrape()

    def counts() -> list[float]:
        now = bed.scrape()
        names = ("coredns_cache_hits_total", "coredns_cache_requests_total")
        return [total(now, name) - total(first, name) for name in names]

    wait_until(lambda: counts()[1] >= ENOUGH, lambda: f"{counts()} queries: {daemon.tail()}")
    hits, requests = counts()
    return hits / requests


def hand_over(bed: NodeBed, old: NodeDaemon, *flags: str) -> NodeDaemon:
    """Starts a successor, and returns it when the old one has gone by itself."""
    new = bed.launch(*flags)
    code = old.wait_for_end()
    assert code == 0, f"{old.tail()}\n-- the successor:\n{new.tail()}"
    return new


def tell(name: str, reports: list[Report]) -> None:
    for pod, report in enumerate(reports):
        figure(
            f"{name}, pod {pod + 1}: {report.total('sent')} queries in {report.seconds:.0f} s,"
            f" {report.total('lost')} lost, {report.rcode(2)} SERVFAIL, {report.rcode(5)} REFUSED,"
            f" {report.total('again')} asked again over TCP;"
            f" median {report.udp['median_ms']:.2f} ms, p99 {report.udp['p99_ms']:.1f} ms,"
            f" p99.9 {report.udp['p999_ms']:.1f} ms, longest {report.longest_ms:.1f} ms"
            f" (stubs' CPU {report.cpu_share:.0%})"
        )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ten_hand_overs_under_load_lose_no_query(bed: NodeBed) -> None:
    daemon = bed.start(*FLAGS)
    rules = bed.rules("nftables")
    loads = [bed.load(0, "--server", LOCAL), bed.load(1, "--server", CLUSTER)]
    wait_for_hit_ratio(bed, daemon)
    ratios = [wait_for_hit_ratio(bed, daemon)]
    for _ in range(HAND_OVERS):
        daemon = hand_over(bed, daemon, *FLAGS)
        ratios.append(wait_for_hit_ratio(bed, daemon))
    reports = [load.finish() for load in loads]
    tell(f"{HAND_OVERS} hand-overs", reports)
    figure(f"hit ratio before {ratios[0]:.4f}, after hand-overs at least {min(ratios[1:]):.4f}")
    for report in reports:
        assert report.total("lost") == 0, report
        assert report.rcode(2) == report.rcode(5) == 0, report
        assert report.fresh["again"] == 0, report
        # One that never rests is cut by the old daemon in the end (RFC 7766 section 6.2.4).
        assert report.kept["again"] <= HAND_OVERS // 4, report
        assert report.longest_ms < LONGEST_MS, report
        assert report.udp["p999_ms"] < P999_MS, report
    assert min(ratios[1:]) >= 0.95 * ratios[0], ratios
    assert bed.rules("nftables") == rules
    assert bed.addresses() == sorted(ADDRESSES)


def test_after_a_hand_over_the_node_is_the_successors(bed: NodeBed, backend: str) -> None:
    daemon = bed.start("-rules", backend)
    rules = bed.rules(backend)
    for _ in range(3):
        daemon = hand_over(bed, daemon, "-rules", backend)
        bed.wait_for_rules(daemon)
        assert bed.rules(backend) == rules
        assert bed.addresses() == sorted(ADDRESSES)
        assert [bed.answerer(server, 5) for server in ADDRESSES] == [By.NODE] * len(ADDRESSES)
    assert daemon.stop() == 0
    assert (bed.rules(backend), bed.addresses()) == (rules, [])
    bed.clean_up()


def test_a_successor_answers_from_its_predecessors_cache(bed: NodeBed) -> None:
    daemon = bed.start(*FLAGS)
    bed.ask(LOCAL, "warm.wild.example.test")
    hand_over(bed, daemon, *FLAGS)
    began = time.monotonic()
    misses = total(bed.scrape(), "coredns_cache_misses_total")
    reply = bed.ask(LOCAL, "warm.wild.example.test")
    assert reply.answer[0].ttl <= 30 - int(time.monotonic() - began)
    assert total(bed.scrape(), "coredns_cache_misses_total") == misses
