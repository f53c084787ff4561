"""What ``rewrite`` changes in responses: names of records, TTLs, the response code.

Knows nothing of questions and rules. A name whose change would be no domain name stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from nodecache.config.names import parse_name
from nodecache.patterns import Expression
from nodecache.wire.const import (
    AD,
    HEADER,
    HEADER_OCTETS,
    MAX_MESSAGE_OCTETS,
    QR,
    RA,
    RCODE_MASK,
    RD,
)
from nodecache.wire.numbers import (
    SERVFAIL,
    TYPE_CNAME,
    TYPE_DNAME,
    TYPE_MX,
    TYPE_NAPTR,
    TYPE_NS,
    TYPE_PTR,
    TYPE_SOA,
    TYPE_SRV,
)
from nodecache.wire.query import is_below, name_end
from nodecache.wire.rrs import RR, Contents, read_contents
from nodecache.wire.text import name_text

_MAX_TEXT_CHARACTERS = 4 * 255  # a name of which each octet is written as an escape
_MAX_RDATA_OCTETS = 0xFFFF
_GROUP = re.compile(r"\{([0-9]{1,3})\}")
_ROOT = b"\0"

# Types whose RDATA holds a name that is changed, and where it begins; of SOA only MNAME.
_VALUE_AT = {
    TYPE_NS: 0,
    TYPE_CNAME: 0,
    TYPE_SOA: 0,
    TYPE_PTR: 0,
    TYPE_DNAME: 0,
    TYPE_MX: 2,
    TYPE_SRV: 6,
}
_NAPTR_STRINGS_AT = 4
_OPT_UPPER_RCODE = 5  # where the OPT record keeps it (RFC 6891 section 6.1.3)


class Renaming(Protocol):
    """One change of names."""

    def rename(self, name: bytes) -> bytes | None:
        """Returns what becomes of an uncompressed name in lower case, None if it stays."""


class TreeRenaming:
    """A name, and all below it, becomes another one."""

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after

    def rename(self, name: bytes) -> bytes | None:
        """Returns the name below ``after``; what is below the root is not meant."""
        if name != self._before and (self._before == _ROOT or not is_below(name, self._before)):
            return None
        changed = name[: len(name) - len(self._before)] + self._after
        return changed if name_end(changed, 0) == len(changed) else None


class SuffixRenaming:
    """The last characters of a name become others; they need not begin at a label."""

    def __init__(self, before: str, after: str) -> None:
        self._before = before
        self._after = after

    def rename(self, name: bytes) -> bytes | None:
        """Returns the name with the other end."""
        text = name_text(name)
        if not text.endswith(self._before):
            return None
        return wire_of(text[: len(text) - len(self._before)] + self._after)


class PatternRenaming:
    """What matches a regular expression becomes a name made of its groups."""

    def __init__(self, expression: Expression, to: str) -> None:
        self._expression = expression
        self._to = to

    def rename(self, name: bytes) -> bytes | None:
        """Returns the whole name anew if the expression is found anywhere in it."""
        text = substitute(self._expression, name_text(name), self._to)
        return None if text is None else wire_of(text)


def substitute(expression: Expression, text: str, to: str) -> str | None:
    """Returns ``to`` with each ``{N}`` replaced by group N, None if nothing in ``text`` matches."""
    groups = expression.find_groups(text)
    if groups is None:
        return None
    pieces = _GROUP.split(to)  # every other one is a number
    for index in range(1, len(pieces), 2):
        number = int(pieces[index])
        pieces[index] = groups[number] if number < len(groups) else ""
    return "".join(pieces)


def wire_of(text: str) -> bytes | None:
    """Returns the name that ``text`` writes in wire format, None if it is no domain name."""
    if len(text) > _MAX_TEXT_CHARACTERS:
        return None
    try:
        return parse_name(text).wire
    except ValueError:
        return None


class Rename:
    """Changes owner names, or names in the RDATA, or both, in all sections."""

    def __init__(self, renaming: Renaming, *, owners: bool, values: bool) -> None:
        self._renaming = renaming
        self._owners = owners
        self._values = values

    def mend(self, contents: Contents) -> bool:
        """Changes ``contents``; AD goes with the first name that is changed.

        Returns False when there are more names than a message holds without compression: an
        honest response has not, and regular expressions would take seconds for them.
        """
        names = _Names(self._renaming)
        for section in contents.sections:
            for index, record in enumerate(section):
                mended = self._mended(record, names)
                if mended is not record:
                    section[index] = mended
                    contents.flags &= ~AD
                if names.octets > MAX_MESSAGE_OCTETS:
                    return False
        return True

    def _mended(self, record: RR, names: _Names) -> RR:
        owner = names.rename(record.owner) if self._owners else record.owner
        rdata = _mended_rdata(record, names) if self._values else record.rdata
        if owner == record.owner and rdata == record.rdata:
            return record
        return RR(owner, record.rtype, record.rclass, record.ttl_s, rdata)


class _Names:
    """The names of one response, each changed once: most records have the same owner."""

    def __init__(self, renaming: Renaming) -> None:
        self.octets = 0
        self._renaming = renaming
        self._known: dict[bytes, bytes] = {}

    def rename(self, name: bytes) -> bytes:
        found = self._known.get(name)
        if found is None:
            self.octets += len(name)
            found = self._renaming.rename(name.lower()) or name
            self._known[name] = found
        return found


def _mended_rdata(record: RR, names: _Names) -> bytes:
    rdata = record.rdata
    start = _value_start(record.rtype, rdata)
    end = name_end(rdata, start) if start >= 0 else 0
    if not end:
        return rdata
    return rdata[:start] + names.rename(rdata[start:end]) + rdata[end:]


class ClampTtl:
    """Brings the TTLs of all records into a range of seconds."""

    def __init__(self, least_s: int, most_s: int) -> None:
        self._least_s = least_s
        self._most_s = most_s

    def mend(self, contents: Contents) -> bool:
        """Changes ``contents``; returns True."""
        for section in contents.sections:
            for index, record in enumerate(section):
                ttl_s = min(max(record.ttl_s, self._least_s), self._most_s)
                section[index] = RR(record.owner, record.rtype, record.rclass, ttl_s, record.rdata)
        return True


class ChangeRcode:
    """Makes another response code of one; both are below 16."""

    def __init__(self, before: int, after: int) -> None:
        self._before = before
        self._after = after

    def mend(self, contents: Contents) -> bool:
        """Changes ``contents`` unless its response code is an extended one; returns True."""
        is_extended = bool(contents.opt) and contents.opt[_OPT_UPPER_RCODE] != 0
        if not is_extended and contents.flags & RCODE_MASK == self._before:
            contents.flags = contents.flags & ~(RCODE_MASK | AD) | self._after
        return True


Repair = Rename | ClampTtl | ChangeRcode


def compose_restored(question: bytes, response: bytes, repairs: Sequence[Repair]) -> bytes | None:
    """Returns the response to ``question`` with ``repairs`` done, the last of them first.

    None if ``response`` is broken, or becomes too long. Raises nothing.
    """
    contents = read_contents(response)
    if contents is None:
        return None
    if contents.question != question:
        contents.question = question
        contents.flags &= ~AD
    if not all(repair.mend(contents) for repair in reversed(repairs)):
        return None
    for section in contents.sections:
        if any(len(record.rdata) > _MAX_RDATA_OCTETS for record in section):
            return None
    octets = contents.compose()
    return octets if len(octets) <= MAX_MESSAGE_OCTETS else None


def compose_failure(question: bytes, response: bytes) -> bytes:
    """Returns SERVFAIL for ``question`` with ID and RD of ``response``, whatever that is."""
    ident, flags = 0, RD
    if len(response) >= HEADER_OCTETS:
        ident, flags, *_ = HEADER.unpack_from(response)
    return HEADER.pack(ident, QR | RA | SERVFAIL | flags & RD, 1, 0, 0, 0) + question


def _value_start(rtype: int, rdata: bytes) -> int:
    """Returns where the name begins that ``answer value`` is about, -1 if there is none."""
    if rtype != TYPE_NAPTR:
        return _VALUE_AT.get(rtype, -1)
    position = _NAPTR_STRINGS_AT
    for _ in range(3):  # flags, services, regexp (RFC 3403 section 4.1)
        if position >= len(rdata):
            return -1
        position += rdata[position] + 1
    return position
