from __future__ import annotations

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.resolve.cname_chase import add_answers, find_open_target


def response(rtype: str, *records: str) -> bytes:
    """A response to a.example. with ``records`` as its answer section."""
    lines = ["id 0", "flags QR", ";QUESTION", f"a.example. IN {rtype}", ";ANSWER", *records]
    return dns.message.from_text("\n".join(lines)).to_wire()


def test_cname_without_its_address_is_open() -> None:
    octets = response("AAAA", "a.example. 60 IN CNAME B.example.", "b.example. 60 IN CNAME c.")
    assert find_open_target(octets) == b"\1c\0" + b"\0\x1c\0\1"


@pytest.mark.parametrize(
    "octets",
    [
        response("A"),
        response("A", "a.example. 60 IN A 192.0.2.1"),
        response("A", "a.example. 60 IN CNAME b.", "b. 60 IN A 192.0.2.1"),
        response("MX", "a.example. 60 IN CNAME b."),
        response("A", "x.example. 60 IN CNAME b."),
        response("A", "a.example. 60 IN CNAME b.", "b. 60 IN CNAME a.example."),
        b"",
    ],
)
def test_what_is_whole_or_endless_is_not_open(octets: bytes) -> None:
    assert find_open_target(octets) is None


def test_answers_are_added_behind() -> None:
    first = response("A", "a.example. 60 IN CNAME b.example.")
    more = response("A", "b.example. 30 IN A 192.0.2.1")
    texts = [rrset.to_text() for rrset in dns.message.from_wire(add_answers(first, more)).answer]
    assert texts == ["a.example. 60 IN CNAME b.example.", "b.example. 30 IN A 192.0.2.1"]
    assert add_answers(first, b"broken") == first


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_nothing_raises(first: bytes, second: bytes) -> None:
    assert find_open_target(first) is None or len(first) > 12
    assert add_answers(first, second) == first or len(first) > 12
