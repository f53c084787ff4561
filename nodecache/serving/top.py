"""The page "/top" of the window: what ``nodecache top`` shows, as JSON; at most MOST of a kind.

Names are in presentation format, times in seconds, counts estimates where ``every`` is above 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from nodecache.config.model import Config
from nodecache.serving.watch import Tally, Watch, merged
from nodecache.upstreams.connection import Pool
from nodecache.wire.text import question_texts

if TYPE_CHECKING:
    from nodecache.resolve.slow_names import SlowName

MOST = 50
TIERS = ("packet", "message", "miss")


def compose_top(
    watch: Watch,
    slow: Callable[[int], list[tuple[bytes, SlowName]]],
    pools: Callable[[], list[Pool]],
    config: Config,
) -> Mapping[str, Any]:
    """Returns what was seen of late; begins to watch if nobody did."""
    was_on = watch.is_on
    windows = watch.look()
    now = monotonic()
    seen = merged(windows)
    tallies = seen.tallies.items()
    by_weight = sorted(tallies, key=lambda item: item[1].queries, reverse=True)
    by_cost = sorted(tallies, key=lambda item: item[1].exchange_s, reverse=True)
    chosen = dict(by_weight[:MOST]) | {name: t for name, t in by_cost[:MOST] if t.exchange_s}
    return {
        "is_new": not was_on,
        "seconds": round(now - windows[0].began_at, 3),
        "every": watch.every,
        "queries": seen.queries,
        "cluster_domain": config.cluster_domain.text,
        "tiers": _tiers(seen.all),
        "names": [_name(key, tally, seen.errors[key]) for key, tally in chosen.items()],
        "clients": [[client, count] for client, count in seen.clients.most_common(MOST)],
        "slow": [_slow(question, name) for question, name in slow(MOST)],
        "upstreams": [_upstream(pool) for pool in pools()],
    }


def _tiers(sums: Tally) -> Mapping[str, int]:
    return {
        **{tier: round(count) for tier, count in zip(TIERS, sums.answers, strict=True)},
        "nxdomain": round(sums.nxdomains),
    }


def _name(question: bytes, tally: Tally, error: int) -> Mapping[str, Any]:
    name, qtype, _ = question_texts(question)
    return {
        "name": name,
        "type": qtype,
        "queries": round(tally.queries),
        "error": error,
        "hits": round(sum(tally.answers[:2])),
        "nxdomains": round(tally.nxdomains),
        "exchanges": round(tally.exchanges),
        "seconds": round(tally.exchange_s, 3),
        "failures": round(tally.failures),
    }


def _slow(question: bytes, slow: SlowName) -> Mapping[str, Any]:
    name, qtype, _ = question_texts(question)
    return {
        "name": name,
        "type": qtype,
        "times": slow.times,
        "seconds": round(slow.total_s, 3),
        "longest": round(slow.longest_s, 3),
        "gave_up": slow.gave_up,
        "answered_by": slow.answered_by,
    }


def _upstream(pool: Pool) -> Mapping[str, Any]:
    return {
        "address": str(pool.upstream.address),
        "transport": pool.upstream.transport.value,
        "connections": pool.connection_counts(),
        "waiting": len(pool.waiting),
        "rtt": round(pool.patience.srtt_s, 6),
        "failures": pool.health.fails,
        "is_down": pool.health.is_down,
    }
