"""The network between the node and its upstreams: what the node's kernel does, too.

TCP octets arrive in order and cut anywhere. Octets that nobody acknowledges for 2 s end a
connection (TCP_USER_TIMEOUT), and so does a silent peer of an idle one (keepalive); a server that
only stands still has a kernel that acknowledges.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from nodecache.upstreams.connection import Connection, State
from tests.simulator.clock import Clock
from tests.simulator.history import Fault, Place
from tests.simulator.servers import DEADLY, Answer, Asked, Server, Session, read_query
from tests.simulator.zone import Saying, Zone

USER_TIMEOUT_S = 2.0
KEEPALIVE_S = 3.0
FIRST_RETRANSMISSION_S = 0.2
SYN_REPEATED_S = (0.0, 1.0, 3.0)
ENDPOINT_GOES_S = 1.0  # how long a Service address still leads to a server that died


class Ends(Protocol):
    """The node, as the network needs it."""

    def connected(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, octets: bytes) -> None: ...

    def closed(self, connection: Connection) -> None: ...


class Watches(Protocol):
    """Who takes note of queries and answers."""

    def sent(self, asked: Asked, connection: Connection) -> None: ...

    def arrived(self, saying: Saying, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...

    def opened(self, place: int) -> None: ...


class Pipe:
    """One direction of a TCP connection: in order, and nothing while the path is dark."""

    def __init__(
        self,
        clock: Clock,
        delay_s: float,
        is_dark: Callable[[], bool],
        on_stuck: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._delay_s = delay_s
        self._is_dark = is_dark
        self._on_stuck = on_stuck
        self._items: deque[tuple[float, float, Callable[[], None]]] = deque()
        self._last_at = 0.0
        self._retry_s = 0.0

    def put(self, take: Callable[[], None], pause_s: float = 0.0) -> None:
        """Has ``take`` called when it arrives at the other end."""
        now = self._clock.now
        self._last_at = max(now + self._delay_s, self._last_at) + pause_s
        self._items.append((self._last_at, now, take))
        self._clock.at(self._last_at, self._pump)

    def clear(self) -> None:
        """Loses what is on its way."""
        self._items.clear()

    def stuck_since(self) -> float | None:
        """Returns when the oldest of what is on its way was sent."""
        return self._items[0][1] if self._items else None

    def _pump(self) -> None:
        if self._items and self._is_dark():
            if not self._retry_s:
                self._on_stuck(self._items[0][1])
                self._retry_s = FIRST_RETRANSMISSION_S
                self._clock.after(self._retry_s, self._retry)
            return
        while self._items and self._items[0][0] <= self._clock.now:
            self._items.popleft()[2]()

    def _retry(self) -> None:
        if self._items and self._is_dark():
            self._retry_s *= 2
            self._clock.after(self._retry_s, self._retry)
            return
        self._retry_s = 0.0
        self._pump()


class Stream:
    """One TCP connection."""

    def __init__(self, network: Network, connection: Connection, place: int) -> None:
        self.connection = connection
        self.place = place
        self.server = network.choose(place)
        self.is_open = False
        self._network = network
        clock, delay_s = network.clock, self.server.place.rtt_s / 2
        self._up = Pipe(clock, delay_s, self._is_dark, self._unacknowledged)
        self._down = Pipe(clock, delay_s, self._is_dark, lambda _: None)
        self._session = Session(self.server, self._send, self._end)

    def _is_dark(self) -> bool:
        return self.server.has("black_hole") is not None

    def accept(self) -> None:
        """Is open on both sides."""
        server = self.server
        few = server.has("few")
        server.connections += 1
        self.is_open = True
        self._network.node.connected(self.connection)
        if few is not None and server.connections > few.value:
            self._session.is_over = True
            self._down.put(self._lost)

    def write(self, queries: list[Asked]) -> None:
        """The node sends queries."""
        for asked in queries:
            self._up.put(partial(self._session.receive, asked))

    def _send(self, octets: bytes, saying: Saying | None) -> None:
        """The server sends octets."""
        drips = self.server.has("drips")
        if drips is not None:
            for index in range(len(octets)):
                is_last = index == len(octets) - 1
                piece, said = octets[index : index + 1], saying if is_last else None
                self._down.put(partial(self._arrive, piece, said), drips.value)
            return
        cut = self._network.dice.randrange(3 * len(octets))
        if cut < len(octets):
            self._down.put(partial(self._arrive, octets[:cut], None))
            octets = octets[cut:]
        self._down.put(partial(self._arrive, octets, saying))

    def _arrive(self, octets: bytes, saying: Saying | None) -> None:
        self._network.deliver(self.connection, octets, saying)

    def _end(self, _is_reset: bool) -> None:
        self._down.put(self._lost)

    def _lost(self) -> None:
        """The node's kernel learns that the connection is over."""
        self.release()
        self._network.lose(self.connection)

    def release(self) -> None:
        """Is no connection of the server's any more."""
        if self.is_open:
            self.is_open = False
            self.server.connections -= 1
        self._network.streams.pop(self.connection, None)

    def reset(self) -> None:
        """The server died; its kernel says so."""
        self._session.is_over = True
        self._up.clear()
        self._down.clear()
        self._down.put(self._lost)

    def darken(self) -> None:
        """The path ends; an idle connection finds out by keepalive."""
        self._network.clock.after(KEEPALIVE_S, lambda: self._kill(-1.0))

    def _unacknowledged(self, since: float) -> None:
        self._network.clock.at(since + USER_TIMEOUT_S, lambda: self._kill(since))

    def _kill(self, since: float) -> None:
        """The node's kernel gives up, if nothing got through meanwhile."""
        if self._is_dark() and (since < 0 or self._up.stuck_since() == since):
            self._session.is_over = True
            self._up.clear()
            self._down.clear()
            self._lost()


