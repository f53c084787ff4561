"""The message cache: bounded tables of messages, one per server block, one budget for all.

Invariants:
- A message is in ``MessageCache`` tables exactly while ``message.partition`` is set.
- ``Budget.octets`` is the sum of ``size_octets`` of all such messages, and of the records that
  they share, each set once; after ``admit`` it is at most ``Budget.limit_octets``.
- A partition holds at most its capacity of messages, the protected segment at most four fifths.
- What may not be served any more goes before anything that may, as of whole seconds; when octets
  lack, what may only be served stale goes next. Of the rest, what was not hit since its admission
  (probation) goes before what was (partition.py).
- One covering NXDOMAIN for each name, class and flags: a newer one takes the place of the older.
- An NXDOMAIN cut (nxdomain_cut.py) covers all types of its name, and nothing newer says that a name
  below exists.
- Nothing covers in a zone that is distrusted (distrust.py).
"""

from __future__ import annotations

from typing import Protocol

from nodecache.cache.distrust import Distrust, denying_zone
from nodecache.cache.expiry import Expiry
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.cache.nxdomain_cut import NxdomainCuts
from nodecache.cache.partition import Partition
from nodecache.cache.shared import SharedRecords
from nodecache.config.model import CachePolicy
from nodecache.wire.const import U16
from nodecache.wire.key import QNAME_END, QTYPE_END, with_type, without_type
from nodecache.wire.numbers import TYPE_A, TYPE_AAAA
from nodecache.wire.query import is_below

# One call of expire() may take this many messages: about 1 ms, so that names which expire together
# do not hold up the queries of that moment.
EXPIRE_AT_ONCE = 250


class Budget:
    """Octets that all message caches share, what expires when, and what one learned for all."""

    def __init__(self, limit_octets: int) -> None:
        self.limit_octets = limit_octets
        self.octets = 0
        self.caches: list[MessageCache] = []
        self.partitions: list[Partition] = []
        self.shared_records = SharedRecords()
        self.distrust = Distrust()
        # A message is in one of them: until it expires, and while it may be served stale.
        self._expiring: Expiry[MessageCache] = Expiry()
        self._stale: Expiry[MessageCache] = Expiry()
        # Messages that were ever admitted: tells whether anything came since one last looked.
        self.admission_count = 0

    @property
    def watched_count(self) -> int:
        """Messages whose end is noted."""
        return len(self._expiring) + len(self._stale)

    def join(self, cache: MessageCache) -> None:
        """Lets ``cache`` share the octets."""
        self.caches.append(cache)
        self.partitions += [cache.success, cache.denial]

    def leave(self, cache: MessageCache) -> None:
        """Ends what ``join`` began; ``cache`` is empty."""
        self.caches.remove(cache)
        self.partitions.remove(cache.success)
        self.partitions.remove(cache.denial)

    def watch(self, message: Message, cache: MessageCache) -> None:
        """Notes when ``message`` expires."""
        self.admission_count += 1
        self._expiring.add(message.expires_at, message, cache)

    def unwatch(self, message: Message) -> None:
        """Forgets when ``message``, which leaves, expires."""
        if not self._expiring.drop(message.expires_at, message):
            self._stale.drop(message.keep_until, message)

    def expire(self, now: float) -> int:
        """Removes what may not be served any more, up to a second late; returns how many it met.

        These are at most ``EXPIRE_AT_ONCE`` a call. A message that may still be served stale stays
        until its time is over or room is needed.
        """
        for met in range(EXPIRE_AT_ONCE):
            due = self._expiring.pop(now)
            if due is not None and due[0].keep_until > due[0].expires_at:
                self._stale.add(due[0].keep_until, *due)
                continue
            due = due or self._stale.pop(now)
            if due is None:
                return met
            due[1].remove(due[0])
        return EXPIRE_AT_ONCE

    def make_room(self, now: float) -> None:
        """Brings ``octets`` below the limit: expired first, then stale, probation, protected."""
        if self.octets > self.limit_octets:
            self.expire(now)
        while self.octets > self.limit_octets and (oldest := self._stale.pop(NEVER)) is not None:
            oldest[1].remove(oldest[0])
        while self.octets > self.limit_octets:
            max(self.partitions, key=_probation_octets).evict()


