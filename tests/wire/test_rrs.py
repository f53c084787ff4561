"""Messages taken apart; what is composed again is tested where it is used, in tests/directives."""

from __future__ import annotations

import struct

import dns.message
import pytest
from hypothesis import given

from nodecache.wire.rrs import RR, has_option, read_contents
from tests.cache.building import SOA, A, a, key, record, response, soa
from tests.strategies import MadeResponse, responses

QUESTION = key("a.example")[:-1]
OWNER = QUESTION[:-4]


def test_records_are_told_apart_by_section_and_without_compression() -> None:
    contents = read_contents(response(key("a.example"), [a(30)], [soa(60)]))
    assert contents is not None
    assert contents.question == QUESTION
    assert [rr.owner for rr in contents.answer] == [OWNER]
    assert [(rr.rtype, rr.ttl_s) for rr in contents.authority] == [(SOA, 60)]
    assert contents.additional == []


def test_answers_are_of_the_type_and_of_class_in() -> None:
    other_class = b"\xc0\x0c" + struct.pack("!HHIH", A, 3, 30, 1) + b"x"
    contents = read_contents(response(key("a.example"), [a(30), other_class, record(16, 5, b"")]))
    assert contents is not None
    assert contents.answers_of(A) == [RR(OWNER, A, 1, 30, contents.answer[0].rdata)]
    assert len(contents.answer) == 3


@pytest.mark.parametrize("length", [0, 3, 5, 16])
def test_address_of_another_length_breaks_the_message(length: int) -> None:
    assert read_contents(response(key("a.example"), [record(A, 30, bytes(length))])) is None


@given(responses())
def test_composed_again_dnspython_reads_the_same(made: MadeResponse) -> None:
    contents = read_contents(made.octets)
    if contents is not None:
        again = dns.message.from_wire(contents.compose(), one_rr_per_rrset=True)
        assert [len(section) for section in again.sections[1:]] == [
            len(section) for section in contents.sections
        ]


def test_option_is_found_behind_others() -> None:
    options = struct.pack("!HH", 10, 3) + b"abc" + struct.pack("!HH", 3, 0)
    assert has_option(options, 3)
    assert not has_option(options, 15)
    assert not has_option(b"", 3)
