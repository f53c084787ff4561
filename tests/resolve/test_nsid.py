"""The directive ``nsid``: who asks which server this is gets to know it, nobody else (RFC 5001)."""

from __future__ import annotations

import struct

import dns.edns
import dns.message
import pytest

from nodecache.config.model import CachePolicy, ServeStale
from nodecache.upstreams.exchange import Failure
from tests.cache.building import A, a, key, name, opt, query, response
from tests.resolve.resolving import Bed, extended_errors

NSID = struct.pack("!HH", 3, 4) + b"node"
ASKING = struct.pack("!HH", 3, 0)
COOKIE = struct.pack("!HH", 10, 8) + b"12345678"


def identities(reply: dns.message.Message) -> list[bytes]:
    return [o.nsid for o in reply.options if isinstance(o, dns.edns.NSIDOption)]


@pytest.fixture
def bed() -> Bed:
    bed = Bed()
    bed.state.nsid = NSID
    return bed


def test_who_asks_is_told_with_miss_hit_and_packet(bed: Bed) -> None:
    octets = query(edns=opt(options=ASKING))
    bed.ask(octets)
    bed.answer()
    assert identities(bed.last()) == [b"node"]
    assert identities(bed.ask_now(octets)) == [b"node"]
    (packet,) = bed.packets.fresh.values()
    assert identities(dns.message.from_wire(octets[:2] + packet.reply)) == [b"node"]


@pytest.mark.parametrize("edns", [b"", opt(), opt(do=True), opt(options=COOKIE)])
def test_who_does_not_ask_is_not_told_even_after_one_who_did(bed: Bed, edns: bytes) -> None:
    bed.ask(query(edns=opt(options=ASKING)))
    bed.answer()
    bed.ask(query(edns=edns))
    if bed.forwarder.under_way:  # DO has a question of its own
        bed.answer()
    assert identities(bed.last()) == []


def test_option_is_found_among_others_and_whatever_it_holds(bed: Bed) -> None:
    bed.ask(query(edns=opt(options=COOKIE + struct.pack("!HH", 3, 2) + b"xx")))
    bed.answer()
    assert identities(bed.last()) == [b"node"]


def test_opt_record_behind_another_record_is_found(bed: Bed) -> None:
    additional = name("x") + struct.pack("!HHIH", A, 1, 0, 4) + b"\0\0\0\0"
    plain = query(edns=additional + opt(options=ASKING))
    bed.ask(plain[:10] + b"\0\2" + plain[12:])
    bed.answer()
    assert identities(bed.last()) == [b"node"]


def test_block_without_the_directive_tells_nobody() -> None:
    bed = Bed()
    bed.ask(query(edns=opt(options=ASKING)))
    bed.answer()
    assert identities(bed.last()) == []


def test_stale_failed_and_refused_replies_carry_it_beside_their_error(bed: Bed) -> None:
    octets = query(edns=opt(options=ASKING))
    bed.ask(octets)
    bed.answer(Failure.TIMED_OUT)
    assert identities(bed.last()) == [b"node"]
    assert extended_errors(bed.last()) == [22]
    bed.resolver.refuse_misses()
    reply = bed.ask_now(query("other.test", edns=opt(options=ASKING)))
    assert identities(reply) == [b"node"]

    stale = Bed(policy=CachePolicy(serve_stale=ServeStale()))
    stale.state.nsid = NSID
    stale.ask(octets)
    stale.answer(response(key(), [a(1)]))
    stale.now += 2
    stale.ask(octets)
    stale.answer(Failure.TIMED_OUT)
    assert identities(stale.last()) == [b"node"]
    assert extended_errors(stale.last()) == [3]


def test_reply_that_is_too_long_is_cut_so_that_the_identity_fits(bed: Bed) -> None:
    bed.ask(query(edns=opt(512, options=ASKING)))
    bed.answer(response(key(), [a(30, bytes([10, 0, 0, n])) for n in range(40)]))
    assert len(bed.got["stub"][-1]) <= 512
    assert identities(bed.last()) == [b"node"]


def test_upstream_is_never_asked_for_its_identity(bed: Bed) -> None:
    bed.ask(query(edns=opt(options=ASKING)))
    assert ASKING not in bed.forwarder.submitted[0].query
