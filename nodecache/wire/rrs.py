"""Whole messages as records with uncompressed names, for what changes or makes answers.

A message of the plain path is never taken apart like this: it costs about 3 us a record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from nodecache.wire.const import (
    HEADER,
    HEADER_OCTETS,
    MAX_LABEL_OCTETS,
    MAX_MESSAGE_OCTETS,
    MAX_NAME_OCTETS,
    OPT_FIXED,
    RR_FIXED,
    TYPE_CNAME,
    TYPE_DNAME,
    TYPE_NS,
    TYPE_OPT,
    TYPE_SOA,
)
from nodecache.wire.query import name_end
from nodecache.wire.records import walk_records

_TYPE_PTR, _TYPE_MX, _TYPE_SRV, _TYPE_AFSDB, _TYPE_KX, _TYPE_RT = 12, 15, 33, 18, 36, 21
# Types whose RDATA may hold compressed names (RFC 3597 section 4): octets in front, names.
_NAMES_IN_RDATA = {
    TYPE_NS: (0, 1),
    TYPE_CNAME: (0, 1),
    _TYPE_PTR: (0, 1),
    TYPE_DNAME: (0, 1),
    TYPE_SOA: (0, 2),
    _TYPE_MX: (2, 1),
    _TYPE_AFSDB: (2, 1),
    _TYPE_RT: (2, 1),
    _TYPE_KX: (2, 1),
    _TYPE_SRV: (6, 1),
}
_POINTER = 0xC0
_FARTHEST_POINTER = 0x3FFF


class RR(NamedTuple):
    """One resource record; the names in it are uncompressed and keep their case."""

    owner: bytes
    rtype: int
    rclass: int
    ttl_s: int
    rdata: bytes


@dataclass(slots=True)
class Contents:
    """A message taken apart.

    Attributes:
        flags: The header's flag word.
        question: QNAME, QTYPE, QCLASS as in the message.
        answer, authority, additional: Records without the OPT record.
        opt: The OPT record's octets, b"" without one.
        ident: The message ID.
    """

    flags: int
    question: bytes
    answer: list[RR] = field(default_factory=list)
    authority: list[RR] = field(default_factory=list)
    additional: list[RR] = field(default_factory=list)
    opt: bytes = b""
    ident: int = 0

    @property
    def sections(self) -> tuple[list[RR], list[RR], list[RR]]:
        """Answer, authority and additional section."""
        return self.answer, self.authority, self.additional

    def compose(self) -> bytes:
        """Returns the message; owner names are compressed, RDATA is not."""
        octets = bytearray(
            HEADER.pack(
                self.ident,
                self.flags,
                1,
                len(self.answer),
                len(self.authority),
                len(self.additional) + bool(self.opt),
            )
        )
        octets += self.question
        suffixes: dict[bytes, int] = {}
        _note_suffixes(self.question[:-4], HEADER_OCTETS, suffixes)
        for section in self.sections:
            _append_records(octets, section, suffixes)
        return bytes(octets + self.opt)


def read_contents(octets: bytes) -> Contents | None:
    """Returns a message with one question taken apart, or None if it is broken. Raises nothing."""
    if len(octets) < HEADER_OCTETS:
        return None
    ident, flags, qdcount, ancount, nscount, arcount = HEADER.unpack_from(octets)
    end = name_end(octets, HEADER_OCTETS)
    if qdcount != 1 or not end or end + 4 > len(octets):
        return None
    records = walk_records(octets, end + 4, ancount + nscount + arcount)
    if records is None:
        return None
    contents = Contents(flags, octets[HEADER_OCTETS : end + 4], ident=ident)
    for index, (rtype, ttl, start, fixed, rr_end) in enumerate(records):
        if rtype == TYPE_OPT:
            contents.opt = octets[start:rr_end]
            continue
        owner = expand_name(octets, start)
        rdata = _expand_rdata(octets, rtype, fixed + 10, rr_end)
        if owner is None or rdata is None:
            return None
        rclass = octets[fixed + 2] << 8 | octets[fixed + 3]
        section = (index >= ancount) + (index >= ancount + nscount)
        contents.sections[section].append(RR(owner, rtype, rclass, ttl, rdata))
    return contents


def read_options(octets: bytes | None) -> bytes:
    """Returns the EDNS options of a message in wire format, b"" if there are none."""
    contents = read_contents(octets) if octets else None
    return contents.opt[OPT_FIXED.size :] if contents is not None else b""


def expand_name(octets: bytes, start: int) -> bytes | None:
    """Returns the name at ``start`` without compression, None if it is broken.

    Each pointer must lead before the part of the name that it ends (RFC 1035 section 4.1.4), so
    the walk ends.
    """
    name = bytearray()
    position = bound = start
    while position < len(octets):
        length = octets[position]
        if length >= _POINTER:
            if position + 2 > len(octets):
                return None
            target = (length & 0x3F) << 8 | octets[position + 1]
            if target >= bound:
                return None
            position = bound = target
            continue
        end = position + 1 + length
        if length > MAX_LABEL_OCTETS or end > len(octets) or len(name) + length >= MAX_NAME_OCTETS:
            return None
        name += octets[position:end]
        if not length:
            return bytes(name)
        position = end
    return None


def _expand_rdata(octets: bytes, rtype: int, start: int, end: int) -> bytes | None:
    """Returns RDATA with the names in it uncompressed; opaque types as they are."""
    layout = _NAMES_IN_RDATA.get(rtype)
    if layout is None:
        return octets[start:end]
    front, names = layout
    rdata = octets[start : start + front]
    position = start + front
    for _ in range(names):
        name = expand_name(octets, position)
        position = _behind_name(octets, position)
        if name is None or position > end:
            return None
        rdata += name
    rdata += octets[position:end]
    return rdata if len(rdata) <= MAX_MESSAGE_OCTETS else None


def _behind_name(octets: bytes, position: int) -> int:
    """Returns the offset behind the possibly compressed name at ``position``, sound or not."""
    while position < len(octets) and 0 < octets[position] < _POINTER:
        position += octets[position] + 1
    return position + (2 if position < len(octets) and octets[position] >= _POINTER else 1)


def _append_records(octets: bytearray, records: Iterable[RR], suffixes: dict[bytes, int]) -> None:
    for owner, rtype, rclass, ttl_s, rdata in records:
        position = 0
        while owner[position] and owner[position:] not in suffixes:
            position += owner[position] + 1
        known = suffixes.get(owner[position:])
        _note_suffixes(owner[: position + 1] if known else owner, len(octets), suffixes, owner)
        octets += owner[:position]
        octets += (known | _POINTER << 8).to_bytes(2, "big") if known else b"\0"
        octets += RR_FIXED.pack(rtype, rclass, ttl_s, len(rdata)) + rdata


def _note_suffixes(
    written: bytes, offset: int, suffixes: dict[bytes, int], owner: bytes | None = None
) -> None:
    """Notes where the suffixes of a name begin whose first labels are written at ``offset``."""
    owner = written if owner is None else owner
    position = 0
    while position < len(written) - 1 and owner[position]:
        if offset + position <= _FARTHEST_POINTER:
            suffixes.setdefault(owner[position:], offset + position)
        position += owner[position] + 1
