"""Shows faults and warnings to people: place, text, the line of the file, and a caret below.

Whoever wrote the file may have put anything into it: nothing reaches a terminal that acts on it.
"""

from __future__ import annotations

import re
import unicodedata

from nodecache.config.assemble import CorefileText
from nodecache.config.corefile import Reader
from nodecache.errors import Fault
from nodecache.printing import printable

_MAX_CHARACTERS = 120  # of a faulty line that are shown
_TAB_CELLS = 8
_WIDE = ("W", "F")  # UAX 11: two cells of a terminal
_WITHOUT_CELL = ("Mn", "Me")  # accents and the like, drawn over what stands before
_PLACED = re.compile(r"(.+?):([0-9]{1,9}):([0-9]{1,9}): (.*)", re.DOTALL)


class Excerpts:
    """Finds the lines that faults are about; each file is read once.

    Args:
        corefile: Its source is at hand, and need not be read again.
        reader: Reads all other files.
    """

    def __init__(self, corefile: CorefileText, reader: Reader) -> None:
        self._reader = reader
        self._lines: dict[str, list[str]] = {}
        if corefile.source:
            self._lines[corefile.path] = corefile.source.split("\n")

    def show_fault(self, fault: Fault) -> str:
        """Returns ``file:line:column: text``, and below it the line with a caret, if it is known.

        Always ends with a line break; raises nothing.
        """
        return f"{printable(str(fault))}\n{self._excerpt(fault)}"

    def show_warning(self, warning: str) -> str:
        """Returns the same of a warning, which carries its place in its text, or has none."""
        found = _PLACED.fullmatch(warning)
        if not found:
            return f"{printable(f'warning: {warning}')}\n"
        line, column = int(found[2]), int(found[3])
        return self.show_fault(Fault(found[1], line, column, f"warning: {found[4]}"))

    def _excerpt(self, fault: Fault) -> str:
        if not (fault.line and fault.column):
            return ""
        lines = self._lines_of(fault.file)
        if fault.line > len(lines):
            return ""
        return _draw(lines[fault.line - 1], fault.line, fault.column)

    def _lines_of(self, file: str) -> list[str]:
        if file not in self._lines:
            try:
                self._lines[file] = self._reader.read_text(file).split("\n")
            except (OSError, ValueError):
                self._lines[file] = []
        return self._lines[file]


def _draw(line: str, number: int, column: int) -> str:
    """A line and its caret; of a long line, what stands around the column."""
    start = max(0, column - _MAX_CHARACTERS // 2)
    part = line[start : start + _MAX_CHARACTERS]
    before = "..." if start else ""
    behind = "..." if start + len(part) < len(line) else ""
    margin = f"{number:>5} | {before}"
    shown, cells = _lay_out(part, min(column - 1 - start, len(part)))
    text = f"{margin}{shown}{behind}".rstrip()
    return f"{text}\n{' ' * (len(margin) + cells)}^\n"


def _lay_out(part: str, at: int) -> tuple[str, int]:
    """What to print for ``part``, and how many cells of it stand before its character ``at``."""
    shown: list[str] = []
    cells = cells_before = 0
    for index, character in enumerate(part):
        if index == at:
            cells_before = cells
        text, width = _cell(character, cells)
        shown.append(text)
        cells += width
    return "".join(shown), cells_before if at < len(part) else cells


def _cell(character: str, position: int) -> tuple[str, int]:
    """What to print for one character, and the cells that it takes."""
    if character == "\t":
        width = _TAB_CELLS - position % _TAB_CELLS
        return " " * width, width
    if not character.isprintable():
        return " ", 1
    if unicodedata.category(character) in _WITHOUT_CELL:
        return character, 0
    return character, 2 if unicodedata.east_asian_width(character) in _WIDE else 1
