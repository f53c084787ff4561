from __future__ import annotations

import re
import struct

import dns.message
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nodecache.wire.response import Response, matches_question, scan_response
from tests.reference.messages import ResponseView, parse, view_response
from tests.strategies import MadeRecord, MadeResponse, mutated, names, responses, wire_name

QNAME = wire_name([b"www", b"example", b"org"])
QUESTION = QNAME + b"\0\1\0\1"
END = 12 + len(QUESTION)
A = MadeRecord(b"\xc0\x0c", 1, 300, b"\x0a\0\0\1")
SOA_RDATA = b"\0\0" + struct.pack("!5I", 1, 2, 3, 4, 60)
SOA = MadeRecord(b"\xc0\x10", 6, 30, SOA_RDATA)
NS = MadeRecord(b"\xc0\x10", 2, 3600, b"\2ns\xc0\x10")
OPT = struct.pack("!BHHBBHH", 0, 41, 1232, 0, 0, 0, 0)


def made(
    answer: list[MadeRecord] | None = None,
    authority: list[MadeRecord] | None = None,
    additional: list[MadeRecord] | None = None,
    opt: bytes = b"",
    qtype: int = 1,
) -> MadeResponse:
    extra = additional or []
    return MadeResponse(0x8180, QNAME, qtype, answer or [], authority or [], extra, opt, len(extra))


def scanned(response: MadeResponse) -> Response:
    found = scan_response(response.octets, response.question_end)
    assert found is not None
    return found


def view(response: Response) -> ResponseView:
    return ResponseView(
        response.rcode,
        response.counts,
        response.least_ttl_s,
        response.negative_ttl_s,
        response.answers_type,
        response.is_referral,
    )


def receive(octets: bytes, question: bytes) -> Response | None:
    """What the forwarder does with octets from an upstream."""
    if not matches_question(octets, question):
        return None
    return scan_response(octets, 12 + len(question))


def joined(response: Response, ttl: int) -> bytes:
    return struct.pack("!I", ttl).join(response.pieces)


@given(responses(), st.integers(0, 0x7FFFFFFF))
def test_the_pieces_joined_by_a_ttl_are_the_records_with_that_ttl(
    response: MadeResponse, ttl: int
) -> None:
    expected = b"".join(record.octets(ttl) for record in response.kept)
    assert joined(scanned(response), ttl) == expected


@given(responses())
def test_the_pieces_joined_by_the_uniform_ttl_are_the_message_without_opt(
    response: MadeResponse,
) -> None:
    whole = response.compose(ttl=77)
    found = scan_response(whole, response.question_end)
    assert found is not None
    rest = whole[response.question_end :]
    if response.opt:
        rest = rest[: rest.rindex(response.opt)]
    assert rest.startswith(joined(found, 77))
    assert not response.opt or joined(found, 77) == rest


@given(responses())
def test_a_sound_response_is_seen_as_the_twin_sees_it(response: MadeResponse) -> None:
    kept = response.kept[sum(response.counts[:2]) :]
    before_opt = MadeResponse(
        response.flags,
        response.qname,
        response.qtype,
        response.answer,
        response.authority,
        kept,
        response.opt,
        len(kept),
    )
    message = parse(before_opt.octets)
    assert message is not None
    assert matches_question(response.octets, response.question)
    assert view(scanned(response)) == view_response(message)


@given(responses())
def test_no_truncated_response_is_accepted(response: MadeResponse) -> None:
    octets = response.octets
    for end in range(len(octets)):
        assert receive(octets[:end], response.question) is None


@given(responses(), st.binary(min_size=1, max_size=40))
def test_octets_behind_the_message_are_left_out(response: MadeResponse, more: bytes) -> None:
    found = receive(response.octets + more, response.question)
    assert found is not None
    assert view(found) == view(scanned(response))
    assert found.pieces == scanned(response).pieces
    assert found.records_end <= len(response.octets)


