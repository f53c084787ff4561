"""Plain-integer counters: bumped where things happen, read when somebody scrapes.

No exporter and no label look-up here: whoever serves queries holds the object that carries
its labels. Names and buckets that users scrape are made of these in telemetry/series.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

DURATION_BOUNDS_S = tuple(0.00025 * 2**k for k in range(16))
SIZE_BOUNDS_OCTETS = (
    0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0,
    16000.0, 32000.0, 48000.0, 64000.0,
)  # fmt: skip
# What CoreDNS names, and what it calls "other", of which 0 is never asked for.
_MOST_COUNTED_TYPE = 255
OTHER_TYPE = 0
HEALTH_BOUNDS_S = tuple(0.00025 * 10**k for k in range(5))
_LABELS_BELOW_ZONE = 2  # "default.svc" below cluster.local, "compute.internal" below the root
_MOST_SUFFIXES = 48
_MOST_CANDIDATES = 256
_RESPONSES_FOR_A_PLACE = 100


class Histogram:
    """Counts per bucket; ``counts[i]`` holds values <= ``bounds[i]``, the last one the rest."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Counts ``value`` as often as ``times`` says."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class NxdomainSeries:
    """NXDOMAIN responses sent, by how the QNAME ends: what search lists cost.

    A suffix is the block's zone and two labels before it. It counts by itself from its hundredth
    response on, if one of 48 places is left; before that, responses count for the zone alone. So
    names that are asked now and then make no series, and nobody can make many.

    Attributes:
        by_zone: Zone with final dot -> responses that no suffix has.
        by_suffix: Suffix in wire format and lower case -> responses.
    """

    __slots__ = ("_candidates", "by_suffix", "by_zone")

    def __init__(self) -> None:
        self.by_zone: dict[str, int] = {}
        self.by_suffix: dict[bytes, int] = {}
        self._candidates: dict[bytes, int] = {}

    def count(self, zone: str, suffix: bytes, times: int) -> None:
        """Counts responses; ``suffix`` is b"" for names right below the zone."""
        if suffix in self.by_suffix:
            self.by_suffix[suffix] += times
            return
        self.by_zone[zone] = self.by_zone.get(zone, 0) + times
        if suffix and len(self.by_suffix) < _MOST_SUFFIXES:
            self._consider(suffix, times)

    def _consider(self, suffix: bytes, times: int) -> None:
        """Gives ``suffix`` a place of its own once it has come often enough."""
        candidates = self._candidates
        seen = candidates.pop(suffix, 0) + times
        if seen >= _RESPONSES_FOR_A_PLACE:
            self.by_suffix[suffix] = 0
            return
        if len(candidates) >= _MOST_CANDIDATES:
            # Misra and Gries: those that came once go, what comes again and again stays ahead. Each
            # count taken here was given by a response, so this costs each response a constant.
            candidates = {each: count - 1 for each, count in candidates.items() if count > 1}
            self._candidates = candidates
        if len(candidates) < _MOST_CANDIDATES:
            candidates[suffix] = seen


