from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.wire.query import Query, Refusal, scan_query
from nodecache.wire.reply import (
    compose_ends,
    compose_refusal,
    compose_reply,
    compose_upstream_query,
    extended_error,
    keep_what_fits,
)
from tests.reference.messages import parse
from tests.strategies import MadeQuery, MadeResponse, mutated, queries, responses, wire_name

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
ID = b"\x12\x34"
QNAME = wire_name([b"WwW", b"example", b"org"])
OPT = struct.pack("!BHHBBHH", 0, 41, 1232, 0, 0, 0, 0)
OPT_DO = struct.pack("!BHHBBHH", 0, 41, 4096, 0, 0, 0x8000, 0)
A = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\x0a\0\0\1"


def query_for(flags: int = RD, opt: bytes = b"") -> Query:
    return scanned(MadeQuery(0x1234, flags, QNAME, 1, 1, opt))


def scanned(made: MadeQuery) -> Query:
    query = scan_query(made.octets)
    assert isinstance(query, Query)
    return query


def parsed(octets: bytes) -> dns.message.Message:
    """A reply as a stub sees it; its own parser must be content with every octet."""
    message = parse(ID + octets)
    assert message is not None
    return message


@given(queries(), responses(), st.integers(0, 0xFFFF))
def test_a_reply_is_header_question_records_and_our_opt(
    made: MadeQuery, response: MadeResponse, flags: int
) -> None:
    query = scanned(made)
    response = MadeResponse(response.flags, made.qname, made.qtype, response.answer, [], [], b"", 0)
    records = b"".join(record.octets() for record in response.answer)
    counts = (len(response.answer), 0, 0)
    reply = compose_reply(query, flags, counts, records, 65535)
    assert reply[10:].startswith(made.question + records)
    message = parsed(reply)
    assert len(message.answer) == len(response.answer)
    assert (message.edns == 0) == bool(made.opt)
    if made.opt:
        assert message.payload == 1232
        assert bool(message.ednsflags & dns.flags.DO) == query.dnssec_ok
        assert message.options == ()


@given(queries(), st.integers(0, 0xFFFF))
def test_flags_come_from_who_owns_them(made: MadeQuery, flags: int) -> None:
    query = scanned(made)
    word = parsed(compose_reply(query, flags, (0, 0, 0), b"", 65535)).flags
    assert word & QR
    assert word & 0x7840 == 0, "opcode QUERY, Z clear"
    assert word & (AA | TC | RA) == flags & (AA | TC | RA)
    assert word & 0xF == flags & 0xF
    assert word & (RD | CD) == made.flags & (RD | CD)
    assert bool(word & AD) == (bool(flags & AD) and query.wants_ad)


@pytest.mark.parametrize("opt", [b"", OPT, OPT_DO])
def test_a_reply_over_the_limit_is_cut_to_question_and_opt(opt: bytes) -> None:
    query = query_for(opt=opt)
    whole = compose_reply(query, RA, (1, 0, 0), A, 65535)
    size = 2 + len(whole)
    assert compose_reply(query, RA, (1, 0, 0), A, size) == whole
    cut = parsed(compose_reply(query, RA, (1, 0, 0), A, size - 1))
    assert cut.flags & TC
    assert not cut.answer
    assert cut.question == parsed(whole).question
    assert (cut.edns == 0) == bool(opt)


@given(queries(), st.integers(12, 65535), st.integers(0, 65535))
def test_no_reply_is_longer_than_its_limit_allows(
    made: MadeQuery, limit: int, records: int
) -> None:
    query = scanned(made)
    head, tail, fits = compose_ends(query, RA, (0, 0, 0), records, limit, extended_error(22))
    size = 2 + len(head) + len(tail) + (records if fits else 0)
    assert size <= max(limit, 512)
    assert fits == (2 + len(head) + records + len(tail) <= limit)


@given(st.integers(0, 40), st.integers(12, 1300), st.booleans())
def test_a_truncated_reply_holds_the_answers_that_fit(count: int, limit: int, edns: bool) -> None:
    query = query_for(opt=OPT_DO) if edns else query_for()
    records = b"".join(A[:-1] + bytes([n]) for n in range(count))
    octets = b"\0\0" + compose_reply(query, RA, (count, 0, 0), records, limit)
    message = dns.message.from_wire(octets)
    kept = sum(map(len, message.answer))
    empty = len(octets) - kept * len(A)
    assert bool(message.flags & dns.flags.TC) == (kept < count)
    if kept < count:
        assert kept == max(0, (limit - empty) // len(A))


SECTIONS = st.lists(st.binary(max_size=60), max_size=4)


def written(texts: list[bytes]) -> bytes:
    return b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 9, len(t)) + t for t in texts)


