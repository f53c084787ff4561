"""Turns the plain counters into metric families, under the names that CoreDNS's users scrape.

Names, labels and buckets are those of CoreDNS and node-cache, so that dashboards and alerts go
on working; what CoreDNS does not know is called nodecache_*. This module must not know who
serves queries, nor how the text gets to a scraper.

Several counter objects may share one label set (UDP and TCP differ in ``proto``, which
durations do not carry): each family adds up by its own labels. A family is computed in one go
when it is asked for, so each is consistent in itself, and none when it has no series yet.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from nodecache import __version__
from nodecache.counters import Counters, Histogram

# The types that CoreDNS labels by name; all others are "other", which bounds the series.
TYPE_NAMES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA",
    33: "SRV", 43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 50: "NSEC3", 65: "HTTPS",
    251: "IXFR", 252: "AXFR", 255: "ANY",
}  # fmt: skip
# 16 is BADVERS in a response with EDNS, but CoreDNS's label says BADSIG (RFC 8945's name).
RCODE_NAMES = {
    0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED",
    6: "YXDOMAIN", 7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 11: "DSOTYPENI",
    16: "BADSIG", 17: "BADKEY", 18: "BADTIME", 19: "BADMODE", 20: "BADNAME", 21: "BADALG",
    22: "BADTRUNC", 23: "BADCOOKIE",
}  # fmt: skip
SETUP_ERROR_TYPES = ("iptables", "iptables_lock", "interface_add", "interface_check", "configmap")

BY_ZONE = ("server", "zone", "view")
BY_ZONE_AND_PROTO = (*BY_ZONE, "proto")
BY_CACHE = ("server", "zones", "view")
BY_CACHE_AND_TYPE = ("server", "type", "zones", "view")
BY_UPSTREAM = ("proxy_name", "to")

VIEW = ""  # CoreDNS's label for its view plugin, which node-cache does not contain
PROXY_NAME = "forward"  # CoreDNS's name for the plugin that owns the upstreams

Labels = tuple[str, ...]
Numbers = Iterable[tuple[Labels, float]]
Histograms = Iterable[tuple[Labels, Histogram]]


def make_registry(counters: Counters) -> CollectorRegistry:
    """Returns a registry of its own that holds all of ``counters`` and the process's figures."""
    registry = CollectorRegistry()
    registry.register(SeriesCollector(counters))
    # Without registry=None it would also enter the library's global registry.
    registry.register(ProcessCollector(registry=None))
    return registry


class SeriesCollector(Collector):
    """Reads ``counters`` each time it is asked; hot paths hand in their integers first."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: which families exist is known only once something was counted."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yields each family that has series; may be resumed on a later turn of the loop."""
        self._counters.fold()
        for part in (_dns, _cache, _upstreams, _own, _daemon):
            yield from (family for family in part(self._counters) if family.samples)


def _dns(counters: Counters) -> Iterator[Metric]:
    """Yields what was asked and answered."""
    queries = counters.queries
    yield _counter(
        "coredns_dns_requests",
        "Queries received.",
        (*BY_ZONE_AND_PROTO, "family", "type"),
        (
            ((q.server, q.zone, VIEW, q.proto, q.family, TYPE_NAMES.get(qtype, "other")), number)
            for q in queries
            for qtype, number in q.requests.items()
        ),
    )
    yield _counter(
        "coredns_dns_do_requests",
        "Queries received with the DO bit set.",
        BY_ZONE,
        (((q.server, q.zone, VIEW), q.do_requests) for q in queries if q.do_requests),
    )
    yield _counter(
        "coredns_dns_responses",
        "Responses sent.",
        (*BY_ZONE, "rcode", "plugin"),
        (
            ((q.server, q.zone, VIEW, RCODE_NAMES.get(rcode, f"RCODE{rcode}"), plugin), number)
            for q in queries
            for (rcode, plugin), number in q.responses.items()
        ),
    )
    yield _histogram(
        "coredns_dns_request_duration_seconds",
        "Seconds from query to response.",
        BY_ZONE,
        (((q.server, q.zone, VIEW), q.durations) for q in queries),
    )
    yield _histogram(
        "coredns_dns_request_size_bytes",
        "Octets of the queries received.",
        BY_ZONE_AND_PROTO,
        (((q.server, q.zone, VIEW, q.proto), q.request_sizes) for q in queries),
    )
    yield _histogram(
        "coredns_dns_response_size_bytes",
        "Octets of the responses sent.",
        BY_ZONE_AND_PROTO,
        (((q.server, q.zone, VIEW, q.proto), q.response_sizes) for q in queries),
    )


