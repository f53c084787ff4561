"""What all pools share: connections, attempts on them, and the rules of one upstream.

Sans-I/O: a shell opens, writes and closes what the Outbox names, and reports back. A connection
over TCP or TLS carries many queries, one over UDP (its own socket, so its own random source
port) exactly one.

Invariants: ``pending`` of an open connection holds each attempt that is not answered yet, also
of exchanges that ended meanwhile, because the upstream still works on it; a closed connection
is in no table of its pool; an exchange waits in at most one pool.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import cast

from nodecache.config.model import Transport, Upstream
from nodecache.counters import UpstreamSeries
from nodecache.engine.agenda import Agenda
from nodecache.engine.exchange import Exchange, Failure, Setbacks
from nodecache.engine.health import Health
from nodecache.engine.pace import Pace, Queue
from nodecache.wire.const import FORMERR, HEADER_OCTETS, NOTIMP, QR, REFUSED, SERVFAIL
from nodecache.wire.framing import Deframer
from nodecache.wire.response import matches_question

LEAST_PATIENCE_S = 0.05  # below it a hiccup of the scheduler would look like a lost query
MOST_PATIENCE_S = 0.25  # a stub resolver may give up after 1 s, and a retry needs its time
RTTS_OF_PATIENCE = 4
MOST_SILENCE_S = 1.0  # a connection that owes an answer and sends no octet is dead
MOST_DRIP_S = 5.0  # or one that sends octets but no answer; CoreDNS drops queries of that age
CONNECT_TIMEOUT_S = 0.4  # inside a cluster a SYN is answered within 1 ms or is lost
TLS_CONNECT_TIMEOUT_S = 1.0  # two or three round trips to a resolver far away
SECOND_DIAL_AFTER_S = 0.1  # the kernel repeats a SYN after 1 s only, and to the same backend
MAX_WAITING = 1000  # exchanges: 4.5 s of 200 misses/s; more than that would time out anyway
EDNS_OFF_S = 300.0  # how long FORMERR is remembered; servers are replaced, but rarely
_ERROR_RCODES = frozenset((FORMERR, SERVFAIL, NOTIMP, REFUSED))

PROTO_LABELS = {Transport.UDP: "udp", Transport.TCP: "tcp", Transport.TLS: "tcp-tls"}


class State(enum.Enum):
    """Where a connection is in its life."""

    CONNECTING = "connecting"
    READY = "ready"
    DRAINING = "draining"
    CLOSED = "closed"


class Connection:
    """One connection, or one UDP socket, as far as the engine knows it.

    Attributes:
        pool: Who owns it.
        state: See State.
        is_probe: Carries one health probe and nothing else.
        pending: Message ID -> attempt, oldest first.
        out: Frames (datagrams) that the shell has not written yet.
        level: The pool's table that it is in, None while it takes no queries.
        opened_at, heard_at: Monotonic seconds; ``heard_at`` of the last octet or state change.
        look_at: When the pool looks at it next; entries of the agenda for later are void.
        expires_at: When it takes no more queries because of its age.
        age_factor: Its jitter: 0.75 to 1.25 times the age that others of its pool get.
        idle_s: Seconds without a pending query after which it is closed.
        answers: Responses that matched a query.
        has_late_query: Takes no queries until its next answer.
    """

    __slots__ = (
        "_deframer",
        "age_factor",
        "answers",
        "expires_at",
        "has_late_query",
        "heard_at",
        "idle_s",
        "is_probe",
        "level",
        "look_at",
        "opened_at",
        "out",
        "pending",
        "pool",
        "state",
    )

    def __init__(self, pool: Pool, now: float) -> None:
        self.pool = pool
        self.state = State.CONNECTING
        self.is_probe = False
        self.pending: dict[int, Attempt] = {}
        self.out: list[bytes] = []
        self.level: dict[Connection, None] | None = None
        self.opened_at = self.heard_at = now
        self.look_at = inf
        self.expires_at = 0.0
        self.age_factor = 1.0
        self.idle_s = 0.0
        self.answers = 0
        self.has_late_query = False
        self._deframer = Deframer()

    @property
    def upstream(self) -> Upstream:
        """Where it leads."""
        return self.pool.upstream

    def take_out(self) -> bytes:
        """Returns all that is to be written, in one piece, and forgets it."""
        out = self.out
        octets = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return octets

    def split(self, octets: bytes) -> list[bytes]:
        """Returns the messages that ``octets`` complete; a datagram is one message."""
        if self.pool.is_stream:
            return self._deframer.feed(octets)
        return [octets]

    def take_attempt(self, message: bytes) -> Attempt | None:
        """Returns the attempt that ``message`` answers, no longer pending; None for a stray.

        RFC 5452 section 9: ID and question must match, the addresses do so by the socket. A
        header without question that reports an error is believed over a stream, where nobody
        off the path can send it, and if it is FORMERR, which only costs us EDNS.
        """
        if len(message) < HEADER_OCTETS:
            return None
        message_id = message[0] << 8 | message[1]
        attempt = self.pending.get(message_id)
        if attempt is None:
            return None
        question = attempt.exchange.question
        # What servers send, without a call: the question octet for octet.
        is_plain = message[2] >= QR >> 8 and message.startswith(question, HEADER_OCTETS)
        if not (
            (is_plain and message[4:6] == b"\0\1")
            or matches_question(message, question)
            or self._is_bare_error(message)
        ):
            return None
        del self.pending[message_id]
        attempt.is_live = False
        return attempt

    def _is_bare_error(self, message: bytes) -> bool:
        rcode = message[3] & 0xF
        return (
            message[2] >= QR >> 8
            and message[4:6] == b"\0\0"
            and rcode in _ERROR_RCODES
            and (self.pool.is_stream or rcode == FORMERR)
        )

    def silence_ends_at(self) -> float:
        """Returns when silence about the oldest pending query proves the connection dead."""
        oldest = next(iter(self.pending.values()))
        patience_s = min(oldest.exchange.policy.read_timeout_s, MOST_SILENCE_S)
        since = max(self.heard_at, oldest.sent_at)
        return min(since + patience_s, oldest.sent_at + MOST_DRIP_S)


class Attempt:
    """One query on one connection.

    Attributes:
        exchange: Whose question it carries.
        connection: Where it was sent.
        sent_at: Monotonic seconds.
        has_edns: Whether it carries our OPT record.
        is_live: An answer may still come.
    """

    __slots__ = ("connection", "exchange", "has_edns", "is_live", "sent_at")

    def __init__(self, exchange: Exchange, connection: Connection, sent_at: float) -> None:
        self.exchange = exchange
        self.connection = connection
        self.sent_at = sent_at
        self.has_edns = True
        self.is_live = True


class Outbox:
    """What the shell has to do, in this order. One that was closed meanwhile is passed over.

    A UDP connection has its datagram in ``out`` when it is to be opened, and is never in
    ``to_write``; the shell reports no ``connected`` for it.
    """

    __slots__ = ("to_close", "to_open", "to_write")

    def __init__(self) -> None:
        self.to_open: list[Connection] = []
        self.to_write: list[Connection] = []
        self.to_close: list[Connection] = []


class Means:
    """What pools need from outside and share.

    Attributes:
        outbox: Where actions go.
        chores: Connections and pools that must be looked at later.
        random: Numbers in [0, 1).
        message_id: Unpredictable numbers from 0 to 65535.
    """

    __slots__ = ("chores", "message_id", "outbox", "random")

    def __init__(self, random: Callable[[], float], message_id: Callable[[], int]) -> None:
        self.outbox = Outbox()
        self.chores: Agenda[Connection | Pool] = Agenda()
        self.random = random
        self.message_id = message_id


class Pool(Queue, ABC):
    """All connections to one upstream, its health, and the exchanges that wait for a connection.

    Attributes:
        upstream: Where it leads.
        is_stream: TCP or TLS.
        series: What users see of it.
        health: Whether it answers.
        waiting: Exchanges without a connection, oldest first.
        pace: How often it may be asked, None for as often as anybody likes.
        has_probe: A probe of it is in flight.
        patience_s: How long an answer may take before the query is asked again elsewhere.
        edns_off_until: Queries go without OPT until then (RFC 6891 section 6.2.2).
        attempts, dialled: Queries sent; connections opened for them.
        is_retired: No longer in the configuration; ends with its last query.
    """

    __slots__ = (
        "_means",
        "_next_dial_look",
        "_srtt_s",
        "attempts",
        "dialled",
        "edns_off_until",
        "has_probe",
        "health",
        "is_retired",
        "is_stream",
        "pace",
        "patience_s",
        "series",
        "upstream",
    )

    def __init__(self, upstream: Upstream, series: UpstreamSeries, means: Means) -> None:
        super().__init__()
        self.upstream = upstream
        self.is_stream = upstream.transport is not Transport.UDP
        self.series = series
        self.health = Health(upstream.max_fails)
        self.pace: Pace | None = None
        self.has_probe = False
        self.patience_s = MOST_PATIENCE_S
        self.edns_off_until = 0.0
        self.attempts = 0
        self.dialled = 0
        self.is_retired = False
        self._means = means
        self._next_dial_look = 0.0
        self._srtt_s = 0.0

    @abstractmethod
    def ask(self, exchange: Exchange, now: float) -> Failure | None:
        """Sends the query or lets it wait; returns why neither is possible."""

    @abstractmethod
    def answered(self, connection: Connection, attempt: Attempt, now: float) -> None:
        """Takes note that ``attempt`` was answered."""

    @abstractmethod
    def connected(self, connection: Connection, now: float) -> None:
        """Takes note that a connection may be written to."""

    @abstractmethod
    def lost(self, connection: Connection, now: float) -> list[Exchange]:
        """Forgets a connection that died; returns the exchanges that it leaves stranded.

        Among them are those that have ended or have other attempts.
        """

    @abstractmethod
    def check(self, connection: Connection, now: float) -> list[Exchange]:
        """Closes a connection that is due; returns the exchanges that it leaves stranded."""

    @abstractmethod
    def mark_late(self, connection: Connection) -> None:
        """Takes note that an answer on ``connection`` is later than usual."""

    @abstractmethod
    def retire(self) -> None:
        """Closes what is idle, and the rest when it has drained."""

    @abstractmethod
    def connection_counts(self) -> dict[str, int]:
        """Returns the number of connections per state."""

    @abstractmethod
    def can_serve(self) -> bool:
        """Whether there is a connection that may carry a query, now or soon."""

    @abstractmethod
    def dial_for_waiting(self, now: float) -> None:
        """Opens what the waiting exchanges need, as far as it may."""

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

    def wake(self, now: float) -> list[Exchange]:
        """Dials after a pause for those that still wait, and gives out turns.

        Returns the exchanges that had their turn and still could not be asked.
        """
        if self.waiting and now >= self.health.dial_at:
            self.dial_for_waiting(now)
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
            self._means.chores.add(pace.next_at(now), self)

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

    def _enqueue(self, queue: Queue, exchange: Exchange) -> None:
        """Lets the exchange wait in ``queue``, and nowhere else."""
        elsewhere = cast("Queue | None", exchange.waiting_in)
        if elsewhere is not None:
            del elsewhere.waiting[exchange]
        queue.waiting[exchange] = self
        exchange.waiting_in = queue

    def compose(self, attempt: Attempt, now: float) -> bytes:
        """Returns the query of ``attempt`` without its ID, with OPT unless that failed lately."""
        exchange = attempt.exchange
        if now >= self.edns_off_until:
            return exchange.query
        attempt.has_edns = False
        return exchange.query[:8] + b"\0\0" + exchange.question

    def observe_rtt(self, rtt_s: float) -> None:
        """Takes one answer's time into the patience (RFC 6298's smoothing, gain 1/8)."""
        if self.health.has_trouble:
            self.health.recover()
        srtt = self._srtt_s
        self._srtt_s = srtt = srtt + (rtt_s - srtt) * 0.125 if srtt else rtt_s
        if srtt <= LEAST_PATIENCE_S / RTTS_OF_PATIENCE:
            self.patience_s = LEAST_PATIENCE_S
        else:
            self.patience_s = min(srtt * RTTS_OF_PATIENCE, MOST_PATIENCE_S)

    def close(self, connection: Connection) -> None:
        """Lets the shell close a connection of which nothing is expected any more."""
        connection.state = State.CLOSED
        self._means.outbox.to_close.append(connection)

    def plan_look(self, connection: Connection, when: float) -> None:
        """Has ``check`` called at ``when``, unless that is planned for an earlier time."""
        if when < connection.look_at:
            connection.look_at = when
            self._means.chores.add(when, connection)

    def wait(self, exchange: Exchange, now: float) -> Failure | None:
        """Lets the exchange wait for a connection, here only; returns why it cannot."""
        health = self.health
        if len(self.waiting) >= MAX_WAITING:
            return Failure.OVERLOADED
        if now < health.dial_at and not self.can_serve():
            if health.is_dead(now):
                return Failure.UNREACHABLE
            if self._next_dial_look != health.dial_at:
                self._next_dial_look = health.dial_at
                self._means.chores.add(health.dial_at, self)
        self._enqueue(self, exchange)
        return None

    def take_waiting(self) -> Exchange:
        """Removes and returns the exchange that has waited longest."""
        exchange = next(iter(self.waiting))
        del self.waiting[exchange]
        exchange.waiting_in = None
        return exchange

    def strand_waiting(self) -> list[Exchange]:
        """Removes and returns all that wait: the connection that they waited for failed."""
        stranded = list(self.waiting)
        self.waiting.clear()
        for exchange in stranded:
            exchange.waiting_in = None
            if exchange.setbacks is None:
                exchange.setbacks = Setbacks()
            exchange.setbacks.dial_failures += 1
        return stranded

    @property
    def connect_timeout_s(self) -> float:
        """How long a connection may take to be ready."""
        is_tls = self.upstream.transport is Transport.TLS
        return TLS_CONNECT_TIMEOUT_S if is_tls else CONNECT_TIMEOUT_S
