"""How long the connections of a pool live, so that they spread over what is behind one address.

Behind a service address each new connection goes to a backend at random, so few long-lived ones
are spread badly: with eight over three backends the busiest has twice the queries of the idlest,
or more. What evens out is many connections one after the other. Under load they are therefore
replaced early, all at the same age: a slow backend answers fewer queries in it, not as many. A
quiet pool keeps its connections: they cost more than the balance of a few queries is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nodecache.config.model import Transport, Upstream
from nodecache.upstreams.connection import Connection

IDLE_S = 8.0  # CoreDNS closes idle connections after 10 s; be gone before
UNUSED_S = 2.5  # and after 3 s if nothing was ever asked
AGE_S = 30.0  # so that new pods get their share within a minute; under load see below
QUERIES_PER_LIFE = 50  # a handshake for so many queries; 180 lives for 150 queries/s in a minute
LEAST_AGE_S = 1.0  # at most 8 new connections a second for a pool of 8
_HEAP_S = 0.25  # counted as lived without a query, so that a few at once are no load yet
CALM_AFTER_S = 10.0  # while backends die, a connection that works is worth more than balance
LOOK_S = 1.0  # how often a busy connection is looked at
LEAST_LOOK_S = 0.01  # "expire 0s" must not become a busy loop


class Turnover:
    """The ages at which the connections of one pool are replaced and looked at."""

    __slots__ = ("_calm_at", "_random", "_upstream")

    def __init__(self, upstream: Upstream, random: Callable[[], float]) -> None:
        self._upstream = upstream
        self._random = random
        self._calm_at = 0.0

    def begin(self, connection: Connection, now: float) -> None:
        """Says how long a connection that has just been opened may live.

        Jitter keeps the connections of a node, and the nodes of a cluster, out of step. An age
        that the operator gave is a bound, so the jitter only shortens it.
        """
        connection.age_factor = 0.75 + 0.5 * self._random()
        connection.expires_at = now + self._most_age_s() * connection.age_factor
        idle_s = min(self._upstream.expire_s, IDLE_S)
        connection.idle_s = idle_s * (0.98 - 0.1 * self._random())

    def disturb(self, now: float) -> None:
        """Takes note of a connection that could not be opened, or whose peer fell silent."""
        self._calm_at = now + CALM_AFTER_S

    def age_s(self, connections: Iterable[Connection], now: float) -> float:
        """Returns how old connections get at the present load, in seconds."""
        most_s = self._most_age_s()
        if now < self._calm_at or self._upstream.transport is not Transport.TCP:
            return most_s  # TLS handshakes are too dear
        answers, lived_s = 0, _HEAP_S
        for connection in connections:
            answers += connection.answers
            lived_s += now - connection.opened_at
        if answers * most_s <= QUERIES_PER_LIFE * lived_s:
            return most_s
        return min(most_s, max(LEAST_AGE_S, QUERIES_PER_LIFE * lived_s / answers))

    def _most_age_s(self) -> float:
        most_s = self._upstream.max_age_s
        return most_s * 0.8 if most_s else AGE_S

    def idle_ends_at(self, connection: Connection) -> float:
        """Returns when a connection without pending queries has been idle for too long."""
        idle_s = connection.idle_s if connection.answers else min(connection.idle_s, UNUSED_S)
        return connection.heard_at + idle_s

    def next_look_at(self, connection: Connection, now: float) -> float:
        """Returns when to look at an open connection next, early enough for what may be due."""
        look_s = min(LOOK_S * connection.age_factor, connection.idle_s)
        if connection.pending:
            look_at = min(now + look_s, connection.silence_ends_at(), connection.ends_at())
        else:
            look_at = min(now + look_s, self.idle_ends_at(connection))
        if connection.is_in_service:
            look_at = min(look_at, connection.expires_at)
        return max(look_at, now + LEAST_LOOK_S)
