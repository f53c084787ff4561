"""Refreshing ahead over a minute and more: who waits, who asks, how many at once, and when."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import dns.message
import dns.rcode
import pytest

from nodecache.cache.lifetime import refresh_lead_s
from nodecache.config.model import CachePolicy, Prefetch
from nodecache.resolve.block import MOST_AHEAD
from nodecache.upstreams.exchange import Failure
from tests.cache.building import a, response
from tests.upstreams.passing_time import Node, answers, asked_at

NAME = "a.cluster.local"
TTLS = (5, 10, 30, 300)
OFF = replace(CachePolicy(), prefetch=None)


def steady(ttl_s: int, interval_s: float, rtt_s: float, seed: int) -> Node:
    """A node that was asked for one name for 60 s, and for two lifetimes at least."""
    node = Node(answers(ttl_s, rtt_s), seed=seed, start=5000.0 + 0.37 * seed)
    seconds = max(60.0, 2.2 * ttl_s)
    node.ask_steadily(NAME, interval_s, seconds)
    node.run(seconds + 1)
    return node


@pytest.mark.parametrize("rtt_s", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("ttl_s", TTLS)
def test_name_asked_steadily_has_no_miss_but_the_first(ttl_s: int, rtt_s: float) -> None:
    worst = 0.0
    for seed, interval_s in enumerate((0.05, 0.1, 0.5, 1.0, ttl_s / 7.3, ttl_s / 3.1)):
        node = steady(ttl_s, interval_s, rtt_s, seed)
        assert node.waits(rtt_s) == [], interval_s
        lifetimes = (node.bed.now - node.start) / ttl_s
        worst = max(worst, len(node.begun) / lifetimes)
        assert all(dns.message.from_wire(b"\0\0" + got.octets).answer for got in node.got)
    print(f"TTL {ttl_s} s, RTT {rtt_s * 1000:g} ms: {worst:.2f} questions a lifetime at most")


@pytest.mark.parametrize("ttl_s", TTLS)
def test_name_asked_at_random_but_often_has_no_miss_but_the_first(ttl_s: int) -> None:
    node = Node(answers(ttl_s, 0.02), start=5000.6)
    seconds, when = max(60.0, 2.2 * ttl_s), 0.0
    while when < seconds:
        node.ask_steadily(NAME, 1.0, when, when)
        when += min(node.dice.expovariate(10 / ttl_s), ttl_s / 3.1)
    node.run(seconds + 1)
    assert node.waits(0.02) == []


def test_one_refresh_at_a_time_however_often_the_name_is_asked() -> None:
    node = Node(answers(5, 0.1))
    node.ask_steadily(NAME, 0.002, 60)
    node.run(61)
    assert node.most_under_way == 1
    assert node.bed.caches.prefetches == len(node.begun) - 1
    print(f"{len(node.got)} queries, {len(node.begun)} questions to the upstream")
    assert len(node.begun) <= 60 / 3 + 1


def test_prefetch_0_lets_names_end() -> None:
    node = Node(answers(5, 0.01), OFF)
    node.ask_steadily(NAME, 0.1, 60)
    node.run(61)
    assert node.bed.caches.prefetches == 0
    assert len(node.waits(0.2)) >= 10
    assert node.bed.resolver.next_timer() is None


def test_name_that_nobody_asks_for_any_more_is_not_refreshed() -> None:
    node = Node(answers(30, 0.01))
    node.ask_steadily(NAME, 0.5, 10)
    node.run(100)
    assert len(node.begun) == 1


def test_name_asked_three_times_in_its_life_is_refreshed_without_a_hit_at_its_end() -> None:
    node = Node(answers(30, 0.01))
    for when in (0, 9, 18, 25, 33):  # none in the last 4 s of the first life
        node.ask_steadily(NAME, 1.0, when, when)
    node.run(40)
    assert node.waits(0.02) == []
    assert node.bed.caches.prefetches == 1


def test_two_nodes_refresh_at_different_times() -> None:
    for ttl_s in TTLS:
        leads = [refresh_lead_s(float(ttl_s), 10, n / 10) for n in range(10)]
        assert len(set(leads)) == 10
        assert max(leads) - min(leads) >= 0.29 * min(leads)
    # Same clock, same queries, other randomness; asked so often that tier 1 alone decides.
    times = [asked_at(steady_at_once(seed))[1] for seed in range(8)]
    print("first refresh of eight nodes, seconds after the answer:", [f"{t:.2f}" for t in times])
    assert len(set(times)) >= 4
    assert max(times) - min(times) <= 300 * 0.1 / 3 + 1


def steady_at_once(seed: int) -> Node:
    node = Node(answers(300, 0.01), seed=seed)
    node.ask_steadily(NAME, 0.2, 300)
    node.run(300)
    return node


@pytest.mark.parametrize("ttl_s", [5, 30])
def test_refresh_that_fails_does_not_hurt(ttl_s: int) -> None:
    """Every other question is lost, and the name stays known: there is time for a second one."""

    def upstream(pending: object, now: float) -> tuple[float, bytes | Failure]:
        del now
        count[pending] += 1
        key = node.bed.forwarder.submitted[-1].key
        if len(count) % 2 == 0:
            return 0.02, response(key, rcode=2)
        return 0.02, response(key, [a(ttl_s)])

    count: Counter[object] = Counter()
    policy = replace(CachePolicy(), prefetch=Prefetch(percentage=60))
    node = Node(upstream, policy)
    node.ask_steadily(NAME, 0.1, 120)
    node.run(121)
    replies = [dns.message.from_wire(b"\0\0" + got.octets) for got in node.got]
    assert {reply.rcode() for reply in replies} == {dns.rcode.NOERROR}
    assert node.waits(0.05) == []


def test_many_names_that_end_together_do_not_burst_beyond_the_bound() -> None:
    names = [f"n{number}.cluster.local" for number in range(1500)]
    node = Node(answers(30, 0.05))
    for name in names:
        node.ask_steadily(name, 0.5, 70)
    node.run(0.4)
    node.most_under_way = 0
    node.run(70)
    per_second = Counter(int(when) for when in asked_at(node) if when > 0.4)
    print(
        f"1,500 names, TTL 30, RTT 50 ms: {node.most_under_way} questions at once,"
        f" {max(per_second.values())} in the worst second"
    )
    assert node.most_under_way <= MOST_AHEAD
    assert node.waits(0.1) == []


def test_silent_upstream_holds_no_more_than_the_bound_and_leaves_room_for_misses() -> None:
    names = [f"n{number}.cluster.local" for number in range(600)]
    node = Node(answers(30, 0.01))
    for name in names:
        node.ask_steadily(name, 1.0, 29.5)
    node.run(20)
    node.most_under_way = 0
    node.upstream = lambda *_: (4.5, Failure.TIMED_OUT)
    node.run(29.4)
    assert node.most_under_way == MOST_AHEAD
    assert node.waits(0.1) == []
