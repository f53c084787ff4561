"""The pool of UDP sockets to one upstream: a new one, so a new source port, for each query.

A socket stays open until its answer comes or its time is up, so that an answer later than the
patience of its exchange still counts, and strays do no harm (RFC 5452 section 9.2).
"""

from __future__ import annotations

from math import inf

from nodecache.config.model import Upstream
from nodecache.counters import UpstreamSeries
from nodecache.engine.exchange import Exchange, Failure
from nodecache.engine.upstream import Attempt, Connection, Means, Pool, State

MAX_SOCKETS = 2048  # file descriptors; the exchanges beyond them wait


class DatagramPool(Pool):
    """See the module."""

    __slots__ = ("_sockets",)

    def __init__(self, upstream: Upstream, series: UpstreamSeries, means: Means) -> None:
        super().__init__(upstream, series, means)
        self._sockets: dict[Connection, None] = {}

    def __repr__(self) -> str:
        """Returns the figures that tests and people debugging look at."""
        return f"<{len(self._sockets)} busy, {len(self.waiting)} waiting>"

    def connection_counts(self) -> dict[str, int]:
        """Returns the number of connections per state."""
        return {"busy": len(self._sockets)}

    def can_serve(self) -> bool:
        """Whether there is a connection that may carry a query, now or soon."""
        return False

    def ask(self, exchange: Exchange, now: float) -> Failure | None:
        """Sends the query or lets it wait; returns why neither is possible."""
        if self.pace is not None and not self.pace.admits(exchange, now):
            return self.await_turn(self.pace, exchange, now)
        if len(self._sockets) >= MAX_SOCKETS or now < self.health.dial_at:
            return self.wait(exchange, now)
        self._send(exchange, now)
        return None

    def _send(self, exchange: Exchange, now: float) -> None:
        connection = Connection(self, now)
        connection.state = State.READY
        message_id = self._means.message_id()
        attempt = Attempt(exchange, connection, now)
        connection.pending[message_id] = attempt
        exchange.attempts.append(attempt)
        query = exchange.query if not self.edns_off_until else self.compose(attempt, now)
        connection.out.append(message_id.to_bytes(2, "big") + query)
        self._sockets[connection] = None
        self._means.outbox.to_open.append(connection)
        self.attempts += 1
        self.dialled += 1
        self.plan_look(connection, connection.silence_ends_at())

    def dial_for_waiting(self, now: float) -> None:
        """Sends the queries that wait for a socket."""
        while self.waiting and len(self._sockets) < MAX_SOCKETS and now >= self.health.dial_at:
            self._send(self.take_waiting(), now)

    def answered(self, connection: Connection, attempt: Attempt, now: float) -> None:
        """Takes note that ``attempt`` was answered."""
        self.observe_rtt(now - attempt.sent_at)
        self._sockets.pop(connection, None)
        self.close(connection)
        if self.waiting:
            self.dial_for_waiting(now)

    def connected(self, connection: Connection, now: float) -> None:
        """Does nothing: a UDP socket is ready from the start."""

    def lost(self, connection: Connection, now: float) -> list[Exchange]:
        """Forgets a socket that was refused; returns the exchanges that it leaves stranded."""
        self.health.count_dial_failure(connection.opened_at, now)
        stranded = self._forget(connection)
        if self.waiting and self.health.is_dead(now):
            stranded += self.strand_waiting()
        return stranded

    def check(self, connection: Connection, now: float) -> list[Exchange]:
        """Closes a socket whose time is up; returns the exchanges that it leaves stranded."""
        if now < connection.look_at or not connection.pending:
            return []
        connection.look_at = inf
        ends_at = connection.silence_ends_at()
        if now < ends_at:
            self.plan_look(connection, ends_at)
            return []
        self.health.count_failure()
        self._means.outbox.to_close.append(connection)
        stranded = self._forget(connection)
        self.dial_for_waiting(now)
        return stranded

    def _forget(self, connection: Connection) -> list[Exchange]:
        self._sockets.pop(connection, None)
        connection.state = State.CLOSED
        attempts = list(connection.pending.values())
        connection.pending.clear()
        connection.out.clear()
        for attempt in attempts:
            attempt.is_live = False
        return [attempt.exchange for attempt in attempts]

    def mark_late(self, connection: Connection) -> None:
        """Does nothing: the socket carries no other query."""

    def retire(self) -> None:
        """Lets the sockets end by themselves: each has one query."""
        self.is_retired = True
