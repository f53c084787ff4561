"""The message cache by full scans over plain lists: slow, and right at a glance."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from nodecache.cache.lifetime import Kind
from nodecache.cache.message import Message
from nodecache.wire.query import is_below
from tests.cache.building import AAAA, A, budgeted_octets


@dataclass
class NaiveSegments:
    """One half of a block's cache; the first of each list goes first."""

    capacity: int
    probation: list[Message] = field(default_factory=list)
    protected: list[Message] = field(default_factory=list)

    def all(self) -> list[Message]:
        return self.probation + self.protected

    def octets(self) -> int:
        return sum(message.size_octets for message in self.all())

    def hit(self, message: Message) -> None:
        most_protected = self.capacity * 4 // 5
        if not most_protected:
            self.probation.remove(message)
            self.probation.append(message)
            return
        (self.protected if message in self.protected else self.probation).remove(message)
        if len(self.protected) == most_protected:
            self.probation.append(self.protected.pop(0))
        self.protected.append(message)

    def drop(self, message: Message) -> None:
        (self.protected if message in self.protected else self.probation).remove(message)

    def evict(self) -> None:
        is_balanced = len(self.probation) >= len(self.all()) / 5
        (self.probation if is_balanced else self.protected).pop(0)


@dataclass
class NaiveCache:
    """One server block; ``neighbours`` are all blocks that share the budget, itself included.

    With ``cuts``, an NXDOMAIN of all types answers for all names below its own. ``is_doubted`` once
    one of them, of any block, was contradicted; all names are of one zone.
    """

    neighbours: list[NaiveCache]
    limit_octets: int
    success: NaiveSegments
    denial: NaiveSegments
    cuts: bool = False
    is_doubted: bool = False

    def all(self) -> list[Message]:
        return self.success.all() + self.denial.all()

    def get(self, key: bytes) -> Message | None:
        return next((message for message in self.all() if message.key == key), None)

    def find(self, key: bytes, now: float) -> Message | None:
        own = self.get(key)
        covering = [m for m in self.covering(key) if m.expires_at > now or _wins_stale(m, own, now)]
        if own is not None and own.expires_at > now and own.kind is not Kind.FAILURE:
            return own
        if covering:
            return covering[0]
        if own is not None and own.kind is not Kind.FAILURE:
            return own
        cutting = [m for m in self.cutting(key) if m.expires_at > now]
        if not cutting or self.is_known_to_exist(key, now):
            return own
        return max(cutting, key=lambda m: len(m.key))

    def cutting(self, key: bytes) -> list[Message]:
        return [
            message
            for message in self.all()
            if self.cuts and message.covers_all_types and message.counts[0] == 0
            if message.key[:-5] != key[:-5] and is_below(key[:-5], message.key[:-5])
            if message.key[-3:] == key[-3:]
        ]

    def is_known_to_exist(self, key: bytes, now: float) -> bool:
        siblings = [self.get(key[:-5] + bytes((0, qtype)) + key[-3:]) for qtype in (A, AAAA)]
        return any(m is not None and m.expires_at > now and _exists(m) for m in siblings)

    def covering(self, key: bytes) -> list[Message]:
        return [
            message
            for message in self.all()
            if message.covers_all_types and _without_type(message.key) == _without_type(key)
        ]

    def segments_of(self, message: Message) -> NaiveSegments:
        return self.success if message.kind is Kind.SUCCESS else self.denial

    def hit(self, message: Message) -> None:
        self.segments_of(message).hit(message)

    def drop(self, message: Message) -> None:
        self.segments_of(message).drop(message)

    def admit(self, message: Message, now: float) -> None:
        old = self.get(message.key)
        was_protected = False
        if old is not None:
            if _is_worse(message, old) and old.keep_until > now:
                return
            was_protected = old in self.segments_of(old).protected
            self.drop(old)
        is_wrong = message.covers_all_types and self.is_known_to_exist(message.key, now)
        segments = self.segments_of(message)
        self.make_place(segments, now)
        refuted = self.refuted_by(message)
        if is_wrong:
            refuted = []
        for block in self.neighbours:
            block.is_doubted |= is_wrong or self.is_contradicted_by(message, now)
        for each in refuted:
            self.drop(each)
        segments.probation.append(message)
        if was_protected and message.kind is not Kind.FAILURE:
            segments.hit(message)
        if self.octets() > self.limit_octets:
            self.make_room(now)

    def refuted_by(self, message: Message) -> list[Message]:
        if _exists(message):
            return self.covering(message.key) + self.cutting(message.key)
        return self.covering(message.key) if message.covers_all_types else []

    def is_contradicted_by(self, message: Message, now: float) -> bool:
        """Whether an NXDOMAIN that covers the name is wrong about the type of ``message``."""
        return _exists(message) and any(
            covering.expires_at > now and covering.key != message.key
            for covering in self.covering(message.key)
        )

    def make_place(self, segments: NaiveSegments, now: float) -> None:
        if len(segments.all()) >= segments.capacity:
            self.expire(now)
        if len(segments.all()) >= segments.capacity:
            segments.evict()

    def octets(self) -> int:
        return budgeted_octets(m for block in self.neighbours for m in block.all())

    def expire(self, now: float) -> None:
        for block in self.neighbours:
            for message in block.all():
                if ceil(message.keep_until) <= now:
                    block.drop(message)

    def make_room(self, now: float) -> None:
        self.expire(now)
        stale = [
            (ceil(message.keep_until), -ceil(message.expires_at), message.stored_at, block, message)
            for block in self.neighbours
            for message in block.all()
            if message.keep_until > message.expires_at and ceil(message.expires_at) <= now
        ]
        for *_, block, message in sorted(stale, key=lambda item: item[:3]):
            if self.octets() > self.limit_octets:
                block.drop(message)
        while self.octets() > self.limit_octets:
            halves = [half for block in self.neighbours for half in (block.success, block.denial)]
            max(halves, key=lambda h: (h.octets() * bool(h.probation), h.octets())).evict()


def _is_worse(message: Message, old: Message) -> bool:
    return message.kind is Kind.FAILURE and old.kind is not Kind.FAILURE


def _wins_stale(covering: Message, own: Message | None, now: float) -> bool:
    if own is not None and own.kind is not Kind.FAILURE and own.stored_at > covering.stored_at:
        return False
    return covering.keep_until > now


def _exists(message: Message) -> bool:
    has_alias = message.kind is Kind.NXDOMAIN and message.counts[0] > 0
    return has_alias or message.kind in (Kind.SUCCESS, Kind.NODATA)


def _without_type(key: bytes) -> tuple[bytes, bytes]:
    return key[:-5], key[-3:]
