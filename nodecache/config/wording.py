"""Values in plain words: durations, sizes, lists, and whether a value is the default."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nodecache.config.model import Address, Name

Row = tuple[str, str]  # what a line is about, "" for the same as above; what it says

# Rows of one kind.
MOST_ROWS = 10

_MOST_SHOWN = 12
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


def url(address: Address) -> str:
    """Returns where pages of an address are found; the host is "*" for every address."""
    return f"http://{address}" if address.host else f"http://*:{address.port}"
