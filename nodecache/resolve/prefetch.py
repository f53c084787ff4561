"""Refresh-ahead: asks for what is still valid, with nobody waiting.

Ordinarily a hit in the last tenth of a lifetime starts it. Some names are asked too seldom for a
query to fall into that time, yet steadily: of a name that had a hit before, one look at the half
of it decides. If it is still asked for, it is refreshed without a hit.
"""

from __future__ import annotations

from math import inf

from nodecache.cache.message import Message
from nodecache.config.model import Prefetch
from nodecache.counters import Counters
from nodecache.resolve.exchanges import Exchanges
from nodecache.resolve.zones import ServedZone
from nodecache.timers import Timers
from nodecache.wire.key import QNAME_END

# A name that left early stays noted until its time. Names beyond this need a hit at the end.
MOST_NOTED = 10_000

# Part of a lifetime: a name asked three times in it had a hit so lately, or its packet has one
# to tell; one asked only in its first seconds has not.
LATELY = 0.6


class Prefetcher:
    """Asks ahead of the end of what is asked for steadily.

    Attributes:
        due: When to look at which message again; ``timer`` wants to be called then.
    """

    __slots__ = ("_count", "_counters", "_exchanges", "due")

    def __init__(self, exchanges: Exchanges, counters: Counters) -> None:
        self._exchanges = exchanges
        self._counters = counters
        self.due: Timers[tuple[bytes, ServedZone]] = Timers()
        self._count = 0

    def note_hit(self, message: Message, served: ServedZone, now: float) -> None:
        """Takes note of a hit; in the last tenth of a lifetime, and often enough, it refreshes."""
        messages = served.state.messages
        policy = messages.policy.prefetch if messages is not None else None
        if policy is not None:
            if not message.hits:
                self._note_first(message, served, now)
            if now - message.hit_at > policy.duration_s:
                message.hits = 0
            if message.refresh_at <= now and message.hits + 1 >= policy.amount:
                self._refresh(message, served, now)
        message.hits += 1
        message.hit_at = now

    def timer(self, now: float) -> None:
        """Refreshes what is asked for steadily, hit or not."""
        found = self.due.take_due(now)
        self._count -= len(found)
        for key, served in found:
            messages = served.state.cache_for(key[:QNAME_END])
            message = messages.peek(key) if messages is not None else None
            policy = messages.policy.prefetch if messages is not None else None
            if message is not None and policy and _is_steady(message, policy, now):
                self._refresh(message, served, now)

    def _note_first(self, message: Message, served: ServedZone, now: float) -> None:
        if message.refresh_at == inf or self._count >= MOST_NOTED:
            return
        look_at = (message.refresh_at + message.expires_at) / 2
        if now < look_at:
            self._count += 1
            self.due.add(look_at, (message.key, served))

    def _refresh(self, message: Message, served: ServedZone, now: float) -> None:
        """Asks for a message that is still valid, once, with nobody waiting."""
        if message.key in served.state.pending:
            return
        pending = self._exchanges.begin_ahead(served.state, message.key, message, now)
        if pending is not None:
            served.caches.prefetches += 1
            self._counters.count_event("refreshed")
            self._exchanges.submit(pending, now)


def _is_steady(message: Message, prefetch: Prefetch, now: float) -> bool:
    """Whether ``message`` is due, and is likely to be asked for again."""
    if not message.refresh_at <= now < message.expires_at:
        return False
    hits = message.hits + sum(packet.unreported_hits() for packet in message.packets)
    age_s = now - message.hit_at
    return hits >= prefetch.amount and age_s <= min(message.ttl_s * LATELY, prefetch.duration_s)