class QuerySeries:
    """What was asked and answered: one per server, zone, transport and address family.

    Attributes:
        server: CoreDNS's label, "dns://169.254.20.10:53".
        zone: The zone of the block that answered, with final dot, or "dropped".
        proto: "udp" or "tcp".
        family: "1" for IPv4, "2" for IPv6.
        requests: QTYPE -> queries; OTHER_TYPE for all above 255.
        responses: (RCODE, plugin) -> responses.
        do_requests: Queries with DO set.
        nxdomains: What ``count_nxdomain`` counts, for all servers together.
    """

    __slots__ = (
        "do_requests",
        "durations",
        "family",
        "nxdomains",
        "proto",
        "request_sizes",
        "requests",
        "response_sizes",
        "responses",
        "server",
        "zone",
        "zone_labels",
    )

    def __init__(self, server: str, zone: str, proto: str, family: str) -> None:
        self.server = server
        self.zone = zone
        self.proto = proto
        self.family = family
        self.requests: dict[int, int] = {}
        self.responses: dict[tuple[int, str], int] = {}
        self.do_requests = 0
        self.durations = Histogram(DURATION_BOUNDS_S)
        self.request_sizes = Histogram(SIZE_BOUNDS_OCTETS)
        self.response_sizes = Histogram(SIZE_BOUNDS_OCTETS)
        self.nxdomains = NxdomainSeries()
        self.zone_labels = zone.rstrip(".").count(".") + 1 if zone != "." else 0

    def count_query(self, qtype: int, octets: int, wants_dnssec: bool, times: int = 1) -> None:
        """Counts queries of ``octets`` length; types above 255 count as one, so this is bounded."""
        if qtype > _MOST_COUNTED_TYPE:
            qtype = OTHER_TYPE
        self.requests[qtype] = self.requests.get(qtype, 0) + times
        sizes = self.request_sizes  # Histogram.observe, without the call
        sizes.counts[bisect_left(SIZE_BOUNDS_OCTETS, octets)] += times
        sizes.total += octets * times
        if wants_dnssec:
            self.do_requests += times

    def count_response(self, rcode: int, plugin: str, octets: int, times: int = 1) -> None:
        """Counts responses of ``octets`` length that ``plugin`` made."""
        key = (rcode, plugin)
        self.responses[key] = self.responses.get(key, 0) + times
        sizes = self.response_sizes
        sizes.counts[bisect_left(SIZE_BOUNDS_OCTETS, octets)] += times
        sizes.total += octets * times

    def count_nxdomain(self, octets: bytes, times: int = 1) -> None:
        """Counts NXDOMAIN responses; ``octets`` begin with the QNAME in lower case."""
        starts, position = [], 0
        while octets[position]:
            starts.append(position)
            position += octets[position] + 1
        # The first label is what was looked for: it is in no suffix.
        first = max(1, len(starts) - self.zone_labels - _LABELS_BELOW_ZONE)
        suffix = b""
        if len(starts) - first > self.zone_labels:
            suffix = octets[starts[first] : position + 1]
        self.nxdomains.count(self.zone, suffix, times)


class CacheSeries:
    """What the cache of one server block did, as seen through one server.

    Attributes:
        entries: "success" and "denial" -> a gauge read at scrape time.
        packet_hits: Those of ``success_hits`` and ``denial_hits`` that the packet cache answered.
    """

    __slots__ = (
        "denial_evictions",
        "denial_hits",
        "entries",
        "misses",
        "packet_hits",
        "prefetches",
        "requests",
        "served_stale",
        "server",
        "success_evictions",
        "success_hits",
        "zones",
    )

    def __init__(self, server: str, zones: str) -> None:
        self.server = server
        self.zones = zones
        self.requests = 0
        self.success_hits = 0
        self.denial_hits = 0
        self.packet_hits = 0
        self.misses = 0
        self.prefetches = 0
        self.served_stale = 0
        self.success_evictions = 0
        self.denial_evictions = 0
        self.entries: dict[str, Callable[[], int]] = {}


class UpstreamSeries:
    """What one upstream was asked, labelled ``to`` ("10.96.0.10:53").

    Attributes:
        paced: Queries that waited for their turn.
        left_out: Hedges, probes, and questions about what could be served, left out.
    """

    __slots__ = (
        "connections",
        "dialled",
        "durations",
        "healthcheck_failures",
        "left_out",
        "paced",
        "reused",
        "to",
    )

    def __init__(self, to: str) -> None:
        self.to = to
        self.durations: dict[int, Histogram] = {}
        self.healthcheck_failures = 0
        self.left_out = 0
        self.paced = 0
        self.reused: dict[str, int] = {}
        self.dialled: dict[str, int] = {}
        self.connections: dict[str, int] = {}

    def count_response(self, rcode: int, duration_s: float) -> None:
        """Counts one exchange that ended with ``rcode`` after ``duration_s``."""
        histogram = self.durations.get(rcode)
        if histogram is None:
            histogram = self.durations[rcode] = Histogram(DURATION_BOUNDS_S)
        histogram.observe(duration_s)


