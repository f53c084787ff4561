"""Names that are asked too seldom for a query to fall into their last tenth, yet steadily.

Ordinarily a hit in that time starts the refresh. For a name that had a hit before, one look at
its half decides: if it is still asked for, it is refreshed without a hit.
"""

from __future__ import annotations

from math import inf

from nodecache.cache.message import Message
from nodecache.config.model import Prefetch
from nodecache.engine.agenda import Agenda
from nodecache.engine.zones import ServedZone

# A name that left early stays noted until its time. Names beyond this need a hit at the end.
MOST_NOTED = 10_000

# Part of a lifetime: a name asked three times in it had a hit so lately, or its packet has one
# to tell; one asked only in its first seconds has not.
LATELY = 0.6


class Lookout:
    """When to look at which message."""

    __slots__ = ("_agenda", "_count")

    def __init__(self) -> None:
        self._agenda: Agenda[tuple[bytes, ServedZone]] = Agenda()
        self._count = 0

    @property
    def next_at(self) -> float:
        """When ``take_due`` has something to say, monotonic seconds; infinity for never."""
        return self._agenda.next_at

    def note(self, message: Message, served: ServedZone, now: float) -> None:
        """Puts a message down that had its first hit."""
        if message.refresh_at == inf or self._count >= MOST_NOTED:
            return
        look_at = (message.refresh_at + message.expires_at) / 2
        if now < look_at:
            self._count += 1
            self._agenda.add(look_at, (message.key, served))

    def take_due(self, now: float) -> list[tuple[Message, ServedZone]]:
        """Returns the messages that should be refreshed now."""
        due = self._agenda.take_due(now)
        self._count -= len(due)
        found = []
        for key, served in due:
            messages = served.state.cache_for(key[:-5])
            message = messages.peek(key) if messages is not None else None
            prefetch = messages.policy.prefetch if messages is not None else None
            if message is not None and prefetch and _is_steady(message, prefetch, now):
                found.append((message, served))
        return found


def _is_steady(message: Message, prefetch: Prefetch, now: float) -> bool:
    """Whether ``message`` is due, and is likely to be asked for again."""
    if not message.refresh_at <= now < message.expires_at:
        return False
    hits = message.hits + sum(packet.untold_hits() for packet in message.packets)
    age_s = now - message.hit_at
    return hits >= prefetch.amount and age_s <= min(message.ttl_s * LATELY, prefetch.duration_s)
