"""The pool of UDP sockets to one upstream: a new one, so a new source port, for each query.

A socket stays open until its answer comes or its time is up, so that an answer later than the
patience of its exchange still counts, and strays do no harm (RFC 5452 section 9.2).
"""

from __future__ import annotations

from math import inf

from nodecache.config.model import Upstream
from nodecache.counters import UpstreamSeries
from nodecache.upstreams.connection import SILENCE_S, Connection, State
from nodecache.upstreams.exchange import Attempt, Exchange, Failure
from nodecache.upstreams.outside import Outside
from nodecache.upstreams.pool import WaitingPool

MAX_SOCKETS = 2048  # file descriptors; the exchanges beyond them wait for the oldest to go


class DatagramPool(WaitingPool):
    """See the module."""

    __slots__ = ("_sockets",)

    def __init__(self, upstream: Upstream, series: UpstreamSeries, outside: Outside) -> None:
        super().__init__(upstream, series, outside)
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
        if len(self._sockets) >= MAX_SOCKETS:
            self._make_room(now)
            return self.wait(exchange, now)
        if now < self.health.dial_at:
            return self.wait(exchange, now)
        self._send(exchange, now)
        return None

    def _send(self, exchange: Exchange, now: float) -> None:
        connection = Connection(self, now)
        connection.become(State.READY)
        message_id = self._outside.message_id()
        attempt = Attempt(exchange, self, connection, now)
        connection.pending[message_id] = attempt
        query = exchange.query
        if exchange.setbacks is not None or self.forms.odd_until:
            query = self.compose(attempt, now)
        exchange.attempts.append(attempt)
        connection.out.append(message_id.to_bytes(2, "big") + query)
        self._sockets[connection] = None
        self._outside.outbox.to_open.append(connection)
        self.attempts += 1
        self.dialled += 1
        self.plan_look(connection, connection.silence_ends_at())

    def _make_room(self, now: float) -> None:
        """Gives up the oldest socket that has been silent for long; it goes in a moment."""
        for connection in self._sockets:
            if connection.is_given_up:
                continue
            if now - connection.opened_at >= SILENCE_S:
                connection.is_given_up = True
                self.plan_look(connection, now)
            return

    def serve_waiting(self, now: float) -> None:
        """Sends the queries that wait for a socket."""
        while self.waiting and len(self._sockets) < MAX_SOCKETS and now >= self.health.dial_at:
            self._send(self.take_waiting(next(iter(self.waiting))), now)

    def answered(self, connection: Connection, attempt: Attempt, now: float) -> None:
        """Takes note that ``attempt`` was answered."""
        self.patience.observe(now - attempt.sent_at, now)
        if self.health.has_trouble:
            self.health.recover()
        self._sockets.pop(connection, None)
        self.close(connection)
        if self.waiting:
            self.serve_waiting(now)

    def connected(self, connection: Connection, now: float) -> None:
        """Does nothing: a UDP socket is ready from the start."""

    def lost(self, connection: Connection, now: float) -> list[Exchange]:
        """Forgets a socket that was refused; returns the exchanges that it leaves stranded."""
        self.health.count_dial_failure(connection.opened_at, now)
        stranded = self._forget(connection)
        for exchange in stranded:
            exchange.setback().unreached.add(self)
        if self.waiting and self.health.is_dead(now):
            stranded += self.strand_waiting(connection.opened_at)
        return stranded

    def check(self, connection: Connection, now: float) -> list[Exchange]:
        """Closes a socket whose time is up; returns the exchanges that it leaves stranded."""
        if now < connection.look_at or not connection.pending:
            return []
        connection.look_at = inf
        self.note_silence(connection, now)
        if connection.is_given_up or now >= connection.ends_at():
            return self._discard(connection, now)
        self.plan_look(connection, min(connection.silence_ends_at(), connection.ends_at()))
        return []

    def _discard(self, connection: Connection, now: float) -> list[Exchange]:
        """Closes a socket; returns the exchanges that it leaves stranded."""
        self._outside.outbox.to_close.append(connection)
        connection.note_given_up()
        stranded = self._forget(connection)
        self.serve_waiting(now)
        return stranded

    def _forget(self, connection: Connection) -> list[Exchange]:
        self._sockets.pop(connection, None)
        return connection.end()

    def mark_late(self, connection: Connection) -> None:
        """Does nothing: the socket carries no other query."""

    def distrust(self, connection: Connection) -> None:
        """Does nothing: the socket is closed."""

    def is_to_blame(self, exchange: Exchange) -> bool:
        """Returns False: no socket ends over a question."""
        return False

    def keep_what_works(self, now: float) -> None:
        """Does nothing: no socket is kept."""

    def retire(self) -> None:
        """Lets the sockets end by themselves: each has one query."""
        self.is_retired = True
