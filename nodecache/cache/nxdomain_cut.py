"""NXDOMAIN cuts (RFC 8020): what is below a name that does not exist does not exist either.

Knows which NXDOMAIN answer for the names below theirs, and makes their records fit for it; who
wins against them is store.py's affair.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.cache.message import Message
from nodecache.config.model import Name
from nodecache.wire.const import TYPE_AND_CLASS, U16
from nodecache.wire.key import QNAME_END, QTYPE_END, without_type
from nodecache.wire.numbers import TYPES
from nodecache.wire.query import is_below

# Besides the SOA what proves the denial. RDATA of these hold no compressed names (RFC 4034
# sections 3.1.7 and 4.1.1), so each fits a message with another question.
_PORTABLE_TYPES = frozenset(TYPES[name] for name in ("SOA", "RRSIG", "NSEC", "NSEC3"))
_MOST_RECORDS = 32  # an NXDOMAIN with proof by NSEC3 and its signatures has eight


class NxdomainCuts:
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
        if self.zone_of(message.key[:QNAME_END]) is None:
            return
        pieces = portable_pieces(message)
        if pieces is not None:
            message.replace_records(pieces)
            self._by_name[without_type(message.key)] = message

    def drop(self, name: bytes, message: Message) -> None:
        """Forgets ``message``, if it is what cuts at ``name`` (with class and flags)."""
        if self._by_name.get(name) is message:
            del self._by_name[name]

    def above(self, key: bytes) -> Iterator[Message]:
        """Yields what cuts above the name of ``key``, the nearest first, expired or not.

        Looks at no more names than the QNAME has labels.
        """
        qname, rest = key[:QNAME_END], key[QTYPE_END:]
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
    contents = message.contents()
    if contents is None or any(rr.rtype not in _PORTABLE_TYPES for rr in contents.authority):
        return None
    pieces, before = [], b""
    for rr in contents.authority:
        pieces.append(before + rr.owner + TYPE_AND_CLASS.pack(rr.rtype, rr.rclass))
        before = U16.pack(len(rr.rdata)) + rr.rdata
    return (*pieces, before)
