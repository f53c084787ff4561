"""The ``cache`` directive in plain words: what is kept, for how long, and who it is served to."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.cache.lifetime import FIRST_FAILURE_S, LONGEST_FAILURE_S
from nodecache.config.model import (
    ROOT,
    CachePolicy,
    Lifetime,
    Prefetch,
    ServerBlock,
    ServeStale,
    StaleMode,
)
from nodecache.config.wording import Row, below, duration, marked, names
from nodecache.directives.lazy import Place
from nodecache.directives.table import plugins_of
from nodecache.resolve.waiter import STALE_TTL_S

_DEFAULT = CachePolicy()


def cache_rows(block: ServerBlock) -> Iterator[Row]:
    """Yields what is kept for one server block."""
    policy = block.cache
    if policy is None:
        yield "cache", "nothing is kept: there is no 'cache' in this block"
        return
    yield "cache", below(policy.zones) if policy.zones else "all names of this block (default)"
    yield "  positive", _lifetime_text(policy.success, _DEFAULT.success)
    if policy.disable_success:
        yield "", f"but not {below(policy.disable_success)}"
    yield "  negative", _lifetime_text(policy.denial, _DEFAULT.denial)
    if policy.disable_denial:
        yield "", f"but not {below(policy.disable_denial)}"
    if policy.nxdomain_cut:
        zones = "any zone" if ROOT in policy.nxdomain_cut else names(policy.nxdomain_cut)
        yield "", f"in {zones} an NXDOMAIN for A also answers all names below its own"
    yield "  failures", _failures_text(policy)
    yield "  ahead", _ahead_text(policy.prefetch)
    yield "  stale", _stale_text(policy.serve_stale)
    if policy.keep_ttl:
        yield "  TTL", "replies carry the TTL as it was stored, without counting down"
    yield "  fast path", _fast_path_text(block)


def _lifetime_text(lifetime: Lifetime, default: Lifetime) -> str:
    most = marked(duration(lifetime.max_ttl_s), lifetime.max_ttl_s, default.max_ttl_s)
    least = marked(duration(lifetime.min_ttl_s), lifetime.min_ttl_s, default.min_ttl_s)
    capacity = marked(f"{lifetime.capacity} responses", lifetime.capacity, default.capacity)
    return f"for {most} at most, {least} at least; {capacity}"


def _failures_text(policy: CachePolicy) -> str:
    if policy.servfail_s is None:
        first, longest = duration(FIRST_FAILURE_S), duration(LONGEST_FAILURE_S)
        return f"for {first}, doubling to {longest} while they last (default)"
    return f"for {duration(policy.servfail_s)}" if policy.servfail_s else "are not kept"


def _ahead_text(prefetch: Prefetch | None) -> str:
    if prefetch is None:
        return "nothing is refreshed before its TTL is over"
    default = Prefetch()
    amount = marked(f"{prefetch.amount} times", prefetch.amount, default.amount)
    within = marked(duration(prefetch.duration_s), prefetch.duration_s, default.duration_s)
    left = marked(f"{prefetch.percentage} %", prefetch.percentage, default.percentage)
    return f"what was asked {amount} within {within} is refreshed when {left} of its TTL are left"


def _stale_text(stale: ServeStale | None) -> str:
    if stale is None:
        return "what has expired is not served (default)"
    default = ServeStale()
    how_long = marked(duration(stale.duration_s), stale.duration_s, default.duration_s)
    if stale.mode is StaleMode.IMMEDIATE:
        when = "at once, and refreshed behind it (default)"
    else:
        wait = duration(stale.verify_timeout_s)
        wait = marked(wait, stale.verify_timeout_s, default.verify_timeout_s)
        when = f"unless a fresh response comes within {wait}"
    ttl = duration(STALE_TTL_S)
    return f"served for {how_long} after expiry with a TTL of {ttl}, {when}"


def _fast_path_text(block: ServerBlock) -> str:
    reasons = [plugin.name for plugin in plugins_of(block, Place.LOGS, Place.BEFORE_CACHE)]
    if not reasons:
        return "hits are sent from the packet cache"
    verb = "looks at" if reasons == ["log"] else "work on" if len(reasons) > 1 else "works on"
    return (
        f"not used, since {' and '.join(reasons)} {verb} each reply: no packet cache, slower hits"
    )
