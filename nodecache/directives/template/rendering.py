"""Fills the texts of ``template`` with what is known of one question."""

from __future__ import annotations

import string
from typing import NamedTuple

from nodecache.templates import RecordText, Value

_MAX_CHARACTERS = 65_536
_DIGITS = string.digits + string.ascii_lowercase
_NO_VALUE = "<no value>"  # what Go writes for a key that a map lacks


class Facts(NamedTuple):
    """What the values of a template are taken from.

    Attributes:
        name: QNAME in presentation format, lower case, final dot.
        zone: The zone that matched.
        rclass, rtype: Their names.
        qclass, qtype: Their numbers as text.
        match: The whole match, then each group.
        groups: Groups by name, and by number as text.
    """

    name: str
    zone: str
    rclass: str
    rtype: str
    qclass: str
    qtype: str
    match: list[str]
    groups: dict[str, str]


def render(text: RecordText, facts: Facts) -> str | None:
    """Returns the record's text, None where Go's template would fail. Raises nothing.

    A text beyond 65,536 characters fails, too.
    """
    rendered = []
    size = 0
    for part in text.parts:
        found = part if isinstance(part, str) else _evaluate(part, facts)
        if found is None:
            return None
        size += len(found)
        if size > _MAX_CHARACTERS:
            return None
        rendered.append(found)
    return "".join(rendered)


def _evaluate(value: Value, facts: Facts) -> str | None:
    if value.kind == "text":
        return value.word
    if value.kind == "field":
        return str(getattr(facts, value.word))
    if value.kind == "match":
        return facts.match[value.place] if value.place < len(facts.match) else None
    if value.kind == "group":
        return facts.groups.get(value.word, _NO_VALUE)
    if value.kind == "index":
        return facts.groups.get(value.word, "")
    text = _evaluate(value.of[0], facts)
    return None if text is None else _parse_unsigned(text, value.base, value.bits)


def _parse_unsigned(text: str, base: int, bits: int) -> str | None:
    """Returns the number in decimal digits; None if ``text`` is none, or it needs more bits."""
    digits = text.lower()
    if not digits or not set(digits) <= set(_DIGITS[:base]):
        return None
    digits = digits.lstrip("0") or "0"
    # In base 2 it is 64 digits at most; longer ones need not be reckoned.
    number = int(digits, base) if len(digits) <= bits else 1 << bits
    return str(number) if number < 1 << bits else None
