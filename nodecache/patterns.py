"""Regular expressions that users write: RE2's syntax, which is Go's, matched by google-re2.

Python's own engine backtracks without a bound, so that a name made for the pattern could hold up
every answer; RE2's time is at most the pattern's steps times the characters. Only ASCII is
matched, because names in presentation format and texts of errors are nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nodecache.printing import shown

_MAX_CHARACTERS = 10_000
_MAX_STEPS = 4000
_MAX_GROUPS = 100
_MAX_MEMORY_OCTETS = 1024 * 1024  # of one pattern with what RE2 remembers of texts


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that was understood; Expression matches it.

    Attributes:
        text: As it was written.
        groups: The name of each group, "" without one; the first is the whole match.
        steps: How large it is, 4000 at most.
    """

    text: str
    groups: tuple[str, ...]
    steps: int


class Expression:
    """A pattern ready to be matched.

    Args:
        text: A pattern that ``parse_pattern`` took.
    """

    __slots__ = ("_places", "_search")

    def __init__(self, text: str) -> None:
        compiled = _compile(text)
        self._search = compiled.search
        self._places = range(compiled.groups + 1)

    def find_groups(self, text: str) -> list[str] | None:
        """Returns the whole leftmost match and what each group matched, None if there is none.

        A group that took no part is "". What is not ASCII counts as "?". Raises nothing.

        Args:
            text: At most about 1000 characters, what a name of 255 octets can become.
        """
        found = self._search(text.encode("ascii", "replace"))
        if found is None:
            return None
        return [found[place].decode() if found[place] else "" for place in self._places]


def parse_pattern(text: str) -> Pattern:
    """Returns the regular expression that ``text`` writes in RE2's syntax.

    Args:
        text: At most 10,000 characters of ASCII; it may make 4000 steps and 100 groups.

    Raises:
        ValueError: With a sentence that says why it is none.
    """
    try:
        return _parse(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is no regular expression: {error}") from None


def _parse(text: str) -> Pattern:
    if not text.isascii():
        raise ValueError("names are matched in ASCII; write an international one in its xn-- form")
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"it has more than {_MAX_CHARACTERS} characters")
    compiled = _compile(text)
    if compiled.programsize > _MAX_STEPS:
        raise ValueError(f"it takes more than {_MAX_STEPS} steps: shorten it or its repetitions")
    if compiled.groups > _MAX_GROUPS:
        raise ValueError(f"it has more than {_MAX_GROUPS} groups: write (?:...) where none is used")
    names = {place: name.decode() for name, place in compiled.groupindex.items()}
    for name in names.values():
        # Go refuses it, too; RE2 would take the first one.
        if text.count(f"(?P<{name}>") + text.count(f"(?<{name}>") > 1:
            raise ValueError(f"two groups have the name {name}")
    groups = tuple(names.get(place, "") for place in range(compiled.groups + 1))
    return Pattern(text, groups, compiled.programsize)


def _compile(text: str) -> Any:
    # Not before a directive has a regular expression: it takes 2 MB.
    import re2  # noqa: PLC0415

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # so that a character is one step
    options.log_errors = False
    options.max_mem = _MAX_MEMORY_OCTETS
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        raise ValueError(_explain(error.args[0].decode("latin-1"))) from None


def _explain(reason: str) -> str:
    """RE2's ``kind: part of the pattern`` as a part of a sentence."""
    kind, _, part = reason.partition(": ")
    if kind == "invalid perl operator":
        return f"{shown(part)} begins nothing that RE2 knows: no look-around and no back-reference"
    if kind == "pattern too large - compile failed":
        return f"it takes more than {_MAX_STEPS} steps: shorten it or its repetitions"
    return f"{kind}: {shown(part)}" if part else kind