class Network:
    """All upstreams, and what leads to them.

    Attributes:
        streams: The TCP connections that neither side has closed.
        datagrams: UDP sockets of the node that are open.
    """

    def __init__(
        self,
        places: tuple[Place, ...],
        zone: Zone,
        clock: Clock,
        dice: random.Random,
        watch: Watches,
    ) -> None:
        self.clock = clock
        self.dice = dice
        self.streams: dict[Connection, Stream] = {}
        self.datagrams: dict[Connection, None] = {}
        self.servers = [
            [Server(place, zone, clock, dice) for _ in range(place.backends)] for place in places
        ]
        self.node: Ends
        self._watch = watch
        self._dead_since: dict[Server, float] = {}

    # Faults.

    def _servers_of(self, fault: Fault) -> list[Server]:
        servers = self.servers[fault.upstream]
        return servers if fault.backend < 0 else [servers[fault.backend % len(servers)]]

    def begin(self, fault: Fault) -> None:
        """Lets a fault begin."""
        for server in self._servers_of(fault):
            server.begin(fault)
            streams = [each for each in self.streams.values() if each.server is server]
            if fault.kind in DEADLY:
                self._dead_since[server] = self.clock.now
                for stream in streams:
                    stream.reset()
            elif fault.kind == "black_hole":
                for stream in streams:
                    stream.darken()

    def end(self, fault: Fault) -> None:
        """Lets a fault end."""
        for server in self._servers_of(fault):
            server.end(fault)

    def choose(self, place: int) -> Server:
        """Returns the server that a new connection, or a datagram, is led to."""
        servers = self.servers[place]
        there = [server for server in servers if not self._is_led_past(server)]
        return self.dice.choice(there or servers)

    def _is_led_past(self, server: Server) -> bool:
        since = self._dead_since.get(server, self.clock.now)
        return server.has("dies") is not None and self.clock.now - since > ENDPOINT_GOES_S

    # What the node does.

    def is_dialled(self) -> bool:
        """Whether a dial is under way, or was given up in this moment."""
        return not all(stream.is_open for stream in self.streams.values())

    def open(self, connection: Connection, place: int) -> None:
        """The node dials, or sends a datagram."""
        self._watch.opened(place)
        if not connection.pool.is_stream:
            self._send_datagram(connection, place)
            return
        stream = self.streams[connection] = Stream(self, connection, place)
        for pause_s in SYN_REPEATED_S:
            if not self._is_syn_lost(stream.server):
                when = self.clock.now + pause_s + stream.server.place.rtt_s
                self.clock.at(when, partial(self._opened, stream))
                break

    def _is_syn_lost(self, server: Server) -> bool:
        lost, blocked = server.has("syn_lost"), server.has("tc_no_tcp")
        return (
            server.has("black_hole") is not None
            or (blocked is not None and not blocked.value)
            or (lost is not None and self.dice.random() < lost.value)
        )

    def _opened(self, stream: Stream) -> None:
        connection, server = stream.connection, stream.server
        if connection.state is not State.CONNECTING:
            return
        if server.is_dead or server.has("tc_no_tcp"):
            stream.release()
            self.lose(connection)
        else:
            stream.accept()

    def write(self, connection: Connection) -> None:
        """The node writes queries to a TCP connection."""
        stream = self.streams.get(connection)
        octets = connection.take_out()
        queries = []
        while octets:
            end = 2 + int.from_bytes(octets[:2], "big")
            queries.append(self._note(octets[2:end], connection))
            octets = octets[end:]
        if stream is not None and stream.is_open:
            stream.write(queries)

    def close(self, connection: Connection) -> None:
        """The node closes; what the server would still have said is only noted."""
        self.datagrams.pop(connection, None)
        stream = self.streams.get(connection)
        if stream is not None:
            stream.release()

    def _note(self, octets: bytes, connection: Connection) -> Asked:
        asked = read_query(octets, not connection.pool.is_stream, self.clock.now)
        if not connection.is_probe:
            self._watch.sent(asked, connection)
        return asked

    # Datagrams.

    def _send_datagram(self, connection: Connection, place: int) -> None:
        asked = self._note(connection.take_out(), connection)
        self.datagrams[connection] = None
        server = self.choose(place)
        if server.has("black_hole") or self._is_datagram_lost(server):
            return
        delay_s = server.place.rtt_s / 2
        if server.is_dead:
            self.clock.after(2 * delay_s, partial(self._refuse_datagram, connection))
            return
        reply = partial(self._answer_datagram, connection, server)
        self.clock.after(delay_s, lambda: server.work(asked, reply))

    def _is_datagram_lost(self, server: Server) -> bool:
        lost = server.has("udp_lost")
        return lost is not None and self.dice.random() < lost.value

    def _refuse_datagram(self, connection: Connection) -> None:
        if self.datagrams.pop(connection, True) is None:
            self.lose(connection)

    def _answer_datagram(
        self, connection: Connection, server: Server, answers: list[Answer]
    ) -> None:
        limit = server.has("udp_limit")
        delay_s = server.place.rtt_s / 2
        for answer in answers:
            if server.has("black_hole") or self._is_datagram_lost(server):
                continue
            if limit is not None and len(answer.octets) > limit.value:
                continue
            self.clock.after(
                delay_s, partial(self.deliver, connection, answer.octets, answer.saying)
            )

    # Both.

    def lose(self, connection: Connection) -> None:
        """The node's kernel tells it that a connection is over, or never came to be."""
        if connection.state is not State.CLOSED:
            self._watch.lost(connection)
            self.node.closed(connection)

    def deliver(self, connection: Connection, octets: bytes, saying: Saying | None) -> None:
        """Octets reach the node; if it has closed, they are only noted."""
        if saying is not None and not connection.is_probe:
            self._watch.arrived(saying, connection)
        if connection.state is not State.CLOSED:
            self.node.received(connection, octets)
