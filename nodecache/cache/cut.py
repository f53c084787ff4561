"""NXDOMAIN cuts (RFC 8020): what is below a name that does not exist does not exist either.

Knows which NXDOMAIN answer for the names below theirs, and makes their records fit for it; who
wins against them is store.py's affair.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.cache.message import Message
from nodecache.config.model import Name
from nodecache.wire.const import HEADER, NXDOMAIN, TYPE_AND_CLASS, TYPE_SOA, U16
from nodecache.wire.query import is_below
from nodecache.wire.rrs import read_contents

_TYPE_RRSIG, _TYPE_NSEC, _TYPE_NSEC3 = 46, 47, 50
# Besides the SOA what proves the denial. RDATA of these hold no compressed names (RFC 4034
# sections 3.1.7 and 4.1.1), so each fits a message with another question.
_PORTABLE_TYPES = frozenset((TYPE_SOA, _TYPE_RRSIG, _TYPE_NSEC, _TYPE_NSEC3))
_NAME_END, _CLASS_AT = -5, -3
_MOST_RECORDS = 32  # an NXDOMAIN with proof by NSEC3 and its signatures has eight
_NO_TTL = b"\0\0\0\0"


class Cuts:
    """The NXDOMAIN of one message cache that answer for all names below theirs."""

    def __init__(self, zones: tuple[Name, ...]) -> None:
        self._zones = tuple(zone.wire for zone in zones)
        # Name, class and flags, as the table of NXDOMAIN for all types has them.
        self._by_name: dict[bytes, Message] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def zone_of(self, qname: bytes) -> bytes | None:
        """Returns the zone, of those with cuts, that ``qname`` is at or below."""
        for zone in self._zones:
            if is_below(qname, zone):
                return zone
        return None

    def add(self, message: Message) -> None:
        """Lets an NXDOMAIN for all types cut, if its name is in a zone and its records allow it."""
        if self.zone_of(message.key[:_NAME_END]) is None:
            return
        pieces = portable_pieces(message)
        if pieces is not None:
            message.replace_records(pieces)
            self._by_name[message.key[:_NAME_END] + message.key[_CLASS_AT:]] = message

    def drop(self, name: bytes, message: Message) -> None:
        """Forgets ``message``, if it is what cuts at ``name`` (with class and flags)."""
        if self._by_name.get(name) is message:
            del self._by_name[name]

    def above(self, key: bytes) -> Iterator[Message]:
        """Yields what cuts above the name of ``key``, the nearest first, expired or not.

        Looks at no more names than the QNAME has labels.
        """
        qname, rest = key[:_NAME_END], key[_CLASS_AT:]
        zone = self.zone_of(qname) if self._by_name else None
        if zone is None:
            return
        last, position = len(qname) - len(zone), 0
        while position < last:
            position += qname[position] + 1
            found = self._by_name.get(qname[position:] + rest)
            if found is not None:
                yield found


def portable_pieces(message: Message) -> tuple[bytes, ...] | None:
    """Returns the records without compression: right behind a question of any length.

    None if there are records that nobody knows how to move.
    """
    counts = message.counts
    if counts[0] or counts[2] or counts[1] > _MOST_RECORDS:
        return None
    header = HEADER.pack(0, NXDOMAIN, 1, *counts)
    contents = read_contents(header + message.key[:-1] + _NO_TTL.join(message.pieces))
    if contents is None or any(rr.rtype not in _PORTABLE_TYPES for rr in contents.authority):
        return None
    pieces, before = [], b""
    for rr in contents.authority:
        pieces.append(before + rr.owner + TYPE_AND_CLASS.pack(rr.rtype, rr.rclass))
        before = U16.pack(len(rr.rdata)) + rr.rdata
    return (*pieces, before)
