from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.process.keeper.refusal import MAX_QUERY_OCTETS, compose_refusal
from tests.process.keeper.bed import QUESTION, query

QR = 0x80


def refusal_of(octets: bytes) -> dns.message.Message:
    reply = compose_refusal(octets)
    assert reply is not None
    assert len(reply) <= len(octets)
    return dns.message.from_wire(reply)


def test_refusal_repeats_id_question_and_flags() -> None:
    asked = dns.message.make_query("wWw.ExAmPlE.", "AAAA", flags=dns.flags.RD | dns.flags.CD)
    octets = asked.to_wire()
    reply = compose_refusal(octets)
    assert reply is not None
    assert reply[:2] == octets[:2]
    assert reply[12:] == octets[12:]
    refusal = dns.message.from_wire(reply)
    assert refusal.rcode() == dns.rcode.REFUSED
    assert refusal.flags & ~0xF == dns.flags.QR | dns.flags.RD | dns.flags.CD
    assert refusal.edns == -1


@pytest.mark.parametrize("wants_dnssec", [False, True])
def test_query_with_edns_gets_a_bare_opt(wants_dnssec: bool) -> None:
    asked = dns.message.make_query("a.", "A", want_dnssec=wants_dnssec)
    asked.use_edns(
        0,
        asked.ednsflags,
        4096,
        options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"a cookie")],
    )
    refusal = refusal_of(asked.to_wire())
    assert (refusal.edns, refusal.payload, refusal.options) == (0, 1232, ())
    assert bool(refusal.ednsflags & dns.flags.DO) == wants_dnssec
    assert refusal.rcode() == dns.rcode.REFUSED


def test_opcode_is_repeated() -> None:
    octets = bytearray(query())
    octets[2] |= 4 << 3
    assert refusal_of(bytes(octets)).opcode() == dns.opcode.NOTIFY


@pytest.mark.parametrize(
    "octets",
    [
        query()[:12] + b"\xc0\x0c\0\1\0\1",
        query()[:12] + b"\x41" + QUESTION,
        query()[:4] + b"\0\2" + query()[6:],
        query()[:-1],
        query()[:12] + b"\3www" * 80 + b"\0\0\1\0\1",
    ],
    ids=["compressed", "long label", "two questions", "cut", "long name"],
)
def test_broken_question_is_left_out(octets: bytes) -> None:
    reply = compose_refusal(octets)
    assert reply is not None
    assert reply[:2] + reply[4:] == octets[:2] + bytes(8)
    assert reply[3] & 0xF == dns.rcode.REFUSED


@pytest.mark.parametrize("cut", range(12))
def test_less_than_a_header_gets_no_reply(cut: int) -> None:
    assert compose_refusal(query()[:cut]) is None


def test_response_gets_no_reply() -> None:
    octets = bytearray(query())
    octets[2] |= QR
    assert compose_refusal(bytes(octets)) is None


HEADERS = st.builds(
    lambda message_id, flags, *counts: struct.pack("!HHHHHH", message_id, flags, *counts),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    *[st.integers(0, 3) | st.integers(0, 0xFFFF)] * 4,
)
QUERIES = (
    st.binary(max_size=MAX_QUERY_OCTETS)
    | st.builds(lambda *parts: b"".join(parts), HEADERS, st.binary(max_size=300))
    | st.builds(lambda *parts: b"".join(parts), HEADERS, st.just(QUESTION), st.binary(max_size=80))
)


@given(QUERIES)
def test_whatever_comes_gets_silence_or_a_sound_refusal(octets: bytes) -> None:
    reply = compose_refusal(octets)
    if len(octets) < 12 or octets[2] & QR:
        assert reply is None
        return
    assert reply is not None
    assert 12 <= len(reply) <= len(octets)
    assert reply[:2] == octets[:2]
    assert reply[2] & QR
    assert reply[3] & 0xF == dns.rcode.REFUSED
    qdcount, ancount, nscount, arcount = struct.unpack_from("!HHHH", reply, 4)
    assert (ancount, nscount) == (0, 0)
    end = len(reply) - 11 * arcount
    assert reply[12:end] == (octets[12:end] if qdcount else b"")
