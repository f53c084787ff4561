"""The pool of TCP and TLS connections to one upstream: which one carries a query.

Made for CoreDNS, which answers one connection strictly in order, and behind a service address,
where one connection is one pod: an idle connection first, the one that has been idle longest, so
that load spreads; then more connections; then a few queries on the same one.

Invariant: a connection is in ``_levels[n]`` if and only if it takes queries and has n pending.
"""

from __future__ import annotations

import struct
from math import inf

from nodecache.config.model import Transport, Upstream
from nodecache.counters import UpstreamSeries
from nodecache.engine.exchange import Exchange, Failure
from nodecache.engine.turnover import LEAST_AGE_S, Turnover
from nodecache.engine.upstream import (
    SECOND_DIAL_AFTER_S,
    Attempt,
    Connection,
    Means,
    Pool,
    State,
)

TARGET_CONNECTIONS = 8  # several pods get a share; a dead one takes an eighth or so
MODEST_DEPTH = 4  # queries on one connection before more than the target are opened
MAX_CONNECTIONS = 64  # a CoreDNS pod or a dnsmasq must serve every node of a cluster
MAX_DEPTH = 16  # a slow answer holds up at most 15 others
IDLE_S = 8.0  # CoreDNS closes idle connections after 10 s; be gone before
UNUSED_S = 2.5  # and after 3 s if nothing was ever asked
AGE_S = 30.0  # so that new pods get their share within a minute; under load see turnover.py
REPLACEMENT_S = 0.5  # how often an aged connection that is needed looks for its successor
# Queries that arrive together leave together: while answers come this fast, what waits to be
# written to one connection may be this deep. Each query that shares saves two system calls and a
# wake-up; a name that is slow to resolve holds up at most seven others.
BATCH_DEPTH = 8
BATCH_RTT_S = 0.002
LOOK_S = 1.0  # how often a busy connection is looked at
LEAST_LOOK_S = 0.01  # "expire 0s" must not become a busy loop

_LENGTH_AND_ID = struct.Struct("!HH")


