"""An answer that comes when nobody waits any more is there for who asks again."""

from __future__ import annotations

import dns.rcode
import pytest

from nodecache.config.model import CachePolicy, ForwardPolicy
from nodecache.upstreams.exchange import Failure
from tests.cache.building import a, key, query, response, soa
from tests.resolve.resolving import UPSTREAMS, Bed, zone

NAME = "slow.cluster.local"


def fail_first(bed: Bed) -> bytes:
    """Asks in vain; returns the answer that is on its way."""
    bed.ask(query(NAME))
    bed.now += 4.5
    bed.answer(Failure.TIMED_OUT)
    assert bed.last().rcode() == dns.rcode.SERVFAIL
    return response(key(NAME), [a(30)])


def hand_in(bed: Bed, octets: bytes) -> None:
    late = bed.forwarder.submitted[0]
    assert late.on_late is not None
    late.on_late(late, octets, bed.now)
    bed.collect()


def test_the_stubs_next_query_is_a_hit() -> None:
    bed = Bed()
    octets = fail_first(bed)
    bed.now += 0.3
    hand_in(bed, octets)
    bed.now += 0.2
    reply = bed.ask_now(query(NAME))
    assert reply.rcode() == dns.rcode.NOERROR
    assert len(reply.answer) == 1
    assert bed.exchanges == 1


def test_a_denial_is_kept_too() -> None:
    bed = Bed()
    fail_first(bed)
    hand_in(bed, response(key(NAME), [], [soa()], rcode=3))
    assert bed.ask_now(query(NAME)).rcode() == dns.rcode.NXDOMAIN


def test_who_has_asked_again_meanwhile_gets_it() -> None:
    bed = Bed()
    octets = fail_first(bed)
    bed.now += 1.5
    assert bed.ask(query(NAME), "again") is None
    bed.now += 0.2
    hand_in(bed, octets)
    assert bed.last("again").rcode() == dns.rcode.NOERROR
    assert bed.resolver.pending_count == 0
    assert bed.ask_now(query(NAME)).rcode() == dns.rcode.NOERROR


def test_a_malformed_one_changes_nothing() -> None:
    bed = Bed()
    octets = fail_first(bed)
    hand_in(bed, octets[:-3])
    assert bed.ask_now(query(NAME)).rcode() == dns.rcode.SERVFAIL


def test_without_a_cache_it_is_dropped() -> None:
    bed = Bed(policy=None)
    hand_in(bed, fail_first(bed))
    assert bed.ask(query(NAME)) is None


def test_after_a_reload_it_is_dropped() -> None:
    bed = Bed()
    octets = fail_first(bed)
    other = Bed(forwards=(ForwardPolicy(zone("."), UPSTREAMS),))
    bed.state.configure(other.state.block, bed.messages, None)
    hand_in(bed, octets)
    assert bed.ask_now(query(NAME)).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("has_edns", [True, False])
def test_a_forward_may_do_without_edns(has_edns: bool) -> None:
    bed = Bed(
        policy=CachePolicy(), forwards=(ForwardPolicy(zone("."), UPSTREAMS, has_edns=has_edns),)
    )
    bed.ask(query(NAME))
    [exchange] = bed.forwarder.submitted
    assert exchange.query[8:10] == (b"\0\1" if has_edns else b"\0\0")
    assert exchange.query.endswith(exchange.question) is not has_edns
