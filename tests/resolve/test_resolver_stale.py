"""Refreshing ahead of expiry, and serving what has expired."""

from __future__ import annotations

from dataclasses import replace

import dns.rcode
import pytest

from nodecache.cache.message import Message
from nodecache.config.model import (
    ROOT,
    CachePolicy,
    ForwardPolicy,
    Prefetch,
    ServeStale,
    StaleMode,
)
from nodecache.upstreams.exchange import Failure
from tests.cache.building import a, key, opt, query, response, soa
from tests.resolve.resolving import UPSTREAMS, Bed, extended_errors, shown_ttls

IMMEDIATE = replace(CachePolicy(), serve_stale=ServeStale())
VERIFY = replace(CachePolicy(), serve_stale=ServeStale(mode=StaleMode.VERIFY))
SERVFAIL = response(key(), rcode=2)
OLD, NEW = b"\x0a\0\0\1", b"\x0a\0\0\2"

# What does not tell the state of the data (RFC 8767 section 4), as results of an exchange.
FAILED = {
    "timeout": Failure.TIMED_OUT,
    "unreachable": Failure.UNREACHABLE,
    "servfail": SERVFAIL,
    "refused": response(key(), rcode=5),
    "truncated": response(key(), [a()], flags=0x8380),
    "empty without soa": response(key()),
}


def known(policy: CachePolicy | None = None, forwards: tuple[ForwardPolicy, ...] = ()) -> Bed:
    """A bed that knows one name for 30 s."""
    bed = Bed(policy or CachePolicy(), forwards or (ForwardPolicy(ROOT, UPSTREAMS),))
    bed.ask(query())
    bed.answer(response(key(), [a(30, OLD)]))
    bed.forwarder.submitted.clear()
    return bed


def kept(bed: Bed) -> Message:
    assert bed.messages is not None
    found = bed.messages.peek(key())
    assert found is not None
    return found


def address(bed: Bed, client: object = "stub") -> str:
    return str(bed.last(client).answer[0][0])


def make_due(bed: Bed) -> None:
    """Two hits, and the time that a refresh is due."""
    bed.ask(query())
    bed.ask(query())
    bed.wait(27.5)


def test_hot_name_is_refreshed_ahead_once_and_served_meanwhile() -> None:
    bed = known()
    make_due(bed)
    for n in range(20):
        assert bed.ask(query(), n)
        assert address(bed, n) == "10.0.0.1"
    assert bed.exchanges == 1
    assert bed.caches.prefetches == 1
    bed.answer(response(key(), [a(30, NEW)]))
    assert bed.ask(query())
    assert address(bed) == "10.0.0.2"
    assert kept(bed).expires_at == bed.now + 30


def test_packet_cache_follows_a_refresh() -> None:
    bed = known()
    make_due(bed)
    bed.ask(query())
    assert query()[2:] in bed.packets.fresh
    bed.answer(response(key(), [a(30, NEW)]))
    assert len(bed.packets) == 0
    bed.ask(query())
    assert NEW in bed.packets.fresh[query()[2:]].reply


def test_hits_of_the_packet_cache_count_for_the_refresh() -> None:
    bed = known()
    bed.ask(query())
    bed.packets.fresh[query()[2:]].hits += 5
    bed.wait(28)
    bed.packets.turn(bed.now)
    assert bed.packets.revive(query()[2:], bed.now) is None
    bed.ask(query())
    assert bed.exchanges == 1


def test_name_that_was_hit_once_is_not_refreshed() -> None:
    bed = known()
    bed.wait(27.5)
    bed.ask(query())
    assert bed.exchanges == 0


def test_hits_longer_ago_than_the_window_do_not_count() -> None:
    bed = known(replace(CachePolicy(), prefetch=Prefetch(amount=2, duration_s=5)))
    bed.ask(query())
    bed.wait(27.5)
    bed.ask(query())
    assert bed.exchanges == 0
    bed.ask(query())
    assert bed.exchanges == 1


