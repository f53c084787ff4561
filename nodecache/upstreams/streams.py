"""The pool of TCP and TLS connections to one upstream: which one carries a query.

Made for CoreDNS, which answers one connection strictly in order, and behind a service address,
where one connection is one pod: load spreads over idle ones, then over more of them.
"""

from __future__ import annotations

import struct
from math import inf

from nodecache.config.model import Upstream
from nodecache.counters import UpstreamSeries
from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.deaths import Deaths, is_suspect
from nodecache.upstreams.exchange import Attempt, Exchange, Failure
from nodecache.upstreams.habits import Habits
from nodecache.upstreams.outside import Outside
from nodecache.upstreams.patience import MOST_PATIENCE_S
from nodecache.upstreams.pool import WaitingPool
from nodecache.upstreams.room import MODEST_DEPTH, TARGET_CONNECTIONS, Room
from nodecache.upstreams.roster import MAX_DEPTH, Roster
from nodecache.upstreams.turnover import LEAST_AGE_S, LOOK_S, Turnover

SECOND_DIAL_AFTER_S = 0.1  # the kernel repeats a SYN after 1 s only, and to the same backend
REPLACEMENT_S = 0.5  # how often an aged connection that is needed looks for its successor
# Queries that arrive together leave together: while answers come this fast, what waits to be
# written to one connection may be this deep. Each query that shares saves two system calls and a
# wake-up; a name that is slow to resolve holds up at most seven others.
BATCH_DEPTH = 8
BATCH_RTT_S = 0.002

_LENGTH_AND_ID = struct.Struct("!HH")


