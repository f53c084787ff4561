"""The message cache: bounded tables of messages, one per server block, one budget for all.

Invariants:
- A message is in ``MessageCache`` tables exactly while ``message.partition`` is set.
- ``Budget.octets`` is the sum of ``size_octets`` of all such messages, and of the records that
  they share, each set once; after ``admit`` it is at most ``Budget.limit_octets``.
- A partition holds at most its capacity of messages, the protected segment at most four fifths.
- What may not be served any more goes before anything that may; when octets lack, what may only
  be served stale goes next. Of the rest, what was not hit since its admission (probation) goes
  before what was (protected), the longest unused first; but where the protected ones hold more
  than four fifths, the longest unused of them goes, or new names could not stay at all.
- One covering NXDOMAIN for each name, class and flags: a newer one takes the place of the older.
- What cuts (cut.py) covers all types of its name, and nothing newer says that a name below exists.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict

from cachetools import LRUCache

from nodecache.cache.cut import Cuts
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import Message
from nodecache.cache.shared import SharedRecords
from nodecache.config.model import CachePolicy
from nodecache.wire.const import TYPE_A, TYPE_AAAA, U16
from nodecache.wire.query import is_below

_PROTECTED_FIFTHS = 4
# One call of expire() may take this many messages: about 2 ms, so that ten thousand names which
# expire together do not hold up the queries of that moment.
_EXPIRE_AT_ONCE = 500
# Names that are asked once leave early and often; below this length compacting does not pay.
_LEAST_COMPACTION = 1024

# When, a number that orders equal times, the key, and whose it is.
_Expiry = tuple[float, int, bytes, "MessageCache"]


class Partition:
    """The success or the denial half of one block's cache, as a segmented LRU."""

    def __init__(self, cache: MessageCache, capacity: int) -> None:
        self.cache = cache
        self.capacity = capacity
        self._protected_capacity = capacity * _PROTECTED_FIFTHS // 5
        self.octets = 0
        self.evictions = 0
        self._count = 0
        # A hit ends probation, so its order is that of arrival: no need for an LRU, which would
        # cost each miss 2 us. The bounds are ours, because they span partitions.
        self._probation: OrderedDict[bytes, Message] = OrderedDict()
        self._protected: LRUCache[bytes, Message] = LRUCache(math.inf)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return (
            f"{len(self._probation)} on probation, {len(self._protected)} protected,"
            f" {self.octets} octets"
        )

    @property
    def probation_count(self) -> int:
        """Messages that were not hit since their admission."""
        return len(self._probation)

    def add(self, message: Message) -> None:
        """Takes a message on probation."""
        message.partition = self
        message.is_protected = False
        self._probation[message.key] = message
        self._count += 1
        self.octets += message.size_octets

    def touch(self, message: Message) -> None:
        """Notes a hit: the message becomes the last one to go."""
        if message.is_protected:
            self._protected[message.key]  # reading it is what moves it to the end
            return
        if not self._protected_capacity:
            self._probation.move_to_end(message.key)
            return
        del self._probation[message.key]
        if len(self._protected) >= self._protected_capacity:
            key, demoted = self._protected.popitem()
            demoted.is_protected = False
            self._probation[key] = demoted
        message.is_protected = True
        self._protected[message.key] = message

    def remove(self, message: Message) -> None:
        """Gives a message up."""
        del (self._protected if message.is_protected else self._probation)[message.key]
        self._note_removal(message)

    def evict(self) -> Message:
        """Gives the message up that should go next; the partition must not be empty."""
        if len(self._probation) * 5 >= self._count * (5 - _PROTECTED_FIFTHS):
            _, message = self._probation.popitem(last=False)
        else:
            _, message = self._protected.popitem()
        self._note_removal(message)
        self.evictions += 1
        return message

    def _note_removal(self, message: Message) -> None:
        message.partition = None
        self._count -= 1
        self.octets -= message.size_octets