def test_prefetch_0_turns_refreshing_off() -> None:
    bed = known(replace(CachePolicy(), prefetch=None))
    make_due(bed)
    bed.ask(query())
    assert bed.exchanges == 0


@pytest.mark.parametrize("result", FAILED.values(), ids=FAILED.keys())
def test_failed_refresh_keeps_the_message_and_rests_before_the_next(
    result: bytes | Failure,
) -> None:
    bed = known(replace(CachePolicy(), prefetch=Prefetch(percentage=30)))
    bed.ask(query())
    bed.ask(query())
    bed.wait(22)
    bed.ask(query())
    assert bed.exchanges == 1
    bed.answer(result)
    assert bed.ask_now(query()).rcode() == dns.rcode.NOERROR
    bed.wait(1.9)
    bed.ask(query())
    assert bed.exchanges == 1
    bed.wait(0.2)
    bed.ask(query())
    assert bed.exchanges == 2


def test_refresh_that_may_not_begin_leaves_the_message_in_service() -> None:
    bed = known(forwards=(ForwardPolicy(ROOT, UPSTREAMS, max_concurrent=1),))
    make_due(bed)
    bed.ask(query("other"))
    assert bed.ask(query())
    assert bed.exchanges == 1
    bed.answer(response(key("other"), [a()]))
    assert bed.ask(query())
    assert bed.exchanges == 2


def test_client_that_comes_while_a_refresh_outlasts_the_message_waits_for_it() -> None:
    bed = known()
    make_due(bed)
    bed.ask(query())
    bed.wait(3)
    assert bed.ask(query(), "late") is None
    assert bed.exchanges == 1
    bed.answer(response(key(), [a(30, NEW)]))
    assert address(bed, "late") == "10.0.0.2"


def test_fresh_answer_that_may_not_be_kept_ends_the_old_one() -> None:
    bed = known(IMMEDIATE)
    make_due(bed)
    bed.ask(query())
    bed.answer(response(key(), [a(0, NEW)]))
    assert bed.ask(query(), "next") is None
    bed.answer(response(key(), [a(0, NEW)]))
    assert address(bed, "next") == "10.0.0.2"


def test_rfc8767_nxdomain_without_soa_ends_the_old_answer_too() -> None:
    bed = known(IMMEDIATE)
    bed.wait(40)
    bed.ask(query())
    bed.answer(response(key(), rcode=3))
    assert bed.ask(query(), "next") is None
    bed.answer(response(key(), rcode=3))
    assert bed.last("next").rcode() == dns.rcode.NXDOMAIN


def test_immediate_mode_serves_stale_at_once_with_ttl_5_and_asks_behind_it() -> None:
    bed = known(IMMEDIATE)
    bed.wait(100)
    reply = bed.ask_now(query(edns=opt()))
    assert shown_ttls(reply) == [5]
    assert extended_errors(reply) == [3]
    assert bed.exchanges == 1
    bed.ask_now(query())
    assert bed.exchanges == 1
    assert bed.caches.served_stale == 2
    assert len(bed.packets) == 0
    bed.answer(response(key(), [a(30, NEW)]))
    assert bed.ask(query())
    assert address(bed) == "10.0.0.2"


@pytest.mark.parametrize("result", FAILED.values(), ids=FAILED.keys())
def test_stale_is_served_without_asking_for_a_while_after_a_failure(
    result: bytes | Failure,
) -> None:
    bed = known(IMMEDIATE)
    bed.wait(100)
    bed.ask_now(query())
    bed.answer(result)
    bed.wait(1.9)
    assert shown_ttls(bed.ask_now(query())) == [5]
    assert bed.exchanges == 1
    bed.wait(0.2)
    assert shown_ttls(bed.ask_now(query())) == [5]
    assert bed.exchanges == 2