class StreamPool(Pool):
    """See the module."""

    __slots__ = (
        "_connecting",
        "_connections",
        "_draining",
        "_last",
        "_late",
        "_levels",
        "_load",
        "_turnover",
    )

    def __init__(self, upstream: Upstream, series: UpstreamSeries, means: Means) -> None:
        super().__init__(upstream, series, means)
        self._levels: tuple[dict[Connection, None], ...] = tuple({} for _ in range(MAX_DEPTH + 1))
        self._connections: dict[Connection, None] = {}
        self._draining: dict[Connection, None] = {}
        self._connecting = 0
        self._last: Connection | None = None
        self._late = 0
        self._load = 0
        self._turnover = Turnover()

    def __repr__(self) -> str:
        """Returns the figures that tests and people debugging look at."""
        counts = self.connection_counts()
        figures = [f"{counts[name]} {name}" for name in counts]
        return f"<{', '.join(figures)}; {self._load} pending, {len(self.waiting)} waiting>"

    def connection_counts(self) -> dict[str, int]:
        """Returns the number of connections per state."""
        idle = len(self._levels[0])
        return {
            "connecting": self._connecting,
            "idle": idle,
            "busy": len(self._connections) - self._connecting - idle,
            "draining": len(self._draining),
        }

    def can_serve(self) -> bool:
        """Whether there is a connection that may carry a query, now or soon."""
        return bool(self._connections)

    def ask(self, exchange: Exchange, now: float) -> Failure | None:
        """Sends the query or lets it wait; returns why neither is possible."""
        if self.pace is not None and not self.pace.admits(exchange, now):
            return self.await_turn(self.pace, exchange, now)
        connection = self._choose(now)
        if connection is None:
            failure = self.wait(exchange, now)
            if failure is None:
                self.dial_for_waiting(now)
            return failure
        self._send(connection, exchange, now)
        self._last = connection
        return None

    def _choose(self, now: float) -> Connection | None:
        """Returns the connection for the next query, None if none takes another."""
        last = self._last
        if (
            last is not None
            and last.out
            and last.level is not None
            and len(last.pending) < BATCH_DEPTH
            and self._srtt_s < BATCH_RTT_S
        ):
            return last
        idle = self._levels[0]
        return next(iter(idle)) if idle else self._choose_busy(now)

    def _choose_busy(self, now: float) -> Connection | None:
        """Returns the connection with the fewest pending queries, None if none takes another."""
        for load in range(1, MAX_DEPTH):
            level = self._levels[load]
            if level:
                self._dial_if_short(1, now)
                return next(iter(level))
        if self._may_open():
            return None
        return self._choose_late()

    def _choose_late(self) -> Connection | None:
        """Returns the least loaded connection that is behind: better than no connection."""
        late = [c for c in self._connections if c.has_late_query and len(c.pending) < MAX_DEPTH]
        return min(late, key=lambda connection: len(connection.pending), default=None)

    def _send(self, connection: Connection, exchange: Exchange, now: float) -> None:
        means, pending = self._means, connection.pending
        level = connection.level
        if level is not None:
            del level[connection]
            connection.level = level = self._levels[len(pending) + 1]
            level[connection] = None
        message_id = means.message_id()
        while message_id in pending:
            message_id = means.message_id()
        pending[message_id] = attempt = Attempt(exchange, connection, now)
        exchange.attempts.append(attempt)
        query = exchange.query if not self.edns_off_until else self.compose(attempt, now)
        if not connection.out:
            means.outbox.to_write.append(connection)
        connection.out.append(_LENGTH_AND_ID.pack(len(query) + 2, message_id) + query)
        self._load += 1
        self.attempts += 1

    def answered(self, connection: Connection, attempt: Attempt, now: float) -> None:
        """Takes note that ``attempt`` was answered."""
        self._load -= 1
        connection.answers += 1
        self.observe_rtt(now - attempt.sent_at)
        level, load = connection.level, len(connection.pending)
        if level is not None:
            del level[connection]
        elif connection.has_late_query and connection.state is State.READY:
            connection.has_late_query = False
            self._late -= 1
        else:
            self._close_if_drained(connection)
            return
        connection.level = level = self._levels[load]
        level[connection] = None
        if self.waiting:
            self._serve_waiting(now)
        elif not load:
            self._limit_idle(connection)

    def _limit_idle(self, connection: Connection) -> None:
        most = self.upstream.max_idle_connections
        if self.is_retired or (most and len(self._levels[0]) > most):
            self._drain(connection)

    def _close_if_drained(self, connection: Connection) -> None:
        if not connection.pending:
            self._draining.pop(connection, None)
            self.close(connection)
            if self.waiting:  # for room under max_conns; it is closed before anybody wakes up
                self._means.chores.add(0.0, self)

    def _drain(self, connection: Connection) -> None:
        """Takes the connection out of service; it closes with its last answer."""
        self._withdraw(connection)
        connection.state = State.DRAINING
        self._draining[connection] = None
        self._close_if_drained(connection)

    def _withdraw(self, connection: Connection) -> None:
        """Takes the connection out of all tables of those that take queries."""
        if connection.level is not None:
            del connection.level[connection]
            connection.level = None
        if connection.has_late_query:
            connection.has_late_query = False
            self._late -= 1
        if connection.state is State.CONNECTING:
            self._connecting -= 1
        self._connections.pop(connection, None)
        self._draining.pop(connection, None)

    # Opening.

    def dial_for_waiting(self, now: float) -> None:
        """Opens what the waiting exchanges need, as far as it may."""
        if self.waiting:
            self._dial_if_short(0, now)

    def _dial_if_short(self, extra: int, now: float) -> None:
        """Opens one connection if ``extra`` queries more than there are call for it."""
        useful = len(self._connections) - self._late
        wanted = self._load + len(self.waiting) + extra
        most = min(wanted, TARGET_CONNECTIONS)
        if useful < most or wanted > useful * MODEST_DEPTH:
            self._dial(now)

    def _may_open(self) -> bool:
        """Whether there may be one connection more; ``max_conns`` counts all that are open."""
        most = self.upstream.max_connections
        count = len(self._connections)
        if not most:
            return count < MAX_CONNECTIONS
        return count + len(self._draining) + self.has_probe < min(most, MAX_CONNECTIONS)

    def has_spare(self, now: float) -> bool:
        """Whether there is room for a query that can be done without, such as a hedge."""
        if self.upstream.max_connections and not self._may_open() and not any(self._levels):
            return False  # it would follow on a connection that is late already
        return super().has_spare(now)

    def may_probe(self, now: float) -> bool:
        """Whether there is room for a probe, which needs a connection of its own."""
        is_full = self.upstream.max_connections and not self._may_open()
        return not is_full and super().has_spare(now)

    def _dial(self, now: float) -> None:
        if now < self.health.dial_at or not self._may_open():
            return
        connection = Connection(self, now)
        self._connections[connection] = None
        self._connecting += 1
        self.dialled += 1
        self._means.outbox.to_open.append(connection)
        self.plan_look(connection, now + SECOND_DIAL_AFTER_S)

    def connected(self, connection: Connection, now: float) -> None:
        """Takes note that a connection may be written to."""
        self._connecting -= 1
        random, upstream = self._means.random, self.upstream
        # Jitter keeps the connections of a node, and the nodes of a cluster, out of step. An
        # age that the operator gave is a bound, so the jitter only shortens it.
        connection.age_factor = 0.75 + 0.5 * random()
        connection.expires_at = now + self._most_age_s() * connection.age_factor
        connection.idle_s = min(upstream.expire_s, IDLE_S) * (0.98 - 0.1 * random())
        connection.state = State.READY
        connection.heard_at = now
        connection.level = self._levels[0]
        connection.level[connection] = None
        self._plan_next_look(connection, now)
        if self.waiting:
            self._serve_waiting(now)
        elif self.is_retired:
            self._drain(connection)

    def _most_age_s(self) -> float:
        most_s = self.upstream.max_age_s
        return most_s * 0.8 if most_s else AGE_S

    def _serve_waiting(self, now: float) -> None:
        """Gives waiting exchanges to connections; few to each while more are on their way."""
        depth = MODEST_DEPTH if self._connecting else MAX_DEPTH
        for level in self._levels[:depth]:
            while level and self.waiting:
                self._send(next(iter(level)), self.take_waiting(), now)
        self.dial_for_waiting(now)

    # Losing.

    def lost(self, connection: Connection, now: float) -> list[Exchange]:
        """Forgets a connection that died; returns the exchanges that it leaves stranded.

        An end before the first answer counts as a failure to connect: a server that accepts
        and hangs up must not be dialled in a loop.
        """
        if connection.state is State.CONNECTING or (connection.pending and not connection.answers):
            self.health.count_dial_failure(connection.opened_at, now)
            self._turnover.disturb(now)
        return self._forget(connection, now)

    def _forget(self, connection: Connection, now: float) -> list[Exchange]:
        """Forgets a connection; returns its exchanges, and those that waited if it was the last."""
        attempts = list(connection.pending.values())
        is_draining = connection.state is State.DRAINING
        connection.pending.clear()
        connection.out.clear()
        self._load -= len(attempts)
        self._withdraw(connection)
        connection.state = State.CLOSED
        for attempt in attempts:
            attempt.is_live = False
        stranded = [attempt.exchange for attempt in attempts]
        # Those that wait for the end of a draining connection have lost nothing by it.
        has_room = is_draining and now >= self.health.dial_at
        if self.waiting and not self._connections and not has_room:
            stranded += self.strand_waiting()
        else:
            self.dial_for_waiting(now)
        return stranded

    def distrust(self, connection: Connection) -> None:
        """Takes a connection out of service whose answers are in doubt."""
        if connection.state is State.READY:
            self._drain(connection)

    def keep_what_works(self, now: float) -> None:
        """Replaces connections no sooner than needed for a while: a backend is ill."""
        self._turnover.disturb(now)

    def mark_late(self, connection: Connection) -> None:
        """Takes the connection out of service until its next answer."""
        if connection.level is not None:
            del connection.level[connection]
            connection.level = None
            connection.has_late_query = True
            self._late += 1
        if connection.pending:
            self.plan_look(connection, connection.silence_ends_at())

    # Looking after.

    def check(self, connection: Connection, now: float) -> list[Exchange]:
        """Closes a connection that is due; returns the exchanges that it leaves stranded."""
        if now < connection.look_at:
            return []
        connection.look_at = inf
        if connection.state is State.CONNECTING:
            return self._check_connecting(connection, now)
        if connection.pending:
            if now >= connection.silence_ends_at():
                self.health.count_failure()
                self._turnover.disturb(now)
                self._means.outbox.to_close.append(connection)
                return self._forget(connection, now)
        elif self._is_spent(connection, now):
            self._drain(connection)
            return []
        if connection.state is State.READY:
            self._turn_over(connection, now)
        self._plan_next_look(connection, now)
        return []

    def _check_connecting(self, connection: Connection, now: float) -> list[Exchange]:
        gives_up_at = connection.opened_at + self.connect_timeout_s
        if now < gives_up_at:
            if self.waiting and len(self._connections) == self._connecting:
                # Behind a service address the next connection goes to another backend.
                self._dial(now)
            self.plan_look(connection, gives_up_at)
            return []
        self._means.outbox.to_close.append(connection)
        return self.lost(connection, now)

    def _is_spent(self, connection: Connection, now: float) -> bool:
        """Whether an idle connection has been idle for too long."""
        return self.is_retired or now >= self._idle_ends_at(connection)

    def _idle_ends_at(self, connection: Connection) -> float:
        idle_s = connection.idle_s if connection.answers else min(connection.idle_s, UNUSED_S)
        return connection.heard_at + idle_s

    def _turn_over(self, connection: Connection, now: float) -> None:
        """Replaces a connection that is old enough; opens one more where a few have much to do."""
        age_s = self._most_age_s()
        if self.upstream.transport is Transport.TCP:  # TLS handshakes are too dear
            age_s = self._turnover.age_s(self._connections, now, age_s)
        is_aged = now >= connection.opened_at + age_s * connection.age_factor
        is_in_use = now - connection.heard_at <= LOOK_S
        if now >= connection.expires_at or is_aged:
            self._replace(connection, now)
        elif age_s > LEAST_AGE_S:
            return
        useful = len(self._connections) - self._late
        if is_in_use and not self._connecting and useful < TARGET_CONNECTIONS:
            self._dial(now)

    def _replace(self, connection: Connection, now: float) -> None:
        """Takes an aged connection out of service.

        One that is needed has a successor first, if there may be one more.
        """
        others = len(self._connections) - self._connecting - self._late
        if connection.level is not None:
            others -= 1
        may_wait = self._connecting or self._may_open()
        if others or now - connection.heard_at > LOOK_S or not may_wait:
            self._drain(connection)
            return
        if not self._connecting:
            self._dial(now)
        connection.expires_at = now + REPLACEMENT_S

    def _plan_next_look(self, connection: Connection, now: float) -> None:
        """Puts the next look at an open connection down, early enough for what may be due."""
        if connection.state is State.CLOSED:
            return
        look_s = min(LOOK_S * connection.age_factor, connection.idle_s)
        if connection.pending:
            look_at = min(now + look_s, connection.silence_ends_at())
        else:
            look_at = min(now + look_s, self._idle_ends_at(connection))
        if connection.state is State.READY:
            look_at = min(look_at, connection.expires_at)
        self.plan_look(connection, max(look_at, now + LEAST_LOOK_S))

    def retire(self) -> None:
        """Closes what is idle, and the rest when it has drained."""
        self.is_retired = True
        for connection in list(self._connections):
            if connection.state is State.READY:
                self._drain(connection)
