from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.wire.key import (
    ALL_MARKS,
    MARKS,
    QNAME_END,
    QTYPE_END,
    QUESTION_END,
    key_of,
    make_key,
    read_marks,
    with_type,
    without_type,
)
from nodecache.wire.query import Query, scan_query
from tests.strategies import MadeQuery, queries, wire_name

RD, CD, AD = 0x0100, 0x0010, 0x0020
NAME = wire_name([b"www", b"example", b"org"])
BARE_OPT = struct.pack("!BHHBBHH", 0, 41, 1232, 0, 0, 0x8000, 0)


def asked(made: MadeQuery) -> Query:
    query = scan_query(made.octets)
    assert isinstance(query, Query)
    return query


@given(queries())
def test_parts_of_a_key_are_those_of_the_question_in_lower_case(made: MadeQuery) -> None:
    key = key_of(asked(made))
    assert key[:QNAME_END] == made.qname.lower()
    assert key[QNAME_END:QTYPE_END] == struct.pack("!H", made.qtype)
    assert key[:QUESTION_END] == made.qname.lower() + struct.pack("!HH", made.qtype, made.qclass)
    assert key[QTYPE_END:] == struct.pack("!HB", made.qclass, key[MARKS])
    assert read_marks(key[MARKS]) == (made.flags & (RD | CD), asked(made).dnssec_ok)


@given(queries(), st.integers(0, 255))
def test_key_is_made_again_from_its_question_and_its_marks(made: MadeQuery, more: int) -> None:
    key = key_of(asked(made))
    assert make_key(key[:QUESTION_END], key[MARKS] | more & ~ALL_MARKS) == key


@given(queries())
def test_queries_that_differ_in_case_share_a_key(made: MadeQuery) -> None:
    swapped = MadeQuery(
        made.ident, made.flags, made.qname.upper(), made.qtype, made.qclass, made.opt
    )
    query, other = asked(made), asked(swapped)
    assert key_of(query) == key_of(other)
    assert other.octets[12 : other.question_end - 4] == made.qname.upper()


def test_rd_cd_and_do_are_kept_apart_by_the_key_but_ad_is_not() -> None:
    keys = set()
    for flags in (0, RD, CD, RD | CD):
        for opt in (b"", BARE_OPT):
            for ad in (0, AD):
                keys.add(key_of(asked(MadeQuery(1, flags | ad, NAME, 1, 1, opt))))
    assert len(keys) == 8


@pytest.mark.parametrize("marks", range(ALL_MARKS + 1))
def test_keys_of_one_name_with_other_types_agree_in_all_but_the_type(marks: int) -> None:
    key = make_key(NAME + b"\0\1\0\1", marks)
    other = with_type(key, b"\0\x1c")
    assert other == NAME + b"\0\x1c\0\1" + bytes([marks])
    assert without_type(key) == without_type(other) == NAME + b"\0\1" + bytes([marks])
