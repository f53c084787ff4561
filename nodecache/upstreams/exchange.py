"""One question on its way to the upstreams: its attempts, its setbacks, and how it may end.

What carries attempts stands above this file: it is known here by its face only.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from nodecache.config.model import ForwardPolicy, Transport, Upstream
from nodecache.counters import UpstreamSeries
from nodecache.upstreams.forms import Form
from nodecache.upstreams.patience import Patience


class Failure(enum.Enum):
    """Why an exchange ended without a response; the value is used in logs and series."""

    TIMED_OUT = "timed out"
    UNREACHABLE = "no upstream can be reached"
    MALFORMED = "the response is malformed"
    HUNG_UP = "the upstream ends each connection over it"
    OVERLOADED = "too many queries in flight"
    PACED = "the upstream may not be asked more often"


class Queue:
    """Exchanges that wait for something, in order.

    Attributes:
        waiting: Exchange -> the pool that will carry it, oldest first.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: dict[Exchange, Carrier] = {}


class Carrier(Queue, ABC):
    """A pool, as exchanges and queues know it; exchanges wait in it for a connection.

    Attributes:
        upstream: Where it leads.
        is_stream: TCP or TLS.
        series: What users see of it.
        patience: How long an answer of it may take.
    """

    __slots__ = ("is_stream", "patience", "series", "upstream")

    def __init__(self, upstream: Upstream, series: UpstreamSeries) -> None:
        super().__init__()
        self.upstream = upstream
        self.is_stream = upstream.transport is not Transport.UDP
        self.series = series
        self.patience = Patience()

    @abstractmethod
    def ask(self, exchange: Exchange, now: float) -> Failure | None:
        """Sends the query or lets it wait; returns why neither is possible."""

    @abstractmethod
    def serve_waiting(self, now: float) -> None:
        """Asks for those that wait what there is room for, and opens what the others need."""

    def take_waiting(self, exchange: Exchange) -> Exchange:
        """Ends the waiting of ``exchange`` for a connection, and returns it."""
        del self.waiting[exchange]
        exchange.waiting_in = None
        return exchange


class Link(ABC):
    """A connection, as attempts know it.

    Attributes:
        locate: Returns our own end as text; set by the shell, which is asked only when something
            went wrong.
    """

    __slots__ = ("locate",)

    def __init__(self) -> None:
        self.locate: Callable[[], str] = _nowhere

    @property
    def local(self) -> str:
        """Our own address and port, "" where there is none."""
        return self.locate()

    @abstractmethod
    def mark_late(self) -> None:
        """Takes note that an answer on it is later than usual."""


def _nowhere() -> str:
    return ""


class Attempt:
    """One query on one connection.

    Attributes:
        exchange: Whose question it carries.
        pool: Whom it was asked of.
        link: Where it was sent.
        sent_at: Monotonic seconds.
        form: In which form.
        is_live: An answer may still come.
    """

    __slots__ = ("exchange", "form", "is_live", "link", "pool", "sent_at")

    def __init__(self, exchange: Exchange, pool: Carrier, link: Link, sent_at: float) -> None:
        self.exchange = exchange
        self.pool = pool
        self.link = link
        self.sent_at = sent_at
        self.form = Form.WHOLE
        self.is_live = True


class Setbacks:
    """What went wrong with an exchange so far; made when the first thing does.

    Attributes:
        looks: Times its patience ran out.
        dial_failures: Connections that it waited for and that failed.
        unreached: The pools that these were of.
        deaths: Connections that ended when it was the next to be answered.
        died_at: When the last of them did, monotonic seconds.
        is_proven: One of them had answered before, or was the only one: it was not one too many.
        given_up: Attempts that had no answer when their connection was given up.
        malformed: Responses that were refused as malformed.
        form: In which form it is asked from now on.
        plain_for: The pool that is asked without OPT because of what it said to OPT.
        needs_stream: Its response does not arrive whole over UDP.
        truncated: It is asked over TCP because a response was truncated.
        opinions: Errors that were not believed at once.
        response: What an upstream said that was passed over or not believed; better than nothing.
    """

    __slots__ = (
        "deaths",
        "dial_failures",
        "died_at",
        "form",
        "given_up",
        "is_proven",
        "looks",
        "malformed",
        "needs_stream",
        "opinions",
        "plain_for",
        "response",
        "truncated",
        "unreached",
    )

    def __init__(self) -> None:
        self.looks = 0
        self.dial_failures = 0
        self.unreached: set[Carrier] = set()
        self.deaths = 0
        self.died_at = 0.0
        self.is_proven = False
        self.given_up = 0
        self.malformed = 0
        self.form = Form.WHOLE
        self.plain_for: Carrier | None = None
        self.needs_stream = False
        self.truncated = False
        self.opinions = 0
        self.response: bytes | None = None


