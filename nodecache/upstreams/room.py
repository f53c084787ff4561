"""How many connections one upstream needs, may have, and which goes for another's sake."""

from __future__ import annotations

from math import inf

from nodecache.config.model import Upstream
from nodecache.upstreams.connection import SILENCE_S, Connection, State
from nodecache.upstreams.habits import Habits
from nodecache.upstreams.patience import Patience
from nodecache.upstreams.roster import Roster

TARGET_CONNECTIONS = 8  # several pods get a share; a dead one takes an eighth or so
MODEST_DEPTH = 4  # queries on one connection before more than the target are opened
MAX_CONNECTIONS = 64  # a CoreDNS pod or a dnsmasq must serve every node of a cluster
ROOM_AFTER_S = 2.0  # a slow name is worth so long a wait where connections are few
ROOM_LOOK_S = 0.01  # how often a connection that can be spared is looked for; costs 50 us


class Room:
    """Of one pool of streams: what its operator allows, and what its server was seen to take."""

    __slots__ = ("_habits", "_next_look_at", "_patience", "_roster", "most")

    def __init__(
        self, upstream: Upstream, roster: Roster, habits: Habits, patience: Patience
    ) -> None:
        self.most = upstream.max_connections
        self._roster = roster
        self._habits = habits
        self._patience = patience
        self._next_look_at = 0.0

    def is_wanted(self, queries: int) -> bool:
        """Whether so many queries, sent or waiting, call for one connection more.

        What late connections owe is left out: it is asked for again, or nobody waits for it.
        """
        roster = self._roster
        wanted = queries - (roster.owed_late() if roster.late else 0)
        most = min(wanted, TARGET_CONNECTIONS)
        return roster.useful < most or wanted > roster.useful * MODEST_DEPTH

    def has_more(self, probes: int, now: float) -> bool:
        """Whether there may be one connection more; ``max_conns`` counts all that are open."""
        habits, roster = self._habits, self._roster
        if habits.is_crowded(now) and self._is_full(habits.most_open, now):
            return False
        count = len(roster.connections)
        if self._counts_draining():
            count += len(roster.draining)
        if self.most:
            return count + probes < min(self.most, MAX_CONNECTIONS)
        return count < MAX_CONNECTIONS

    def _counts_draining(self) -> bool:
        """Whether connections that drain take room: there may be few, or each has few queries."""
        return bool(self.most) or self._habits.most_queries is not inf

    def _is_full(self, most: int, now: float) -> bool:
        """Whether ``most`` connections are there, one at least of which answers."""
        living = [each for each in self._roster.connections if not self._is_hanging(each, now)]
        return len(living) >= most and any(connection.well_at for connection in living)

    def _is_hanging(self, connection: Connection, now: float) -> bool:
        """Whether a connection that is late is silent, too."""
        if connection.state is not State.LATE or not connection.pending:
            return False
        return now >= self._patience.late_at(connection.silence_from())

    def find_spared(self, now: float) -> Connection | None:
        """Returns a late connection that can be given up, None if there is none.

        That is one of whose answers nobody waits for, or the one that has owed one longest.
        """
        if now < self._next_look_at:
            return None
        self._next_look_at = now + ROOM_LOOK_S
        roster = self._roster
        late = [c for c in roster.connections if c.state is State.LATE and not c.is_given_up]
        if self._counts_draining():
            late += [c for c in roster.draining if not c.is_given_up]
        spared = [connection for connection in late if connection.is_of_no_use()]
        if not spared:
            is_flood = len(late) >= MAX_CONNECTIONS
            patience_s = SILENCE_S if is_flood else ROOM_AFTER_S
            spared = [c for c in late if now - c.owes_since() >= patience_s]
        return min(spared, key=lambda each: each.owes_since(), default=None)