@given(SECTIONS, SECTIONS, SECTIONS, st.integers(80, 600), st.sampled_from([b"", OPT, OPT_DO]))
def test_rfc2181_truncated_is_only_a_reply_that_lacks_what_it_must_have(
    answer: list[bytes], authority: list[bytes], additional: list[bytes], limit: int, opt: bytes
) -> None:
    query = query_for(opt=opt)
    sections = [answer, authority, additional]
    counts = (len(answer), len(authority), len(additional))
    octets = ID + compose_reply(
        query, RA, counts, b"".join(map(written, sections)), limit, extended_error(22)
    )
    assert len(octets) <= limit
    word, _, *kept = struct.unpack_from("!5H", octets, 2)
    kept[2] -= bool(opt)
    empty = 12 + len(QNAME) + 4 + (len(opt) + len(extended_error(22)) if opt else 0)
    sizes = [[len(written([text])) for text in section] for section in sections]
    answers = [n for n in range(len(answer) + 1) if empty + sum(sizes[0][:n]) <= limit][-1]
    # Each section whole or not at all, but for the answers; none without the one before.
    room = limit - empty - sum(sizes[0][:answers])
    has_authority = answers == len(answer) and sum(sizes[1]) <= room
    has_additional = has_authority and sum(map(sum, sizes[1:])) <= room
    expected = [
        answers,
        len(authority) if has_authority else 0,
        len(additional) if has_additional else 0,
    ]
    assert kept == expected
    lacks_proof = opt == OPT_DO and bool(authority) and not has_authority
    assert bool(word & TC) == (answers < len(answer) or lacks_proof)
    parts = [written(section[:n]) for section, n in zip(sections, kept, strict=True)]
    assert octets[12 + len(QNAME) + 4 :].startswith(b"".join(parts))


@given(
    st.binary(max_size=200),
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)),
    st.integers(12, 300),
    st.booleans(),
)
def test_keeping_what_fits_trusts_no_octets(
    records: bytes, counts: tuple[int, int, int], limit: int, edns: bool
) -> None:
    query = query_for(opt=OPT_DO) if edns else query_for()
    head, tail, _ = compose_ends(query, RA, counts, 1000, 0)
    changed, kept, octets = keep_what_fits(query, head, tail, records, counts, limit)
    assert kept <= counts[0] + counts[1]
    assert octets <= len(records)
    assert sum(struct.unpack("!HH", changed[4:8])) == kept
    assert changed[8:] == head[8:]
    assert 2 + len(head) + octets + len(tail) <= max(limit, 2 + len(head) + len(tail))


def test_the_question_is_echoed_in_the_case_of_the_client() -> None:
    reply = compose_reply(query_for(), RA, (1, 0, 0), A, 512)
    assert QNAME in reply
    assert parsed(reply).answer[0].name.to_wire() == QNAME


def error_reply(query: Query, rcode: int, options: bytes = b"") -> bytes:
    return compose_reply(query, RA | rcode, (0, 0, 0), b"", 512, options)


def test_an_extended_error_goes_only_to_who_speaks_edns() -> None:
    plain = parsed(error_reply(query_for(), 2, extended_error(22)))
    assert plain.rcode() == dns.rcode.SERVFAIL
    assert plain.edns == -1
    message = parsed(error_reply(query_for(opt=OPT_DO), 2, extended_error(22)))
    (option,) = message.options
    assert isinstance(option, dns.edns.EDEOption)
    assert option.code == 22
    assert message.ednsflags & dns.flags.DO
    assert message.flags & RA


def test_an_error_reply_has_no_records() -> None:
    message = parsed(error_reply(query_for(), 5))
    assert message.rcode() == dns.rcode.REFUSED
    assert message.sections[1:] == [[], [], []]
    assert len(message.question) == 1


@pytest.mark.parametrize("opt", [b"", OPT_DO])
def test_a_refused_transfer_echoes_the_question(opt: bytes) -> None:
    octets = MadeQuery(1, RD | CD, QNAME, 252, 1, opt).octets
    refusal = scan_query(octets)
    assert isinstance(refusal, Refusal)
    message = parsed(compose_refusal(octets, refusal))
    assert message.rcode() == dns.rcode.REFUSED
    assert message.question[0].rdtype == 252
    assert message.flags & (RD | CD) == RD | CD
    assert (message.edns == 0) == bool(opt)


def test_another_edns_version_is_told_ours() -> None:
    octets = MadeQuery(1, RD, QNAME, 1, 1, OPT[:6] + b"\1" + OPT[7:]).octets
    refusal = scan_query(octets)
    assert isinstance(refusal, Refusal)
    message = parsed(compose_refusal(octets, refusal))
    assert message.rcode() == dns.rcode.BADVERS
    assert message.edns == 0


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6, 15])
def test_not_implemented_keeps_the_opcode_and_echoes_nothing(opcode: int) -> None:
    octets = struct.pack("!6H", 1, opcode << 11 | RD, 1, 1, 1, 1) + b"whatever"
    refusal = scan_query(octets)
    assert isinstance(refusal, Refusal)
    reply = compose_refusal(octets, refusal)
    assert reply == struct.pack("!5H", QR | opcode << 11 | RD | 4, 0, 0, 0, 0)


@given(mutated(queries().map(lambda made: made.octets)))
def test_every_refusal_makes_a_reply_that_parses_and_is_short(octets: bytes) -> None:
    refusal = scan_query(octets)
    if not isinstance(refusal, Refusal):
        return
    reply = compose_refusal(octets, refusal)
    message = dns.message.from_wire(ID + reply)
    assert message.rcode() == refusal.rcode
    assert message.flags & QR
    assert len(reply) + 2 <= len(octets) + len(OPT)


@given(queries())
def test_the_upstream_query_is_canonical(made: MadeQuery) -> None:
    query = scanned(made)
    question = query.qname + made.question[-4:]
    octets = compose_upstream_query(question, query.flags, query.dnssec_ok)
    message = parsed(octets)
    assert octets[10:].startswith(question)
    assert not message.flags & QR
    assert message.flags & (RD | CD) == made.flags & (RD | CD)
    assert message.flags & AD
    assert message.flags & (AA | TC | RA) == 0
    assert (message.edns, message.payload, message.options) == (0, 1232, ())
    assert bool(message.ednsflags & dns.flags.DO) == query.dnssec_ok
    assert isinstance(scan_query(ID + octets), Query)