def test_stale_time_ends() -> None:
    bed = known(replace(CachePolicy(), serve_stale=ServeStale(duration_s=50)))
    bed.wait(81)
    assert bed.ask(query()) is None
    bed.answer(Failure.TIMED_OUT)
    assert bed.last().rcode() == dns.rcode.SERVFAIL


def test_without_serve_stale_nothing_expired_is_served() -> None:
    bed = known()
    bed.wait(31)
    assert bed.ask(query()) is None
    bed.answer(Failure.TIMED_OUT)
    assert bed.last().rcode() == dns.rcode.SERVFAIL


def test_verify_mode_prefers_a_fresh_answer_in_time() -> None:
    bed = known(VERIFY)
    bed.wait(100)
    assert bed.ask(query()) is None
    bed.wait(0.39)
    bed.answer(response(key(), [a(30, NEW)]))
    assert address(bed) == "10.0.0.2"
    bed.wait(1)
    assert len(bed.got["stub"]) == 2
    assert bed.caches.served_stale == 0


def test_verify_mode_serves_stale_when_the_fresh_answer_is_late_and_keeps_that() -> None:
    bed = known(VERIFY)
    bed.wait(100)
    for n in range(3):
        assert bed.ask(query(edns=opt()), n) is None
    bed.wait(0.41)
    for n in range(3):
        assert shown_ttls(bed.last(n)) == [5]
        assert extended_errors(bed.last(n)) == [3]
    bed.answer(response(key(), [a(30, NEW)]))
    assert [len(bed.got[n]) for n in range(3)] == [1, 1, 1]
    assert bed.ask(query())
    assert address(bed) == "10.0.0.2"


def test_fresh_is_tried_for_once_and_who_comes_later_gets_stale_at_once() -> None:
    bed = known(VERIFY)
    bed.wait(100)
    waited = []
    for n in range(4):
        waited.append(bed.ask(query(), n) is None)
        bed.wait(0.3)
    assert waited == [True, True, False, False]
    assert [len(bed.got[n]) for n in range(4)] == [1, 1, 1, 1]
    assert bed.exchanges == 1


@pytest.mark.parametrize("result", FAILED.values(), ids=FAILED.keys())
def test_verify_mode_serves_stale_as_soon_as_the_exchange_failed(result: bytes | Failure) -> None:
    bed = known(VERIFY)
    bed.wait(100)
    bed.ask(query(edns=opt()))
    bed.answer(result)
    assert shown_ttls(bed.last()) == [5]
    assert extended_errors(bed.last()) == [3]
    bed.wait(1)
    assert len(bed.got["stub"]) == 2


def test_verify_mode_keeps_its_promise_across_next() -> None:
    first = ForwardPolicy(ROOT, UPSTREAMS, next_rcodes=frozenset({2}))
    bed = known(VERIFY, (first, ForwardPolicy(ROOT, UPSTREAMS)))
    bed.wait(100)
    bed.ask(query())
    bed.wait(0.2)
    bed.answer(SERVFAIL)
    bed.wait(0.21)
    assert shown_ttls(bed.last()) == [5]


def test_nxdomain_wins_over_stale() -> None:
    bed = known(VERIFY)
    bed.wait(100)
    bed.ask(query())
    bed.answer(response(key(), [], [soa()], rcode=3))
    assert bed.last().rcode() == dns.rcode.NXDOMAIN
    assert bed.ask_now(query()).rcode() == dns.rcode.NXDOMAIN


def test_misses_that_are_shed_get_stale_instead_of_refused() -> None:
    bed = known(IMMEDIATE, (ForwardPolicy(ROOT, UPSTREAMS, max_concurrent=1),))
    bed.ask(query("other"))
    bed.wait(100)
    assert shown_ttls(bed.ask_now(query())) == [5]
    assert bed.counters.events["shed"] == 1


def test_timer_asks_for_nothing_when_nobody_waits() -> None:
    assert known(VERIFY).resolver.next_timer() is None
