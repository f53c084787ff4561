"""What must be looked at later, in ticks of 4 ms.

A plain heap costs a comparison chain for every query, even for the many that are answered long
before their time comes; here a query costs one append. Items are never taken off early: who
looks at them sees whether there is still something to do.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

TICKS_PER_S = 256

Item = TypeVar("Item")


class Timers(Generic[Item]):
    """Items by the tick at which they are due; never early, at most one tick late.

    Attributes:
        next_at: When the first item is due, monotonic seconds; infinity without items.
    """

    __slots__ = ("_buckets", "_ticks", "next_at")

    def __init__(self) -> None:
        self._buckets: dict[int, list[Item]] = {}
        self._ticks: list[int] = []
        self.next_at = inf

    def add(self, when: float, item: Item) -> None:
        """Puts ``item`` down for ``when``, monotonic seconds."""
        tick = int(when * TICKS_PER_S) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = [item]
            heappush(self._ticks, tick)
            self.next_at = self._ticks[0] / TICKS_PER_S
        else:
            bucket.append(item)

    def take_due(self, now: float) -> list[Item]:
        """Removes and returns all items that are due, the earliest first."""
        due: list[Item] = []
        last = int(now * TICKS_PER_S)
        while self._ticks and self._ticks[0] <= last:
            due += self._buckets.pop(heappop(self._ticks))
        self.next_at = self._ticks[0] / TICKS_PER_S if self._ticks else inf
        return due