class Budget:
    """Octets that all message caches share, and what expires when."""

    def __init__(self, limit_octets: int) -> None:
        self.limit_octets = limit_octets
        self.octets = 0
        self.partitions: list[Partition] = []
        self.shared_records = SharedRecords()
        # Heaps. What left early stays in them until its time comes or they are compacted.
        self._expiring: list[_Expiry] = []
        self._stale: list[_Expiry] = []
        self._compact_at = _LEAST_COMPACTION
        self._sequence = 0

    @property
    def watched_count(self) -> int:
        """Notes of when something expires, those of messages that have left included."""
        return len(self._expiring) + len(self._stale)

    @property
    def admission_count(self) -> int:
        """Messages that were ever admitted: tells whether anything came since one last looked."""
        return self._sequence

    def watch(self, message: Message, cache: MessageCache) -> None:
        """Notes when ``message`` expires."""
        self._sequence += 1
        item = (message.expires_at, self._sequence, message.key, cache)
        heapq.heappush(self._expiring, item)
        if len(self._expiring) + len(self._stale) > self._compact_at:
            self._expiring = _compacted(self._expiring)
            self._stale = _compacted(self._stale)
            self._compact_at = 2 * self.watched_count + _LEAST_COMPACTION

    def expire(self, now: float) -> int:
        """Removes what may not be served any more; returns how many, a bounded number a call.

        A message that may still be served stale stays until its time is over or room is needed.
        """
        removed = moved = 0
        while self._expiring and self._expiring[0][0] <= now and removed + moved < _EXPIRE_AT_ONCE:
            expires_at, sequence, key, cache = heapq.heappop(self._expiring)
            message = cache.peek(key)
            if message is None or message.expires_at != expires_at:
                continue
            if message.keep_until > now:
                heapq.heappush(self._stale, (message.keep_until, sequence, key, cache))
                moved += 1
            else:
                cache.remove(message)
                removed += 1
        while self._stale and self._stale[0][0] <= now and removed < _EXPIRE_AT_ONCE:
            removed += self._drop_oldest_stale()
        return removed

    def make_room(self, now: float) -> None:
        """Brings ``octets`` below the limit: expired first, then probation, then protected."""
        if self.octets > self.limit_octets:
            self.expire(now)
        while self.octets > self.limit_octets and self._stale:
            self._drop_oldest_stale()
        while self.octets > self.limit_octets:
            victim = max(self.partitions, key=_probation_octets)
            victim.cache.forget(victim.evict())

    def _drop_oldest_stale(self) -> int:
        keep_until, _, key, cache = heapq.heappop(self._stale)
        message = cache.peek(key)
        if message is None or message.keep_until != keep_until:
            return 0
        cache.remove(message)
        return 1


def _probation_octets(partition: Partition) -> tuple[int, int]:
    """Order of victims: the largest among those that have something on probation."""
    return (partition.octets if partition.probation_count else 0, partition.octets)


def _compacted(heap: list[_Expiry]) -> list[_Expiry]:
    """Returns the heap without messages that have left or been replaced."""
    kept = []
    for item in heap:
        message = item[3].peek(item[2])
        if message is not None and item[0] in (message.expires_at, message.keep_until):
            kept.append(item)
    heapq.heapify(kept)
    return kept


