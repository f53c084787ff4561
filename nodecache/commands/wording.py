"""Values in plain words: durations, sizes, lists, and whether a value is the default."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from nodecache.config.model import Name
from nodecache.config.values import printable

Row = tuple[str, str]  # what a line is about, "" for the same as above; what it says

_LABEL_CELLS = 14
_LINE_CELLS = 100
_MOST_SHOWN = 12
# What belongs to the word before it, and must not begin a line.
_TIED = re.compile(r" (?=\(default\)|(?:ms|s|min|h|%|[KMG]iB|octets)(?![a-z]))")
_TIE = "\N{NO-BREAK SPACE}"
_UNITS = ((3600, "h"), (60, "min"), (1, "s"))
_OCTET_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def duration(seconds: float) -> str:
    """Returns "30 s", "5 min", "400 ms": the largest unit that needs no fraction."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.6g} ms"
    for unit_s, unit in _UNITS[:-1]:
        if seconds >= unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.9g} s"


def octets(count: int) -> str:
    """Returns "32 MiB", "1232 octets"."""
    for unit_octets, unit in _OCTET_UNITS:
        if count >= unit_octets and count % unit_octets == 0:
            return f"{count // unit_octets} {unit}"
    return f"{count} octets"


def marked(text: str, value: object, default: object) -> str:
    """Returns ``text``, with "(default)" behind it if ``value`` is the default."""
    return f"{text} (default)" if value == default else text


def some(items: Iterable[str]) -> str:
    """Returns the items with commas between them, of a long list the beginning."""
    texts = list(items)
    left = len(texts) - _MOST_SHOWN
    return ", ".join([*texts[:_MOST_SHOWN], *([f"and {left} more"] if left > 0 else [])])


def names(zones: Sequence[Name]) -> str:
    """Returns names as they are written, ``some`` of them."""
    return some(zone.text for zone in zones)


def below(zones: Sequence[Name]) -> str:
    """Returns which names lie below ``zones``, as part of a sentence."""
    if any(zone.text == "." for zone in zones):
        return "all names"
    return f"names below {names(zones)}"


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
