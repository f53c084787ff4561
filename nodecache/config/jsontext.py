"""JSON text as values that know where they stand; knows nothing of what they mean."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

_MAX_DEPTH = 8

# What stands for itself in a text that is known to be JSON, in the order in which it is read.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]]|[^\s{}\[\]:,"]++')


class Shape(enum.Enum):
    """What a value is, in words for users."""

    OBJECT = "an object"
    LIST = "a list"
    STRING = "a string"
    SCALAR = "a bare word or number"


@dataclass(frozen=True, slots=True)
class Value:
    """One value.

    Attributes:
        shape: Which of the others counts.
        line, column: Of its first character, from 1.
        text: Of a STRING, decoded; of a SCALAR as written.
        items: Of a LIST.
        members: Of an OBJECT: (name, value) pairs in file order, equal names included.
    """

    shape: Shape
    line: int
    column: int
    text: str = ""
    items: tuple[Value, ...] = ()
    members: tuple[tuple[Value, Value], ...] = ()


class JsonTextError(ValueError):
    """The text is no JSON; ``line`` and ``column`` say where that shows."""

    def __init__(self, line: int, column: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.column = column


class _Pairs(tuple[tuple[str, Any], ...]):
    """An object with all its members: of two equal names json would keep the last."""

    __slots__ = ()


def parse_json(text: str) -> Value:
    """Returns the one value that ``text`` holds (RFC 8259).

    Raises:
        JsonTextError: Also when values nest more than 8 deep.
    """
    import json  # noqa: PLC0415 # 0.1 MB, where there is a ConfigMap

    try:
        found = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise JsonTextError(error.lineno, error.colno, "this is no JSON from here on") from None
    except (ValueError, RecursionError):
        raise JsonTextError(1, 1, "this is no JSON") from None
    return _place(found, _places(text), 1)


def _refuse(_constant: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")


def _places(text: str) -> Iterator[Value]:
    """Yields line, column and text of each token, as a SCALAR."""
    line, line_start, seen = 1, 0, 0
    for match in _TOKEN.finditer(text):
        breaks = text.count("\n", seen, match.start())
        if breaks:
            line += breaks
            line_start = text.rindex("\n", seen, match.start()) + 1
        seen = match.start()
        yield Value(Shape.SCALAR, line, match.start() - line_start + 1, match[0])


def _place(found: object, tokens: Iterator[Value], depth: int) -> Value:
    """Returns ``found`` with the places of its tokens, which come in the same order."""
    first = next(tokens)
    if depth > _MAX_DEPTH:
        raise JsonTextError(first.line, first.column, "nests more than 8 deep")
    if isinstance(found, str):
        # A lone half of a surrogate pair would be no text that can be written to a file.
        whole = found.encode("utf-8", "replace").decode("utf-8")
        return replace(first, shape=Shape.STRING, text=whole)
    if isinstance(found, _Pairs):
        members = tuple(
            (_place(name, tokens, depth + 1), _place(value, tokens, depth + 1))
            for name, value in found
        )
        next(tokens)  # the closing brace
        return replace(first, shape=Shape.OBJECT, text="", members=members)
    if isinstance(found, list):
        items = tuple([_place(item, tokens, depth + 1) for item in found])
        next(tokens)
        return replace(first, shape=Shape.LIST, text="", items=items)
    return first
