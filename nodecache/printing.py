"""What is shown to people, in a fault, a log line, on a terminal: text of others, and moments."""

from __future__ import annotations

from datetime import UTC, datetime

_MAX_SHOWN = 60


def shown(text: str) -> str:
    """Returns ``text`` in quotes, cut to 60 characters and safe to print on a terminal."""
    cut = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
    return f"'{printable(cut)}'"


def printable(text: str) -> str:
    """Returns ``text`` with everything escaped that a terminal could act on, or cannot show."""
    return "".join(c if c.isprintable() and c != "\ufffd" else _escaped(c) for c in text)


def moment(seconds: float) -> str:
    """Returns a time in Unix seconds as a date and time of day (RFC 3339), in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an octet that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