@given(
    responses().flatmap(
        lambda made: st.tuples(st.just(made.question), mutated(st.just(made.octets)))
    )
)
def test_a_mutated_response_is_refused_or_seen_as_the_twin_sees_it(
    pair: tuple[bytes, bytes],
) -> None:
    question, octets = pair
    assume(matches_question(octets, question))
    found = scan_response(octets, 12 + len(question))
    message = parse(octets)
    if message is None:
        return  # a fault in RDATA that is opaque to us, or one that we see as well
    if found is None:
        # Names that may not be compressed (RRSIG, NSEC, SVCB, HTTPS), pointers into the header.
        types = {rrset.rdtype for section in message.sections[1:] for rrset in section}
        assert types & {46, 47, 64, 65} or re.search(rb"\xc0[\x00-\x0b]", octets)
        return
    assume(message.opt is None)
    assert view(found) == view_response(message)


@given(st.binary(max_size=400), names())
@example(b"\0\0\x80\0\0\1" + b"\xff" * 6 + b"\0\0\1\0\1", b"\0")
def test_arbitrary_octets_raise_nothing(octets: bytes, qname: bytes) -> None:
    question = qname.lower() + b"\0\1\0\1"
    receive(octets, question)
    framed = b"\0\0\x80\0\0\1" + octets[:6].ljust(6, b"\0") + question + octets[6:]
    found = receive(framed, question)
    assert found is None or sum(found.counts) == len(found.pieces) - 1


def test_another_question_or_no_response_does_not_match() -> None:
    octets = made([A]).octets
    assert matches_question(octets, QUESTION)
    assert matches_question(octets[:12] + QNAME.upper() + octets[END - 4 :], QUESTION)
    assert not matches_question(octets, QUESTION[:-4] + b"\0\x1c\0\1")
    assert not matches_question(octets, QUESTION[:-4] + b"\0\1\0\3")
    assert not matches_question(octets, wire_name([b"wwx", b"example", b"org"]) + b"\0\1\0\1")
    assert not matches_question(octets[:4] + b"\0\2" + octets[6:], QUESTION)
    assert not matches_question(octets[:2] + b"\1" + octets[3:], QUESTION)


@pytest.mark.parametrize("opcode", range(1, 16))
def test_a_response_to_another_opcode_does_not_match(opcode: int) -> None:
    octets = made([A]).octets
    assert not matches_question(octets[:2] + bytes([0x80 | opcode << 3]) + octets[3:], QUESTION)


def test_the_least_ttl_is_that_of_all_sections_but_not_of_opt() -> None:
    answer = MadeRecord(b"\xc0\x0c", 1, 900, bytes(4))
    assert scanned(made([answer], [NS], [A], OPT)).least_ttl_s == 300
    assert scanned(made(opt=OPT)).least_ttl_s is None


def test_a_ttl_with_the_highest_bit_set_counts_as_zero() -> None:
    assert scanned(made([MadeRecord(b"\0", 1, 1 << 31, bytes(4))])).least_ttl_s == 0
    assert scanned(made([MadeRecord(b"\0", 1, (1 << 31) - 1, bytes(4))])).least_ttl_s == 2**31 - 1


@given(responses())
def test_records_are_shown_as_they_came_but_for_ttls_that_count_as_zero(
    response: MadeResponse,
) -> None:
    records = [record.octets(record.ttl if record.ttl < 1 << 31 else 0) for record in response.kept]
    shown = scanned(response).records(response.octets, response.question_end)
    assert shown == b"".join(records)


@pytest.mark.parametrize(
    ("ttl", "minimum", "expected"),
    [(30, 60, 30), (60, 30, 30), (1 << 31, 60, 0), (60, 1 << 31, 0), (0, 0, 0)],
)
def test_the_negative_ttl_is_the_lesser_of_ttl_and_minimum(
    ttl: int, minimum: int, expected: int
) -> None:
    soa = MadeRecord(b"\0", 6, ttl, SOA_RDATA[:-4] + struct.pack("!I", minimum))
    assert scanned(made(authority=[soa])).negative_ttl_s == expected


def test_without_soa_there_is_no_negative_ttl() -> None:
    assert scanned(made([A], [NS])).negative_ttl_s is None
    assert scanned(made([SOA], qtype=6)).negative_ttl_s is None


