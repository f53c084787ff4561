"""What both kinds of pool share: who waits in it, whose turn it is, in which form is asked.

Invariant: an exchange waits in at most one queue.
"""

from __future__ import annotations

from abc import abstractmethod

from nodecache.config.model import Upstream
from nodecache.counters import UpstreamSeries
from nodecache.upstreams.connection import Connection, Pool, State
from nodecache.upstreams.exchange import Attempt, Exchange, Failure, Queue
from nodecache.upstreams.forms import Form, compose
from nodecache.upstreams.outside import Outside
from nodecache.upstreams.pace import Pace

MAX_WAITING = 1000  # exchanges: 4.5 s of 200 misses/s; more than that would time out anyway


class WaitingPool(Pool):
    """A pool in which exchanges wait for their turn and for a connection."""

    __slots__ = ("_next_dial_look", "_outside")

    def __init__(self, upstream: Upstream, series: UpstreamSeries, outside: Outside) -> None:
        super().__init__(upstream, series)
        self._outside = outside
        self._next_dial_look = 0.0

    @abstractmethod
    def can_serve(self) -> bool:
        """Whether there is a connection that may carry a query, now or soon."""

    def is_usable(self, now: float) -> bool:
        """Whether a query had better go here than to an upstream that is not."""
        health, pace = self.health, self.pace
        if pace is not None and not pace.has_room(now):
            return False
        return not health.is_down and (now >= health.dial_at or self.can_serve())

    def has_spare(self, now: float) -> bool:
        """Whether there is room for a query that can be done without, such as a hedge."""
        return self.pace is None or self.pace.has_spare(now)

    def may_probe(self, now: float) -> bool:
        """Whether there is room for a probe, which may need a connection of its own."""
        return self.has_spare(now)

    def refusal(self) -> Failure | None:
        """Returns why nothing more can wait here, None if something can."""
        if len(self.waiting) >= MAX_WAITING:
            return Failure.OVERLOADED
        pace = self.pace
        if pace is not None and len(pace.waiting) >= pace.most_waiting:
            return Failure.PACED
        return None

    # Turns.

    def await_turn(self, pace: Pace, exchange: Exchange, now: float) -> Failure | None:
        """Lets the exchange wait for its turn; returns why it cannot."""
        if exchange.is_spare:
            self.series.left_out += 1
            return Failure.PACED
        if len(pace.waiting) >= pace.most_waiting:
            return Failure.PACED
        self.series.paced += 1
        self._enqueue(pace, exchange)
        self._plan_turns(pace, now)
        return None

    def wake(self, now: float) -> list[Exchange]:
        """Dials after a pause for those that still wait, and gives out turns.

        Returns the exchanges that had their turn and still could not be asked.
        """
        if self.waiting and now >= self.health.dial_at:
            self.serve_waiting(now)
        return [] if self.pace is None else self._give_turns(self.pace, now)

    def _give_turns(self, pace: Pace, now: float) -> list[Exchange]:
        pace.is_planned = False
        failed = []
        while (exchange := pace.take_turn(now)) is not None:
            pool = pace.waiting.pop(exchange)
            if pool.ask(exchange, now) is not None:
                failed.append(exchange)
        self._plan_turns(pace, now)
        return failed

    def _plan_turns(self, pace: Pace, now: float) -> None:
        if pace.waiting and not pace.is_planned:
            pace.is_planned = True
            self._outside.chores.add(pace.next_at(now), self)

    # Waiting for a connection.

    def wait(self, exchange: Exchange, now: float) -> Failure | None:
        """Lets the exchange wait for a connection, here only; returns why it cannot.

        However dead the upstream looks, each exchange gets one try.
        """
        health, setbacks = self.health, exchange.setbacks
        if len(self.waiting) >= MAX_WAITING:
            return Failure.OVERLOADED
        if now < health.dial_at and not self.can_serve():
            if setbacks is not None and self in setbacks.unreached and health.is_dead(now):
                return Failure.UNREACHABLE
            self.plan_dial()
        self._enqueue(self, exchange)
        return None

    def _enqueue(self, queue: Queue, exchange: Exchange) -> None:
        """Lets the exchange wait in ``queue``, and nowhere else."""
        elsewhere = exchange.waiting_in
        if elsewhere is not None:
            del elsewhere.waiting[exchange]
        queue.waiting[exchange] = self
        exchange.waiting_in = queue

    def plan_dial(self) -> None:
        """Has ``wake`` called when the next connection may be opened."""
        if self._next_dial_look != self.health.dial_at:
            self._next_dial_look = self.health.dial_at
            self._outside.chores.add(self.health.dial_at, self)

    def strand_waiting(self, dialled_at: float) -> list[Exchange]:
        """Removes and returns those whose try failed: a connection that was dialled for them.

        Who came later waits for a try that begins after that.
        """
        stranded = [e for e in self.waiting if e.started_at <= dialled_at]
        if len(stranded) < len(self.waiting):
            self.plan_dial()
        for exchange in stranded:
            self.take_waiting(exchange)
            setbacks = exchange.setback()
            setbacks.dial_failures += 1
            setbacks.unreached.add(self)
        return stranded

    # Asking and hearing.

    def compose(self, attempt: Attempt, now: float) -> bytes:
        """Returns the query of ``attempt``, not yet among its exchange's, without its ID."""
        exchange, forms = attempt.exchange, self.forms
        setbacks = exchange.setbacks
        form = forms.form(now)
        if setbacks is not None:
            form = max(form, setbacks.form)
            # Silence may be what a server says to EDNS.
            is_silent = not forms.knows_edns and exchange.is_pending_at(self)
            if setbacks.plain_for is self or is_silent:
                form = Form.PLAIN
        attempt.form = form
        return compose(exchange.query, exchange.question, form)

    def note_silence(self, connection: Connection, now: float) -> bool:
        """Counts the silence of ``connection`` if it is due; returns whether it was.

        An upstream that answers others meanwhile is not silent.
        """
        if now < connection.silence_ends_at():
            return False
        if self.patience.answered_at <= connection.silence_from():
            self.health.count_failure()
        connection.counted_until = now
        return True

    def plan_look(self, connection: Connection, when: float) -> None:
        """Has ``check`` called at ``when``, unless that is planned for an earlier time."""
        if when < connection.look_at:
            connection.look_at = when
            self._outside.chores.add(when, connection)

    def close(self, connection: Connection) -> None:
        """Lets the shell close a connection of which nothing is expected any more."""
        connection.become(State.CLOSED)
        self._outside.outbox.to_close.append(connection)
