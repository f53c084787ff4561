from __future__ import annotations

import struct
from dataclasses import replace

import dns.edns
import dns.message
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodecache.wire.key import key_of
from nodecache.wire.query import Query, Refusal, Silence, is_below, scan_query
from tests.reference.messages import QueryView, judge_query
from tests.strategies import MadeQuery, mutated, names, opts, queries, wire_name

FORMERR, NOTIMP, REFUSED, BADVERS = 1, 4, 5, 16

PLAIN = MadeQuery(0x1234, 0x0100, wire_name([b"www", b"example", b"org"]), 1, 1, b"")
BARE_OPT = struct.pack("!BHHBBHH", 0, 41, 1232, 0, 0, 0x8000, 0)
TSIG = b"\0" + struct.pack("!HHIH", 250, 255, 0, 4) + b"sign"


def view(query: Query) -> QueryView:
    return QueryView(
        query.qname,
        query.qtype,
        query.qclass,
        query.flags,
        query.has_edns,
        query.dnssec_ok,
        query.payload_size,
        query.is_personal,
    )


def accepted(octets: bytes) -> Query:
    verdict = scan_query(octets)
    assert isinstance(verdict, Query)
    return verdict


def refused(octets: bytes) -> int:
    verdict = scan_query(octets)
    assert isinstance(verdict, Refusal)
    return verdict.rcode


def with_counts(octets: bytes, *counts: int) -> bytes:
    return octets[:4] + struct.pack("!4H", *counts) + octets[12:]


def assert_agrees_with_the_twin(octets: bytes) -> None:
    """Where dnspython is content our verdict is its; what we accept it understands, too."""
    verdict, expected = scan_query(octets), judge_query(octets)
    if isinstance(verdict, Silence):
        assert expected == verdict.value
    elif isinstance(verdict, Refusal):
        assert expected in (verdict.rcode, None)
    else:
        question = dns.message.from_wire(octets, question_only=True).question[0]
        assert verdict.qname == (question.name.to_wire() or b"").lower()
        assert (verdict.qtype, verdict.qclass) == (question.rdtype, question.rdclass)
        if expected is not None:
            assert isinstance(expected, QueryView)
            assert view(verdict) == QueryView(
                expected.qname.lower(), *list(vars(expected).values())[1:]
            )


@given(queries())
def test_every_sound_query_is_accepted_as_it_was_made(made: MadeQuery) -> None:
    query = accepted(made.octets)
    assert query.qname == made.qname.lower()
    assert (query.qtype, query.qclass, query.flags) == (made.qtype, made.qclass, made.flags)
    assert made.octets[12 : query.question_end] == made.question
    assert query.has_edns == bool(made.opt)
    assert query.payload_size >= 512
    assert_agrees_with_the_twin(made.octets)


@given(mutated(queries().map(lambda made: made.octets)))
def test_the_verdict_on_a_mutated_query_is_the_twins(octets: bytes) -> None:
    assert_agrees_with_the_twin(octets)


@given(st.binary(max_size=600))
@example(b"")
@example(bytes(12))
@example(b"\0" * 4 + b"\0\1" + b"\xff" * 6)
def test_arbitrary_octets_get_the_twins_verdict(octets: bytes) -> None:
    assert_agrees_with_the_twin(octets)


@given(queries())
def test_no_truncated_query_is_accepted(made: MadeQuery) -> None:
    octets = made.octets
    for end in range(len(octets)):
        verdict = scan_query(octets[:end])
        if end < 12:
            assert verdict is Silence.TOO_SHORT
        else:
            assert isinstance(verdict, Refusal)
            assert verdict.rcode == FORMERR


@given(queries(), st.binary(min_size=1, max_size=40))
def test_octets_behind_the_message_change_nothing_but_are_not_asked_twice(
    made: MadeQuery, more: bytes
) -> None:
    octets = made.octets + more
    query = accepted(octets)
    assert query.is_personal
    expected = view(accepted(made.octets))
    assert view(query) == replace(expected, is_personal=True)
    assert key_of(query) == key_of(accepted(made.octets))
    assert_agrees_with_the_twin(octets)


@pytest.mark.parametrize("size", range(12))
def test_less_than_a_header_gets_silence(size: int) -> None:
    assert scan_query(PLAIN.octets[:size]) is Silence.TOO_SHORT


@given(st.binary(min_size=12, max_size=100))
def test_a_response_gets_silence_whatever_else_is_in_it(octets: bytes) -> None:
    as_response = octets[:2] + bytes([octets[2] | 0x80]) + octets[3:]
    assert scan_query(as_response) is Silence.IS_RESPONSE


@pytest.mark.parametrize("opcode", range(1, 16))
def test_every_opcode_but_query_is_not_implemented(opcode: int) -> None:
    octets = PLAIN.octets[:2] + bytes([opcode << 3]) + PLAIN.octets[3:]
    verdict = scan_query(octets)
    assert verdict == Refusal(NOTIMP)


@pytest.mark.parametrize("count", [0, 2, 0x0101, 0xFFFF])
def test_any_number_of_questions_but_one_is_a_format_error(count: int) -> None:
    assert scan_query(with_counts(PLAIN.octets, count, 0, 0, 0)) == Refusal(FORMERR)


@pytest.mark.parametrize(
    "qname",
    [
        b"\xc0\x0c",
        b"\3www\xc0\x0c",
        b"\x40" + b"a" * 64 + b"\0",
        b"\x80\0",
        (b"\x3f" + b"a" * 63) * 4 + b"\0",
        b"\2aa" + b"\1a" * 126 + b"\0",  # 256 octets
    ],
)
def test_a_broken_qname_is_a_format_error_without_question(qname: bytes) -> None:
    octets = PLAIN.octets[:12] + qname + b"\0\1\0\1"
    assert scan_query(octets) == Refusal(FORMERR)