class Counters:
    """All counters of the daemon.

    Attributes:
        queries, caches, upstreams: One object per label set, in order of creation.
        drops: Reason -> messages that deliberately got no reply.
        nxdomains: NXDOMAIN responses, by suffix.
        events: Name -> count, exported as nodecache_<name>_total (coalesced, hedged, ...).
        gauges: Name -> function read at scrape time, exported as nodecache_<name>.
        receive_drops: Server -> datagrams that the kernel dropped at its full UDP queues.
        before_scrape: Called before each reading, so that hot paths can hand in their integers.
        long_before_scrape: What of that takes long, in slices, for who has a loop to turn.
        panics: Errors of ours that escaped; the daemon went on.
        plugins: (server, zone, directive) of every directive in use; replaced by a reload.
        health_durations: Seconds that /health took to answer our own request.
        health_failures: Own requests to /health that failed.
        loop_lag: Seconds by which the loop was late for a timer.
        fallback_packets: What the kernel led elsewhere since the rules were made.
        fallback_s: Seconds for which the kernel led queries elsewhere although we ran.
        reload_failures: Configurations that a reload refused.
        config_sha512: Of the configuration in force, in hexadecimal; "" before the first.
        hosts_entries: Path of a hosts file, "" for inline lines -> its entries in force.
        hosts_changed_at: Unix seconds of the newest hosts file's last change, 0 without one.
        template_matches: (server, zone, class, type) -> queries that a template answered.
        template_failures: The same, section and template behind it -> texts not made.
        template_rr_failures: As ``template_failures`` -> texts that are no record.
        slow_exchanges: Zones of a server block -> exchanges that took long or came to nothing.
        dns64_translated: Server -> responses with AAAA records made of A records.
    """

    __slots__ = (
        "_cache_index",
        "_query_index",
        "before_scrape",
        "caches",
        "config_sha512",
        "dns64_translated",
        "drops",
        "events",
        "fallback_packets",
        "fallback_s",
        "gauges",
        "health_durations",
        "health_failures",
        "healthcheck_broken",
        "hosts_changed_at",
        "hosts_entries",
        "long_before_scrape",
        "loop_lag",
        "max_concurrent_rejects",
        "nxdomains",
        "panics",
        "plugins",
        "queries",
        "receive_drops",
        "reload_failures",
        "setup_errors",
        "slow_exchanges",
        "template_failures",
        "template_matches",
        "template_rr_failures",
        "upstreams",
    )

    def __init__(self) -> None:
        self.queries: list[QuerySeries] = []
        self.nxdomains = NxdomainSeries()
        self.caches: list[CacheSeries] = []
        self.upstreams: list[UpstreamSeries] = []
        self.drops: dict[str, int] = {}
        self.events: dict[str, int] = {}
        self.gauges: dict[str, Callable[[], float]] = {}
        self.receive_drops: dict[str, int] = {}
        self.before_scrape: list[Callable[[], None]] = []
        self.long_before_scrape: list[Callable[[], Iterator[None]]] = []
        self.healthcheck_broken = 0
        self.max_concurrent_rejects = 0
        self.panics = 0
        self.setup_errors: dict[str, int] = {}
        self.plugins: list[tuple[str, str, str]] = []
        self.health_durations = Histogram(HEALTH_BOUNDS_S)
        self.health_failures = 0
        self.loop_lag = Histogram(DURATION_BOUNDS_S)
        self.fallback_packets = 0
        self.fallback_s = 0.0
        self.reload_failures = 0
        self.config_sha512 = ""
        self.hosts_entries: dict[str, int] = {}
        self.hosts_changed_at = 0.0
        self.template_matches: dict[tuple[str, str, str, str], int] = {}
        self.template_failures: dict[tuple[str, str, str, str, str, str], int] = {}
        self.template_rr_failures: dict[tuple[str, str, str, str, str, str], int] = {}
        self.slow_exchanges: dict[str, int] = {}
        self.dns64_translated: dict[str, int] = {}
        self._query_index: dict[tuple[str, str, str, str], QuerySeries] = {}
        self._cache_index: dict[tuple[str, str], CacheSeries] = {}

    def query_series(self, server: str, zone: str, proto: str, family: str) -> QuerySeries:
        """Returns the series with these labels; after a reload that is the one from before it."""
        labels = (server, zone, proto, family)
        series = self._query_index.get(labels)
        if series is None:
            series = self._query_index[labels] = QuerySeries(server, zone, proto, family)
            series.nxdomains = self.nxdomains
            self.queries.append(series)
        return series

    def cache_series(self, server: str, zones: str) -> CacheSeries:
        """Returns the series with these labels; after a reload that is the one from before it."""
        labels = (server, zones)
        series = self._cache_index.get(labels)
        if series is None:
            series = self._cache_index[labels] = CacheSeries(server, zones)
            self.caches.append(series)
        return series

    def count_drop(self, reason: str) -> None:
        """Counts a message that gets no reply on purpose."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def count_event(self, name: str, times: int = 1) -> None:
        """Counts an event that has no labels."""
        self.events[name] = self.events.get(name, 0) + times

    def fold_slowly(self) -> Iterator[None]:
        """Does most of ``fold``, about 1 ms at a time."""
        for hand_in in self.long_before_scrape:
            yield from hand_in()

    def fold(self) -> None:
        """Asks every hot path to hand in what it counted since the last time."""
        for hand_in in self.before_scrape:
            hand_in()
