"""What expires when, by the second.

A message is noted under the second in which its time is over, and taken out when it leaves early:
nothing is left to clear up, and nobody walks over all messages. It may leave up to a second late;
that it is not served late is for whoever finds it (``expires_at``).
"""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

from nodecache.cache.message import Message

# Seconds that lost all their messages stay in the heap; below this length clearing does not pay.
_LEAST_CLEARING = 1024

Owner = TypeVar("Owner")


class Expiry(Generic[Owner]):
    """Messages by the second in which their time is over, each with whoever keeps it."""

    def __init__(self) -> None:
        self._seconds: dict[int, dict[Message, Owner]] = {}
        self._order: list[int] = []  # a heap of the seconds
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, when: float, message: Message, owner: Owner) -> None:
        """Notes that the time of ``message`` is over at ``when``."""
        second = math.ceil(when)
        found = self._seconds.get(second)
        if found is None:
            found = self._seconds[second] = {}
            heapq.heappush(self._order, second)
            if len(self._order) > 2 * len(self._seconds) + _LEAST_CLEARING:
                self._order = sorted(self._seconds)
        found[message] = owner
        self._count += 1

    def drop(self, when: float, message: Message) -> bool:
        """Takes out what was noted for ``when``; returns whether it was here."""
        second = math.ceil(when)
        found = self._seconds.get(second)
        if found is None or message not in found:
            return False
        del found[message]
        self._count -= 1
        if not found:
            del self._seconds[second]
        return True

    def pop(self, until: float) -> tuple[Message, Owner] | None:
        """Takes out one of the first second, if that is not behind ``until``."""
        while self._order and self._order[0] <= until:
            found = self._seconds.get(self._order[0])
            if found:
                self._count -= 1
                return found.popitem()
            if found is not None:
                del self._seconds[self._order[0]]
            heapq.heappop(self._order)
        return None
