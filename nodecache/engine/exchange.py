"""One question on its way to the upstreams, and how it may end."""

from __future__ import annotations

import enum
from collections.abc import Callable

from nodecache.config.model import ForwardPolicy


class Failure(enum.Enum):
    """Why an exchange ended without a response; the value is used in logs and series."""

    TIMED_OUT = "timed out"
    UNREACHABLE = "no upstream can be reached"
    MALFORMED = "the response is malformed"
    OVERLOADED = "too many queries in flight"
    PACED = "the upstream may not be asked more often"


class Setbacks:
    """What went wrong with an exchange so far; made when the first thing does.

    Attributes:
        retries: Times its patience ran out.
        dial_failures: Connections that it waited for and that failed.
        needs_stream: A response over UDP was truncated.
        opinions: Errors that were not believed at once.
        response: What an upstream said that was passed over or not believed; better than nothing.
    """

    __slots__ = ("dial_failures", "needs_stream", "opinions", "response", "retries")

    def __init__(self) -> None:
        self.retries = 0
        self.dial_failures = 0
        self.needs_stream = False
        self.opinions = 0
        self.response: bytes | None = None


class Exchange:
    """One canonical query to the upstreams of one forward policy.

    Attributes:
        question: QNAME in lower case, QTYPE, QCLASS, in wire format.
        query: The canonical upstream query without its ID, with our OPT record.
        policy: Where it may go.
        started_at: Monotonic seconds.
        deadline: When it ends as TIMED_OUT at the latest.
        on_done: Called with the exchange, the response octets (question and ID checked, TC only
            if it came over TCP) or a Failure, and ``now``. Returns whether it takes the response;
            if not, the forwarder asks elsewhere. Taken exactly once; a Failure always is.
        attempts, route, waiting_in, setbacks: What the forwarder keeps about it; nobody else
            touches them.
        is_spare: Its owner has something to serve without it; left out first to keep a pace.
        wake_at: The forwarder's next look at it, monotonic seconds.
        is_done: Set before ``on_done`` is called.
    """

    __slots__ = (
        "attempts",
        "deadline",
        "is_done",
        "is_spare",
        "on_done",
        "policy",
        "query",
        "question",
        "route",
        "setbacks",
        "started_at",
        "waiting_in",
        "wake_at",
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
        self.attempts: list[object] = []
        self.route: object = None
        self.waiting_in: object = None
        self.setbacks: Setbacks | None = None
        self.wake_at = 0.0
        self.is_done = False
        self.is_spare = False
