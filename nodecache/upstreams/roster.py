"""The tables of a pool of streams: which connections it has, and which of them take queries.

Invariants: a connection is in ``levels[n]`` if and only if it is READY and has n pending; it is
in one of ``connections`` and ``draining`` until it is closed.
"""

from __future__ import annotations

from nodecache.upstreams.connection import Connection, State

MAX_DEPTH = 16  # a slow answer holds up at most 15 others


class Roster:
    """The connections of one pool. What moves one to another state stands here.

    Attributes:
        levels: Those that take queries, by the number that they have pending; in each, first
            the one that has been there longest.
        connections: These, those on their way, and the late ones.
        draining: Those that take no queries any more.
        connecting, late: How many of ``connections`` are so.
    """

    __slots__ = ("connecting", "connections", "draining", "late", "levels")

    def __init__(self) -> None:
        self.levels: tuple[dict[Connection, None], ...] = tuple({} for _ in range(MAX_DEPTH + 1))
        self.connections: dict[Connection, None] = {}
        self.draining: dict[Connection, None] = {}
        self.connecting = 0
        self.late = 0

    def __str__(self) -> str:
        """Returns the number of connections per state."""
        return ", ".join(f"{count} {state}" for state, count in self.counts().items())

    @property
    def useful(self) -> int:
        """How many take queries, or will when they are open."""
        return len(self.connections) - self.late

    def counts(self) -> dict[str, int]:
        """Returns the number of connections per state, as users know them."""
        idle = len(self.levels[0])
        return {
            "connecting": self.connecting,
            "idle": idle,
            "busy": len(self.connections) - self.connecting - idle,
            "draining": len(self.draining),
        }

    def find_well(self, depth: int) -> Connection | None:
        """Returns who gave a good answer last, of the least busy; below ``depth`` queries each."""
        for level in self.levels[:depth]:
            well = [connection for connection in level if connection.well_at]
            if well:
                return max(well, key=lambda connection: connection.well_at)
        return None

    def find_late(self) -> Connection | None:
        """Returns the late connection with the fewest queries, if one takes another."""
        free = [c for c in self._late_ones() if len(c.pending) < MAX_DEPTH]
        return min(free, key=lambda connection: len(connection.pending), default=None)

    def owed_late(self) -> int:
        """Returns how many queries are pending on late connections."""
        return sum(len(connection.pending) for connection in self._late_ones())

    def _late_ones(self) -> list[Connection]:
        return [each for each in self.connections if each.state is State.LATE]

    def begin(self, connection: Connection) -> None:
        """Takes in a connection that is to be opened."""
        self.connections[connection] = None
        self.connecting += 1

    def open(self, connection: Connection) -> None:
        """Lets a connection take queries."""
        self.connecting -= 1
        self._put(connection)

    def set_aside(self, connection: Connection) -> None:
        """Lets a connection that takes queries take none until its next answer."""
        if connection.level is not None:
            del connection.level[connection]
            connection.level = None
            connection.become(State.LATE)
            self.late += 1

    def take_back(self, connection: Connection) -> None:
        """Lets a late connection take queries again."""
        self.late -= 1
        self._put(connection)

    def _put(self, connection: Connection) -> None:
        connection.become(State.READY)
        connection.level = level = self.levels[len(connection.pending)]
        level[connection] = None

    def drain(self, connection: Connection) -> None:
        """Lets a connection take no queries any more."""
        self.forget(connection)
        connection.become(State.DRAINING)
        self.draining[connection] = None

    def forget(self, connection: Connection) -> None:
        """Takes a connection out of all tables, before its state changes."""
        if connection.level is not None:
            del connection.level[connection]
            connection.level = None
        if connection.state is State.LATE:
            self.late -= 1
        elif connection.state is State.CONNECTING:
            self.connecting -= 1
        self.connections.pop(connection, None)
        self.draining.pop(connection, None)
