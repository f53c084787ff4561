"""A forwarder with a scripted network: connections are lists of messages, time is a number."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

from nodecache.config.model import (
    ROOT,
    Address,
    ForwardPolicy,
    SelectionPolicy,
    Transport,
    Upstream,
)
from nodecache.counters import Counters
from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.upstreams.forwarder import Forwarder
from nodecache.upstreams.patience import MOST_PATIENCE_S
from nodecache.wire.framing import Deframer, frame
from nodecache.wire.query import name_end
from nodecache.wire.reply import compose_upstream_query

TCP = Upstream(Address("10.0.0.1", 53), Transport.TCP)
TCP2 = Upstream(Address("10.0.0.2", 53), Transport.TCP)
TCP3 = Upstream(Address("10.0.0.3", 53), Transport.TCP)
UDP = Upstream(Address("10.0.0.1", 53), Transport.UDP)
UDP2 = Upstream(Address("10.0.0.2", 53), Transport.UDP)


def question(name: str, qtype: int = 1) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return wire + qtype.to_bytes(2, "big") + b"\0\1"


OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def answer(
    query: bytes,
    rcode: int = 0,
    truncated: bool = False,
    octets: bytes = b"",
    knows_edns: bool = True,
) -> bytes:
    """Returns a response to a whole query: no records, ``octets``, OPT if the query has it."""
    end = name_end(query, 12) + 4
    flags = 0x8180 | rcode | (0x0200 if truncated else 0)
    has_opt = knows_edns and query[11] == 1
    counts = b"\0\1\0\0\0\0\0" + bytes([has_opt])
    tail = OPT if has_opt else b""
    return query[:2] + flags.to_bytes(2, "big") + counts + query[12:end] + octets + tail


# What the bed's owner of exchanges refuses: a response that ends in these octets.
MALFORMED = b"half a record"


@dataclass
class Result:
    """How an exchange ended."""

    exchange: Exchange
    outcome: bytes | Failure
    at: float


@dataclass
class Network:
    """A forwarder between a test and its idea of the network.

    Attributes:
        opened: Connections that the forwarder wants open and that nobody reported on yet.
        closed: Connections that the forwarder closed.
        are_known: Upstreams have answered before, with OPT, and not very fast.
        sent: Connection -> queries (whole messages) written on it, oldest first.
    """

    now: float = 1000.0
    connects: bool = True
    seed: int = 7
    opened: list[Connection] = field(default_factory=list)
    closed: list[Connection] = field(default_factory=list)
    sent: dict[Connection, list[bytes]] = field(default_factory=dict)
    writes: int = 0
    are_known: bool = True
    results: list[Result] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counters = Counters()
        dice = random.Random(self.seed)
        self.forwarder = Forwarder(self.counters, dice.random, lambda: dice.randrange(65536))
        self._known: set[Upstream] = set()
        self._deframers: dict[Connection, Deframer] = {}

    def ask(
        self, policy: ForwardPolicy, name: str = "a.cluster.local", patience_s: float = 4.5
    ) -> Exchange:
        asked = question(name)
        for upstream in set(policy.upstreams) - self._known:
            self._known.add(upstream)
            if self.are_known:
                pool = self.forwarder.pool(upstream)
                pool.patience.usual_s, pool.forms.knows_edns = MOST_PATIENCE_S, True
        exchange = Exchange(
            asked,
            compose_upstream_query(asked, 0x0100, dnssec_ok=False),
            policy,
            self.now,
            self.now + patience_s,
            self._done,
        )
        self.forwarder.submit(exchange, self.now)
        self.flush()
        return exchange

    def _done(self, exchange: Exchange, outcome: bytes | Failure, now: float) -> bool:
        assert exchange.is_done
        assert exchange not in [result.exchange for result in self.results]
        if isinstance(outcome, bytes) and MALFORMED in outcome:
            return False
        self.results.append(Result(exchange, outcome, now))
        return True

    def flush(self) -> None:
        outbox = self.forwarder.outbox
        while outbox.to_open or outbox.to_write or outbox.to_close:
            opens, outbox.to_open = outbox.to_open, []
            writes, outbox.to_write = outbox.to_write, []
            closes, outbox.to_close = outbox.to_close, []
            for connection in opens:
                self.sent[connection] = []
                if not connection.pool.is_stream:
                    self.sent[connection].append(connection.take_out())
                elif self.connects:
                    self.forwarder.connected(connection, self.now)
                else:
                    self.opened.append(connection)
            for connection in writes:
                if connection.out:
                    self.writes += 1
                    deframer = self._deframers.setdefault(connection, Deframer())
                    self.sent[connection] += deframer.feed(connection.take_out())
            self.closed += closes
            self.opened = [c for c in self.opened if c not in closes]

    def connect(self, connection: Connection) -> None:
        self.opened.remove(connection)
        self.forwarder.connected(connection, self.now)
        self.flush()

    def refuse_all(self) -> None:
        refused, self.opened = self.opened, []
        for connection in refused:
            self.forwarder.closed(connection, self.now)
        self.flush()

    def deliver(self, connection: Connection, message: bytes) -> None:
        octets = frame(message) if connection.pool.is_stream else message
        self.forwarder.received(connection, octets, self.now)
        self.flush()

    def reply_all(self, rcode: int = 0) -> None:
        for connection in self.open:
            queries, self.sent[connection] = self.sent[connection], []
            for query in queries:
                self.deliver(connection, answer(query, rcode))

    def drop(self, connection: Connection) -> None:
        """The peer ends the connection."""
        self.forwarder.closed(connection, self.now)
        self.flush()

    def wait(self, seconds: float, refuse: bool = False) -> None:
        """Lets time pass, timer by timer."""
        end = self.now + seconds
        while (due := self.forwarder.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.forwarder.timer(self.now)
            self.flush()
            if refuse:
                self.refuse_all()
        self.now = end

    @property
    def open(self) -> list[Connection]:
        """Connections that carry queries, neither probes nor closed."""
        closed = (State.CONNECTING, State.CLOSED)
        return [c for c in self.sent if c.state not in closed and not c.is_probe]

    @property
    def probes(self) -> list[Connection]:
        return [c for c in self.sent if c.is_probe]

    @property
    def queries(self) -> list[tuple[Connection, bytes]]:
        """Queries that wait for their answer, in the order of their connections."""
        return [(c, query) for c in self.open for query in self.sent[c]]

    @property
    def outcomes(self) -> list[bytes | Failure]:
        return [result.outcome for result in self.results]


def policy(*upstreams: Upstream) -> ForwardPolicy:
    return ForwardPolicy(ROOT, upstreams)


ONE = policy(TCP)
TWO = replace(policy(TCP, TCP2), selection=SelectionPolicy.SEQUENTIAL)
THREE = policy(TCP, TCP2, TCP3)


def warm(bed: Network, forward: ForwardPolicy = ONE, times: int = 3) -> None:
    """Lets the smoothed round-trip time settle at 1 ms."""
    for _ in range(times):
        bed.ask(forward)
        bed.now += 0.001
        bed.reply_all()
    bed.results.clear()


def asked(bed: Network) -> list[Upstream]:
    return [connection.upstream for connection, _ in bed.queries]


def ask_and_answer(bed: Network, times: int) -> Counter[Connection]:
    used: Counter[Connection] = Counter()
    for _ in range(times):
        bed.ask(ONE)
        used.update(connection for connection, _ in bed.queries)
        bed.reply_all()
    return used