@pytest.mark.parametrize("size", [0, 4, 21, 23])
def test_a_soa_of_other_length_than_its_numbers_is_refused(size: int) -> None:
    soa = MadeRecord(b"\0", 6, 30, bytes(size))
    assert receive(made(authority=[soa]).octets, QUESTION) is None


def test_ns_without_answer_and_soa_is_a_referral() -> None:
    assert scanned(made(authority=[NS])).is_referral
    assert not scanned(made([A], [NS])).is_referral
    assert not scanned(made(authority=[NS, SOA])).is_referral
    assert not scanned(made()).is_referral


def test_an_answer_of_another_type_is_none_unless_any_was_asked() -> None:
    alias = MadeRecord(b"\xc0\x0c", 5, 5, b"\1a\xc0\x0c")
    assert not scanned(made([alias])).answers_type
    assert scanned(made([alias, A])).answers_type
    assert scanned(made([alias], qtype=255)).answers_type


def test_the_rcode_has_the_upper_bits_of_the_opt_record() -> None:
    opt = OPT[:5] + b"\1" + OPT[6:]
    response = made([A], opt=opt)
    octets = response.octets[:3] + b"\x87" + response.octets[4:]
    found = receive(octets, QUESTION)
    assert found is not None
    assert found.rcode == 0x17
    assert found.rcode == dns.message.from_wire(octets).rcode()


def test_records_behind_the_opt_record_are_left_out() -> None:
    response = MadeResponse(0x8180, QNAME, 1, [A], [], [A, A, A], OPT, 1)
    found = scanned(response)
    assert found.counts == (1, 0, 1)
    assert joined(found, 300) == A.octets() * 2


@pytest.mark.parametrize("counts", [(1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 2)])
def test_an_opt_record_elsewhere_or_twice_is_refused(counts: tuple[int, int, int, int]) -> None:
    octets = struct.pack("!6H", 1, 0x8180, *counts) + QUESTION + OPT * sum(counts[1:])
    assert receive(octets, QUESTION) is None


@pytest.mark.parametrize("options", [b"\0", b"\0\x0f\0\2", b"\0\x0f\0\5ab", bytes(40)])
def test_options_of_an_upstream_are_not_looked_at(options: bytes) -> None:
    """They end with us, so what is wrong with them concerns nobody."""
    opt = OPT[:9] + struct.pack("!H", len(options)) + options
    assert joined(scanned(made([A], opt=opt)), 300) == A.octets()
    assert receive(made([A], opt=opt).octets[:-1], QUESTION) is None


def test_an_opt_record_with_an_owner_name_is_refused() -> None:
    octets = struct.pack("!6H", 1, 0x8180, 1, 0, 0, 1) + QUESTION + b"\1a\0" + OPT[1:]
    assert receive(octets, QUESTION) is None


@pytest.mark.parametrize(
    "owner",
    [
        struct.pack("!H", 0xC000 | END),  # itself
        struct.pack("!H", 0xC000 | END + 2),  # forward
        b"\1a" + struct.pack("!H", 0xC000 | END),  # its own first label
        b"\xff\xff",
        b"\x40" + b"a" * 64 + b"\0",
        b"\x80\0",
        b"\2aa" + b"\1a" * 126 + b"\0",  # 256 octets
    ],
)
def test_a_broken_owner_name_is_refused(owner: bytes) -> None:
    octets = made([MadeRecord(owner, 1, 1, bytes(4))]).octets
    assert receive(octets, QUESTION) is None
    assert parse(octets) is None


@pytest.mark.parametrize("count", [2, 0xFFFF])
def test_fewer_records_than_counted_are_refused(count: int) -> None:
    octets = made([A]).octets
    assert receive(octets[:6] + struct.pack("!H", count) + octets[8:], QUESTION) is None


def test_records_that_nobody_counts_are_no_part_of_the_response() -> None:
    octets = made([A, A]).octets
    found = receive(octets[:6] + b"\0\1" + octets[8:], QUESTION)
    assert found is not None
    assert (found.counts, joined(found, 300)) == ((1, 0, 0), A.octets())


def test_a_response_without_records_has_one_empty_piece() -> None:
    found = scanned(made())
    assert found.pieces == (b"",)
    assert found.counts == (0, 0, 0)
