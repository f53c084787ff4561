"""JSON text as values that know where they stand; knows nothing of what they mean.

RFC 8259, strictly, with bounds: Python's own parser keeps no places, keeps only the last of two
equal names, and recurses as deep as the text asks for.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import NoReturn

from nodecache.config.values import shown

_MAX_DEPTH = 8
_MAX_VALUES = 20_000

_TOKEN = re.compile(
    r"""[ \t\r\n]*+(?:
      (?P<mark>[{}\[\]:,])
    | (?P<string>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*+")
    | (?P<scalar>(?:true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)
        (?![^\s{}\[\]:,"]))
    | (?P<other>"|[^\s{}\[\]:,"]++|[^ \t\r\n])
    )""",
    re.VERBOSE,
)


class Kind(enum.Enum):
    """What a value is, in words for users."""

    OBJECT = "an object"
    LIST = "a list"
    STRING = "a string"
    SCALAR = "a bare word or number"


@dataclass(frozen=True, slots=True)
class Value:
    """One value.

    Attributes:
        kind: Which of the others counts.
        line, column: Of its first character, from 1.
        text: Of a STRING, decoded; of a SCALAR as written.
        items: Of a LIST.
        members: Of an OBJECT: (name, value) pairs in file order, equal names included.
    """

    kind: Kind
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


def parse_json(text: str) -> Value:
    """Returns the one value that ``text`` holds.

    Raises:
        JsonTextError: Also when values nest more than 8 deep or are more than 20,000.
    """
    reading = _Reading(text)
    value = reading.value(1)
    reading.end()
    return value


@dataclass(frozen=True, slots=True)
class _Token:
    group: str  # of _TOKEN, or "" at the end
    text: str
    line: int
    column: int


class _Reading:
    """Recursive descent over one text; places are counted on, never from the start again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._line = 1
        self._line_start = 0
        self._value_count = 0
        self._token = self._scan()

    def value(self, depth: int) -> Value:
        token = self._take()
        self._value_count += 1
        if depth > _MAX_DEPTH or self._value_count > _MAX_VALUES:
            self._fail(token, "nests more than 8 deep, or holds more than 20,000 values")
        if token.text == "{" and token.group == "mark":
            return Value(Kind.OBJECT, token.line, token.column, members=self._members(depth))
        if token.text == "[" and token.group == "mark":
            return Value(Kind.LIST, token.line, token.column, items=self._items(depth))
        if token.group == "string":
            return self._string(token)
        if token.group != "scalar":
            self._fail_expected(token, "a value")
        return Value(Kind.SCALAR, token.line, token.column, token.text)

    def end(self) -> None:
        if self._token.group:
            self._fail(self._token, f"{shown(self._token.text)} follows the end of the JSON text")

    def _string(self, token: _Token) -> Value:
        # A lone half of a surrogate pair would be no text that can be written to a file.
        import json  # noqa: PLC0415 # 0.1 MB, where there is a ConfigMap

        text = json.loads(token.text).encode("utf-8", "replace").decode("utf-8")
        return Value(Kind.STRING, token.line, token.column, text)

    def _members(self, depth: int) -> tuple[tuple[Value, Value], ...]:
        members: list[tuple[Value, Value]] = []
        while not self._closes("}", is_first=not members):
            name = self._take()
            if name.group != "string":
                self._fail_expected(name, "a name in double quotes")
            colon = self._take()
            if colon.text != ":":
                self._fail_expected(colon, "':'")
            members.append((self._string(name), self.value(depth + 1)))
        return tuple(members)

    def _items(self, depth: int) -> tuple[Value, ...]:
        items: list[Value] = []
        while not self._closes("]", is_first=not items):
            items.append(self.value(depth + 1))
        return tuple(items)

    def _closes(self, mark: str, *, is_first: bool) -> bool:
        """Takes the closing mark, or the comma in front of what follows."""
        token = self._token
        if token.text == mark and token.group == "mark":
            self._take()
            return True
        if not is_first and token.text != ",":
            self._fail_expected(token, f"',' or '{mark}'")
        if not is_first:
            self._take()
        return False

    def _take(self) -> _Token:
        token, self._token = self._token, self._scan() if self._token.group else self._token
        return token

    def _scan(self) -> _Token:
        match = _TOKEN.match(self._text, self._offset)
        start = match.start(match.lastgroup or 0) if match else len(self._text)
        breaks = self._text.count("\n", self._offset, start)
        if breaks:
            self._line += breaks
            self._line_start = self._text.rindex("\n", 0, start) + 1
        self._offset = match.end() if match else start
        text = self._text[start : self._offset]
        group = (match.lastgroup or "") if match else ""
        return _Token(group, text, self._line, start - self._line_start + 1)

    def _fail_expected(self, token: _Token, what: str) -> NoReturn:
        if not token.group:
            self._fail(token, f"the text ends where {what} should follow")
        if token.text.startswith('"') and token.group == "other":
            self._fail(token, "this string is never closed, or holds a line break or a bad escape")
        self._fail(token, f"{shown(token.text)} stands where {what} should")

    def _fail(self, token: _Token, text: str) -> NoReturn:
        raise JsonTextError(token.line, token.column, text)
