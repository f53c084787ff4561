"""What becomes of kept messages when the configuration of their server block changes."""

from __future__ import annotations

from collections.abc import Callable

from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.cache.store import MessageCache
from nodecache.config.model import CachePolicy
from nodecache.wire.key import QNAME_END
from nodecache.wire.query import is_below

# About 1 ms.
_MOVED_AT_ONCE = 50


class CarryOver:
    """The way of one cache's messages into another, in slices, or into nothing.

    At any moment the new cache answers as if all had been moved already: before it looks for a key
    it lets whatever could have a say about that be brought (``bring``).
    """

    def __init__(
        self,
        old: MessageCache,
        new: MessageCache | None,
        now: float,
        holds: Callable[[bytes], bool] | None,
    ) -> None:
        """Begins; nothing of ``old`` is served by itself from here on.

        Args:
            old: Empty in the end, and out of its budget then.
            new: Gets the messages that its rules allow, their lifetimes cut to its caps; None if
                nothing is kept any more.
            now: Monotonic seconds.
            holds: Whether what was said under a key is still true; None if nothing is.
        """
        self._old = old
        self._new = new
        self._now = now
        self._holds = holds
        old.retire()
        if new is not None:
            new.former = None if holds is None else self
            new.success.evictions = old.success.evictions
            new.denial.evictions = old.denial.evictions

    def bring(self, key: bytes) -> None:
        """Moves what could have a say about ``key``: no more than its labels, and three."""
        if self._old.former is not None:
            self._old.former.bring(key)
        for message in self._old.related(key):
            if message.partition is not None:
                self._old.remove(message)
                self._take(message)

    def step(self, now: float) -> bool:
        """Moves some messages, the one that would be given up next first; returns if more are left.

        Of an earlier change that is still on its way into the old cache, all must have come.
        """
        self._now = now
        for _ in range(_MOVED_AT_ONCE):
            message = self._old.pop_next()
            if message is None:
                self._old.leave()
                if self._new is not None:
                    self._new.former = None
                return False
            self._take(message)
        return True

    def _take(self, message: Message) -> None:
        """Keeps a message that has left the old cache, if it holds by the new rules."""
        new, holds, was_protected = self._new, self._holds, message.is_protected
        if new is None or holds is None or message.kind is Kind.FAILURE or not holds(message.key):
            return
        if message.covers_all_types:
            message.covers_all_types = new.covers_all_types(message.key)
        if rebound(message, new.policy, self._now):
            new.keep(message, self._now)
            if was_protected and message.partition is not None:
                message.partition.touch(message)


def rebound(message: Message, policy: CachePolicy, now: float) -> bool:
    """Cuts the lifetime to what ``policy`` allows; returns whether anything of it is left.

    A longer cap or floor lengthens nothing: what the upstream had said is not known any more.
    """
    is_success = message.kind is Kind.SUCCESS
    disabled = policy.disable_success if is_success else policy.disable_denial
    qname = message.key[:QNAME_END]
    if any(is_below(qname, zone.wire) for zone in disabled):
        return False
    if policy.zones and not any(is_below(qname, zone.wire) for zone in policy.zones):
        return False
    bounds = policy.success if is_success else policy.denial
    cut_s = max(0.0, message.ttl_s - bounds.max_ttl_s)
    message.ttl_s -= cut_s
    message.expires_at -= cut_s
    message.refresh_at -= cut_s
    if policy.prefetch is None and message.refresh_at < NEVER:
        message.refresh_at = message.expires_at
    stale = policy.serve_stale
    message.keep_until = message.expires_at + (stale.duration_s if stale is not None else 0.0)
    message.keeps_ttl = policy.keep_ttl
    return message.keep_until > now
