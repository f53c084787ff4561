"""Where the numbers of each series come from: a row of the catalogue -> what the counters say.

Knows the labels' values; names, types and buckets are the catalogue's. Each reader gives pairs of
label values and number, in the order of the row's labels; equal labels may come more than once.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable

from nodecache import __version__
from nodecache.counters import Counters, Histogram
from nodecache.telemetry.catalogue import DROP_REASONS, EVENTS
from nodecache.wire.numbers import RCODE_NAMES, TYPE_NAMES
from nodecache.wire.text import name_text

# The types that CoreDNS labels by name; all others are "other", which bounds the series.
_LABELLED_TYPES = frozenset((1, 2, 5, 6, 12, 15, 16, 28, 33, 43, 46, 47, 48, 50, 65, 251, 252, 255))
SETUP_ERROR_TYPES = ("iptables", "iptables_lock", "interface_add", "interface_check", "configmap")

VIEW = ""  # CoreDNS's label for its view plugin, which node-cache does not contain
PROXY_NAME = "forward"  # CoreDNS's name for the plugin that owns the upstreams

Labels = tuple[str, ...]
Numbers = Iterable[tuple[Labels, float]]
Histograms = Iterable[tuple[Labels, Histogram]]


def _requests(counters: Counters) -> Numbers:
    for q in counters.queries:
        for qtype, number in q.requests.items():
            name = TYPE_NAMES[qtype] if qtype in _LABELLED_TYPES else "other"
            yield (q.server, q.zone, VIEW, q.proto, q.family, name), number


def _responses(counters: Counters) -> Numbers:
    for q in counters.queries:
        for (rcode, plugin), number in q.responses.items():
            name = RCODE_NAMES.get(rcode, f"RCODE{rcode}")
            yield (q.server, q.zone, VIEW, name, plugin), number


def _cache(counters: Counters, attribute: str) -> Numbers:
    return (((c.server, c.zones, VIEW), getattr(c, attribute)) for c in counters.caches)


def _cache_by_type(counters: Counters, attribute: str) -> Numbers:
    for c in counters.caches:
        for kind in ("success", "denial"):
            yield (c.server, kind, c.zones, VIEW), getattr(c, f"{kind}_{attribute}")


def _cache_entries(counters: Counters) -> Numbers:
    for c in counters.caches:
        for kind, read in c.entries.items():
            yield (c.server, kind, c.zones, VIEW), read()


def _hits(counters: Counters) -> Numbers:
    for c in counters.caches:
        yield ("packet",), c.packet_hits
        yield ("message",), c.success_hits + c.denial_hits - c.packet_hits


def _nxdomains(counters: Counters) -> Numbers:
    yield from _by_label(counters.nxdomains.by_zone)
    for suffix, number in counters.nxdomains.by_suffix.items():
        yield (name_text(suffix),), number


def _upstreams(counters: Counters, attribute: str) -> Numbers:
    """Reads what upstreams keep by a label: a transport, or a state."""
    for u in counters.upstreams:
        for label, number in getattr(u, attribute).items():
            yield (u.to, label), number


def _healthcheck_failures(counters: Counters) -> Numbers:
    return (((u.to,), u.healthcheck_failures) for u in counters.upstreams)


def _exchanges(counters: Counters) -> Histograms:
    for u in counters.upstreams:
        for rcode, durations in u.durations.items():
            yield (u.to, RCODE_NAMES.get(rcode, str(rcode))), durations


def _answered(counters: Counters) -> Numbers:
    return ((labels, sum(durations.counts)) for labels, durations in _exchanges(counters))


def _with_proxy_name(pairs: Numbers) -> Numbers:
    return (((PROXY_NAME, *labels), number) for labels, number in pairs)


def _with_view(failures: dict[tuple[str, str, str, str, str, str], int]) -> Numbers:
    for (server, zone, *rest), number in failures.items():
        yield (server, zone, VIEW, *rest), number


def _template_matches(counters: Counters) -> Numbers:
    for (server, zone, qclass, qtype), number in counters.template_matches.items():
        yield (server, zone, VIEW, qclass, qtype), number


def _by_label(numbers: dict[str, int]) -> Numbers:
    return (((label,), number) for label, number in numbers.items())


def _config_hash(counters: Counters) -> Numbers:
    if counters.config_sha512:
        yield ("sha512", counters.config_sha512), 1


def _plugins(counters: Counters) -> Numbers:
    # A set: a directive that stands twice in a block is still one series of value 1.
    for server, zone, name in set(counters.plugins):
        yield (server, zone, VIEW, name), 1


def _gauge(name: str) -> Callable[[Counters], Numbers]:
    """Returns a reader of a figure that whoever owns it has put into the counters."""
    return lambda c: [((), c.gauges[name]())] if name in c.gauges else []


def _event(name: str) -> Callable[[Counters], Numbers]:
    return lambda c: [((), c.events.get(name, 0))]


def _zeros(labels: Iterable[str]) -> dict[str, int]:
    """Returns what exists before the first count, so that rates see the first one."""
    return dict.fromkeys(labels, 0)


_GAUGES = (
    "pending_exchanges",
    "kept_files",
    "config_last_good",
    "redirect",
    "tcp_connections",
    "cache_octets",
    "packet_cache_octets",
    "packet_cache_entries",
)

NUMBERS: dict[str, Callable[[Counters], Numbers]] = {
    "coredns_dns_requests_total": _requests,
    "coredns_dns_do_requests_total": lambda c: (
        ((q.server, q.zone, VIEW), q.do_requests) for q in c.queries if q.do_requests
    ),
    "coredns_dns_responses_total": _responses,
    "coredns_cache_requests_total": lambda c: _cache(c, "requests"),
    "coredns_cache_hits_total": lambda c: _cache_by_type(c, "hits"),
    "coredns_cache_misses_total": lambda c: _cache(c, "misses"),
    "coredns_cache_prefetch_total": lambda c: _cache(c, "prefetches"),
    "coredns_cache_served_stale_total": lambda c: _cache(c, "served_stale"),
    "coredns_cache_evictions_total": lambda c: _cache_by_type(c, "evictions"),
    "coredns_cache_entries": _cache_entries,
    "coredns_proxy_healthcheck_failures_total": lambda c: _with_proxy_name(
        _healthcheck_failures(c)
    ),
    "coredns_proxy_conn_cache_hits_total": lambda c: _with_proxy_name(_upstreams(c, "reused")),
    "coredns_proxy_conn_cache_misses_total": lambda c: _with_proxy_name(_upstreams(c, "dialled")),
    "coredns_forward_healthcheck_broken_total": lambda c: [((), c.healthcheck_broken)],
    "coredns_forward_max_concurrent_rejects_total": lambda c: [((), c.max_concurrent_rejects)],
    "coredns_hosts_entries": lambda c: _by_label(c.hosts_entries),
    "coredns_hosts_reload_timestamp_seconds": lambda c: [((), c.hosts_changed_at)],
    "coredns_template_matches_total": _template_matches,
    "coredns_template_template_failures_total": lambda c: _with_view(c.template_failures),
    "coredns_template_rr_failures_total": lambda c: _with_view(c.template_rr_failures),
    "coredns_dns64_requests_translated_total": lambda c: _by_label(c.dns64_translated),
    "coredns_panics_total": lambda c: [((), c.panics)],
    "coredns_plugin_enabled": _plugins,
    "coredns_build_info": lambda _: [((__version__, "", f"python{platform.python_version()}"), 1)],
    "coredns_health_request_failures_total": lambda c: [((), c.health_failures)],
    "coredns_reload_failed_total": lambda c: [((), c.reload_failures)],
    "coredns_reload_version_info": _config_hash,
    **{f"nodecache_{name}_total": _event(name) for name in EVENTS},
    "nodecache_other_events_total": lambda c: _by_label(
        {name: number for name, number in c.events.items() if name not in EVENTS}
    ),
    "nodecache_fallback_packets_total": lambda c: [((), c.fallback_packets)],
    "nodecache_fallback_seconds_total": lambda c: [((), c.fallback_s)],
    "nodecache_stale_total": lambda c: [((), sum(cache.served_stale for cache in c.caches))],
    "nodecache_hits_total": _hits,
    "nodecache_nxdomain_total": _nxdomains,
    "nodecache_slow_exchanges_total": lambda c: _by_label(c.slow_exchanges),
    "nodecache_drops_total": lambda c: _by_label(_zeros(DROP_REASONS) | c.drops),
    "nodecache_receive_queue_drops_total": lambda c: _by_label(c.receive_drops),
    **{f"nodecache_{name}": _gauge(name) for name in _GAUGES},
    "nodecache_paced_total": lambda c: (((u.to,), u.paced) for u in c.upstreams),
    "nodecache_left_out_total": lambda c: (((u.to,), u.left_out) for u in c.upstreams),
    "nodecache_upstream_connections": lambda c: _upstreams(c, "connections"),
    "coredns_forward_requests_total": lambda c: (
        (labels[:1], number) for labels, number in _answered(c)
    ),
    "coredns_forward_responses_total": _answered,
    "coredns_forward_healthcheck_failures_total": _healthcheck_failures,
    "coredns_forward_conn_cache_hits_total": lambda c: _upstreams(c, "reused"),
    "coredns_forward_conn_cache_misses_total": lambda c: _upstreams(c, "dialled"),
    "coredns_nodecache_setup_errors_total": lambda c: _by_label(
        _zeros(SETUP_ERROR_TYPES) | c.setup_errors
    ),
    "nodecache_build_info": lambda _: [((__version__,), 1)],
}
HISTOGRAMS: dict[str, Callable[[Counters], Histograms]] = {
    "coredns_dns_request_duration_seconds": lambda c: (
        ((q.server, q.zone, VIEW), q.durations) for q in c.queries
    ),
    "coredns_dns_request_size_bytes": lambda c: (
        ((q.server, q.zone, VIEW, q.proto), q.request_sizes) for q in c.queries
    ),
    "coredns_dns_response_size_bytes": lambda c: (
        ((q.server, q.zone, VIEW, q.proto), q.response_sizes) for q in c.queries
    ),
    "coredns_proxy_request_duration_seconds": lambda c: (
        ((PROXY_NAME, *labels), durations) for labels, durations in _exchanges(c)
    ),
    "coredns_forward_request_duration_seconds": _exchanges,
    "coredns_health_request_duration_seconds": lambda c: [((), c.health_durations)],
    "nodecache_loop_lag_seconds": lambda c: [((), c.loop_lag)],
}
