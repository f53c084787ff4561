"""The table of all series that nodecache shows: name, type, labels, buckets, meaning, page.

Numbers are read in series.py, which makes its families from these rows; docs/metrics.md is written
from them, too. Knows no exporter, and no value.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nodecache.counters import DURATION_BOUNDS_S, HEALTH_BOUNDS_S, SIZE_BOUNDS_OCTETS


class Kind(enum.Enum):
    """Prometheus' type of a family."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Part(enum.Enum):
    """Series that are shown or hidden together."""

    SERVING = "serving"
    LEGACY = "legacy"
    PROCESS = "process"
    SETUP = "setup"
    WEBHOOK = "webhook"


class Exposure(enum.Flag):
    """What one /metrics page of the daemon shows: all parts but SETUP, only SETUP, or both."""

    SERVING = enum.auto()
    SETUP = enum.auto()
    ALL = SERVING | SETUP


@dataclass(frozen=True, slots=True)
class Series:
    """One row: a family of series.

    Attributes:
        name: As scraped: counters end in "_total".
        kind: Its type.
        labels: Names, in the order in which series.py gives their values.
        text: What it counts, one sentence.
        part: With which others it is shown.
        bounds: Upper bounds of a histogram's buckets, without "+Inf".
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str
    part: Part = Part.SERVING
    bounds: tuple[float, ...] = ()


_BY_ZONE = ("server", "zone", "view")
_BY_ZONE_AND_PROTO = (*_BY_ZONE, "proto")
_BY_CACHE = ("server", "zones", "view")
_BY_CACHE_AND_TYPE = ("server", "type", "zones", "view")
_BY_UPSTREAM = ("proxy_name", "to")
_BY_TEMPLATE = (*_BY_ZONE, "class", "type", "section", "template")


def _counter(name: str, labels: tuple[str, ...], text: str, part: Part = Part.SERVING) -> Series:
    return Series(name, Kind.COUNTER, labels, text, part)


def _gauge(name: str, labels: tuple[str, ...], text: str, part: Part = Part.SERVING) -> Series:
    return Series(name, Kind.GAUGE, labels, text, part)


def _durations(name: str, labels: tuple[str, ...], text: str, part: Part = Part.SERVING) -> Series:
    return Series(name, Kind.HISTOGRAM, labels, text, part, DURATION_BOUNDS_S)


def _sizes(name: str, labels: tuple[str, ...], text: str) -> Series:
    return Series(name, Kind.HISTOGRAM, labels, text, bounds=SIZE_BOUNDS_OCTETS)


_DNS = (
    _counter("coredns_dns_requests_total", (*_BY_ZONE_AND_PROTO, "family", "type"),
             "Queries received."),
    _counter("coredns_dns_do_requests_total", _BY_ZONE, "Queries received with the DO bit set."),
    _counter("coredns_dns_responses_total", (*_BY_ZONE, "rcode", "plugin"), "Responses sent."),
    _durations("coredns_dns_request_duration_seconds", _BY_ZONE,
               "Seconds from query to response."),
    _sizes("coredns_dns_request_size_bytes", _BY_ZONE_AND_PROTO,
           "Octets of the queries received."),
    _sizes("coredns_dns_response_size_bytes", _BY_ZONE_AND_PROTO,
           "Octets of the responses sent."),
)  # fmt: skip

_CACHE = (
    _counter("coredns_cache_requests_total", _BY_CACHE, "Queries that looked into the cache."),
    _counter("coredns_cache_hits_total", _BY_CACHE_AND_TYPE, "Queries answered from the cache."),
    _counter("coredns_cache_misses_total", _BY_CACHE, "Queries that the cache could not answer."),
    _counter("coredns_cache_prefetch_total", _BY_CACHE,
             "Entries refreshed before they expired."),
    _counter("coredns_cache_served_stale_total", _BY_CACHE,
             "Responses sent from expired entries."),
    _counter("coredns_cache_evictions_total", _BY_CACHE_AND_TYPE,
             "Entries that made room for others."),
    _gauge("coredns_cache_entries", _BY_CACHE_AND_TYPE, "Entries in the cache."),
)  # fmt: skip

_FORWARD = (
    _durations("coredns_proxy_request_duration_seconds", (*_BY_UPSTREAM, "rcode"),
               "Seconds that upstreams took to answer."),
    _counter("coredns_proxy_healthcheck_failures_total", _BY_UPSTREAM,
             "Health probes that failed."),
    _counter("coredns_proxy_conn_cache_hits_total", (*_BY_UPSTREAM, "proto"),
             "Attempts that used an open connection."),
    _counter("coredns_proxy_conn_cache_misses_total", (*_BY_UPSTREAM, "proto"),
             "Attempts that opened a connection."),
    _counter("coredns_forward_healthcheck_broken_total", (),
             "Queries that met only upstreams counted as down."),
    _counter("coredns_forward_max_concurrent_rejects_total", (),
             "Queries refused because too many exchanges of their block were in flight."),
)  # fmt: skip

_OTHER_DIRECTIVES = (
    _gauge("coredns_hosts_entries", ("hostsfile",),
           "Entries of a hosts file in force; inline lines of the Corefile carry no file."),
    _gauge("coredns_hosts_reload_timestamp_seconds", (),
           "Unix time of the last change of a hosts file; 0 without one."),
    _counter("coredns_template_matches_total", (*_BY_ZONE, "class", "type"),
             "Queries that a template matched."),
    _counter("coredns_template_template_failures_total", _BY_TEMPLATE,
             "Templates that made no text."),
    _counter("coredns_template_rr_failures_total", _BY_TEMPLATE,
             "Templates whose text is no record."),
    _counter("coredns_dns64_requests_translated_total", ("server",),
             "Responses with AAAA records made of A records."),
)  # fmt: skip

_DAEMON = (
    _counter("coredns_panics_total", (), "Errors that escaped a query; the daemon went on."),
    _gauge("coredns_plugin_enabled", (*_BY_ZONE, "name"), "Directives in use; always 1."),
    _gauge("coredns_build_info", ("version", "revision", "goversion"),
           "Version of nodecache, and of the Python that runs it; always 1."),
    Series("coredns_health_request_duration_seconds", Kind.HISTOGRAM, (),
           "Seconds that the daemon's own requests to /health took, one a second.",
           bounds=HEALTH_BOUNDS_S),
    _counter("coredns_health_request_failures_total", (), "Own requests to /health that failed."),
    _counter("coredns_reload_failed_total", (), "Configurations that a reload refused."),
    _gauge("coredns_reload_version_info", ("hash", "value"),
           "Hash of the configuration in force; always 1."),
)  # fmt: skip

# Name in Counters.events -> what it counts; shown as nodecache_<name>_total, 0 included.
EVENTS = {
    "coalesced": "Queries that joined an exchange already in flight for the same question.",
    "hedged": "Queries asked a second time because the first answer was later than usual.",
    "doubted": "SERVFAIL or truncated responses that were asked about on another connection.",
    "refreshed": "Messages asked for again before they expired.",
    "shed": "Queries refused because too much was in flight: waiters, or exchanges.",
    "shed_client_share": "Of those refused, queries whose client had its -client-share in flight.",
    "shed_paced": "Of those refused, queries with no turn in time under max_rate.",
    "upstream_failures": "Questions for which no upstream gave a usable answer.",
    "upstream_malformed": "Upstream responses that are no DNS messages.",
    "upstream_strays": "Upstream responses that belong to no query in flight.",
    "upstream_edns_off": "Times an upstream refused EDNS and was asked without it.",
    "interface_repaired": "Times an address was missing and was put back.",
    "rules_repaired": "Times packet filter rules were missing and were put back.",
    "beats_heard": "Times the rules were told that this node's queries are answered here.",
    "beats_unheard": "Times they did not hear it: they were missing, or not ours.",
    "fallbacks": "Times the kernel led queries to the cluster's DNS although this process ran.",
    "restored": "Messages in the cache that came from a predecessor or from before a restart.",
    "worker_restarts": "Times the keeper started the serving process again.",
    "keeper_refused": "Queries the keeper refused while nobody else answered.",
    "keeper_dropped": "Messages that the keeper dropped meanwhile, as they were no queries.",
}  # fmt: skip

# Label of nodecache_drops_total -> why there was no reply; others name an error of a socket.
DROP_REASONS = {
    "too_short": "shorter than a DNS header",
    "is_response": "a response, not a query; answering could start a ping-pong",
    "panic": "an error of ours, which the log shows",
    "udp_socket_full": "a UDP socket took no more replies for too long",
    "udp_closed": "the answer came when the listener was closed already",
    "tcp_junk": "what a client sent after its queries is no DNS",
    "tcp_incomplete": "the client closed its side in the middle of a query",
    "tcp_client_gone": "the client had closed when the answer came",
    "tcp_slow_client": "the client did not take its replies, or sent too slowly",
    "tcp_client_limit": "one client has too many connections",
    "tcp_connection_limit": "all clients have too many connections",
    "tcp_accept_failed": "no file descriptor was left for a connection",
    "tcp_shutdown": "a connection was still busy when the daemon ended",
}

_OWN = (
    *(_counter(f"nodecache_{name}_total", (), text) for name, text in EVENTS.items()),
    _counter("nodecache_other_events_total", ("event",),
             "Rare events without a series of their own, such as errors of a socket."),
    _counter("nodecache_fallback_seconds_total", (),
             "Seconds for which the kernel led queries to the cluster's DNS meanwhile."),
    _counter("nodecache_fallback_packets_total", (),
             "Packets that the kernel led there, whoever was away, since the rules were made; read"
             " every -syncinterval, and only where nftables keeps the rules."),
    _counter("nodecache_stale_total", (), "Responses sent from expired entries, over all zones."),
    _counter("nodecache_hits_total", ("tier",),
             "Hits, by the cache that answered: ready packets, or messages."),
    _counter("nodecache_nxdomain_total", ("suffix",),
             "NXDOMAIN responses sent, hits included, by how the QNAME ends: a zone and two labels"
             " before it where that came a hundred times (48 of them at most), else the zone."),
    _counter("nodecache_slow_exchanges_total", ("zones",),
             "Exchanges with upstreams that took 0.25 s or longer, or came to nothing, by the zones"
             " of the server block; `nodecache top` names the names."),
    _counter("nodecache_drops_total", ("reason",), "Messages that got no reply on purpose."),
    _counter("nodecache_receive_queue_drops_total", ("server",),
             "Datagrams that the kernel dropped because a UDP listener's queue was full."),
    _gauge("nodecache_pending_exchanges", (), "Questions in flight to the upstreams."),
    _gauge("nodecache_kept_files", (),
           "Files such as resolv.conf that are gone or of no use, so that what they said before"
           " goes on."),
    _gauge("nodecache_config_last_good", (),
           "1 while what was in force before a restart is served, since the files are refused."),
    _gauge("nodecache_redirect", (),
           "1 while our packet filter rules steer queries here; absent without -setupiptables."),
    _gauge("nodecache_tcp_connections", (), "Open TCP connections of stub resolvers."),
    _gauge("nodecache_upstream_connections", ("to", "state"),
           "Connections to upstreams, by what they do."),
    _counter("nodecache_paced_total", ("to",),
             "Queries that waited for their turn under an upstream's max_rate."),
    _counter("nodecache_left_out_total", ("to",),
             "Hedges, probes and early refreshes left out for max_rate or max_conns."),
    _gauge("nodecache_cache_octets", (), "Octets that cached messages take, overhead included."),
    _gauge("nodecache_packet_cache_octets", (),
           "Octets that ready packets take, overhead included."),
    _gauge("nodecache_packet_cache_entries", (), "Ready packets."),
    _durations("nodecache_loop_lag_seconds", (),
               "Seconds by which the event loop was late for a timer, one sample a second."),
)  # fmt: skip

_LEGACY = (
    _counter("coredns_forward_requests_total", ("to",),
             "Exchanges with an upstream that were answered.", Part.LEGACY),
    _counter("coredns_forward_responses_total", ("to", "rcode"),
             "Responses of an upstream.", Part.LEGACY),
    _durations("coredns_forward_request_duration_seconds", ("to", "rcode"),
               "Seconds that upstreams took to answer.", Part.LEGACY),
    _counter("coredns_forward_healthcheck_failures_total", ("to",),
             "Health probes that failed.", Part.LEGACY),
    _counter("coredns_forward_conn_cache_hits_total", ("to", "proto"),
             "Attempts that used an open connection.", Part.LEGACY),
    _counter("coredns_forward_conn_cache_misses_total", ("to", "proto"),
             "Attempts that opened a connection.", Part.LEGACY),
)  # fmt: skip

_PROCESS = (
    _counter("process_cpu_seconds_total", (), "User and system CPU time spent.", Part.PROCESS),
    _gauge("process_resident_memory_bytes", (), "Resident memory.", Part.PROCESS),
    _gauge("process_virtual_memory_bytes", (), "Virtual memory.", Part.PROCESS),
    _gauge("process_virtual_memory_max_bytes", (),
           "Most virtual memory that the process may have.", Part.PROCESS),
    _counter("process_network_receive_bytes_total", (),
             "Octets received over IP in this network namespace.", Part.PROCESS),
    _counter("process_network_transmit_bytes_total", (),
             "Octets sent over IP in this network namespace.", Part.PROCESS),
    _gauge("process_start_time_seconds", (), "Unix time at which the process began.", Part.PROCESS),
    _gauge("process_open_fds", (), "Open file descriptors.", Part.PROCESS),
    _gauge("process_max_fds", (), "File descriptors that may be open.", Part.PROCESS),
)  # fmt: skip

_SETUP = (
    _counter("coredns_nodecache_setup_errors_total", ("errortype",),
             "Errors while setting up the node.", Part.SETUP),
    _gauge("nodecache_build_info", ("version",), "Version of nodecache; always 1.", Part.SETUP),
)  # fmt: skip

# Shown by `nodecache webhook` alone, beside what is shown of any process.
_WEBHOOK = (
    _counter("nodecache_webhook_decisions_total", ("reason",),
             "Reviews that were answered, by what was decided, or why nothing was.", Part.WEBHOOK),
    _durations("nodecache_webhook_review_duration_seconds", (),
               "Seconds from the last octet of a review to its answer.", Part.WEBHOOK),
    _counter("nodecache_webhook_refused_total", ("reason",),
             "Connections and requests that were refused before anybody looked at them.",
             Part.WEBHOOK),
    _gauge("nodecache_webhook_reviews_in_flight", (),
           "Requests that have begun and are not answered.", Part.WEBHOOK),
    _gauge("nodecache_webhook_connections", (), "Open connections, handshakes included.",
           Part.WEBHOOK),
    _gauge("nodecache_webhook_certificate_expiry_timestamp_seconds", (),
           "Unix time at which the certificate ends that handshakes show; 0 without one.",
           Part.WEBHOOK),
    _gauge("nodecache_webhook_ready", (), "1 while /readyz says that reviews may be sent here.",
           Part.WEBHOOK),
)  # fmt: skip

# Label of nodecache_webhook_refused_total -> what was refused.
REFUSALS = {
    "accept_failed": "no file descriptor was left for a connection",
    "evicted": "a connection that asked for nothing made room for a new one",
    "handshake": "a TLS handshake failed or took too long",
    "malformed": "what a client sent is no HTTP, or its head is too long",
    "method": "the path takes another method",
    "no_room": "the bodies that were under way had too many octets together",
    "path": "nothing is there",
    "slow": "a head or a body took too long to come",
    "too_large": "a body is longer than 8 MiB",
}

# Title for people -> rows, in the order of a scrape.
GROUPS = {
    "Queries and responses": _DNS,
    "Cache": _CACHE,
    "Upstreams": _FORWARD,
    "Other directives": _OTHER_DIRECTIVES,
    "The daemon": _DAEMON,
    "What CoreDNS has no name for": _OWN,
    "Former names": _LEGACY,
    "The process": _PROCESS,
    "Node set-up": _SETUP,
    "The webhook": _WEBHOOK,
}
CATALOGUE = {row.name: row for rows in GROUPS.values() for row in rows}


def parts_of(exposure: Exposure, *, legacy: bool) -> frozenset[Part]:
    """Returns the parts that a page of ``exposure`` shows."""
    parts = {Part.SETUP} if Exposure.SETUP in exposure else set()
    if Exposure.SERVING in exposure:
        parts |= {Part.SERVING, Part.PROCESS}
        if legacy:
            parts.add(Part.LEGACY)
    return frozenset(parts)
