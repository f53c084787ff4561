"""How long the connections of a pool live, so that they spread over what is behind one address.

Behind a service address each new connection goes to a backend at random, so few long-lived ones
are spread badly: with eight over three backends the busiest has twice the queries of the idlest,
or more. What evens out is many connections one after the other. Under load they are therefore
replaced early, all at the same age: a slow backend answers fewer queries in it, not as many. A
quiet pool keeps its connections: they cost more than the balance of a few queries is worth.
"""

from __future__ import annotations

from collections.abc import Iterable

from nodecache.engine.upstream import Connection

QUERIES_PER_LIFE = 50  # a handshake for so many queries; 180 lives for 150 queries/s in a minute
LEAST_AGE_S = 1.0  # at most 8 new connections a second for a pool of 8
_HEAP_S = 0.25  # counted as lived without a query, so that a few at once are no load yet
CALM_AFTER_S = 10.0  # while backends die, a connection that works is worth more than balance


class Turnover:
    """The age at which the connections of one pool are replaced."""

    __slots__ = ("_calm_at",)

    def __init__(self) -> None:
        self._calm_at = 0.0

    def disturb(self, now: float) -> None:
        """Takes note of a connection that could not be opened, or whose peer fell silent."""
        self._calm_at = now + CALM_AFTER_S

    def age_s(self, connections: Iterable[Connection], now: float, most_s: float) -> float:
        """Returns how old connections get at the present load, in seconds up to ``most_s``."""
        if now < self._calm_at:
            return most_s
        answers, lived_s = 0, _HEAP_S
        for connection in connections:
            answers += connection.answers
            lived_s += now - connection.opened_at
        if answers * most_s <= QUERIES_PER_LIFE * lived_s:
            return most_s
        return min(most_s, max(LEAST_AGE_S, QUERIES_PER_LIFE * lived_s / answers))
