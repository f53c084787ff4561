"""May a miss begin, and what clients get if not: nobody was asked, so no name has failed."""

from __future__ import annotations

from dataclasses import replace

import dns.message
import dns.rcode
import pytest

from nodecache.config.model import ROOT, CachePolicy, ForwardPolicy, ServeStale, StaleMode
from nodecache.resolve.resolver import Resolver
from nodecache.upstreams.exchange import Failure
from tests.cache.building import a, key, query, response
from tests.resolve.resolving import UPSTREAMS, Bed

VERIFY = replace(CachePolicy(), serve_stale=ServeStale(mode=StaleMode.VERIFY))
REFUSALS = [Failure.PACED, Failure.OVERLOADED]


def test_misses_beyond_most_pending_are_refused_and_counted_while_hits_are_served() -> None:
    bed = Bed(most_pending=2)
    bed.ask(query())
    bed.answer()
    for host in ("b", "c"):
        bed.ask(query(host))
    assert bed.ask_now(query("d")).rcode() == dns.rcode.REFUSED
    assert bed.counters.events["shed"] == 1
    assert bed.ask_now(query()).rcode() == dns.rcode.NOERROR
    bed.answer()
    assert bed.ask(query("d")) is None


def test_misses_beyond_max_concurrent_are_refused_and_counted() -> None:
    bed = Bed(forwards=(ForwardPolicy(ROOT, UPSTREAMS, max_concurrent=1),))
    bed.ask(query("b"))
    assert bed.ask_now(query("c")).rcode() == dns.rcode.REFUSED
    assert bed.counters.max_concurrent_rejects == 1
    assert bed.ask(query("b"), "joins") is None


@pytest.mark.parametrize("failure", REFUSALS)
def test_a_refused_miss_is_counted_and_asked_for_again_at_once(failure: Failure) -> None:
    bed = Bed()
    bed.forwarder.instantly = failure
    bed.ask(query(), "first")
    assert bed.last("first").rcode() == dns.rcode.REFUSED
    assert bed.counters.events["shed"] == 1
    assert bed.counters.events.get("shed_paced", 0) == (failure is Failure.PACED)
    assert bed.resolver.results.failures == []
    bed.forwarder.instantly = None
    assert bed.ask(query()) is None
    bed.answer()
    assert bed.last().rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize("failure", REFUSALS)
def test_what_has_expired_is_served_at_once_instead(failure: Failure) -> None:
    bed = Bed(VERIFY)
    bed.ask(query())
    bed.answer(response(key(), [a(30)]))
    bed.wait(31)
    bed.forwarder.instantly = failure
    bed.ask(query(), "later")
    assert bed.last("later").rcode() == dns.rcode.NOERROR
    assert bed.caches.served_stale == 1
    assert "shed" not in bed.counters.events


def test_a_refresh_that_is_left_out_changes_nothing() -> None:
    bed = Bed()
    bed.ask(query())
    bed.answer(response(key(), [a(30)]))
    for _ in range(2):
        bed.ask_now(query())
    bed.wait(29)
    bed.forwarder.instantly = Failure.PACED
    assert bed.ask_now(query()).rcode() == dns.rcode.NOERROR
    assert bed.forwarder.submitted[-1].is_spare
    assert bed.ask_now(query()).rcode() == dns.rcode.NOERROR
    assert bed.resolver.results.failures == []
    assert bed.resolver.pending_count == 0


def test_a_plain_miss_is_not_spare() -> None:
    bed = Bed()
    bed.ask(query())
    assert not bed.forwarder.submitted[-1].is_spare


def test_a_flood_of_refused_misses_begins_no_exchanges() -> None:
    bed = Bed()
    bed.forwarder.instantly = bed.forwarder.refused = Failure.PACED
    bed.ask(query("first"))
    for n in range(20):
        assert bed.ask_now(query(f"n{n}")).rcode() == dns.rcode.REFUSED
    assert bed.exchanges == 1
    assert bed.counters.events["shed_paced"] == 21
    bed.forwarder.instantly = bed.forwarder.refused = None
    assert bed.ask(query("later")) is None
    assert bed.ask(query("and-later")) is None
    assert bed.exchanges == 3


def test_no_refresh_begins_while_the_upstream_takes_nothing() -> None:
    bed = Bed()
    bed.ask(query())
    bed.answer(response(key(), [a(30)]))
    for _ in range(2):
        bed.ask_now(query())
    bed.wait(29)
    bed.forwarder.instantly = bed.forwarder.refused = Failure.OVERLOADED
    bed.ask(query("other"))
    before, shed = bed.exchanges, bed.counters.events["shed"]
    assert bed.ask_now(query()).rcode() == dns.rcode.NOERROR
    assert (bed.exchanges, bed.counters.events["shed"]) == (before, shed)


def test_what_leaves_refuses_misses_whatever_upstreams_say() -> None:
    bed = Bed()
    bed.resolver.refuse_misses()
    for name in ("a", "b"):
        assert bed.ask_now(query(name)).rcode() == dns.rcode.REFUSED


def test_an_exchange_of_a_client_is_given_back_whatever_becomes_of_it() -> None:
    bed = Bed(most_pending=4)
    bed.resolver = Resolver(bed.forwarder, bed.counters, bed.random, 4, client_share=50)
    for n, result in enumerate([None, Failure.TIMED_OUT, response(key("n2"), [], rcode=2)]):
        bed.ask(query("first"))
        bed.ask(query("second"))
        bed.ask(query(f"n{n}"), "counted")
        assert repr(bed.resolver._admission) == "{'192.0.2.7': 1}"
        bed.answer(result, index=2)
        bed.answer()
        bed.answer()
        assert (repr(bed.resolver._admission), bed.resolver.pending_count) == ("{}", 0)
        bed.wait(60)


def test_there_is_room_again_as_soon_as_an_exchange_has_ended() -> None:
    bed = Bed(most_pending=1)
    bed.ask(query("first"))
    assert bed.ask_now(query("second")).rcode() == dns.rcode.REFUSED
    bed.answer()
    assert bed.ask(query("second")) is None
