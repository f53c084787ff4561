"""Whole messages as records with uncompressed names, for what changes or makes answers.

A message of the plain path is never taken apart like this: it costs about 3 us a record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from nodecache.wire.const import HEADER, HEADER_OCTETS, OPT_FIXED, RR_FIXED, TYPE_AND_CLASS
from nodecache.wire.numbers import CLASS_IN, TYPE_OPT
from nodecache.wire.query import name_end
from nodecache.wire.rdata import expand_rdata
from nodecache.wire.records import expand_name, walk_records

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

    def answers_of(self, rtype: int) -> list[RR]:
        """Returns the records of one type and class IN in the answer section."""
        return [rr for rr in self.answer if rr.rtype == rtype and rr.rclass == CLASS_IN]

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
        rdata = expand_rdata(octets, rtype, fixed + 10, rr_end)
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


def has_option(options: bytes, wanted: int) -> bool:
    """Returns whether EDNS options in wire format hold one of code ``wanted``."""
    position = 0
    while position + 4 <= len(options):
        code, length = TYPE_AND_CLASS.unpack_from(options, position)
        if code == wanted:
            return True
        position += 4 + length
    return False


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
