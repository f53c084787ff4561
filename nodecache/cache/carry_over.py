"""What becomes of kept messages when the configuration of their server block changes."""

from __future__ import annotations

from collections.abc import Callable

from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.cache.store import MessageCache
from nodecache.config.model import CachePolicy
from nodecache.wire.key import QNAME_END
from nodecache.wire.query import is_below


def carry_over(
    old: MessageCache, new: MessageCache, now: float, holds: Callable[[bytes], bool]
) -> None:
    """Moves the messages that the rules of ``new`` allow, their lifetimes cut to its caps.

    Args:
        old: Empty afterwards, and out of its budget.
        new: Gets the messages.
        now: Monotonic seconds.
        holds: Whether what was said under a key is still true.
    """
    for message in old.retire():
        was_protected = message.is_protected
        if message.kind is Kind.FAILURE or not holds(message.key):
            continue
        if message.covers_all_types:
            message.covers_all_types = new.covers_all_types(message.key)
        if rebound(message, new.policy, now):
            new.admit(message, now)
            if was_protected and message.partition is not None:
                message.partition.touch(message)
    new.success.evictions = old.success.evictions
    new.denial.evictions = old.denial.evictions


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