class MessageCache:
    """The messages of one server block.

    Attributes:
        policy: What may be kept and for how long.
        nxdomain_zone: Zone in wire format below which an NXDOMAIN covers all types of its name.
    """

    def __init__(self, policy: CachePolicy, budget: Budget, nxdomain_zone: bytes) -> None:
        self.policy = policy
        self.nxdomain_zone = nxdomain_zone
        self.success = Partition(self, policy.success.capacity)
        self.denial = Partition(self, policy.denial.capacity)
        self._budget = budget
        self._messages: dict[bytes, Message] = {}
        self._nxdomains: dict[bytes, Message] = {}
        self._cuts = Cuts(policy.nxdomain_cut) if policy.nxdomain_cut else None
        budget.partitions += [self.success, self.denial]

    def __len__(self) -> int:
        return len(self._messages)

    def peek(self, key: bytes) -> Message | None:
        """Returns what is kept under exactly this key, expired or not; notes no hit."""
        return self._messages.get(key)

    def covers_all_types(self, qname: bytes) -> bool:
        """Whether an NXDOMAIN for ``qname`` answers every type of it here."""
        cuts = self._cuts
        return is_below(qname, self.nxdomain_zone) or (
            cuts is not None and cuts.zone_of(qname) is not None
        )

    def all_messages(self) -> list[Message]:
        """Returns everything that is kept, the oldest admission first."""
        return list(self._messages.values())

    def has_room(self, message: Message) -> bool:
        """Whether ``message`` could be admitted without another one leaving for it."""
        partition = self._partition_for(message)
        budget = self._budget
        return (
            len(partition) < partition.capacity
            and budget.octets + message.size_octets + budget.shared_records.cost_octets(message)
            <= budget.limit_octets
        )

    def find(self, key: bytes, now: float) -> Message | None:
        """Returns what answers ``key``: its own message, or an NXDOMAIN that speaks for it, too.

        What has expired is returned only if nothing valid is there (for serve-stale and
        refreshing); the caller looks at ``expires_at``. Notes no hit.
        """
        message = self._messages.get(key)
        if message is not None and message.expires_at > now and message.kind is not Kind.FAILURE:
            return message
        # Before a failure, too: that must not hide what is known (RFC 9520 section 3.2).
        if self._nxdomains:
            covering = self._nxdomains.get(_without_type(key))
            if covering is not None and (
                covering.expires_at > now or _wins_stale(covering, message, now)
            ):
                return covering
        if self._cuts is not None and (message is None or message.kind is Kind.FAILURE):
            return self._find_cut(self._cuts, key, now) or message
        return message

    def _find_cut(self, cuts: Cuts, key: bytes, now: float) -> Message | None:
        """Returns a valid NXDOMAIN above, unless an address or its absence is known of the name.

        For any QTYPE: DS of a name is kept by its parent, which is at the cut or below it, and
        what proves the denial of a name proves that of all names below (RFC 8020 section 2).
        """
        for cut in cuts.above(key):
            if cut.expires_at > now:
                return None if self._is_known_to_exist(key, now) else cut
        return None

    def _is_known_to_exist(self, key: bytes, now: float) -> bool:
        """Whether A or AAAA of the name are kept: stubs ask for both, which must agree."""
        for qtype in _ADDRESS_TYPES:
            message = self._messages.get(key[:_QTYPE_AT] + qtype + key[_QTYPE_END:])
            if message is not None and message.expires_at > now and _tells_of_existence(message):
                return True
        return False

    def admit(self, message: Message, now: float) -> bool:
        """Keeps ``message`` instead of what was under its key; returns whether it did.

        A failure never replaces a message that could still be served (RFC 9520 section 3.2 and
        RFC 8767 section 4): the caller keeps its count of failures.
        """
        old = self._messages.get(message.key)
        was_protected = False
        if old is not None:
            is_worse = message.kind is Kind.FAILURE and old.kind is not Kind.FAILURE
            if is_worse and old.keep_until > now:
                return False
            was_protected = old.is_protected
            self.remove(old)
        partition = self._partition_for(message)
        if len(partition) >= partition.capacity:
            self._make_place(partition, now)
        self._put(message, partition)
        if was_protected and message.kind is not Kind.FAILURE:
            partition.touch(message)  # a refresh must not cost a hot name its safety
        self._budget.watch(message, self)
        self._budget.make_room(now)
        return message.partition is not None

    def _partition_for(self, message: Message) -> Partition:
        return self.denial if message.kind in _DENIALS else self.success

    def _make_place(self, partition: Partition, now: float) -> None:
        """Makes sure that ``partition``, which is full, can take one more."""
        while len(partition) >= partition.capacity and self._budget.expire(now):
            pass
        if len(partition) >= partition.capacity:
            self.forget(partition.evict())

    def _put(self, message: Message, partition: Partition) -> None:
        self._messages[message.key] = message
        if self._nxdomains and message.kind is not Kind.FAILURE:
            # Either the name exists, and what was said of all its types is over, or the newer
            # NXDOMAIN says it: the older must not outlive that under a type of its own.
            covering = self._nxdomains.get(_without_type(message.key))
            if covering is not None:
                self.remove(covering)
        if message.covers_all_types:
            self._nxdomains[_without_type(message.key)] = message
        if self._cuts is not None:
            self._note_cuts(self._cuts, message)
        self._budget.octets += self._budget.shared_records.take(message)
        partition.add(message)
        self._budget.octets += message.size_octets

    def _note_cuts(self, cuts: Cuts, message: Message) -> None:
        if message.covers_all_types:
            cuts.add(message)
        elif _tells_of_existence(message):
            # A name exists, so all above it do (RFC 8020 section 2): they were denied wrongly, or
            # have come to be.
            for cut in list(cuts.above(message.key)):
                self.remove(cut)

    def remove(self, message: Message) -> None:
        """Lets ``message`` go, and with it all that was made of it."""
        if message.partition is not None:
            message.partition.remove(message)
            self.forget(message)

    def forget(self, message: Message) -> None:
        """Clears up after ``message``, which its partition has given up already."""
        self._budget.octets -= message.size_octets + self._budget.shared_records.give_back(message)
        del self._messages[message.key]
        if message.covers_all_types:
            name = _without_type(message.key)
            if self._nxdomains.get(name) is message:
                del self._nxdomains[name]
            if self._cuts is not None:
                self._cuts.drop(name, message)
        packets, message.packets = message.packets, ()
        for packet in packets:
            packet.leave()

    def retire(self) -> list[Message]:
        """Gives all messages up, and leaves the budget for good; returns the messages."""
        messages = self.all_messages()
        for message in messages:
            self.remove(message)
        self._budget.partitions.remove(self.success)
        self._budget.partitions.remove(self.denial)
        return messages


_DENIALS = (Kind.NXDOMAIN, Kind.NODATA, Kind.FAILURE)
_ADDRESS_TYPES = (U16.pack(TYPE_A), U16.pack(TYPE_AAAA))
_QTYPE_AT, _QTYPE_END = -5, -3


def _wins_stale(covering: Message, own: Message | None, now: float) -> bool:
    """Whether an expired NXDOMAIN may be served stale, and nothing newer is known of the type."""
    is_newer = own is None or own.kind is Kind.FAILURE or own.stored_at <= covering.stored_at
    return is_newer and covering.keep_until > now


def _tells_of_existence(message: Message) -> bool:
    """Whether the QNAME exists: it has data, or other data (RFC 2308 section 2.2), or an alias."""
    kind = message.kind
    return kind in (Kind.SUCCESS, Kind.NODATA) or (kind is Kind.NXDOMAIN and message.counts[0] > 0)


def _without_type(key: bytes) -> bytes:
    return key[:_QTYPE_AT] + key[_QTYPE_END:]
