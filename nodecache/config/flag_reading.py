"""Reads a command line by a table of flags, and makes the text of its help.

Syntax is that of Go's flag package, as node-cache has it: one dash or two, ``-flag value`` or
``-flag=value``, and booleans as ``-flag`` or ``-flag=false``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nodecache.config.values import nearest
from nodecache.errors import Fault
from nodecache.printing import shown


@dataclass(frozen=True, slots=True)
class Flag:
    """One row of the table.

    Attributes:
        names: As written without dashes; the first is the one that help shows.
        field: Attribute of Flags.
        value: Placeholder for help; "" for a boolean.
        parse: Text to value; ValueError with a sentence.
        default: For help.
        text: What it does, for help.
    """

    names: tuple[str, ...]
    field: str
    value: str
    parse: Callable[[str], object]
    default: str
    text: str


TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


def parse_truth(text: str) -> bool:
    """Returns what Go takes for a boolean; ValueError for anything else."""
    if text not in TRUTHS:
        raise ValueError(f"{shown(text)} is neither true nor false")
    return TRUTHS[text]


def boolean(name: str, field: str, default: str, text: str) -> Flag:
    """Returns the row of a flag that is on or off."""
    return Flag((name,), field, "", parse_truth, default, text)


Table = Mapping[str, Sequence[Flag]]  # title of a group -> its rows, in the order of help


def help_rows(table: Table) -> str:
    """Returns what help says of all flags, group by group."""
    parts = []
    for title, rows in table.items():
        parts.append(f"\n{title}:\n")
        parts += [_help_row(row) for row in rows]
    return "".join(parts)


def _help_row(row: Flag) -> str:
    names = ", ".join(f"-{name}" for name in row.names)
    value = f" {row.value}" if row.value else ""
    return f"  {names}{value}\n        {row.text} (default {row.default})\n"


class Reading:
    """One pass over the command line.

    Attributes:
        values: Field -> value; the last one counts when a flag is given twice.
        faults: One sentence each.
        faulty: Fields whose flag was given a value that is none.
    """

    def __init__(self, words: Sequence[str], table: Table) -> None:
        self._by_name = {
            name: flag for group in table.values() for flag in group for name in flag.names
        }
        self.values: dict[str, object] = {}
        self.faults: list[str] = []
        self.faulty: set[str] = set()
        self._words = list(words)[::-1]
        while self._words:
            self._read(self._words.pop())

    def all_faults(self) -> list[Fault]:
        """Returns each fault once, as the others of a configuration are."""
        return [Fault("command line", 0, 0, text) for text in dict.fromkeys(self.faults)]

    def _read(self, word: str) -> None:
        name, equals, text = _without_dashes(word).partition("=")
        if word in ("-", "--") or not word.startswith("-"):
            self.faults.append(f"{shown(word)} belongs to no flag{_hint_for_truth(word)}")
        elif name not in self._by_name:
            self.faults.append(f"unknown flag {shown('-' + name)}{self._hint_for_name(name)}")
            self._skip_value()
        elif equals or not self._by_name[name].value:
            self._set(name, text if equals else "true")
        elif not self._words or self._is_flag(self._words[-1]):
            self.faulty.add(self._by_name[name].field)
            self.faults.append(f"-{name} needs a value: write -{name} {self._by_name[name].value}")
        else:
            self._set(name, self._words.pop())

    def _set(self, name: str, text: str) -> None:
        flag = self._by_name[name]
        try:
            self.values[flag.field] = flag.parse(text)
        except ValueError as error:
            self.faulty.add(flag.field)
            self.faults.append(f"-{name}: {error}")

    def _skip_value(self) -> None:
        """Leaves out the value of an unknown flag, so that one slip is one fault."""
        if self._words and not self._words[-1].startswith("-"):
            self._words.pop()

    def _is_flag(self, word: str) -> bool:
        return word.startswith("-") and _without_dashes(word).partition("=")[0] in self._by_name

    def _hint_for_name(self, name: str) -> str:
        return nearest(name, self._by_name).replace("'", "'-", 1) or "; see -help"


def _without_dashes(word: str) -> str:
    return word[2:] if word.startswith("--") else word[1:]


def _hint_for_truth(word: str) -> str:
    return f"; write booleans as -flag={word}" if word in TRUTHS else ""