class StreamPool(WaitingPool):
    """See the module."""

    __slots__ = (
        "_deaths",
        "_habits",
        "_last",
        "_levels",
        "_load",
        "_room",
        "_roster",
        "_turnover",
    )

    def __init__(self, upstream: Upstream, series: UpstreamSeries, outside: Outside) -> None:
        super().__init__(upstream, series, outside)
        self._roster = roster = Roster()
        self._levels = roster.levels
        self._habits = Habits()
        self._turnover = Turnover(upstream, outside.random)
        self._room = Room(upstream, roster, self._habits, self.patience)
        self._deaths = Deaths(roster, self._habits, self.health, self._turnover)
        self._last: Connection | None = None
        self._load = 0

    def __repr__(self) -> str:
        """Returns the figures that tests and people debugging look at."""
        return f"<{self._roster}; {self._load} pending, {len(self.waiting)} waiting>"

    def connection_counts(self) -> dict[str, int]:
        """Returns the number of connections per state."""
        return self._roster.counts()

    def can_serve(self) -> bool:
        """Whether there is a connection that may carry a query, now or soon."""
        return bool(self._roster.connections)

    def ask(self, exchange: Exchange, now: float) -> Failure | None:
        """Sends the query or lets it wait; returns why neither is possible."""
        if self.pace is not None and not self.pace.admits(exchange, now):
            return self.await_turn(self.pace, exchange, now)
        connection = self._choose(exchange, now)
        if connection is None:
            failure = self.wait(exchange, now)
            if failure is None:
                if is_suspect(exchange):
                    self._outside.chores.add(now + MOST_PATIENCE_S, self)
                self.dial_for_waiting(now)
            return failure
        self._send(connection, exchange, now)
        self._last = connection
        return None

    # Which connection.

    def _choose(self, exchange: Exchange, now: float) -> Connection | None:
        """Returns the connection that carries ``exchange``, None to let it wait for one.

        1. What a connection ended over has an idle one for itself, so that it takes nobody along.
        2. After an error that is doubted: the one that gave a good answer last, because nobody
           knows what a new one leads to.
        3. The one that was chosen just now and is not written to yet, while answers come fast.
        4. Of the idle ones, the one that has been idle longest.
        5. Of the busy ones that are not late, the one with the fewest queries; and another is
           opened where these are many.
        6. None while another may be opened, or gives its room in a moment.
        7. Of the late ones, the one with the fewest queries: better than none.
        """
        setbacks = exchange.setbacks
        if setbacks is not None:
            if setbacks.deaths:
                return self._deaths.find_idle(exchange, now)  # 1
            if setbacks.opinions and (well := self._roster.find_well(MODEST_DEPTH)) is not None:
                return well  # 2
        last = self._last
        if (
            last is not None
            and last.out
            and last.level is not None
            and len(last.pending) < BATCH_DEPTH
            and self.patience.srtt_s < BATCH_RTT_S
        ):
            return last  # 3
        idle = self._levels[0]
        if idle:
            return next(iter(idle))  # 4
        busy = self._choose_busy(now)  # 5
        if busy is not None:
            return busy
        if self._may_open(now) or self._make_room(now):
            return None  # 6
        return self._roster.find_late()  # 7

    def _choose_busy(self, now: float) -> Connection | None:
        for load in range(1, MAX_DEPTH):
            level = self._levels[load]
            while level:
                connection = next(iter(level))
                if now < self.patience.may_be_late_at(connection.oldest().sent_at):
                    self._dial_if_short(1, now)
                    return connection
                self.mark_late(connection)  # nobody has said so yet
        return None

    # Sending and hearing.

    def _send(self, connection: Connection, exchange: Exchange, now: float) -> None:
        outside, pending = self._outside, connection.pending
        level = connection.level
        if level is not None:
            del level[connection]
            connection.level = level = self._levels[len(pending) + 1]
            level[connection] = None
        message_id = outside.message_id()
        while message_id in pending:
            message_id = outside.message_id()
        pending[message_id] = attempt = Attempt(exchange, self, connection, now)
        query = exchange.query
        if exchange.setbacks is not None or self.forms.odd_until:
            query = self.compose(attempt, now)
        exchange.attempts.append(attempt)
        if not connection.out:
            outside.outbox.to_write.append(connection)
        connection.out.append(_LENGTH_AND_ID.pack(len(query) + 2, message_id) + query)
        self._load += 1
        self.attempts += 1
        if connection.answers + len(pending) >= self._habits.most_queries:
            self._drain(connection)
        elif exchange.setbacks is not None and is_suspect(exchange):
            self.mark_late(connection)

    def answered(self, connection: Connection, attempt: Attempt, now: float) -> None:
        """Takes note that ``attempt`` was answered."""
        self._load -= 1
        connection.answers += 1
        if connection.answers == 1:
            self._habits.note_success()
        connection.well_at = now
        self.patience.observe(now - attempt.sent_at, now)
        if self.health.has_trouble:
            self.health.recover()
        level = connection.level
        if level is not None:
            del level[connection]
            connection.level = level = self._levels[len(connection.pending)]
            level[connection] = None
        elif connection.state is State.LATE:
            self._roster.take_back(connection)
        else:
            self._close_if_drained(connection)
            return
        if self.waiting:
            self.serve_waiting(now)
        elif not connection.pending:
            self._limit_idle(connection)

    def _limit_idle(self, connection: Connection) -> None:
        most = self.upstream.max_idle_connections
        if self.is_retired or (most and len(self._levels[0]) > most):
            self._drain(connection)

    def mark_late(self, connection: Connection) -> None:
        """Takes the connection out of service until its next answer."""
        self._roster.set_aside(connection)
        if connection.pending:
            self.plan_look(connection, min(connection.silence_ends_at(), connection.ends_at()))

    def distrust(self, connection: Connection) -> None:
        """Takes a connection out of service whose answers are in doubt."""
        if connection.is_in_service:
            self._drain(connection)

    def _drain(self, connection: Connection) -> None:
        """Takes the connection out of service; it closes with its last answer."""
        self._roster.drain(connection)
        self._close_if_drained(connection)

    def _close_if_drained(self, connection: Connection) -> None:
        if not connection.pending:
            self._roster.forget(connection)
            self.close(connection)
            if self.waiting:  # for room under max_conns; it is closed before anybody wakes up
                self._outside.chores.add(0.0, self)

    # Opening.

    def dial_for_waiting(self, now: float) -> None:
        """Opens what the waiting exchanges need, as far as it may, now or after the pause."""
        if not self.waiting:
            return
        if now < self.health.dial_at:
            self.plan_dial()
        elif not self._may_open(now):
            self._make_room(now)
        self._dial_if_short(0, now)

    def _dial_if_short(self, extra: int, now: float) -> None:
        """Opens one connection if ``extra`` queries more than there are call for it."""
        if self._room.is_wanted(self._load + len(self.waiting) + extra):
            self._dial(now)

    def _dial(self, now: float) -> None:
        if now < self.health.dial_at or not self._may_open(now):
            return
        connection = Connection(self, now)
        self._roster.begin(connection)
        self.dialled += 1
        self._outside.outbox.to_open.append(connection)
        self.plan_look(connection, now + SECOND_DIAL_AFTER_S)

    def _may_open(self, now: float) -> bool:
        return self._room.has_more(self.has_probe, now)

    def _make_room(self, now: float) -> bool:
        """Gives up a late connection, if there is one that can be spared; it goes in a moment."""
        spared = self._room.find_spared(now)
        if spared is None:
            return False
        spared.is_given_up = True
        self.plan_look(spared, now)
        return True

    def has_spare(self, now: float) -> bool:
        """Whether there is room for a query that can be done without, such as a hedge."""
        if self._room.most and not self._may_open(now) and not any(self._levels):
            return False  # it would follow on a connection that is late already
        return super().has_spare(now)

    def may_probe(self, now: float) -> bool:
        """Whether there is room for a probe, which needs a connection of its own."""
        is_full = self._room.most and (self.waiting or not self._may_open(now))
        return not is_full and super().has_spare(now)

    def connected(self, connection: Connection, now: float) -> None:
        """Takes note that a connection may be written to."""
        self._habits.forget(now)
        self._turnover.begin(connection, now)
        connection.heard_at = now
        self._roster.open(connection)
        self._plan_next_look(connection, now)
        if self.waiting:
            self.serve_waiting(now)
        elif self.is_retired:
            self._drain(connection)

    def serve_waiting(self, now: float) -> None:
        """Gives waiting exchanges to connections; few to each while more are on their way."""
        depth = MODEST_DEPTH if self._roster.connecting else MAX_DEPTH
        for level in self._levels[:depth]:
            if not self.waiting:
                return
            for connection in list(level):
                exchange = self._deaths.first_for(connection, self.waiting, now)
                if exchange is not None:
                    self._send(connection, self.take_waiting(exchange), now)
        self.dial_for_waiting(now)

    # Losing.

    def lost(self, connection: Connection, now: float) -> list[Exchange]:
        """Forgets a connection that died; returns the exchanges that it leaves stranded."""
        if connection.state is State.CONNECTING:
            self._deaths.note_refusal(connection, now)
            return self._forget(connection, now, was_try=True)
        return self._forget(connection, now, self._deaths.note_end(connection, now))

    def is_to_blame(self, exchange: Exchange) -> bool:
        """Whether ``exchange`` is what connections end over, and not the upstream's own fault."""
        return self._deaths.is_to_blame(exchange)

    def keep_what_works(self, now: float) -> None:
        """Replaces connections no sooner than needed for a while: a backend is ill."""
        self._turnover.disturb(now)

    def _forget(self, connection: Connection, now: float, was_try: bool = False) -> list[Exchange]:
        """Forgets a connection; returns its exchanges, and those whose try it was."""
        self._load -= len(connection.pending)
        self._roster.forget(connection)
        stranded = connection.end()
        # Those that wait for the end of another connection have lost nothing by it.
        if self.waiting and not self._roster.connections and was_try:
            stranded += self.strand_waiting(connection.opened_at)
        else:
            self.dial_for_waiting(now)
        return stranded

    def _discard(self, connection: Connection, now: float) -> list[Exchange]:
        """Closes a connection; returns the exchanges that it leaves stranded."""
        self._outside.outbox.to_close.append(connection)
        connection.note_given_up()
        return self._forget(connection, now)

    # Looking after.

    def check(self, connection: Connection, now: float) -> list[Exchange]:
        """Closes a connection that is due; returns the exchanges that it leaves stranded."""
        if now < connection.look_at:
            return []
        connection.look_at = inf
        if connection.state is State.CONNECTING:
            return self._check_connecting(connection, now)
        if connection.pending:
            if self.note_silence(connection, now):
                self._turnover.disturb(now)
            if connection.is_given_up or now >= connection.ends_at():
                return self._discard(connection, now)
        elif self.is_retired or now >= self._turnover.idle_ends_at(connection):
            self._drain(connection)
            return []
        if connection.is_in_service:
            self._turn_over(connection, now)
        self._plan_next_look(connection, now)
        return []

    def _check_connecting(self, connection: Connection, now: float) -> list[Exchange]:
        gives_up_at = connection.opened_at + self.connect_timeout_s
        if now < gives_up_at:
            if self.waiting and len(self._roster.connections) == self._roster.connecting:
                # Behind a service address the next connection goes to another backend.
                self._dial(now)
            self.plan_look(connection, gives_up_at)
            return []
        self._outside.outbox.to_close.append(connection)
        return self.lost(connection, now)

    def _turn_over(self, connection: Connection, now: float) -> None:
        """Replaces a connection that is old enough; opens one more where a few have much to do."""
        roster = self._roster
        age_s = self._turnover.age_s(roster.connections, now)
        is_aged = now >= connection.opened_at + age_s * connection.age_factor
        is_in_use = now - connection.heard_at <= LOOK_S
        if now >= connection.expires_at or is_aged:
            self._replace(connection, now)
        elif age_s > LEAST_AGE_S:
            return
        if is_in_use and not roster.connecting and roster.useful < TARGET_CONNECTIONS:
            self._dial(now)

    def _replace(self, connection: Connection, now: float) -> None:
        """Takes an aged connection out of service.

        One that is needed has a successor first, if there may be one more.
        """
        roster = self._roster
        others = roster.useful - roster.connecting
        if connection.level is not None:
            others -= 1
        may_wait = roster.connecting or self._may_open(now)
        if others or now - connection.heard_at > LOOK_S or not may_wait:
            self._drain(connection)
            return
        if not roster.connecting:
            self._dial(now)
        connection.expires_at = now + REPLACEMENT_S

    def _plan_next_look(self, connection: Connection, now: float) -> None:
        if connection.state is not State.CLOSED:
            self.plan_look(connection, self._turnover.next_look_at(connection, now))

    def retire(self) -> None:
        """Closes what is idle, and the rest when it has drained."""
        self.is_retired = True
        for connection in list(self._roster.connections):
            if connection.is_in_service:
                self._drain(connection)