def _cache(counters: Counters) -> Iterator[Metric]:
    """Yields what the caches did."""
    caches = counters.caches
    plain = (
        ("coredns_cache_requests", "Queries that looked into the cache.", "requests"),
        ("coredns_cache_misses", "Queries that the cache could not answer.", "misses"),
        ("coredns_cache_prefetch", "Entries refreshed before they expired.", "prefetches"),
        ("coredns_cache_drops", "Upstream responses that did not fit their question.", "drops"),
        ("coredns_cache_served_stale", "Responses sent from expired entries.", "served_stale"),
    )
    for name, text, attribute in plain:
        numbers = (((c.server, c.zones, VIEW), getattr(c, attribute)) for c in caches)
        yield _counter(name, text, BY_CACHE, numbers)
    typed = (
        ("coredns_cache_hits", "Queries answered from the cache.", "hits"),
        ("coredns_cache_evictions", "Entries that made room for others.", "evictions"),
    )
    for name, text, attribute in typed:
        yield _counter(
            name,
            text,
            BY_CACHE_AND_TYPE,
            (
                ((c.server, kind, c.zones, VIEW), getattr(c, f"{kind}_{attribute}"))
                for c in caches
                for kind in ("success", "denial")
            ),
        )
    yield _gauge(
        "coredns_cache_entries",
        "Entries in the cache.",
        BY_CACHE_AND_TYPE,
        (
            ((c.server, kind, c.zones, VIEW), read())
            for c in caches
            for kind, read in c.entries.items()
        ),
    )


def _upstreams(counters: Counters) -> Iterator[Metric]:
    """Yields what the upstreams were asked."""
    upstreams = counters.upstreams
    yield _histogram(
        "coredns_proxy_request_duration_seconds",
        "Seconds that upstreams took to answer.",
        (*BY_UPSTREAM, "rcode"),
        (
            ((PROXY_NAME, u.to, RCODE_NAMES.get(rcode, str(rcode))), durations)
            for u in upstreams
            for rcode, durations in u.durations.items()
        ),
    )
    yield _counter(
        "coredns_proxy_healthcheck_failures",
        "Health probes that failed.",
        BY_UPSTREAM,
        (((PROXY_NAME, u.to), u.healthcheck_failures) for u in upstreams),
    )
    by_proto = (*BY_UPSTREAM, "proto")
    yield _counter(
        "coredns_proxy_conn_cache_hits",
        "Exchanges that used an open connection.",
        by_proto,
        (((PROXY_NAME, u.to, p), number) for u in upstreams for p, number in u.reused.items()),
    )
    yield _counter(
        "coredns_proxy_conn_cache_misses",
        "Exchanges that opened a connection.",
        by_proto,
        (((PROXY_NAME, u.to, p), number) for u in upstreams for p, number in u.dialled.items()),
    )
    yield _gauge(
        "nodecache_upstream_connections",
        "Connections to upstreams at present, by what they do.",
        ("to", "state"),
        (((u.to, state), number) for u in upstreams for state, number in u.connections.items()),
    )
    yield _counter(
        "coredns_forward_healthcheck_broken",
        "Queries that met only upstreams counted as down.",
        (),
        [((), counters.healthcheck_broken)],
    )
    yield _counter(
        "coredns_forward_max_concurrent_rejects",
        "Queries refused because too many exchanges were in flight.",
        (),
        [((), counters.max_concurrent_rejects)],
    )


