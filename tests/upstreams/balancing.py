"""A cluster DNS behind a virtual address, in a time of its own.

Each new connection leads to a backend at random, and stays there. A backend answers one
connection strictly in order, as CoreDNS does, and takes ``delays_s`` for each answer.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from nodecache.config.model import ForwardPolicy
from nodecache.counters import Counters
from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.upstreams.forwarder import Forwarder
from nodecache.wire.framing import Deframer, frame
from nodecache.wire.reply import compose_upstream_query
from tests.upstreams.forwarding import TCP, answer, policy, question

HANDSHAKE_S = 0.0003
SERVICE_S = 0.0005


@dataclass
class Peer:
    """The far end of one connection."""

    backend: int
    opened_at: float
    deframer: Deframer = field(default_factory=Deframer)
    free_at: float = 0.0
    heard_at: float = 0.0
    pending: int = 0


@dataclass
class Cluster:
    """Steady misses, a forwarder, and backends.

    Attributes:
        delays_s: Backend -> how long an answer takes, besides SERVICE_S.
        rcodes: Backend -> what it says.
        silent: Backends that accept and never answer.
        queries: Backend -> queries that reached it; may be cleared at any time.
        results: How exchanges ended -> how often; "good" or the RCODE or the failure.
        oldest_s, most: Of open connections, at any time.
    """

    rate: float
    backends: int = 3
    seed: int = 1
    forward: ForwardPolicy = field(default_factory=lambda: policy(TCP))
    now: float = 1000.0
    delays_s: dict[int, float] = field(default_factory=dict)
    rcodes: dict[int, int] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    queries: Counter[int] = field(default_factory=Counter)
    results: Counter[object] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    peers: dict[Connection, Peer] = field(default_factory=dict)
    asked: int = 0
    dialled: int = 0
    oldest_s: float = 0.0
    longest_idle_s: float = 0.0
    most: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.counters = Counters()
        self.forwarder = Forwarder(
            self.counters, self.dice.random, lambda: self.dice.randrange(65536)
        )
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()

    def run(self, seconds: float) -> None:
        """Lets time pass under load."""
        end = self.now + seconds
        self._at(self.now, self._arrive)
        while True:
            timer = self.forwarder.next_timer()
            at = self._events[0][0] if self._events else end
            if timer is not None and timer < at:
                at = timer
            if at >= end:
                break
            self.now = max(self.now, at)
            if timer is not None and timer <= self.now:
                self.forwarder.timer(self.now)
            else:
                heapq.heappop(self._events)[2]()
            self._flush()
        self.now = end
        self._events = [e for e in self._events if e[2] != self._arrive]
        heapq.heapify(self._events)

    def share(self, backend: int) -> float:
        """Returns the share of the queries that a backend got."""
        return self.queries[backend] / max(1, self.queries.total())

    def ratio(self) -> float:
        """Returns the queries of the busiest backend over those of the idlest."""
        counts = [self.queries[backend] for backend in range(self.backends)]
        return max(counts) / max(1, min(counts))

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._serial), event))

    def _arrive(self) -> None:
        self.asked += 1
        asked = question(f"n{self.asked}.cluster.local")
        query = compose_upstream_query(asked, 0x0100, dnssec_ok=False)
        exchange = Exchange(asked, query, self.forward, self.now, self.now + 4.5, self._done)
        self.forwarder.submit(exchange, self.now)
        self._at(self.now + self.dice.expovariate(self.rate), self._arrive)

    def _done(self, exchange: Exchange, outcome: bytes | Failure, now: float) -> bool:
        self.latencies_s.append(now - exchange.started_at)
        result = outcome if isinstance(outcome, Failure) else outcome[3] & 0xF or "good"
        self.results[result] += 1
        return True

    def _flush(self) -> None:
        outbox = self.forwarder.outbox
        opens, outbox.to_open = outbox.to_open, []
        writes, outbox.to_write = outbox.to_write, []
        closes, outbox.to_close = outbox.to_close, []
        for connection in opens:
            self.dialled += 1
            self._at(self.now + HANDSHAKE_S, lambda c=connection: self._connected(c))  # type: ignore[misc]
        for connection in writes:
            if connection.out:
                self._take(connection, connection.take_out())
        for connection in closes:
            self._observe(connection)
            self.peers.pop(connection, None)

    def _connected(self, connection: Connection) -> None:
        if connection.state is State.CLOSED:
            return
        backend = self.dice.randrange(self.backends)
        self.peers[connection] = Peer(backend, self.now, heard_at=self.now)
        self.most = max(self.most, len(self.peers))
        self.forwarder.connected(connection, self.now)

    def _observe(self, connection: Connection) -> None:
        peer = self.peers.get(connection)
        if peer is not None:
            self.oldest_s = max(self.oldest_s, self.now - peer.opened_at)
            if not peer.pending:
                self.longest_idle_s = max(self.longest_idle_s, self.now - peer.heard_at)

    def _take(self, connection: Connection, octets: bytes) -> None:
        peer = self.peers[connection]
        self._observe(connection)
        for query in peer.deframer.feed(octets):
            self.queries[peer.backend] += 1
            peer.pending += 1
            if peer.backend in self.silent:
                continue
            took_s = SERVICE_S + self.delays_s.get(peer.backend, 0.0)
            peer.free_at = max(peer.free_at, self.now) + took_s
            self._at(peer.free_at, lambda q=query: self._answer(connection, peer, q))  # type: ignore[misc]

    def _answer(self, connection: Connection, peer: Peer, query: bytes) -> None:
        if self.peers.get(connection) is not peer:
            return
        peer.pending -= 1
        peer.heard_at = self.now
        response = answer(query, self.rcodes.get(peer.backend, 0))
        self.forwarder.received(connection, frame(response), self.now)
