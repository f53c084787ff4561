"""One half of a message cache, as a segmented LRU: what was hit since its admission goes last.

What was not (probation) goes before what was (protected), the longest unused first; but where the
protected ones hold more than four fifths, the longest unused of them goes, or new names could not
stay at all.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from cachetools import LRUCache

from nodecache.cache.message import Message

_PROTECTED_FIFTHS = 4


class Partition:
    """The success or the denial half of one block's cache, as a segmented LRU.

    Attributes:
        capacity: Most messages.
        octets: ``size_octets`` of all that are here.
        evictions: Messages given up for want of room so far.
        is_retired: Whether what is here may not be served before it was moved (carry_over.py).
    """

    def __init__(self, capacity: int, forget: Callable[[Message], None]) -> None:
        """Makes an empty one; ``forget`` clears up after each message that is evicted."""
        self.capacity = capacity
        self._forget = forget
        self._protected_capacity = capacity * _PROTECTED_FIFTHS // 5
        self.octets = 0
        self.evictions = 0
        self.is_retired = False
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

    def pop_next(self) -> Message | None:
        """Gives up the longest unused message, those on probation first; None if there is none."""
        if self._probation:
            _, message = self._probation.popitem(last=False)
        elif self._protected:
            _, message = self._protected.popitem()
        else:
            return None
        self._note_removal(message)
        return message

    def end(self) -> None:
        """Lets go of who clears up, or both would keep each other in memory; it is empty."""
        self._forget = _forget_nothing

    def evict(self) -> None:
        """Gives the message up that should go next; the partition must not be empty."""
        if len(self._probation) * 5 >= self._count * (5 - _PROTECTED_FIFTHS):
            _, message = self._probation.popitem(last=False)
        else:
            _, message = self._protected.popitem()
        self._note_removal(message)
        self.evictions += 1
        self._forget(message)

    def _note_removal(self, message: Message) -> None:
        message.partition = None
        self._count -= 1
        self.octets -= message.size_octets


def _forget_nothing(_message: Message) -> None:
    """Stands in when nothing is evicted any more."""
