"""One TCP connection of a stub resolver, without its socket: framing, flow, time limits (RFC 7766).

Octets and the time go in; messages come out, and what the connection should do now. Knows nothing
of names or caches. Invariants, while the connection is open:
- a message waits only while queries are unanswered or the client does not read its replies;
- octets are read only while no message waits, so one chunk is the most that ever waits;
- each query that was taken is counted as unanswered until its reply was written.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from nodecache.wire.framing import Deframer


@dataclass(frozen=True, slots=True)
class TcpBounds:
    """What TCP clients may hold, for how long.

    Attributes:
        connections: Open at once over all clients: a node has at most some 250 pods.
        connections_per_client: Of one address: all pods in the node's own network share one, so
            that it may have most; a quarter is always left for others.
        unanswered: Queries of one connection without reply: glibc and Go pipeline two.
        junk: Messages in a row without any reply (QR set, too short, empty) after which a
            connection closes.
        chunk_octets: Read at once, so also the most that waits unread in our own memory.
        unsent_octets: Written but not taken by the client, above which no more is read: one
            reply of the largest size.
        most_unsent_octets: The same, above which the connection is aborted: pending queries
            are answered even when no more are read.
        unsent_octets_in_all: The same over all connections.
        first_octet_s: From the connection to its first octet, as CoreDNS.
        message_s: From the first octet of a message to its last: it fits a few segments.
        idle_s: Without any message or reply (RFC 7766 section 6.2.3 asks for a few seconds;
            CoreDNS has 10).
        blocked_s: That a client may leave its replies unread, as CoreDNS's write timeout.
        sweep_s: Between two looks at all of these times.
    """

    connections: int = 1024
    connections_per_client: int = 768
    unanswered: int = 128
    junk: int = 16
    chunk_octets: int = 16 * 1024
    unsent_octets: int = 64 * 1024
    most_unsent_octets: int = 512 * 1024
    unsent_octets_in_all: int = 32 * 1024 * 1024
    first_octet_s: float = 3.0
    message_s: float = 5.0
    idle_s: float = 10.0
    blocked_s: float = 5.0
    sweep_s: float = 1.0


class State(enum.Enum):
    """What a connection does; ``Stream.settle`` says how one state leads to another."""

    READING = "takes octets, and answers"
    FULL = "takes none: messages wait, or as many queries as may be are unanswered"
    BLOCKED = "takes none and answers none: the client leaves its replies unread"
    ENDING = "takes none: the client has sent its last, and gets what it asked for"
    CLOSING = "only sends what was written"


# Names of their own: each look at ``State.READING`` costs 70 ns more.
READING, FULL, BLOCKED, ENDING, CLOSING = State


class Overdue(enum.Enum):
    """Which time is over; the value is the label of the drop counter, "" for none."""

    IDLE = ""
    MESSAGE = "tcp_incomplete"
    CLIENT = "tcp_slow_client"


class Stream:
    """What is known of one connection.

    Attributes:
        state: See ``State``.
        unanswered: Queries taken that have no reply yet.
        active_at: Monotonic seconds of the last octet or reply.
        is_at_eof: The client has sent its last octet.
        is_unread: The client leaves its replies unread.
    """

    __slots__ = (
        "_bounds",
        "_deframer",
        "_has_spoken",
        "_junk",
        "_partial_at",
        "_since",
        "_waiting",
        "active_at",
        "is_at_eof",
        "is_unread",
        "state",
        "unanswered",
    )

    def __init__(self, bounds: TcpBounds, now: float) -> None:
        self.state = READING
        self.unanswered = 0
        self.active_at = now
        self.is_at_eof = False
        self.is_unread = False
        self._bounds = bounds
        self._deframer = Deframer()
        self._waiting: deque[bytes] = deque()
        self._junk = 0
        self._has_spoken = False
        # Monotonic seconds: of the state's beginning, and of the first octet of the message that is
        # incomplete.
        self._since = now
        self._partial_at = now

    @property
    def is_idle(self) -> bool:
        """Whether nobody loses anything if it is closed now and all was sent."""
        is_free = self.state is READING and not self.unanswered
        return is_free and not self._deframer.pending_octets

    @property
    def has_work(self) -> bool:
        """Whether ``take`` has a message; never while READING."""
        is_full = self.unanswered >= self._bounds.unanswered
        return bool(self._waiting) and not (self.is_unread or is_full)

    def settle(self, now: float) -> State:
        """Goes to the state that follows from what is known, and returns it; the end is final."""
        if self.state is CLOSING:
            return self.state
        if self.is_at_eof and not (self._waiting or self.unanswered):
            state = CLOSING
        elif self.is_unread:
            state = BLOCKED
        elif self.is_at_eof:
            state = ENDING
        elif self._waiting or self.unanswered >= self._bounds.unanswered:
            state = FULL
        else:
            state = READING
        if state is not self.state:
            self.state = state
            self._since = now
            if state is READING:
                self._partial_at = now  # what is missing may have come long ago
        return state

    def receive(self, octets: bytes, now: float) -> bool:
        """Takes octets that came; returns whether they completed a message."""
        messages = self._deframer.feed(octets)
        if messages or len(octets) == self._deframer.pending_octets:
            self._partial_at = now
        self._has_spoken = True
        self.active_at = now
        self._waiting.extend(messages)
        return bool(messages)

    def end(self) -> bool:
        """Notes that the client sends no more; returns whether it did within a message."""
        self.is_at_eof = True
        is_broken = self._deframer.pending_octets > 0
        if is_broken:
            self._deframer = Deframer()
        return is_broken

    def take(self) -> bytes | None:
        """Returns the next message, which counts as unanswered, None if none may be taken."""
        if not self._waiting or self.is_unread or self.unanswered >= self._bounds.unanswered:
            return None
        self.unanswered += 1
        return self._waiting.popleft()

    def judge(self, reply: bytes | None) -> bool:
        """Notes what the resolver made of the message taken last; returns whether it is to end.

        It is when too many in a row never have a reply; what waits is thrown away then.

        Args:
            reply: As ``Resolver.query`` returns it: None for one that comes later, b"" for none.
        """
        if reply is None:
            self._junk = 0
            return False
        self.unanswered -= 1
        self._junk = 0 if reply else self._junk + 1
        if self._junk < self._bounds.junk:
            return False
        self._waiting.clear()
        return True

    def answer(self, now: float) -> None:
        """Notes the reply to a query that had to wait for it."""
        self.unanswered -= 1
        self.active_at = now

    def resume(self, now: float) -> None:
        """Notes that the client has read its replies."""
        self.is_unread = False
        self.active_at = now

    def close(self, now: float) -> None:
        """Ends; nothing that waits is answered any more."""
        if self.state is not CLOSING:
            self.state = CLOSING
            self._since = now
            self._waiting.clear()

    def overdue(self, now: float) -> Overdue | None:
        """Returns which of its times is over, None for none."""
        bounds = self._bounds
        if self.state is CLOSING or self.state is BLOCKED:
            return Overdue.CLIENT if now - self._since > bounds.blocked_s else None
        if self.state is READING and self._is_partial_late(now):
            return Overdue.MESSAGE
        idle_s = bounds.idle_s if self._has_spoken else bounds.first_octet_s
        return Overdue.IDLE if now - self.active_at > idle_s else None

    def _is_partial_late(self, now: float) -> bool:
        late_at = self._partial_at + self._bounds.message_s
        return now > late_at and self._deframer.pending_octets > 0
