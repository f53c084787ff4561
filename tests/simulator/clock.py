"""Virtual time: a number, and what is to happen at which number."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf


class Clock:
    """Things to do, by time; those of one moment happen in the order in which they were put down.

    Attributes:
        now: Seconds. Only the runner moves it.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Has ``act`` called at ``when``, or now if that is past."""
        self._sequence += 1
        heapq.heappush(self._events, (max(when, self.now), self._sequence, act))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Has ``act`` called in ``seconds``."""
        self.at(self.now + seconds, act)

    @property
    def next_at(self) -> float:
        """When the next thing happens; infinity for never."""
        return self._events[0][0] if self._events else inf

    def step(self) -> None:
        """Goes to the next thing, and does it."""
        self.now, _, act = heapq.heappop(self._events)
        act()
