"""One connection to an upstream: the states of its life, what it carries, and its silence.

One over TCP or TLS carries many queries, one over UDP (its own socket, so its own random source
port) exactly one. The pool that has it is known here by its face.

Invariants: ``pending`` of an open connection holds each attempt that is not answered yet, also
of exchanges that ended meanwhile, because the upstream still works on it; a closed connection is
in no table of its pool.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from math import inf

from nodecache.config.model import Transport, Upstream
from nodecache.counters import UpstreamSeries
from nodecache.limits import READ_TIMEOUT_S
from nodecache.upstreams.exchange import Attempt, Carrier, Exchange, Failure, Link
from nodecache.upstreams.forms import Forms
from nodecache.upstreams.health import Health
from nodecache.upstreams.pace import Pace
from nodecache.wire.const import HEADER_OCTETS, OPCODE_MASK, QR
from nodecache.wire.framing import Deframer
from nodecache.wire.numbers import FORMERR, NOTIMP, REFUSED, SERVFAIL
from nodecache.wire.response import matches_question

# What owes an answer and sends no octet for so long counts against its upstream. It may be a slow
# name all the same, so the connection stays, unless the answer came another way meanwhile: then
# it is the connection that is dead. The kernel tells of dead peers, too.
SILENCE_S = 1.0
ATTEMPT_S = 10.0  # who asks again after 5 s finds the answer in the cache, however slow it was
CONNECT_TIMEOUT_S = 0.4  # inside a cluster a SYN is answered within 1 ms or is lost
TLS_CONNECT_TIMEOUT_S = 1.0  # two or three round trips to a resolver far away
_ERROR_RCODES = frozenset((FORMERR, SERVFAIL, NOTIMP, REFUSED))
_QR_AND_OPCODE = (QR | OPCODE_MASK) >> 8


class State(enum.Enum):
    """Where a connection is in its life; TRANSITIONS says how it may go on."""

    CONNECTING = "connecting"
    READY = "ready"
    LATE = "late"  # takes no queries until its next answer
    DRAINING = "draining"  # takes no queries any more, and closes with its last answer
    CLOSED = "closed"


TRANSITIONS = {
    (State.CONNECTING, State.READY): "it is open; a UDP socket is so from the start",
    (State.CONNECTING, State.CLOSED): "it was refused, or not open in time",
    (State.READY, State.LATE): "an answer is later than usual, or a suspect has it for itself",
    (State.LATE, State.READY): "it has answered",
    (State.READY, State.DRAINING): "it is old, idle, in doubt, no longer configured, or used up",
    (State.LATE, State.DRAINING): "the same, but for its age",
    (State.READY, State.CLOSED): "its peer ended it, or nothing is expected of it any more",
    (State.LATE, State.CLOSED): "the same, or others need its room",
    (State.DRAINING, State.CLOSED): "all is answered, or as above",
}


class Connection(Link):
    """One connection, or one UDP socket, as far as the forwarder knows it.

    Attributes:
        pool: Who owns it.
        state: See State; changed by ``become`` only.
        is_probe: Carries one health probe and nothing else.
        pending: Message ID -> attempt, oldest first.
        out: Frames (datagrams) that the shell has not written yet.
        level: The pool's table that it is in, None while it takes no queries.
        opened_at, heard_at: Monotonic seconds; ``heard_at`` of the last octet or state change.
        look_at: When the pool looks at it next; entries of the timers for later are void.
        expires_at: When it takes no more queries because of its age.
        age_factor: Its jitter: 0.75 to 1.25 times the age that others of its pool get.
        idle_s: Seconds without a pending query after which it is closed.
        answers: Responses that matched a query.
        well_at: When it last gave an answer that is not in doubt, monotonic seconds; 0 for never.
        is_given_up: To be closed at the next look, for others need its room.
        counted_until: When its silence was counted, monotonic seconds.
        error: Why it ended, in CoreDNS's words (upstreams/wording.py); set by the shell before it
            reports ``closed``.
    """

    __slots__ = (
        "_deframer",
        "age_factor",
        "answers",
        "counted_until",
        "error",
        "expires_at",
        "heard_at",
        "idle_s",
        "is_given_up",
        "is_probe",
        "level",
        "look_at",
        "opened_at",
        "out",
        "pending",
        "pool",
        "state",
        "well_at",
    )

    def __init__(self, pool: Pool, now: float) -> None:
        super().__init__()
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
        self.well_at = 0.0
        self.is_given_up = False
        self.counted_until = 0.0
        self.error = ""
        self._deframer = Deframer()

    def become(self, state: State) -> None:
        """Goes over to another state: the one place that does."""
        self.state = state

    @property
    def upstream(self) -> Upstream:
        """Where it leads."""
        return self.pool.upstream

    @property
    def is_in_service(self) -> bool:
        """Whether it takes queries, now or after its next answer."""
        return self.state is State.READY or self.state is State.LATE

    def mark_late(self) -> None:
        """Takes note that an answer on it is later than usual."""
        self.pool.mark_late(self)

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
        header without question that reports an error is believed, too: some servers send no more
        of what they do not take, and to forge it one must guess the ID and the port.
        """
        if len(message) < HEADER_OCTETS:
            return None
        message_id = message[0] << 8 | message[1]
        attempt = self.pending.get(message_id)
        if attempt is None:
            return None
        question = attempt.exchange.question
        # What servers send, without a call: the question octet for octet.
        is_plain = message[2] & _QR_AND_OPCODE == QR >> 8
        is_plain = is_plain and message.startswith(question, HEADER_OCTETS)
        if not (
            (is_plain and message[4:6] == b"\0\1")
            or matches_question(message, question)
            or _is_bare_error(message)
        ):
            return None
        del self.pending[message_id]
        attempt.is_live = False
        return attempt

    def end(self) -> list[Exchange]:
        """Closes it for good; returns the exchanges whose answers were outstanding."""
        self.become(State.CLOSED)
        attempts = list(self.pending.values())
        self.pending.clear()
        self.out.clear()
        for attempt in attempts:
            attempt.is_live = False
        return [attempt.exchange for attempt in attempts]

    def silence_from(self) -> float:
        """Returns since when the oldest pending query has heard nothing, monotonic seconds."""
        return max(self.heard_at, self.oldest().sent_at)

    def owes_since(self) -> float:
        """Returns since when it owes an answer and gives none, monotonic seconds."""
        return max(self.well_at, self.oldest().sent_at)

    def oldest(self) -> Attempt:
        """Returns what it has to answer next, if anything."""
        return next(iter(self.pending.values()))

    def silence_ends_at(self) -> float:
        """Returns when its silence counts against the upstream; infinity if it was counted."""
        since = self.silence_from()
        if since <= self.counted_until:
            return inf
        return since + min(self.oldest().exchange.policy.read_timeout_s, SILENCE_S)

    def ends_at(self) -> float:
        """Returns when nothing is expected of it any more.

        That is after ATTEMPT_S, or after an operator's shorter ``read_timeout``, or after
        SILENCE_S if the oldest question was answered another way, though asked there later, and
        nobody waits for another one.
        """
        oldest = self.oldest()
        most_s = oldest.exchange.policy.read_timeout_s
        if most_s >= READ_TIMEOUT_S.default:
            most_s = ATTEMPT_S
        ends_at = oldest.sent_at + most_s
        if oldest.exchange.asked_at > oldest.sent_at and self.is_of_no_use():
            return min(ends_at, self.silence_from() + SILENCE_S)
        return ends_at

    def is_of_no_use(self) -> bool:
        """Whether nobody waits for any of its answers."""
        return all(attempt.exchange.is_done for attempt in self.pending.values())

    def note_given_up(self) -> None:
        """Takes note that those whose answers are outstanding were asked for in vain."""
        for attempt in self.pending.values():
            if not attempt.exchange.is_done:
                attempt.exchange.setback().given_up += 1