@pytest.mark.parametrize("qname", [b"\0", b"\1a" * 127 + b"\0", (b"\x3f" + b"a" * 63) * 3 + b"\0"])
def test_the_shortest_and_the_longest_names_are_accepted(qname: bytes) -> None:
    assert accepted(PLAIN.octets[:12] + qname + b"\0\1\0\1").qname == qname


@pytest.mark.parametrize("qtype", [251, 252])
@pytest.mark.parametrize("opt", [b"", BARE_OPT])
def test_zone_transfers_are_refused_with_the_question(qtype: int, opt: bytes) -> None:
    made = MadeQuery(1, 0, PLAIN.qname, qtype, 1, opt)
    assert scan_query(made.octets) == Refusal(REFUSED, 12 + len(made.question), bool(opt))


@given(opts(version=1), st.integers(1, 255))
def test_another_edns_version_is_refused_whatever_its_options_mean(
    opt: bytes, version: int
) -> None:
    made = MadeQuery(1, 0, PLAIN.qname, 1, 1, opt[:6] + bytes([version]) + opt[7:])
    end = 12 + len(made.question)
    assert scan_query(made.octets) == Refusal(BADVERS, end, has_edns=True)


def test_options_of_another_edns_version_need_not_be_ours() -> None:
    opt = struct.pack("!BHHBBHH", 0, 41, 1232, 0, 1, 0, 3) + b"abc"
    assert refused(MadeQuery(1, 0, PLAIN.qname, 1, 1, opt).octets) == BADVERS


@pytest.mark.parametrize("options", [b"\0", b"\0\x14\0\2a", b"\0\x14\0", b"\0\x14\0\0\0"])
def test_options_that_do_not_fill_the_record_are_a_format_error(options: bytes) -> None:
    opt = struct.pack("!BHHBBHH", 0, 41, 1232, 0, 0, 0, len(options)) + options
    assert refused(MadeQuery(1, 0, PLAIN.qname, 1, 1, opt).octets) == FORMERR


def test_two_opt_records_are_a_format_error() -> None:
    assert refused(with_counts(PLAIN.octets, 1, 0, 0, 2) + BARE_OPT * 2) == FORMERR


@pytest.mark.parametrize("counts", [(1, 1, 0, 0), (1, 0, 1, 0)])
def test_an_opt_record_outside_the_additional_section_is_a_format_error(
    counts: tuple[int, int, int, int],
) -> None:
    assert refused(with_counts(PLAIN.octets, *counts) + BARE_OPT) == FORMERR


def test_an_opt_record_with_an_owner_name_is_a_format_error() -> None:
    octets = with_counts(PLAIN.octets, 1, 0, 0, 1) + b"\1a\0" + BARE_OPT[1:]
    assert refused(octets) == FORMERR


def test_an_opt_record_is_found_beside_other_records() -> None:
    for records in (BARE_OPT + TSIG, TSIG + BARE_OPT):
        query = accepted(with_counts(PLAIN.octets, 1, 0, 0, 2) + records)
        assert query.has_edns
        assert query.dnssec_ok
        assert query.payload_size == 1232
        assert query.is_personal


def test_records_that_no_query_needs_are_passed_over() -> None:
    answer = PLAIN.qname + struct.pack("!HHIH", 1, 1, 30, 4) + bytes(4)
    for counts in ((1, 1, 0, 1), (1, 0, 1, 1)):
        query = accepted(with_counts(PLAIN.octets, *counts) + answer + BARE_OPT)
        assert (query.has_edns, query.is_personal) == (True, True)
        assert query.question_end == len(PLAIN.octets)


def test_a_signed_query_without_edns_is_accepted() -> None:
    query = accepted(with_counts(PLAIN.octets, 1, 0, 0, 1) + TSIG)
    assert not query.has_edns
    assert query.payload_size == 512


@pytest.mark.parametrize(("size", "used"), [(0, 512), (511, 512), (512, 512), (65535, 65535)])
def test_a_payload_size_below_512_counts_as_512(size: int, used: int) -> None:
    opt = struct.pack("!BHHBBHH", 0, 41, size, 0, 0, 0, 0)
    assert accepted(MadeQuery(1, 0, PLAIN.qname, 1, 1, opt).octets).payload_size == used


@pytest.mark.parametrize(("code", "is_personal"), [(8, True), (10, True), (12, False), (3, False)])
def test_only_options_that_name_a_client_are_personal(code: int, is_personal: bool) -> None:
    query = dns.message.make_query(
        "a.", "A", options=[dns.edns.GenericOption(dns.edns.OptionType.make(code), bytes(8))]
    )
    assert accepted(query.to_wire()).is_personal == is_personal


@pytest.mark.parametrize(
    ("flags", "opt", "wants"),
    [(0, b"", False), (0x20, b"", True), (0, BARE_OPT, True), (0x10, b"", False)],
)
def test_ad_is_wanted_by_who_sets_ad_or_do(flags: int, opt: bytes, wants: bool) -> None:
    assert accepted(MadeQuery(1, flags, PLAIN.qname, 1, 1, opt).octets).wants_ad == wants


@given(names(), names())
def test_a_name_is_below_a_zone_exactly_when_its_last_labels_are_the_zones(
    qname: bytes, zone: bytes
) -> None:
    def labels(name: bytes) -> list[bytes]:
        found, at = [], 0
        while name[at]:
            found.append(name[at + 1 : at + 1 + name[at]])
            at += name[at] + 1
        return found

    below = labels(qname)[max(0, len(labels(qname)) - len(labels(zone))) :] == labels(zone)
    assert is_below(qname, zone) == below
    joined = qname[:-1] + zone
    assert is_below(joined, zone)
