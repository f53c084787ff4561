"""What it means that connections end: for a question, for the upstream, for its habits."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from nodecache.upstreams.connection import SILENCE_S, Connection
from nodecache.upstreams.exchange import Exchange
from nodecache.upstreams.habits import AT_ONCE_S, Habits
from nodecache.upstreams.health import Health
from nodecache.upstreams.patience import MOST_PATIENCE_S
from nodecache.upstreams.roster import Roster
from nodecache.upstreams.turnover import Turnover

# Connections that may end over one question before it fails alone, and, while they end over
# others as well, so that it may be the backend, at most.
MOST_DEATHS = 2
MOST_DEATHS_AMONG_OTHERS = 4


class Deaths:
    """Of the connections of one pool."""

    __slots__ = ("_blamed", "_habits", "_health", "_other_death_at", "_roster", "_turnover")

    def __init__(self, roster: Roster, habits: Habits, health: Health, turnover: Turnover) -> None:
        self._roster = roster
        self._habits = habits
        self._health = health
        self._turnover = turnover
        self._blamed = b""
        # When one last ended over another name than the one before it.
        self._other_death_at = -inf

    def note_refusal(self, connection: Connection, now: float) -> None:
        """Takes note of a connection that the server would not have."""
        self._health.count_dial_failure(connection.opened_at, now)
        self._turnover.disturb(now)
        self._note_crowd(connection, now)

    def _note_crowd(self, connection: Connection, now: float) -> None:
        others = sum(1 for c in self._roster.connections if c.well_at and c is not connection)
        if others:
            self._habits.note_refusal(others, now)

    def note_end(self, connection: Connection, now: float) -> bool:
        """Finds out whose fault it is that the server ended a connection: True for the upstream's.

        The question that was next to be answered, unless the server had just answered another:
        it may take only so many on a connection. The upstream is to blame if connections end
        before they answer anything, over one question after the other.
        """
        if connection.answers and now - connection.well_at <= AT_ONCE_S:
            self._habits.note_end(connection.answers, now)
        if not connection.pending:
            if not connection.answers and now - connection.opened_at <= SILENCE_S:
                self.note_refusal(connection, now)
            return False
        oldest = connection.oldest()
        if connection.well_at > oldest.sent_at:
            return False
        is_other = self._blame(oldest.exchange, connection, now)
        if connection.answers:
            return False
        self._turnover.disturb(now)
        self._note_crowd(connection, now)
        if is_other:
            self._health.count_failure()
        self._health.put_off_dials(connection.opened_at, now)
        return is_other

    def _blame(self, exchange: Exchange, connection: Connection, now: float) -> bool:
        """Makes ``exchange`` a suspect; True if another name was blamed for the last end."""
        setbacks = exchange.setback()
        setbacks.deaths += 1
        setbacks.died_at = now
        is_only_one = len(self._roster.connections) - self._roster.connecting <= 1
        setbacks.is_proven |= bool(connection.answers) or is_only_one
        blamed, self._blamed = self._blamed, exchange.question[:-4]
        is_other = bool(blamed) and blamed != self._blamed
        if is_other:
            self._other_death_at = now
        return is_other

    def is_to_blame(self, exchange: Exchange) -> bool:
        """Whether ``exchange`` is what connections end over, and not the upstream's own fault."""
        setbacks = exchange.setbacks
        if setbacks is None or setbacks.deaths < MOST_DEATHS:
            return False
        if setbacks.deaths >= MOST_DEATHS_AMONG_OTHERS:
            return True
        return setbacks.is_proven and self._other_death_at < exchange.started_at

    def find_idle(self, suspect: Exchange, now: float) -> Connection | None:
        """Returns an idle connection that ``suspect`` may have for itself, None to wait for one."""
        for connection in self._roster.levels[0]:
            if self._may_carry(connection, suspect, now):
                return connection
        return None

    def first_for(
        self, connection: Connection, waiting: Iterable[Exchange], now: float
    ) -> Exchange | None:
        """Returns who has waited longest, of those that may go on ``connection``."""
        for exchange in waiting:
            if self._may_carry(connection, exchange, now):
                return exchange
        return None

    def _may_carry(self, connection: Connection, exchange: Exchange, now: float) -> bool:
        """Whether ``exchange`` may go on a connection that takes queries.

        A suspect needs one for itself, and one that has answered since, if there is one within
        its patience: old ones may be at their end, too, because their server is; a new one may
        lead there, or be one too many.
        """
        setbacks = exchange.setbacks
        if setbacks is None or not setbacks.deaths:
            return True
        if connection.pending:
            return False
        died_at = setbacks.died_at
        if connection.well_at > died_at or now - died_at >= MOST_PATIENCE_S:
            return True
        return not any(each.well_at for each in self._roster.connections)


def is_suspect(exchange: Exchange) -> bool:
    """Whether a connection ended when ``exchange`` was the next to be answered."""
    return exchange.setbacks is not None and exchange.setbacks.deaths > 0
