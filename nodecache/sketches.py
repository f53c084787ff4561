"""What comes most often, in bounded memory: Space-Saving (Metwally, Agrawal, El Abbadi, 2005).

Knows nothing of DNS. With n places and a total weight of N, every key that weighs more than N / n
has a place, and what is said of a key is at most its error too much, never too little.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)


class Estimate(NamedTuple):
    """What is known of one key: its true weight is from ``weight - error`` to ``weight``."""

    weight: float
    error: float


class SpaceSaving(Generic[K]):
    """The heaviest keys of a stream.

    Attributes:
        total: The weight of all that was added.
    """

    def __init__(self, places: int) -> None:
        """Makes an empty sketch with a number of places, at least 1."""
        self.total = 0.0
        self._places = places
        self._weights: dict[K, float] = {}
        self._errors: dict[K, float] = {}
        # The lightest first. A key that grew is put right when it comes to the top, so that to add
        # to a key that has a place costs no more than a look into a table.
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._weights)

    def __contains__(self, key: K) -> bool:
        return key in self._weights

    def add(self, key: K, weight: float = 1.0) -> K | None:
        """Counts ``weight`` for ``key``; returns the key that lost its place to it, or None."""
        self.total += weight
        weights = self._weights
        if key in weights:
            weights[key] += weight
            return None
        lost: K | None = None
        least = 0.0
        if len(weights) >= self._places:
            lost, least = self._take_lightest()
            self._errors[key] = least
        weights[key] = least + weight
        self._push(key)
        return lost

    def heaviest(self, count: int) -> list[tuple[K, Estimate]]:
        """Returns at most ``count`` keys, the heaviest first."""
        weights, errors = self._weights, self._errors
        keys = heapq.nlargest(count, weights, key=weights.__getitem__)
        return [(key, Estimate(weights[key], errors.get(key, 0.0))) for key in keys]

    def _take_lightest(self) -> tuple[K, float]:
        while True:
            noted, _, key = heapq.heappop(self._heap)
            weight = self._weights[key]
            if weight == noted:
                del self._weights[key]
                self._errors.pop(key, None)
                return key, weight
            self._push(key)

    def _push(self, key: K) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (self._weights[key], self._sequence, key))
