"""The part of Go's text/template that makes records: text with values of the question in it.

Understood are the fields below, ``index`` of .Match and .Group, ``parseInt``, and literals in
quotes; everything else is refused by name. directives/template/rendering.py fills them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

UNDERSTOOD = (
    "understood are .Name, .Zone, .Class, .Type, .Question.Name, .Question.Qtype,"
    " .Question.Qclass, .Group.NAME, index .Group NAME, index .Match N, parseInt TEXT BASE BITS"
    " and quoted text"
)
_MAX_DEPTH = 10

_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)(\s-)?\}\}", re.DOTALL)
_COMMENT = re.compile(r"(?:\s*\{\{-\s|\{\{)/\*.*?\*/(?:\s-\}\}\s*|\}\})", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*+"|`[^`]*`)|(?P<number>0|[1-9][0-9]{0,8})(?![\w.])"""
    r"""|(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<word>[A-Za-z_]\w*)|(?P<mark>[()]))"""
)
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"])|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = dict(zip('abfnrtv\\"', '\a\b\f\n\r\t\v\\"', strict=True))

_FIELDS = {
    ".Name": "name",
    ".Zone": "zone",
    ".Class": "rclass",
    ".Type": "rtype",
    ".Question.Name": "name",
    ".Question.Qtype": "qtype",
    ".Question.Qclass": "qclass",
}
_SHARED = "because the answer is kept for all clients: remove it"
_REFUSED = {
    ".Remote": f"is not understood, {_SHARED}",
    ".Message": f"is not understood, {_SHARED}",
    ".Meta": f"is not understood, {_SHARED}",
    ".Question": "alone is not understood: write .Question.Name",
    ".Var": "is not understood: 'var' is no part of node-cache; write the value itself",
    ".Regex": "is not understood: write the value itself",
    ".Match": "alone is not understood: write index .Match N",
    ".Group": "alone is not understood: write .Group.NAME",
}
_CONTROLS = {
    "if", "else", "end", "range", "with", "define", "template", "block", "break", "continue",
}  # fmt: skip


class Value(NamedTuple):
    """What one action stands for.

    Attributes:
        kind: "text", "field", "match", "group" (nothing is an error), "index" (nothing is ""),
            or "number" (parseInt).
        word: The text, the field of Facts in
            directives/template/rendering.py, or the group.
        place: Of .Match.
        of: What parseInt reads.
        base, bits: Of parseInt.
    """

    kind: str
    word: str = ""
    place: int = 0
    of: tuple[Value, ...] = ()
    base: int = 10
    bits: int = 64


Part: TypeAlias = str | Value


@dataclass(frozen=True, slots=True)
class RecordText:
    """One record with actions in it.

    Attributes:
        label: As Go writes the template, for the label of the metrics.
        parts: Texts and values in turn.
    """

    label: str
    parts: tuple[Part, ...]

    @property
    def fixed(self) -> str | None:
        """The whole text when no action is in it, else None."""
        texts = [part for part in self.parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(self.parts) else None


def parse_record_text(text: str) -> RecordText:
    """Returns the template that ``text`` writes.

    Raises:
        ValueError: With a sentence that names what is not understood.
    """
    text = _COMMENT.sub("", text)
    parts: list[Part] = []
    label = ""
    position = 0
    trims = False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trims else before
        before = before.rstrip() if match[1] else before
        action = _Action(match[2])
        parts += [part for part in (before, action.value) if part]
        label += f"{before}{{{{{action.label}}}}}"
        position = match.end()
        trims = bool(match[3])
    rest = text[position:].lstrip() if trims else text[position:]
    if "{{" in rest:
        raise ValueError("a '{{' is never closed: add '}}'")
    return RecordText(label + rest, tuple(parts) + ((rest,) if rest else ()))


class _Action:
    """What stands between ``{{`` and ``}}``."""

    def __init__(self, text: str) -> None:
        self._tokens = _split_action(text)
        self._at = 0
        self._depth = 0
        self.value = self._value()
        if self._at < len(self._tokens):
            raise ValueError(f"{self._tokens[self._at][1]!a} is too much here; {UNDERSTOOD}")
        self.label = " ".join(text for _, text in self._tokens)
        self.label = self.label.replace("( ", "(").replace(" )", ")")

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise ValueError(f"a value is missing between '{{{{' and '}}}}'; {UNDERSTOOD}")
        self._at += 1
        return self._tokens[self._at - 1]

    def _value(self) -> Value:
        kind, text = self._next()
        if kind == "text":
            return Value("text", _unquote(text))
        if kind == "number":
            return Value("text", str(int(text)))
        if kind == "field":
            return _field_value(text)
        if text == "(":
            return self._in_parentheses()
        if text == "index":
            return self._index()
        if text == "parseInt":
            return self._number()
        raise ValueError(_refusal(text))

    def _in_parentheses(self) -> Value:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("parentheses nest more than 10 deep")
        value = self._value()
        if self._next()[1] != ")":
            raise ValueError(f"a '(' is never closed; {UNDERSTOOD}")
        self._depth -= 1
        return value

    def _index(self) -> Value:
        field, (kind, key) = self._next()[1], self._next()
        if field == ".Match" and kind == "number":
            return Value("match", place=int(key))
        if field == ".Group" and kind == "text":
            return Value("index", _unquote(key))
        raise ValueError(f"index takes .Match and a number, or .Group and a quoted name: {key!a}")

    def _number(self) -> Value:
        start = self._at
        kind, _ = self._next()
        self._at = start
        if kind == "word":
            raise ValueError("parseInt takes a text first: put parentheses around the function")
        value = self._value()
        base, bits = self._integer(), self._integer()
        if not (2 <= base <= 36 and 0 <= bits <= 64):
            raise ValueError("parseInt takes a text, a base of 2 to 36 and 0 to 64 bits")
        return Value("number", of=(value,), base=base, bits=bits or 64)

    def _integer(self) -> int:
        kind, text = self._next()
        if kind != "number":
            raise ValueError("parseInt takes a text, a base of 2 to 36 and 0 to 64 bits")
        return int(text)


def _split_action(text: str) -> list[tuple[str, str]]:
    """Kind and text of each word of an action."""
    tokens = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ValueError(_refusal(text[position:].lstrip()))
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return tokens


def _refusal(text: str) -> str:
    """Why an action's word is refused."""
    if text in _CONTROLS:
        return f"the control structure {text!a} is not understood; {UNDERSTOOD}"
    if text[:1] == "|":
        return f"pipelines are not understood; {UNDERSTOOD}"
    if text[:1] == "$":
        return f"variables are not understood; {UNDERSTOOD}"
    return f"{text[:40]!a} is not understood; {UNDERSTOOD}"


def _field_value(text: str) -> Value:
    if text in _FIELDS:
        return Value("field", _FIELDS[text])
    first = "." + text.split(".")[1]
    if first == ".Group" and text.count(".") == 2:
        return Value("group", text.split(".")[2])
    if first in _REFUSED:
        raise ValueError(f"{first} {_REFUSED[first]}; {UNDERSTOOD}")
    raise ValueError(f"there is no {text[:40]}; {UNDERSTOOD}")


def _unquote(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    return _ESCAPE.sub(_escaped, text[1:-1])


def _escaped(match: re.Match[str]) -> str:
    if match[3]:
        raise ValueError(f"the escape \\{match[3]} in a quoted text is not understood")
    return _ESCAPED[match[1]] if match[1] else chr(int(match[2], 16))
