"""The packet cache: a query's octets behind its ID -> a reply that is ready to be sent.

What the socket loop does per hit is one look-up in ``fresh`` and ``hits += 1``; the rest of this
file keeps that table true.

Invariants:
- ``fresh`` holds only packets whose reply is right until ``turns_at``, the end of the current
  second. When it has come, ``turn`` empties ``fresh``; the first query for a packet in the next
  second revives it with the TTL of that second. So TTLs count down, and no hit looks at a clock.
- A packet is in ``_packets`` only while its message is in the message cache.
- Counts are plain integers on the packet until ``hand_in``: exact, and free of charge per hit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from nodecache.cache.lifetime import LEAST_PACKET_TTL_S, Kind
from nodecache.cache.message import Message
from nodecache.counters import DURATION_BOUNDS_S, CacheSeries, Histogram, QuerySeries
from nodecache.wire.const import HEADER_OCTETS, U32
from nodecache.wire.numbers import NXDOMAIN
from nodecache.wire.query import Query

# What a packet costs besides key and reply, measured by tests/cache/test_memory.py.
PACKET_OVERHEAD_OCTETS = 480

_HANDED_IN_AT_ONCE = 300
_QNAME_AT = HEADER_OCTETS - 2  # in a key


class Packet:
    """One question in exact octets, as one listening address was asked it.

    Attributes:
        hits: Since the last hand-in.
        told: How many of them the message knows of.
        sealed: The reply in the form that the socket sends (``PacketCache.seal``).
        reply: The reply behind its ID, for the second in which it was made.
        key: The query behind its ID.
        head_octets, pieces, tail: What the reply is made of: its first octets, then the pieces
            with the TTL between them, then the tail.
        message: What it was made from.
        queries, caches: The series that its hits belong to.
        cache: The packet cache that holds it, None once it has left.
    """

    __slots__ = (
        "cache",
        "caches",
        "head_octets",
        "hits",
        "key",
        "message",
        "pieces",
        "qtype",
        "queries",
        "reply",
        "sealed",
        "tail",
        "told",
        "wants_dnssec",
    )

    def __init__(
        self,
        query: Query,
        message: Message,
        pieces: tuple[bytes, ...],
        ends: tuple[bytes, bytes],
        series: tuple[QuerySeries, CacheSeries],
    ) -> None:
        self.hits = 0
        self.told = 0
        self.sealed: Any = None
        self.reply, self.tail = ends
        self.head_octets = len(self.reply)
        self.key = query.octets[2:]
        self.qtype = query.qtype
        self.wants_dnssec = query.dnssec_ok
        self.message = message
        self.pieces = pieces
        self.queries, self.caches = series
        self.cache: PacketCache | None = None

    def leave(self) -> None:
        """Stops being served, because its message has left."""
        if self.cache is not None:
            self.cache.forget(self)

    def unreported_hits(self) -> int:
        """Returns its hits that the message does not know of yet."""
        return self.hits - self.told


class PacketCache:
    """The packets of one listening socket, bounded in entries and octets."""

    def __init__(self, most_entries: int, most_octets: int, seal: Callable[[bytes], Any]) -> None:
        """Makes an empty cache.

        Args:
            most_entries: Bound in packets, at least 1.
            most_octets: Bound in octets, overhead included.
            seal: Turns a reply into the form that the socket sends; the reply outlives it.
        """
        self.fresh: dict[bytes, Packet] = {}
        self.turns_at = 0.0
        self.durations = Histogram(DURATION_BOUNDS_S)
        # In order of use, as of seconds. An LRUCache beside it would cost 2 MB for 10,000 names.
        self._packets: OrderedDict[bytes, Packet] = OrderedDict()
        self._octets = 0
        self._most_entries = most_entries
        self._most_octets = most_octets
        self._seal = seal
        self._hits: dict[QuerySeries, int] = {}

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def octets(self) -> int:
        """What the packets take, overhead included."""
        return self._octets

    def reads_until(self) -> float:
        """Returns the end of the second in which the listener last read a query."""
        return self.turns_at

    def turn(self, now: float) -> None:
        """Begins a new second: from here on every packet must be revived first."""
        self.fresh.clear()
        self.turns_at = math.floor(now) + 1.0

    def peek(self, key: bytes) -> Packet | None:
        """Returns the packet for ``key``, ready for this second or not; notes nothing."""
        return self._packets.get(key)

    def revive(self, key: bytes, now: float) -> Packet | None:
        """Returns the packet for ``key``, made ready for this second; None means ask tier 2.

        So does a packet whose message is due for a refresh or ends within this second: only
        tier 2 starts refreshes, and it is exact to the moment. The same holds while a message is on
        its way to other rules: only tier 2 knows them.
        """
        packet = self._packets.get(key)
        if packet is None:
            return None
        message = packet.message
        self._tell_message(packet, now)
        if message.refresh_at <= now or message.expires_at <= self.turns_at:
            return None
        table = message.partition
        if table is not None and table.is_retired:
            return None
        self._ready(packet, message)
        self._packets.move_to_end(key)
        if table is not None:
            table.touch(message)
        return packet

    def doubt(self) -> None:
        """Has each packet revived before it is served again: what its message is may change."""
        self.fresh.clear()

    def admit(self, packet: Packet, now: float) -> None:
        """Takes a packet whose message was hit just now, if it lives long enough to pay."""
        message = packet.message
        if message.ttl_s < LEAST_PACKET_TTL_S or message.expires_at <= self.turns_at:
            return
        old = self._packets.get(packet.key)
        if old is not None:
            self.forget(old)
        self._ready(packet, message)
        packet.cache = self
        self._packets[packet.key] = packet
        self._octets += _size_octets(packet)
        message.packets += (packet,)
        self._shrink()

    def forget(self, packet: Packet) -> None:
        """Lets a packet go; its hits are handed in."""
        if packet.cache is None:
            return
        packet.cache = None
        self.fresh.pop(packet.key, None)
        del self._packets[packet.key]
        self._octets -= _size_octets(packet)
        message = packet.message
        if message.partition is not None:
            message.packets = tuple(other for other in message.packets if other is not packet)
        self._hand_in(packet, message.hit_at)

    def clear(self) -> None:
        """Lets all packets go: they may not be what a query should get any more."""
        for packet in list(self._packets.values()):
            self.forget(packet)

    def resize(self, most_octets: int) -> None:
        """Sets the bound in octets; what is too much leaves."""
        self._most_octets = most_octets
        self._shrink()

    def hand_in_slowly(self, now: float) -> Iterator[None]:
        """Moves counts to the series, about 1 ms at a time; what is counted meanwhile stays."""
        for count, packet in enumerate(list(self._packets.values()), 1):
            if packet.cache is self:
                self._hand_in(packet, now)
            if count % _HANDED_IN_AT_ONCE == 0:
                yield

    def hand_in(self, now: float) -> None:
        """Moves all counts to the series, durations included; for scrapes."""
        for packet in self._packets.values():
            self._hand_in(packet, now)
        self._deal_durations()

    def _shrink(self) -> None:
        while len(self._packets) > self._most_entries or self._octets > self._most_octets:
            self.forget(next(iter(self._packets.values())))

    def _ready(self, packet: Packet, message: Message) -> None:
        # The TTL as of the end of this second: never more than tier 2 would show in it.
        ttl = message.remaining_ttl(self.turns_at)
        head = packet.reply[: packet.head_octets]
        packet.reply = head + U32.pack(ttl).join(packet.pieces) + packet.tail
        packet.sealed = self._seal(packet.reply)
        self.fresh[packet.key] = packet

    def _tell_message(self, packet: Packet, now: float) -> None:
        """Counts the packet's hits on its message too, which decides on refreshes."""
        if packet.hits != packet.told:
            packet.message.hits += packet.hits - packet.told
            packet.message.hit_at = now
            packet.told = packet.hits

    def _hand_in(self, packet: Packet, now: float) -> None:
        """Moves the packet's hits to the series: 2 us, so not done each second."""
        hits = packet.hits
        if not hits:
            return
        self._tell_message(packet, now)
        packet.hits = packet.told = 0
        message, queries, caches = packet.message, packet.queries, packet.caches
        queries.count_query(packet.qtype, len(packet.key) + 2, packet.wants_dnssec, hits)
        queries.count_response(message.rcode, "cache", len(packet.reply) + 2, hits)
        if message.rcode == NXDOMAIN:
            queries.count_nxdomain(packet.key[_QNAME_AT:], hits)
        self._hits[queries] = self._hits.get(queries, 0) + hits
        caches.requests += hits
        caches.packet_hits += hits
        if message.kind is Kind.SUCCESS:
            caches.success_hits += hits
        else:
            caches.denial_hits += hits

    def _deal_durations(self) -> None:
        """Hands the durations of batches to the series in the ratio of their hits.

        A batch may span zones and has one duration, so which of them had the slow one is not
        known; the sums over all are exact.
        """
        counts, bucket = self.durations.counts, 0
        all_hits = sum(self._hits.values())
        for queries, hits in self._hits.items():
            queries.durations.total += self.durations.total * hits / all_hits
            wanted = hits
            while wanted and bucket < len(counts):
                taken = min(wanted, counts[bucket])
                queries.durations.counts[bucket] += taken
                counts[bucket] -= taken
                wanted -= taken
                bucket += not counts[bucket]
        self._hits.clear()
        self.durations = Histogram(DURATION_BOUNDS_S)


def _size_octets(packet: Packet) -> int:
    return PACKET_OVERHEAD_OCTETS + len(packet.key) + len(packet.reply)