def _own(counters: Counters) -> Iterator[Metric]:
    """Yields what CoreDNS has no name for."""
    yield _counter(
        "nodecache_drops",
        "Messages that got no reply on purpose.",
        ("reason",),
        (((reason,), number) for reason, number in counters.drops.items()),
    )
    # Copies: either dict may grow while a scrape rests between two families.
    for name, number in list(counters.events.items()):
        text = f"Events of kind {name.replace('_', ' ')}."
        yield _counter(f"nodecache_{name}", text, (), [((), number)])
    for name, read in list(counters.gauges.items()):
        text = f"Present {name.replace('_', ' ')}."
        yield _gauge(f"nodecache_{name}", text, (), [((), read())])


def _daemon(counters: Counters) -> Iterator[Metric]:
    """Yields what is known about the daemon itself."""
    errors = dict.fromkeys(SETUP_ERROR_TYPES, 0) | counters.setup_errors
    yield _counter(
        "coredns_nodecache_setup_errors",
        "Errors while setting up the node.",
        ("errortype",),
        (((errortype,), number) for errortype, number in errors.items()),
    )
    yield _gauge(
        "coredns_plugin_enabled",
        "Directives in use, by server and zone.",
        (*BY_ZONE, "name"),
        # A set: a directive that stands twice in a block is still one series of value 1.
        (((server, zone, VIEW, name), 1) for server, zone, name in set(counters.plugins)),
    )
    yield _counter("coredns_panics", "Errors that escaped a query.", (), [((), counters.panics)])
    yield _gauge(
        "coredns_build_info",
        "Version of nodecache, and of the Python that runs it.",
        ("version", "revision", "goversion"),
        [((__version__, "", f"python{platform.python_version()}"), 1)],
    )
    yield _histogram(
        "coredns_health_request_duration_seconds",
        "Seconds that the daemon's own requests to /health took.",
        (),
        [((), counters.health_durations)],
    )
    yield _counter(
        "coredns_health_request_failures",
        "Own requests to /health that failed.",
        (),
        [((), counters.health_failures)],
    )


def _counter(name: str, text: str, label_names: Labels, numbers: Numbers) -> Metric:
    """Returns a counter; ``name`` comes without its "_total"."""
    return _summed(CounterMetricFamily(name, text, labels=label_names), numbers)


def _gauge(name: str, text: str, label_names: Labels, numbers: Numbers) -> Metric:
    """Returns a gauge."""
    return _summed(GaugeMetricFamily(name, text, labels=label_names), numbers)


def _summed(
    family: CounterMetricFamily | GaugeMetricFamily, numbers: Numbers
) -> CounterMetricFamily | GaugeMetricFamily:
    """Adds one series for each label set that occurs in ``numbers``."""
    sums: dict[Labels, float] = {}
    for labels, number in numbers:
        sums[labels] = sums.get(labels, 0) + number
    for labels, number in sums.items():
        family.add_metric(labels, number)
    return family


def _histogram(name: str, text: str, label_names: Labels, parts: Histograms) -> Metric:
    """Returns a histogram with one series for each label set that occurs in ``parts``."""
    family = HistogramMetricFamily(name, text, labels=label_names)
    sums: dict[Labels, tuple[tuple[float, ...], list[int], float]] = {}
    for labels, part in parts:
        known = sums.get(labels)
        if known is None:
            sums[labels] = (part.bounds, list(part.counts), part.total)
            continue
        bounds, counts, total = known
        counts = [a + b for a, b in zip(counts, part.counts, strict=True)]
        sums[labels] = (bounds, counts, total + part.total)
    for labels, (bounds, counts, total) in sums.items():
        if labels and not any(counts):
            continue  # as CoreDNS: zones that nobody asks would fill most of a scrape
        family.add_metric(labels, _cumulative(bounds, counts), total)
    return family


def _cumulative(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    """Returns (upper bound as Go writes it, values up to it), "+Inf" last."""
    running = 0.0
    buckets = []
    for bound, count in zip([*map(_as_go, bounds), "+Inf"], counts, strict=True):
        running += count
        buckets.append((bound, running))
    return buckets


def _as_go(bound: float) -> str:
    """Returns "100", not "100.0": ``le`` is compared as text by older Prometheus servers."""
    return repr(bound).removesuffix(".0")