def _probation_octets(partition: Partition) -> tuple[int, int]:
    """Order of victims: the largest among those that have something on probation."""
    return (partition.octets if partition.probation_count else 0, partition.octets)


class Former(Protocol):
    """The cache of before, while its messages are on their way into this one."""

    def bring(self, key: bytes) -> None:
        """Moves what could have a say about ``key``."""


class MessageCache:
    """The messages of one server block.

    Attributes:
        policy: What may be kept and for how long.
        nxdomain_zone: Zone in wire format below which an NXDOMAIN covers all types of its name,
            None for nowhere.
        former: Where more messages of this cache still are, None if nowhere.
    """

    def __init__(self, policy: CachePolicy, budget: Budget, nxdomain_zone: bytes | None) -> None:
        self.policy = policy
        self.nxdomain_zone = nxdomain_zone
        self.former: Former | None = None
        self.success = Partition(policy.success.capacity, self.forget)
        self.denial = Partition(policy.denial.capacity, self.forget)
        self._budget = budget
        self._messages: dict[bytes, Message] = {}
        self._nxdomains: dict[bytes, Message] = {}
        self._nxdomain_cuts = NxdomainCuts(policy.nxdomain_cut) if policy.nxdomain_cut else None
        budget.join(self)

    def __len__(self) -> int:
        return len(self._messages)

    def peek(self, key: bytes) -> Message | None:
        """Returns what is kept under exactly this key, expired or not; notes no hit."""
        if self.former is not None:
            self.former.bring(key)
        return self._messages.get(key)

    def covers_all_types(self, key: bytes) -> bool:
        """Whether an NXDOMAIN under ``key`` answers every type of its name here.

        Only one for A does: what servers deny by type is mostly AAAA, and sometimes HTTPS.
        """
        if key[QNAME_END:QTYPE_END] != _A:
            return False
        qname, cuts, zone = key[:QNAME_END], self._nxdomain_cuts, self.nxdomain_zone
        is_in_scope = (zone is not None and is_below(qname, zone)) or (
            cuts is not None and cuts.zone_of(qname) is not None
        )
        return is_in_scope and not self._budget.distrust.includes(qname)

    def all_messages(self) -> list[Message]:
        """Returns everything that is kept, the oldest admission first."""
        return list(self._messages.values())

    def has_room(self, message: Message) -> bool:
        """Whether ``message`` could be admitted without another one leaving for it."""
        partition = self._partition_for(message)
        budget = self._budget
        octets = budget.octets + message.size_octets
        if message.shares_records():
            octets += budget.shared_records.cost_octets(message)
        return len(partition) < partition.capacity and octets <= budget.limit_octets

    def find(self, key: bytes, now: float) -> Message | None:
        """Returns what answers ``key``: its own message, or an NXDOMAIN that speaks for it, too.

        What has expired is returned only if nothing valid is there (for serve-stale and
        refreshing); the caller looks at ``expires_at``. Notes no hit.
        """
        if self.former is not None:
            self.former.bring(key)
        message = self._messages.get(key)
        if message is not None and message.expires_at > now and message.kind is not Kind.FAILURE:
            return message
        # Before a failure, too: that must not hide what is known (RFC 9520 section 3.2).
        if self._nxdomains:
            covering = self._nxdomains.get(without_type(key))
            if covering is not None and (
                covering.expires_at > now or _wins_stale(covering, message, now)
            ):
                return covering
        if self._nxdomain_cuts is not None and (message is None or message.kind is Kind.FAILURE):
            return self._find_cut(self._nxdomain_cuts, key, now) or message
        return message

    def _find_cut(self, cuts: NxdomainCuts, key: bytes, now: float) -> Message | None:
        """Returns a valid NXDOMAIN above, unless an address or its absence is known of the name.

        For any QTYPE: DS of a name is kept by its parent, which is at the cut or below it, and
        what proves the denial of a name proves that of all names below (RFC 8020 section 2).
        """
        for cut in cuts.above(key):
            if cut.expires_at > now:
                return None if self._is_known_to_exist(key, now) else cut
        return None

    def _is_contradicted(self, key: bytes, now: float) -> bool:
        """Whether an NXDOMAIN under ``key``, to be kept now, is wrong about the other family."""
        other = _OTHER_FAMILY.get(key[QNAME_END:QTYPE_END])
        if other is None:
            return False
        message = self._messages.get(with_type(key, other))
        return message is not None and message.expires_at > now and _tells_of_existence(message)

    def _is_known_to_exist(self, key: bytes, now: float) -> bool:
        """Whether A or AAAA of the name are kept: stubs ask for both, which must agree."""
        for qtype in _ADDRESS_TYPES:
            message = self._messages.get(with_type(key, qtype))
            if message is not None and message.expires_at > now and _tells_of_existence(message):
                return True
        return False

    def admit(self, message: Message, now: float) -> bool:
        """Keeps ``message`` instead of what was under its key; returns whether it did.

        A failure never replaces a message that could still be served (RFC 9520 section 3.2 and
        RFC 8767 section 4): the caller keeps its count of failures.
        """
        if self.former is not None:
            self.former.bring(message.key)
        return self.keep(message, now)

    def keep(self, message: Message, now: float) -> bool:
        """As ``admit``, of what comes from the former cache itself."""
        old = self._messages.get(message.key)
        was_protected = False
        if old is not None:
            is_worse = message.kind is Kind.FAILURE and old.kind is not Kind.FAILURE
            if is_worse and old.keep_until > now:
                return False
            was_protected = old.is_protected
            self.remove(old)
        if message.covers_all_types and self._is_contradicted(message.key, now):
            message.covers_all_types = False
            self._distrust(message)
        partition = self._partition_for(message)
        if len(partition) >= partition.capacity:
            self._make_place(partition, now)
        self._put(message, partition, now)
        if was_protected and message.kind is not Kind.FAILURE:
            partition.touch(message)  # a refresh must not cost a hot name its safety
        self._budget.watch(message, self)
        self._budget.make_room(now)
        return message.partition is not None

    def _partition_for(self, message: Message) -> Partition:
        return self.denial if message.kind in _DENIALS else self.success

    def _make_place(self, partition: Partition, now: float) -> None:
        """Makes sure that ``partition``, which is full, can take one more."""
        self._budget.expire(now)
        if len(partition) >= partition.capacity:
            partition.evict()

    def _put(self, message: Message, partition: Partition, now: float) -> None:
        self._messages[message.key] = message
        if self._nxdomain_cuts is not None and _tells_of_existence(message):
            self._refute_cuts(self._nxdomain_cuts, message.key)
        if self._nxdomains and message.kind is not Kind.FAILURE:
            covering = self._nxdomains.get(without_type(message.key))
            if covering is not None and _tells_of_existence(message):
                self._refute(covering, message.key, now)
            elif covering is not None and message.covers_all_types:
                self.remove(covering)  # or it would outlive the newer one under a type of its own
        if message.covers_all_types:
            self._nxdomains[without_type(message.key)] = message
            if self._nxdomain_cuts is not None:
                self._nxdomain_cuts.add(message)
        budget = self._budget
        budget.octets += message.size_octets
        if message.shares_records():
            budget.octets += budget.shared_records.take(message)
        partition.add(message)

    def note_existence(self, key: bytes, now: float) -> None:
        """Takes note of an answer that is not kept, but says that the name of ``key`` exists."""
        if self.former is not None:
            self.former.bring(key)
        if self._nxdomain_cuts is not None:
            self._refute_cuts(self._nxdomain_cuts, key)
        covering = self._nxdomains.get(without_type(key))
        if covering is not None:
            self._refute(covering, key, now)

    def _refute_cuts(self, cuts: NxdomainCuts, key: bytes) -> None:
        """Ends the cuts above a name that exists.

        All names above it do, too (RFC 8020 section 2): they were denied wrongly, or have come to
        be.
        """
        for cut in list(cuts.above(key)):
            self.remove(cut)

    def _refute(self, covering: Message, key: bytes, now: float) -> None:
        """Ends an NXDOMAIN for all types of a name that exists: it was wrong if it should hold."""
        if covering.key != key and covering.expires_at > now:
            self._distrust(covering)
        self.remove(covering)

    def _distrust(self, denial: Message) -> None:
        """Lets no NXDOMAIN of that zone cover any more: another type of this name has an answer."""
        budget = self._budget
        zone = budget.distrust.add(denying_zone(denial, self.nxdomain_zone))
        for cache in budget.caches:
            cache.narrow(zone)

    def narrow(self, zone: bytes) -> None:
        """Lets all NXDOMAIN in ``zone`` answer their own type only."""
        for message in list(self._nxdomains.values()):
            if is_below(message.key[:QNAME_END], zone):
                self._uncover(message)
                message.covers_all_types = False
                self._drop_packets(message)

    def _uncover(self, message: Message) -> None:
        """Forgets that ``message`` covers all types of its name."""
        name = without_type(message.key)
        if self._nxdomains.get(name) is message:
            del self._nxdomains[name]
        if self._nxdomain_cuts is not None:
            self._nxdomain_cuts.drop(name, message)

    def _drop_packets(self, message: Message) -> None:
        packets, message.packets = message.packets, ()
        for packet in packets:
            packet.leave()

    def remove(self, message: Message) -> None:
        """Lets ``message`` go, and with it all that was made of it."""
        if message.partition is not None:
            message.partition.remove(message)
            self.forget(message)

    def forget(self, message: Message) -> None:
        """Clears up after ``message``, which its partition has given up already."""
        budget = self._budget
        budget.unwatch(message)
        budget.octets -= message.size_octets
        if message.shares_records():
            budget.octets -= budget.shared_records.give_back(message)
        del self._messages[message.key]
        if message.covers_all_types:
            self._uncover(message)
        self._drop_packets(message)

    def retire(self) -> None:
        """Lets nothing be served from here any more; it stays in the budget until it has left."""
        self.success.is_retired = self.denial.is_retired = True

    def related(self, key: bytes) -> list[Message]:
        """Returns what could have a say about ``key``.

        That is what is kept of its type, of the addresses of its name, and each NXDOMAIN for the
        name or one above: by other rules that may cut.
        """
        keys = (key, *(with_type(key, qtype) for qtype in _ADDRESS_TYPES))
        found = [self._messages.get(each) for each in keys]
        qname, rest, position = key[:QNAME_END], key[QTYPE_END:], 0
        while self._nxdomains and position < len(qname):
            found.append(self._nxdomains.get(qname[position:] + rest))
            position += qname[position] + 1
        return [message for message in dict.fromkeys(found) if message is not None]

    def pop_next(self) -> Message | None:
        """Gives up the message that should go next; None if there is none."""
        for partition in (self.success, self.denial):
            message = partition.pop_next()
            if message is not None:
                self.forget(message)
                return message
        return None

    def leave(self) -> None:
        """Leaves the budget for good; nothing is kept here any more."""
        self._budget.leave(self)
        self.success.end()
        self.denial.end()


_DENIALS = (Kind.NXDOMAIN, Kind.NODATA, Kind.FAILURE)
_A = U16.pack(TYPE_A)
_AAAA = U16.pack(TYPE_AAAA)
_ADDRESS_TYPES = (_A, _AAAA)
_OTHER_FAMILY = {_A: _AAAA, _AAAA: _A}


def _wins_stale(covering: Message, own: Message | None, now: float) -> bool:
    """Whether an expired NXDOMAIN may be served stale, and nothing newer is known of the type."""
    is_newer = own is None or own.kind is Kind.FAILURE or own.stored_at <= covering.stored_at
    return is_newer and covering.keep_until > now


def _tells_of_existence(message: Message) -> bool:
    """Whether the QNAME exists: it has data, or other data (RFC 2308 section 2.2), or an alias."""
    kind = message.kind
    return kind in (Kind.SUCCESS, Kind.NODATA) or (kind is Kind.NXDOMAIN and message.counts[0] > 0)
