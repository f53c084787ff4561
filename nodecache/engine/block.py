"""What one server block holds while it serves: its cache, and its questions under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodecache.cache.message import Message
from nodecache.cache.store import MessageCache
from nodecache.config.model import ForwardPolicy, ServerBlock
from nodecache.engine.exchange import Exchange, Failure
from nodecache.engine.local import Chain, Plan
from nodecache.engine.loop import LoopGuard
from nodecache.wire.const import CD, HEADER_OCTETS, MAX_MESSAGE_OCTETS, OUR_PAYLOAD_OCTETS, RD
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


class BlockState:
    """One server block at work, shared by all its listeners.

    Attributes:
        block: Its configuration.
        messages: Its message cache, None without a ``cache`` directive.
        chain: What may change or answer a question before ``forward``, None for nothing.
        guard: A look for a forwarding loop, None when there is nothing to look at.
        most_udp_octets: Of a reply (``bufsize``).
        query_ends: What stands before and behind the question of an upstream query, by the last
            octet of the key.
        asked_ahead: Exchanges under way that began with nobody waiting, at most MOST_AHEAD.
        pending: Key -> the one exchange under way for it.
    """

    __slots__ = (
        "_cached_zones",
        "asked_ahead",
        "block",
        "chain",
        "guard",
        "messages",
        "most_udp_octets",
        "pending",
        "query_ends",
    )

    def __init__(
        self, block: ServerBlock, messages: MessageCache | None, chain: Chain | None = None
    ) -> None:
        self.guard: LoopGuard | None = None
        self.pending: dict[bytes, Pending] = {}
        self.asked_ahead = 0
        self.configure(block, messages, chain)

    def configure(
        self, block: ServerBlock, messages: MessageCache | None, chain: Chain | None
    ) -> None:
        """Goes over to another configuration; what is under way ends as it began."""
        self.block = block
        self.messages = messages
        self.chain = chain
        self._cached_zones = messages.policy.zones if messages is not None else ()
        self.most_udp_octets = MAX_MESSAGE_OCTETS if block.bufsize is None else block.bufsize
        payload_octets = min(OUR_PAYLOAD_OCTETS, self.most_udp_octets)
        self.query_ends = tuple(_query_ends(bits, payload_octets) for bits in range(8))

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
        key: See Query.key().
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
        question = key[:-1]
        head, tail = state.query_ends[key[-1]]
        if plan is not None and plan.rewritten is not None:
            question = plan.question
            if plan.rewritten.options:
                head, tail = _query_ends(key[-1], OUR_PAYLOAD_OCTETS, plan.rewritten.options)
        query = head + question + tail
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


def _query_ends(bits: int, payload_octets: int, options: bytes = b"") -> tuple[bytes, bytes]:
    """Returns what stands before and behind the question for the last octet of a key."""
    flags = (bits & 1) * RD | (bits >> 1 & 1) * CD
    query = compose_upstream_query(b"", flags, bool(bits & 4), payload_octets, options)
    return query[: HEADER_OCTETS - 2], query[HEADER_OCTETS - 2 :]
