"""How directives write record types, classes and response codes."""

from __future__ import annotations

import re

from nodecache.config.reading import one_of
from nodecache.config.values import nearest
from nodecache.printing import shown
from nodecache.wire.numbers import CLASSES, RCODES, TYPES

_CLASSES_ASKED = {name: CLASSES[name] for name in ("IN", "CH", "HS")}
_NO_QUESTIONS = frozenset((0, 41, 249, 250, 251, 252))  # OPT, TKEY, TSIG, zone transfers
_EXTENDED_RCODES = {
    "BADSIG", "BADVERS", "BADKEY", "BADTIME", "BADMODE", "BADNAME", "BADALG", "BADTRUNC",
    "BADCOOKIE",
}  # fmt: skip
_NUMBERED_TYPE = re.compile("TYPE([0-9]{1,5})")


def parse_type(text: str) -> int:
    """Returns the number of a record type that may be asked for, TYPE65280 included.

    Raises:
        ValueError: With a sentence saying why it is none.
    """
    name = text.upper()
    numbered = _NUMBERED_TYPE.fullmatch(name)
    rtype = int(numbered[1]) if numbered else TYPES.get(name, -1)
    if not 0 <= rtype <= 0xFFFF:
        hint = (
            nearest(name, TYPES)
            or "; write TYPE and its number, 0 to 65535, if it has no name here"
        )
        raise ValueError(f"{shown(text)} is no record type{hint}")
    if rtype in _NO_QUESTIONS:
        raise ValueError(f"nobody asks a cache for {shown(text)}")
    return rtype


def parse_class(text: str) -> int:
    """Returns the number of the class IN, CH or HS; raises ValueError for others."""
    return one_of(_CLASSES_ASKED)(text.upper())


def parse_rcode(text: str) -> int:
    """Returns the number of a response code below 16, written as a number or by name.

    Raises:
        ValueError: With a sentence saying why it is none.
    """
    name = text.upper()
    if name in _EXTENDED_RCODES or (name.isdecimal() and len(name) == 2 and "16" <= name <= "23"):
        raise ValueError(
            f"{shown(text)} speaks about one hop's EDNS or TSIG (RFC 6891) and never passes the"
            " cache: give a code from 0 to 15"
        )
    if re.fullmatch("[0-9]|1[0-5]", name):
        return int(name)
    return one_of(RCODES)(name)
