"""Serving stale over time: when it begins, how often it is rechecked, how it ends."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import dns.message
import dns.rcode
import pytest

from nodecache.config.model import (
    CLUSTER_DOMAIN,
    CachePolicy,
    Prefetch,
    ServeStale,
    StaleMode,
    Upstream,
)
from nodecache.resolve.block import MOST_AHEAD, Pending
from nodecache.resolve.stale import FAILING_S, RECHECK_S
from nodecache.upstreams.exchange import Failure
from tests.cache.building import AAAA, TXT, a, key, opt, query, record, response, soa
from tests.resolve.resolving import Bed, extended_errors, shown_ttls
from tests.upstreams.forwarding import TCP, TCP2, UDP, Network, policy
from tests.upstreams.passing_time import Behaviour, Node, answers, asked_at

NAME = "a.cluster.local"
VERIFY = replace(CachePolicy(), serve_stale=ServeStale(mode=StaleMode.VERIFY))
IMMEDIATE = replace(CachePolicy(), serve_stale=ServeStale())
RTT_S = 0.01
OLD, NEW = b"\x0a\0\0\1", b"\x0a\0\0\2"


def outage(from_s: float, until_s: float, during: Behaviour, ttl_s: int = 5) -> Behaviour:
    """Answers OLD before, NEW afterwards; both ends are readings of the clock.

    The forwarder asks again each second, so an exchange that outlasts the outage has its answer.
    """

    def behave(pending: Pending, now: float) -> tuple[float, bytes | Failure] | None:
        address = OLD if now < from_s else NEW
        octets = response(pending.key, [a(ttl_s, address)])
        if not from_s <= now < until_s:
            return RTT_S, octets
        outcome = during(pending, now)
        if outcome is not None and now + outcome[0] > until_s + 1:
            return math.ceil(until_s - now) + RTT_S, octets
        return outcome

    return behave


BROKEN: dict[str, Behaviour] = {
    "SERVFAIL": lambda pending, _: (RTT_S, response(pending.key, rcode=2)),
    "REFUSED": lambda pending, _: (RTT_S, response(pending.key, rcode=5)),
    "empty": lambda pending, _: (RTT_S, response(pending.key)),
    "unreachable": lambda *_: (0.0, Failure.UNREACHABLE),
    "time-out": lambda *_: (4.5, Failure.TIMED_OUT),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("interval_s", [0.05, 0.7])
def test_first_client_waits_400_ms_at_most_and_all_others_not_at_all(
    name: str, interval_s: float
) -> None:
    start = 5000.25
    node = Node(outage(start + 20, start + 60, BROKEN[name]), VERIFY, start=start)
    node.ask_steadily(NAME, interval_s, 80)
    node.run(85)
    after = [got for got in node.got if got.asked_at > start + 20]
    waited = [round(got.waited_s * 1000) for got in after if got.waited_s]
    print(f"{name}: {len(after)} queries, waits in ms: {waited}")
    assert all(dns.message.from_wire(b"\0\0" + got.octets).answer for got in after)
    assert max(waited, default=0) <= 400
    # Those that came in the 400 ms of the first one, and nobody else, ever.
    assert len(waited) <= 0.4 / interval_s + 1
    fresh_from = next(got.asked_at for got in after if NEW in got.octets)
    assert fresh_from - (start + 60) <= RECHECK_S + RTT_S + interval_s


@pytest.mark.parametrize("name", BROKEN)
def test_name_is_asked_for_each_two_seconds_at_most_while_it_is_stale(name: str) -> None:
    node = Node(outage(5010, 6000, BROKEN[name]), VERIFY, start=5000.0)
    node.ask_steadily(NAME, 0.02, 60)
    node.run(60)
    begun = [when for when in asked_at(node) if when > 10]
    gaps = [later - earlier for earlier, later in pairwise(begun)]
    print(f"{name}: {len(begun)} questions in 50 s, {min(gaps):.2f} s apart at least")
    assert min(gaps) >= RECHECK_S
    assert max(gaps) < 4.5 + 0.1  # asking never ends


def test_upstream_known_to_be_dead_makes_nobody_wait() -> None:
    bed = Bed(VERIFY)
    bed.ask(query())
    bed.answer(response(key(), [a(30, OLD)]))
    bed.wait(100)
    bed.forwarder.is_dead = True
    reply = bed.ask_now(query(edns=opt()))
    assert (shown_ttls(reply), extended_errors(reply)) == ([5], [3])
    assert bed.exchanges == 2, "yet it is asked behind that"
    bed.answer(response(key(), [a(30, NEW)]))
    assert shown_ttls(bed.ask_now(query())) == [30]


def answer_probes(network: Network) -> None:
    """Lets an upstream that is back take connections, and answer what asks whether it lives."""
    for _ in range(40):
        network.wait(0.1)
        for connection in network.opened[:]:
            network.connect(connection)
        for probe in network.probes:
            if network.sent[probe]:
                octets = network.sent[probe].pop()
                network.deliver(probe, octets[:2] + b"\x81\x80" + octets[4:])


@pytest.mark.parametrize("upstream", [TCP, UDP], ids=["tcp", "udp"])
def test_silent_upstream_looks_dead_until_it_answers(upstream: Upstream) -> None:
    network, route = Network(), policy(upstream)
    assert not network.forwarder.looks_dead(route, network.now)
    for number in range(4):
        network.ask(route, f"n{number}")
        network.wait(0.6)
    assert network.forwarder.looks_dead(route, network.now)
    answer_probes(network)
    assert not network.forwarder.looks_dead(route, network.now)


def test_upstream_that_refuses_connections_looks_dead_until_it_takes_one() -> None:
    network, route = Network(connects=False), policy(TCP)
    network.ask(route)
    network.refuse_all()
    assert network.forwarder.looks_dead(route, network.now), "it may not be dialled for 50 ms"
    network.wait(5, refuse=True)
    assert network.forwarder.looks_dead(route, network.now)
    answer_probes(network)
    assert not network.forwarder.looks_dead(route, network.now)


def test_one_living_upstream_of_two_is_enough() -> None:
    network, route = Network(connects=False), policy(TCP, TCP2)
    network.ask(policy(TCP))
    network.wait(5, refuse=True)
    assert network.forwarder.looks_dead(policy(TCP), network.now)
    assert not network.forwarder.looks_dead(route, network.now)


def test_a_failure_of_long_ago_does_not_make_a_client_take_stale_at_once() -> None:
    bed = Bed(VERIFY)
    bed.ask(query())
    bed.answer(response(key(), [a(30, OLD)]))
    bed.wait(100)
    bed.ask(query())
    bed.answer(Failure.TIMED_OUT)
    bed.wait(RECHECK_S + FAILING_S + 0.1)
    assert bed.ask(query(), "later") is None
    bed.answer(response(key(), [a(30, NEW)]))
    assert shown_ttls(bed.last("later")) == [30]


def test_who_comes_while_a_refresh_is_overdue_gets_stale_at_once() -> None:
    bed = Bed(VERIFY)
    bed.ask(query())
    bed.answer(response(key(), [a(30, OLD)]))
    for _ in range(2):
        bed.ask(query())
    bed.wait(27.5)
    bed.ask(query())
    assert bed.exchanges == 2
    bed.wait(3.0)
    assert shown_ttls(bed.ask_now(query())) == [5]
    assert bed.exchanges == 2


def test_names_that_are_all_stale_at_once_are_rechecked_in_bounded_number() -> None:
    names = [f"n{number}.cluster.local" for number in range(3 * MOST_AHEAD)]
    bed = Bed(VERIFY, most_pending=10_000)
    for name in names:
        bed.ask(query(name))
        bed.answer(response(key(name), [a(30, OLD)]))
    bed.wait(100)
    bed.forwarder.is_dead = True
    for name in names:
        assert shown_ttls(bed.ask_now(query(name))) == [5]
    assert bed.state.asked_ahead == len(bed.forwarder.under_way) == MOST_AHEAD
    assert bed.ask(query("other")) is None, "a miss is asked for all the same"
    while bed.forwarder.under_way:
        bed.answer(Failure.TIMED_OUT)
    assert bed.state.asked_ahead == 0


def test_blocks_have_bounds_of_their_own() -> None:
    short = Bed(replace(VERIFY, serve_stale=ServeStale(10, StaleMode.VERIFY)))
    long = Bed(replace(VERIFY, serve_stale=ServeStale(3600, StaleMode.VERIFY)))
    for bed in (short, long):
        bed.ask(query())
        bed.answer(response(key(), [a(30, OLD)]))
        bed.wait(30 + 9.9)
        bed.ask(query())
        bed.answer(Failure.UNREACHABLE)
        assert bed.last().rcode() == dns.rcode.NOERROR
        bed.wait(60)
        bed.ask(query())
        bed.answer(Failure.UNREACHABLE)
    assert short.last().rcode() == dns.rcode.SERVFAIL
    assert long.last().rcode() == dns.rcode.NOERROR


def test_names_outside_the_zones_of_the_cache_are_never_stale() -> None:
    bed = Bed(replace(VERIFY, zones=(CLUSTER_DOMAIN,)))
    for name in ("x.cluster.local", "x.example"):
        bed.ask(query(name), name)
        bed.answer(response(key(name), [a(30, OLD)]))
        bed.wait(40)
        bed.ask(query(name), name)
        bed.answer(Failure.TIMED_OUT)
    assert bed.last("x.cluster.local").rcode() == dns.rcode.NOERROR
    assert bed.last("x.example").rcode() == dns.rcode.SERVFAIL


def test_nxdomain_for_another_type_wins_over_a_client_that_waits_for_stale() -> None:
    bed = Bed(VERIFY)
    bed.ask(query(qtype=AAAA))
    bed.answer(response(key(qtype=AAAA), [], [soa()]))
    bed.wait(100)
    assert bed.ask(query(qtype=AAAA), "AAAA") is None
    assert bed.ask(query(), "A") is None
    bed.answer(response(key(), [], [soa()], rcode=3), index=1)
    bed.wait(0.41)
    assert bed.last("A").rcode() == bed.last("AAAA").rcode() == dns.rcode.NXDOMAIN
    assert len(bed.got["AAAA"]) == 1


def test_who_waited_before_something_stale_was_there_gets_it_with_the_next_timer() -> None:
    bed = Bed(IMMEDIATE)
    assert bed.ask(query(qtype=AAAA, edns=opt()), "early") is None
    bed.ask(query())
    bed.answer(response(key(), [], [soa(1)], rcode=3), index=1)
    bed.wait(1.6)
    assert "early" not in bed.got, "for now the question itself is under way"
    assert bed.ask_now(query(qtype=AAAA)).rcode() == dns.rcode.NXDOMAIN
    assert bed.resolver.next_timer() == bed.now - 1.6, "due already, so at once"
    bed.wait(0)
    assert extended_errors(bed.last("early")) == [3]


def test_who_comes_when_the_stale_time_is_over_waits_like_everybody() -> None:
    bed = Bed(replace(CachePolicy(), serve_stale=ServeStale(3.0), prefetch=None))
    bed.ask(query())
    bed.answer(response(key(), [a(1, OLD)]))
    bed.wait(2)
    assert extended_errors(bed.ask_now(query(edns=opt()))) == [3]
    bed.wait(2.1)
    assert bed.ask(query(), "late") is None
    bed.answer(Failure.TIMED_OUT)
    assert bed.last("late").rcode() == dns.rcode.SERVFAIL


def test_newer_nxdomain_wins_over_an_older_answer_when_both_are_stale() -> None:
    bed = Bed(VERIFY)
    bed.ask(query(qtype=TXT))
    bed.answer(response(key(qtype=TXT), [record(TXT, 30, b"\1x")]))
    bed.wait(40)
    bed.ask(query())
    bed.answer(response(key(), [], [soa(5)], rcode=3))
    bed.wait(10)
    assert bed.ask(query(qtype=TXT, edns=opt())) is None
    bed.answer(Failure.TIMED_OUT)
    assert (bed.last().rcode(), extended_errors(bed.last())) == (dns.rcode.NXDOMAIN, [3])
    bed.wait(RECHECK_S)
    bed.ask(query(qtype=TXT))
    bed.answer(response(key(qtype=TXT), [record(TXT, 30, b"\1y")]))
    assert shown_ttls(bed.ask_now(query(qtype=TXT))) == [30], "an answer ends it"


def test_immediate_mode_asks_behind_each_two_seconds_and_never_lets_wait() -> None:
    node = Node(outage(5010, 5050, BROKEN["time-out"]), IMMEDIATE, start=5000.0)
    node.ask_steadily(NAME, 0.1, 60)
    node.run(60)
    assert node.waits(RTT_S) == []
    first_new = next(got.asked_at for got in node.got if NEW in got.octets)
    assert first_new <= 5050 + RECHECK_S + 0.2


def test_what_failed_while_prefetch_is_off_is_served_stale_alike() -> None:
    off = replace(VERIFY, prefetch=None)
    node = Node(outage(5010, 5020, BROKEN["time-out"]), off, start=5000.0)
    node.ask_steadily(NAME, 0.1, 30)
    node.run(31)
    assert max(got.waited_s for got in node.got) <= 0.4 + 1e-6
    assert all(dns.message.from_wire(b"\0\0" + got.octets).answer for got in node.got)


def test_orphaned_refresh_does_not_make_a_name_stale_for_ever() -> None:
    bed = Bed(IMMEDIATE)
    bed.ask(query())
    bed.answer(response(key(), [a(30, OLD)]))
    assert bed.messages is not None
    found = bed.messages.peek(key())
    assert found is not None
    found.refresh_at = float("inf")  # as if an exchange had ended without telling
    bed.wait(100)
    assert shown_ttls(bed.ask_now(query())) == [5]
    assert bed.exchanges == 2


def test_prefetch_alone_needs_no_stale() -> None:
    node = Node(answers(5, RTT_S), replace(CachePolicy(), prefetch=Prefetch(2)))
    node.ask_steadily(NAME, 0.5, 30)
    node.run(31)
    assert node.bed.caches.served_stale == 0
