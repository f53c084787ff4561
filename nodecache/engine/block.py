"""What one server block holds while it serves: its cache, and its questions under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodecache.cache.message import Message
from nodecache.cache.store import MessageCache
from nodecache.config.model import ForwardPolicy, ServerBlock
from nodecache.engine.exchange import Exchange, Failure
from nodecache.wire.const import CD, HEADER_OCTETS, RD
from nodecache.wire.query import is_below
from nodecache.wire.reply import compose_upstream_query

# Stubs give up after 5 s at the latest (glibc); a failure should reach them before that.
PATIENCE_S = 4.5

# A stub that retransmits joins again; a thousand pods that ask for one name at once fit in.
MOST_WAITERS = 4096

_ROOT = b"\0"


class BlockState:
    """One server block at work, shared by all its listeners.

    Attributes:
        block: Its configuration.
        messages: Its message cache, None without a ``cache`` directive.
        pending: Key -> the one exchange under way for it.
    """

    __slots__ = ("_cached_zones", "block", "messages", "pending")

    def __init__(self, block: ServerBlock, messages: MessageCache | None) -> None:
        self.block = block
        self.messages = messages
        self._cached_zones = messages.policy.zones if messages is not None else ()
        self.pending: dict[bytes, Pending] = {}

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
    """

    __slots__ = ("key", "message", "messages", "state", "waiters")

    def __init__(
        self,
        state: BlockState,
        key: bytes,
        policy: ForwardPolicy,
        messages: MessageCache | None,
        now: float,
        on_done: Callable[[Any, bytes | Failure, float], bool],
    ) -> None:
        question = key[:-1]
        head, tail = _QUERY_ENDS[key[-1]]
        query = head + question + tail
        super().__init__(question, query, policy, now, now + PATIENCE_S, on_done)
        self.state = state
        self.key = key
        self.messages = messages
        self.waiters: list[Any] = []
        self.message: Message | None = None


def _query_ends(bits: int) -> tuple[bytes, bytes]:
    """Returns what stands before and behind the question for the last octet of a key."""
    flags = (bits & 1) * RD | (bits >> 1 & 1) * CD
    query = compose_upstream_query(b"", flags, dnssec_ok=bool(bits & 4))
    return query[: HEADER_OCTETS - 2], query[HEADER_OCTETS - 2 :]


_QUERY_ENDS = tuple(_query_ends(bits) for bits in range(8))
