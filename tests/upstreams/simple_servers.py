"""Upstreams that are a function of the query, run against the bed's clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nodecache.upstreams.connection import Connection, State
from tests.upstreams.forwarding import Network

# What a server does with a query: after so many seconds these octets, or None for the end of the
# connection; several of them, or none for silence.
Reaction = list[tuple[float, bytes | None]]
Server = Callable[[Connection, bytes], Reaction]


@dataclass
class World:
    """A bed whose upstreams react.

    Attributes:
        asked: Queries that arrived at the server, in order, with their connections.
    """

    server: Server
    bed: Network = field(default_factory=lambda: Network(are_known=False))
    asked: list[tuple[Connection, bytes]] = field(default_factory=list)
    _due: list[tuple[float, Connection, bytes | None]] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Lets time pass in steps of a millisecond."""
        end = self.bed.now + seconds
        while self.bed.now < end:
            self.turn()
            self.bed.wait(0.001)
        self.turn()

    def turn(self) -> None:
        """Lets the server read what was sent, and do what is due."""
        self._read()
        while due := [event for event in self._due if event[0] <= self.bed.now]:
            self._due = [event for event in self._due if event[0] > self.bed.now]
            for _, connection, octets in sorted(due, key=lambda event: event[0]):
                if connection.state is State.CLOSED:
                    continue
                if octets is None:
                    self.bed.drop(connection)
                else:
                    self.bed.deliver(connection, octets)
            self._read()

    def _read(self) -> None:
        for connection, query in self.bed.queries:
            self.asked.append((connection, query))
            for delay_s, octets in self.server(connection, query):
                self._due.append((self.bed.now + delay_s, connection, octets))
        for connection in self.bed.open:
            self.bed.sent[connection].clear()