class Exchange:
    """One canonical query to the upstreams of one forward policy.

    It has a live attempt, or waits in one queue, or both, until it is done, unless it was asked
    in vain as often as it may be.

    Attributes:
        question: QNAME in lower case, QTYPE, QCLASS, in wire format.
        query: The canonical upstream query without its ID, with our OPT record.
        policy: Where it may go.
        started_at: Monotonic seconds.
        deadline: When it ends as TIMED_OUT at the latest.
        on_done: Called with the exchange, the response octets (question and ID checked) or a
            Failure, and ``now``. Returns whether it takes the response; if not, the forwarder
            asks elsewhere. Taken exactly once; a Failure always is.
        on_late: Called with the exchange, a response without error that comes after it ended in
            a Failure, and ``now``. None: late answers are of no use.
        wants_whole: A truncated response is of no use to anybody who waits: they came over TCP.
        is_spare: Its owner has something to serve without it; left out first to keep a pace.
        is_done: Set before ``on_done`` is called.
        is_answered: It ended with a response that nobody doubted.
        asked_at: When the query was sent that was answered, monotonic seconds; 0 for none.
        answered_by: Address of the upstream whose response was taken; "" without one.
        last_error: What went wrong last, in words; "" for nothing.

    The forwarder's own; nobody else touches them:

    Attributes:
        attempts: All until now, oldest first.
        waiting_in: The one queue that it waits in.
        setbacks: None while all goes well.
        wake_at: The next look at it, monotonic seconds; other entries of the timers are void.
    """

    __slots__ = (
        "answered_by",
        "asked_at",
        "attempts",
        "deadline",
        "is_answered",
        "is_done",
        "is_spare",
        "last_error",
        "on_done",
        "on_late",
        "policy",
        "query",
        "question",
        "setbacks",
        "started_at",
        "waiting_in",
        "wake_at",
        "wants_whole",
    )

    def __init__(
        self,
        question: bytes,
        query: bytes,
        policy: ForwardPolicy,
        started_at: float,
        deadline: float,
        on_done: Callable[[Exchange, bytes | Failure, float], bool],
    ) -> None:
        self.question = question
        self.query = query
        self.policy = policy
        self.started_at = started_at
        self.deadline = deadline
        self.on_done = on_done
        self.on_late: Callable[[Any, bytes, float], None] | None = None
        self.attempts: list[Attempt] = []
        self.waiting_in: Queue | None = None
        self.setbacks: Setbacks | None = None
        self.wake_at = 0.0
        self.is_done = False
        self.wants_whole = False
        self.is_spare = False
        self.is_answered = False
        self.asked_at = 0.0
        self.answered_by = ""
        self.last_error = ""

    def setback(self) -> Setbacks:
        """Returns what went wrong with it, to be added to."""
        if self.setbacks is None:
            self.setbacks = Setbacks()
        return self.setbacks

    def live_attempts(self) -> list[Attempt]:
        """Returns the attempts that may still be answered, oldest first."""
        return [attempt for attempt in self.attempts if attempt.is_live]

    def tried(self) -> set[Carrier]:
        """Returns the pools that it was asked of."""
        return {attempt.pool for attempt in self.attempts}

    def is_under_way(self) -> bool:
        """Whether an answer may still come, or it waits for its turn or a connection."""
        return self.waiting_in is not None or any(attempt.is_live for attempt in self.attempts)

    def is_pending_at(self, pool: Carrier) -> bool:
        """Whether it was asked of ``pool``, and there is no answer yet."""
        return any(attempt.is_live and attempt.pool is pool for attempt in self.attempts)

    def answer(self, attempt: Attempt, message: bytes, now: float) -> bool:
        """Ends it with the response to ``attempt``; False if its owner refuses that."""
        self.answered_by = attempt.pool.series.to
        self.is_answered = True
        self.asked_at = attempt.sent_at
        if self.end(message, now):
            return True
        self.answered_by = ""
        self.is_answered = False
        self.asked_at = 0.0
        return False

    def fail(self, failure: Failure, now: float) -> None:
        """Ends it with the response that was passed over, or else with the failure."""
        held = self.setbacks.response if self.setbacks is not None else None
        if held is None or not self.end(held, now):
            self.end(failure, now)

    def end(self, outcome: bytes | Failure, now: float) -> bool:
        """Ends it; False if its owner refuses the response, and it goes on."""
        self.is_done = True
        if self.waiting_in is not None:
            self.waiting_in.waiting.pop(self, None)
            self.waiting_in = None
        if not self.on_done(self, outcome, now) and not isinstance(outcome, Failure):
            self.is_done = False
            return False
        self.attempts.clear()  # they point back: the pair would be left to the cycle collector
        return True
