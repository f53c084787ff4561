from __future__ import annotations

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.wire.text import name_text

_NAMES = st.lists(st.binary(min_size=1, max_size=30), max_size=8).map(
    lambda labels: b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
)


@given(_NAMES)
def test_text_means_the_name_it_was_made_of(wire: bytes) -> None:
    text = name_text(wire)
    assert dns.name.from_text(text).to_wire() == wire
    assert text.isascii()
    assert not any(character.isspace() for character in text)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (b"a-_*$", "a-_*$."),
        (b".\"\\'@;()", "\\.\\\"\\\\\\'\\@\\;\\(\\)."),
        (b" \0\x7f\xff", "\\032\\000\\127\\255."),
    ],
)
def test_what_a_reader_could_misunderstand_is_escaped(label: bytes, text: str) -> None:
    assert name_text(bytes([len(label)]) + label + b"\0") == text


def test_root_is_a_dot() -> None:
    assert name_text(b"\0") == "."
