from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.corefile import decode_text
from nodecache.printing import moment, printable, shown


def test_shown_text_is_one_safe_line() -> None:
    assert shown("a\n\x1b\ud800") == r"'a\n\x1b\ud800'"


def test_octets_that_are_no_utf8_are_shown_as_what_they_are() -> None:
    assert shown(decode_text(b"caf\xe9\x00\xe2\x80\xa8")) == r"'caf\xe9\x00\u2028'"
    assert shown("caf\ufffd") == r"'caf\ufffd'"


@given(st.text())
def test_any_text_is_safe_on_a_terminal_and_utf8(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text).encode().decode() == printable(text)
    assert len(shown(text * 60)) <= 60 * 10 + 2


def test_a_moment_is_a_date_in_utc() -> None:
    assert moment(0.9) == "1970-01-01T00:00:00+00:00"