def _is_bare_error(message: bytes) -> bool:
    return (
        message[2] & _QR_AND_OPCODE == QR >> 8
        and message[4:6] == b"\0\0"
        and message[3] & 0xF in _ERROR_RCODES
    )


class Pool(Carrier):
    """All connections to one upstream, as everybody else knows them.

    Attributes:
        health: Whether it answers.
        pace: How often it may be asked, None for as often as anybody likes.
        forms: In which form it is asked; shared by all pools of its address.
        has_probe: A probe of it is in flight.
        attempts, dialled: Queries sent; connections opened for them.
        is_retired: No longer in the configuration; ends with its last query.
    """

    __slots__ = ("attempts", "dialled", "forms", "has_probe", "health", "is_retired", "pace")

    def __init__(self, upstream: Upstream, series: UpstreamSeries) -> None:
        super().__init__(upstream, series)
        self.health = Health(upstream.max_fails)
        self.pace: Pace | None = None
        self.forms = Forms()
        self.has_probe = False
        self.attempts = 0
        self.dialled = 0
        self.is_retired = False

    @property
    def connect_timeout_s(self) -> float:
        """How long a connection may take to be ready."""
        is_tls = self.upstream.transport is Transport.TLS
        return TLS_CONNECT_TIMEOUT_S if is_tls else CONNECT_TIMEOUT_S

    # What connections do.

    @abstractmethod
    def connected(self, connection: Connection, now: float) -> None:
        """Takes note that a connection may be written to."""

    @abstractmethod
    def answered(self, connection: Connection, attempt: Attempt, now: float) -> None:
        """Takes note that ``attempt`` was answered."""

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
    def distrust(self, connection: Connection) -> None:
        """Takes a connection out of service whose answers are in doubt."""

    # What may be asked of it.

    @abstractmethod
    def wake(self, now: float) -> list[Exchange]:
        """Dials after a pause for those that still wait, and gives out turns.

        Returns the exchanges that had their turn and still could not be asked.
        """

    @abstractmethod
    def is_usable(self, now: float) -> bool:
        """Whether a query had better go here than to an upstream that is not."""

    @abstractmethod
    def has_spare(self, now: float) -> bool:
        """Whether there is room for a query that can be done without, such as a hedge."""

    @abstractmethod
    def may_probe(self, now: float) -> bool:
        """Whether there is room for a probe, which may need a connection of its own."""

    @abstractmethod
    def refusal(self) -> Failure | None:
        """Returns why nothing more can wait here, None if something can."""

    @abstractmethod
    def is_to_blame(self, exchange: Exchange) -> bool:
        """Whether ``exchange`` is what connections end over, and not the upstream's own fault."""

    @abstractmethod
    def keep_what_works(self, now: float) -> None:
        """Replaces connections no sooner than needed for a while: a backend is ill."""

    @abstractmethod
    def connection_counts(self) -> dict[str, int]:
        """Returns the number of connections per state."""

    @abstractmethod
    def retire(self) -> None:
        """Closes what is idle, and the rest when it has drained."""
