"""Single values of flags and directives: numbers, durations, sizes, addresses.

Each ``parse_`` function takes the text of one word and raises ValueError with a sentence that
says what to write instead; where the word stood is the caller's knowledge.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from nodecache.config.model import Address
from nodecache.limits import PORT, Limit
from nodecache.printing import shown

_Number = TypeVar("_Number", int, float)

_MAX_COMPARED = 60  # characters
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_UNIT_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "\N{MICRO SIGN}s": 1e-6,
    "\N{GREEK SMALL LETTER MU}s": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_TERM = re.compile(
    rf"([0-9]{{1,18}}(?:\.[0-9]{{0,18}})?|\.[0-9]{{1,18}})({'|'.join(_UNIT_S)})(?![a-z])"
)
_IP = re.compile(r"[0-9a-f:.]+(%[0-9A-Za-z_.@-]{1,15})?")  # a Linux interface: 15 octets at most
_OCTETS = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB|)")
_UNIT_OCTETS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the most similar known word, or "" if none is near."""
    import difflib  # noqa: PLC0415 # 0.15 MB, for a fault only

    found = difflib.get_close_matches(word[:_MAX_COMPARED], list(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


def within(parse: Callable[[str], _Number], limit: Limit) -> Callable[[str], _Number]:
    """Returns ``parse`` with the bounds of ``limit`` added."""

    def parse_within(text: str) -> _Number:
        value = parse(text)
        refusal = limit.refusal(value)
        if refusal:
            raise ValueError(refusal)
        return value

    return parse_within


def parse_integer(text: str) -> int:
    """Returns the whole number that ``text`` writes in decimal digits."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{shown(text)} is no whole number")
    return int(text)


def parse_duration_s(text: str) -> float:
    """Returns the seconds of a duration in Go's syntax: 500ms, 30s, 1h30m, 0."""
    if text == "0":
        return 0.0
    sign, terms = (-1.0, text[1:]) if text[:1] == "-" else (1.0, text.removeprefix("+"))
    total = position = 0.0
    for match in _TERM.finditer(terms):
        if match.start() != position:
            break
        total += float(match[1]) * _UNIT_S[match[2]]
        position = match.end()
    if not terms or position != len(terms):
        raise ValueError(_no_duration(text))
    return sign * total


def _no_duration(text: str) -> str:
    if _INTEGER.fullmatch(text):
        return f"{shown(text)} has no unit: write {text}s for seconds"
    return f"{shown(text)} is no duration: write one such as 500ms, 30s or 1h30m"


def parse_octets(text: str) -> int:
    """Returns the octets of a size such as 33554432, 64MiB or 1GiB."""
    match = _OCTETS.fullmatch(text)
    if not match:
        raise ValueError(f"{shown(text)} is no size: write one such as 64MiB or 1GiB")
    return int(match[1]) * _UNIT_OCTETS[match[2]]


def parse_ip(text: str) -> str:
    """Returns the normal form of an IP address; IPv6 may carry a zone (fe80::1%eth0)."""
    try:
        found = str(ipaddress.ip_address(text))
    except ValueError:
        found = ""
    if not _IP.fullmatch(found):  # Python takes blanks and braces for part of a zone
        raise ValueError(f"{shown(text)} is no IP address")
    return found


def parse_port(text: str) -> int:
    """Returns a port number, 1 to 65535."""
    return within(parse_integer, PORT)(text)


def split_port(text: str) -> tuple[str, str]:
    """Returns host and port texts of ``host:port``, brackets removed; port "" if there is none."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{shown(text)} needs the form [IPv6]:PORT")
        return host, rest[1:]
    host, colon, port = text.rpartition(":")
    if not colon or ":" in host:
        return text, ""
    return host, port


def parse_listen_address(text: str) -> Address:
    """Returns an address to listen on: IP:PORT, :PORT for every address, or localhost:PORT.

    Port 0 stands for a free one.
    """
    host, port = split_port(text)
    if not port:
        raise ValueError(f"{shown(text)} has no port: write IP:PORT or :PORT")
    if host == "localhost":
        host = "127.0.0.1"
    number = parse_port(port) if port.strip("0") else 0
    return Address(parse_ip(host) if host else "", number)
