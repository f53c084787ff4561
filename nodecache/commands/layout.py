"""Rows of ``nodecache explain`` on a page: labels aligned, long lines folded."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from nodecache.config.wording import Row
from nodecache.printing import printable

_LABEL_CELLS = 14
_LINE_CELLS = 100
# What belongs to the word before it, and must not begin a line.
_TIED = re.compile(r" (?=\(default\)|(?:ms|s|min|h|%|[KMG]iB|octets)(?![a-z]))")
_TIE = "\N{NO-BREAK SPACE}"


def lay_out(title: str, rows: Iterable[Row]) -> str:
    """Returns a title and its rows, labels aligned, long lines folded, all safe to print."""
    lines = [printable(title)]
    for label, text in rows:
        lines += _fold(label, printable(text))
    return "\n".join(lines) + "\n"


def _fold(label: str, text: str) -> Iterator[str]:
    margin = " " * (2 + _LABEL_CELLS)
    folded = textwrap.wrap(
        _TIED.sub(_TIE, text),
        _LINE_CELLS,
        initial_indent=f"  {label:<{_LABEL_CELLS}}",
        subsequent_indent=f"{margin}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    yield from (line.replace(_TIE, " ") for line in folded)
