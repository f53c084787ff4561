"""What one server block holds while it serves: its cache, and its questions under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from nodecache.cache.message import Message
from nodecache.cache.store import MessageCache
from nodecache.config.model import Address, ForwardPolicy, ServerBlock
from nodecache.resolve.behind_cache import BehindCache, Plan
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.upstreams.forms import Form, compose
from nodecache.wire.const import HEADER_OCTETS, MAX_MESSAGE_OCTETS, OUR_PAYLOAD_OCTETS
from nodecache.wire.key import ALL_MARKS, MARKS, QUESTION_END, read_marks
from nodecache.wire.query import is_below
from nodecache.wire.reply import compose_upstream_query

# Stubs give up after 5 s at the latest (glibc); a failure should reach them before that.
PATIENCE_S = 4.5

# A stub that retransmits joins again; a thousand pods that ask for one name at once fit in.
MOST_WAITERS = 4096

# Exchanges of one block for which nobody waits: refreshing ahead, and rechecking what is served
# stale. So many names that end together are no burst, and a dead upstream is not asked for all
# that it ever answered; the next ones follow as these end, at 10 ms each 25,600 a second.
MOST_AHEAD = 256

_ROOT = b"\0"


class Guard(Protocol):
    """A question that a directive asks by itself, to find out whether misses may go out.

    Attributes:
        qname: A name that nobody else can know, in wire format and lower case.
        is_looping: Misses are stopped.
    """

    qname: bytes
    is_looping: bool

    def stops(self, qname: bytes) -> bool:
        """Returns whether a query for ``qname`` that misses may not be forwarded."""

    def note_failure(self) -> None:
        """Takes note that nobody answered its question."""


class BlockState:
    """One server block at work, shared by all its listeners.

    Attributes:
        block: Its configuration.
        messages: Its message cache, None without a ``cache`` directive.
        behind_cache: What may change or answer a question before ``forward``, None for nothing.
        guard: May stop misses, None while nothing does.
        whoami: Answers questions that no ``forward`` takes, for the one who asks and nobody else:
            question, address of the client and "udp" or "tcp" -> whole response with ID 0. None
            for a block without; set by who configures.
        most_udp_octets: Of a reply (``bufsize``).
        takes_queries: See ServerBlock.
        query_ends: What stands before and behind the question of an upstream query, by the marks
            of the key.
        asked_ahead: Exchanges under way that began with nobody waiting, at most MOST_AHEAD.
        pending: Key -> the one exchange under way for it.
        nsid: EDNS option that tells which server this is, b"" for none; set by who configures.
    """

    __slots__ = (
        "_cached_zones",
        "asked_ahead",
        "behind_cache",
        "block",
        "guard",
        "messages",
        "most_udp_octets",
        "nsid",
        "pending",
        "query_ends",
        "takes_queries",
        "whoami",
    )

    def __init__(
        self,
        block: ServerBlock,
        messages: MessageCache | None,
        behind_cache: BehindCache | None = None,
    ) -> None:
        self.guard: Guard | None = None
        self.whoami: Callable[[bytes, Address, str], bytes] | None = None
        self.nsid = b""
        self.pending: dict[bytes, Pending] = {}
        self.asked_ahead = 0
        self.configure(block, messages, behind_cache)

    def configure(
        self, block: ServerBlock, messages: MessageCache | None, behind_cache: BehindCache | None
    ) -> None:
        """Goes over to another configuration; what is under way ends as it began."""
        self.block = block
        self.messages = messages
        self.behind_cache = behind_cache
        self.takes_queries = block.takes_queries
        self._cached_zones = messages.policy.zones if messages is not None else ()
        self.most_udp_octets = MAX_MESSAGE_OCTETS if block.bufsize is None else block.bufsize
        payload_octets = min(OUR_PAYLOAD_OCTETS, self.most_udp_octets)
        self.query_ends = tuple(
            _query_ends(marks, payload_octets) for marks in range(ALL_MARKS + 1)
        )

    def cache_for(self, qname: bytes) -> MessageCache | None:
        """Returns the message cache if ``qname`` may be in it (``cache TTL ZONES...``)."""
        zones = self._cached_zones
        if not zones or any(is_below(qname, zone.wire) for zone in zones):
            return self.messages
        return None

    def forward_for(self, qname: bytes, after: ForwardPolicy | None = None) -> ForwardPolicy | None:
        """Returns the first ``forward`` that takes ``qname``, of those behind ``after``."""
        is_next = after is None
        for policy in self.block.forwards:
            if not is_next:
                is_next = policy is after  # by identity: equal ones may follow each other
                continue
            if policy.origin.wire != _ROOT and not is_below(qname, policy.origin.wire):
                continue
            excepted = policy.except_zones
            if not excepted or not any(is_below(qname, zone.wire) for zone in excepted):
                return policy
        return None


class Pending(Exchange):
    """One exchange, and everybody who waits for it (coalescing).

    Attributes:
        state: The server block it belongs to.
        key: See wire/key.py.
        waiters: Opaque here; at most MOST_WAITERS.
        messages: Where the response may be kept, None for nowhere.
        message: What is in the cache for it, valid or stale: to be refreshed, or to be served
            if nothing fresh comes. None if there is nothing.
        stale_at: From when on a stale answer is served instead; 0 while nobody could use one.
        is_ahead: It began with nobody waiting.
        plan: What the block's chain made of the question, None without a chain.
        owner: The client whose share it is counted to, "" for nobody's.
    """

    __slots__ = (
        "is_ahead",
        "key",
        "message",
        "messages",
        "owner",
        "plan",
        "stale_at",
        "state",
        "waiters",
    )

    def __init__(
        self,
        state: BlockState,
        key: bytes,
        policy: ForwardPolicy,
        messages: MessageCache | None,
        now: float,
        on_done: Callable[[Any, bytes | Failure, float], bool],
        plan: Plan | None = None,
    ) -> None:
        question = key[:QUESTION_END]
        head, tail = state.query_ends[key[MARKS]]
        if plan is not None and plan.rewritten is not None:
            question = plan.question
            if plan.rewritten.options:
                head, tail = _query_ends(key[MARKS], OUR_PAYLOAD_OCTETS, plan.rewritten.options)
        query = head + question + tail
        if not policy.has_edns:
            query = compose(query, question, Form.PLAIN)
        super().__init__(question, query, policy, now, now + PATIENCE_S, on_done)
        self.state = state
        self.key = key
        self.messages = messages
        self.waiters: list[Any] = []
        self.message: Message | None = None
        self.stale_at = 0.0
        self.is_ahead = False
        self.plan = plan
        self.owner = ""


def _query_ends(marks: int, payload_octets: int, options: bytes = b"") -> tuple[bytes, bytes]:
    """Returns what stands before and behind the question for the marks of a key."""
    flags, dnssec_ok = read_marks(marks)
    query = compose_upstream_query(b"", flags, dnssec_ok, payload_octets, options)
    return query[: HEADER_OCTETS - 2], query[HEADER_OCTETS - 2 :]
