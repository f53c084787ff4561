"""What clients get when the forwarder takes no more: nobody was asked, so no name has failed."""

from __future__ import annotations

from dataclasses import replace

import dns.rcode
import pytest

from nodecache.config.model import CachePolicy, ServeStale, StaleMode
from nodecache.engine.exchange import Failure
from tests.cache.building import a, key, query, response
from tests.engine.resolving import Bed

VERIFY = replace(CachePolicy(), serve_stale=ServeStale(mode=StaleMode.VERIFY))
REFUSALS = [Failure.PACED, Failure.OVERLOADED]


@pytest.mark.parametrize("failure", REFUSALS)
def test_a_refused_miss_is_counted_and_asked_for_again_at_once(failure: Failure) -> None:
    bed = Bed()
    bed.forwarder.instantly = failure
    bed.ask(query(), "first")
    assert bed.last("first").rcode() == dns.rcode.REFUSED
    assert bed.counters.events["shed"] == 1
    assert bed.counters.events.get("shed_paced", 0) == (failure is Failure.PACED)
    assert bed.resolver.errors == []
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
    assert bed.resolver.errors == []
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
