"""One kept response, as octets that age by joining."""

from __future__ import annotations

import math
from typing import Protocol

from nodecache.cache.lifetime import Kind
from nodecache.wire.const import HEADER, U32
from nodecache.wire.key import QUESTION_END
from nodecache.wire.rrs import Contents, read_contents

# What an entry costs besides its octets: objects, table slots and lists, measured by
# tests/cache/test_memory.py; each piece is an object of its own.
MESSAGE_OVERHEAD_OCTETS = 620
PIECE_OVERHEAD_OCTETS = 48

NEVER = math.inf
_NO_TTL = bytes(4)

# The sum and difference of two clock readings may be off by a rounding: 30 s must not show as 31.
_ROUNDING_S = 1e-6


class Table(Protocol):
    """What keeps a message."""

    is_retired: bool

    def touch(self, message: Message) -> None:
        """Notes a hit."""

    def remove(self, message: Message) -> None:
        """Gives the message up."""


class Dependent(Protocol):
    """What is made of a message, and goes when it goes."""

    def leave(self) -> None:
        """Stops being served."""

    def unreported_hits(self) -> int:
        """Returns its hits that the message does not know of yet."""


class Message:
    """A response under its key, without ID, question and OPT record.

    Attributes:
        key: See wire/key.py.
        kind: What it is.
        flags: The header's flag word.
        rcode: Of the header, 0 to 15.
        counts: ANCOUNT, NSCOUNT, ARCOUNT.
        pieces: The records, cut at their TTLs.
        records_octets: Length of the records with their TTLs.
        size_octets: What it takes from the budget, without records that it shares (shared.py).
        ttl_s: Lifetime, and the TTL at the start.
        stored_at, expires_at: Monotonic seconds.
        keep_until: End of the time that it may be served stale; expires_at if it may not.
        refresh_at: From when on it may be asked for again; NEVER while that is under way.
        keeps_ttl: Replies show ttl_s however old it is (``keepttl``).
        covers_all_types: It is an NXDOMAIN for every type of its name.
        failures: For Kind.FAILURE: failures in a row, this one included.
        hits: Hits so far, tier 1 counted in when it hands in.
        hit_at: Of the last of them.
        packets: Entries of packet caches that are made of it.
        partition: The table part that keeps it, None once it has left.
        is_protected: In which segment of the partition.
    """

    __slots__ = (
        "counts",
        "covers_all_types",
        "expires_at",
        "failures",
        "flags",
        "hit_at",
        "hits",
        "is_protected",
        "keep_until",
        "keeps_ttl",
        "key",
        "kind",
        "packets",
        "partition",
        "pieces",
        "rcode",
        "records_octets",
        "refresh_at",
        "size_octets",
        "stored_at",
        "ttl_s",
    )

    def __init__(
        self,
        key: bytes,
        kind: Kind,
        flags: int,
        counts: tuple[int, int, int],
        pieces: tuple[bytes, ...],
        ttl_s: float,
        now: float,
    ) -> None:
        self.key = key
        self.kind = kind
        self.flags = flags
        self.rcode = flags & 0xF
        self.counts = counts
        self.replace_records(pieces)
        self.ttl_s = ttl_s
        self.stored_at = now
        self.expires_at = self.keep_until = now + ttl_s
        self.refresh_at = NEVER
        self.keeps_ttl = False
        self.covers_all_types = False
        self.failures = 0
        self.hits = 0
        self.hit_at = now
        self.packets: tuple[Dependent, ...] = ()
        self.partition: Table | None = None
        self.is_protected = False

    def shares_records(self) -> bool:
        """Whether many have the same records: a negative response without an alias in front."""
        return not self.counts[0] and (self.kind is Kind.NXDOMAIN or self.kind is Kind.NODATA)

    def replace_records(self, pieces: tuple[bytes, ...]) -> None:
        """Sets the records; while it is in no table."""
        self.pieces = pieces
        self.records_octets = sum(map(len, pieces)) + 4 * len(pieces) - 4
        self.size_octets = MESSAGE_OVERHEAD_OCTETS + 2 * len(self.key)
        if not self.shares_records():
            self.size_octets += self.records_octets + PIECE_OVERHEAD_OCTETS * len(pieces)

    def records(self, now: float) -> bytes:
        """Returns the records with the TTL that remains at ``now``, 0 when expired."""
        return self.records_with_ttl(self.remaining_ttl(now))

    def records_with_ttl(self, ttl_s: int) -> bytes:
        """Returns the records, all of them with ``ttl_s``."""
        return U32.pack(ttl_s).join(self.pieces)

    def contents(self) -> Contents | None:
        """Returns it taken apart, all TTLs 0; None if that fails."""
        header = HEADER.pack(0, self.flags, 1, *self.counts)
        return read_contents(header + self.key[:QUESTION_END] + _NO_TTL.join(self.pieces))

    def first_pieces(self, count: int, octets: int) -> tuple[bytes, ...]:
        """Returns the pieces of the first ``count`` records, which have ``octets`` octets."""
        pieces = self.pieces[:count]
        rest = octets - sum(map(len, pieces)) - 4 * count
        return (*pieces, self.pieces[count][:rest])

    def remaining_ttl(self, now: float) -> int:
        """Returns the TTL to show at ``now``: what remains, begun seconds counted whole."""
        if self.keeps_ttl:
            return int(self.ttl_s)
        return max(0, math.ceil(self.expires_at - now - _ROUNDING_S))
