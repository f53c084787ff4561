"""The names, types, labels and buckets that dashboards ask for, in a scrape as it is rendered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from nodecache.counters import CacheSeries, Counters, QuerySeries, UpstreamSeries
from nodecache.telemetry.exposition import PIECE_SAMPLES, render
from nodecache.telemetry.series import SeriesCollector, make_registry

SERVER = "dns://169.254.20.10:53"
ZONE = "cluster.local."
DURATION_BUCKETS = (
    "0.00025 0.0005 0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048"
    " 4.096 8.192 +Inf"
)
SIZE_BUCKETS = "0 100 200 300 400 511 1023 2047 4095 8291 16000 32000 48000 64000 +Inf"
HEALTH_BUCKETS = "0.00025 0.0025 0.025 0.25 2.5 +Inf"

# Name as scraped, type, labels in alphabetical order: the table of CoreDNS and node-cache.
FAMILIES = [
    ("coredns_nodecache_setup_errors_total", "counter", "errortype"),
    ("coredns_cache_entries", "gauge", "server type view zones"),
    ("coredns_cache_requests_total", "counter", "server view zones"),
    ("coredns_cache_hits_total", "counter", "server type view zones"),
    ("coredns_cache_misses_total", "counter", "server view zones"),
    ("coredns_cache_prefetch_total", "counter", "server view zones"),
    ("coredns_cache_drops_total", "counter", "server view zones"),
    ("coredns_cache_served_stale_total", "counter", "server view zones"),
    ("coredns_cache_evictions_total", "counter", "server type view zones"),
    ("coredns_dns_requests_total", "counter", "family proto server type view zone"),
    ("coredns_dns_request_duration_seconds", "histogram", "server view zone"),
    ("coredns_dns_request_size_bytes", "histogram", "proto server view zone"),
    ("coredns_dns_response_size_bytes", "histogram", "proto server view zone"),
    ("coredns_dns_do_requests_total", "counter", "server view zone"),
    ("coredns_dns_responses_total", "counter", "plugin rcode server view zone"),
    ("coredns_panics_total", "counter", ""),
    ("coredns_plugin_enabled", "gauge", "name server view zone"),
    ("coredns_build_info", "gauge", "goversion revision version"),
    ("coredns_forward_healthcheck_broken_total", "counter", ""),
    ("coredns_forward_max_concurrent_rejects_total", "counter", ""),
    ("coredns_proxy_request_duration_seconds", "histogram", "proxy_name rcode to"),
    ("coredns_proxy_healthcheck_failures_total", "counter", "proxy_name to"),
    ("coredns_proxy_conn_cache_hits_total", "counter", "proto proxy_name to"),
    ("coredns_proxy_conn_cache_misses_total", "counter", "proto proxy_name to"),
    ("coredns_health_request_duration_seconds", "histogram", ""),
    ("coredns_health_request_failures_total", "counter", ""),
    ("nodecache_upstream_connections", "gauge", "state to"),
    ("nodecache_drops_total", "counter", "reason"),
    ("nodecache_coalesced_total", "counter", ""),
    ("nodecache_inflight", "gauge", ""),
    ("process_cpu_seconds_total", "counter", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_open_fds", "gauge", ""),
]


def make_counters() -> Counters:
    """Returns counters in which each family has something to show."""
    counters = Counters()
    for proto in ("udp", "tcp"):
        series = QuerySeries(SERVER, ZONE, proto, "1")
        series.count_query(1, 50, wants_dnssec=True)
        series.count_response(0, "cache", 120)
        series.durations.observe(0.0003)
        counters.queries.append(series)
    cache = CacheSeries(SERVER, ZONE)
    cache.entries = {"success": lambda: 7, "denial": lambda: 2}
    counters.caches.append(cache)
    upstream = UpstreamSeries("10.96.0.10:53")
    upstream.count_response(3, 0.0021)
    upstream.reused["tcp"] = upstream.dialled["tcp"] = upstream.connections["idle"] = 1
    counters.upstreams.append(upstream)
    counters.count_drop("short")
    counters.count_event("coalesced")
    counters.gauges["inflight"] = lambda: 3
    counters.plugins = [(SERVER, ZONE, "cache"), (SERVER, ZONE, "forward")]
    return counters


def scrape(counters: Counters) -> str:
    return b"".join(render(make_registry(counters))).decode()


def samples_of(counters: Counters, name: str) -> list[Sample]:
    """Returns the samples called ``name`` in a rendered scrape."""
    families = text_string_to_metric_families(scrape(counters))
    return [sample for family in families for sample in family.samples if sample.name == name]


def value_of(counters: Counters, name: str, **labels: str) -> float:
    """Returns the sum of the samples that carry ``labels``."""
    found = [s for s in samples_of(counters, name) if labels.items() <= s.labels.items()]
    assert found, f"no {name} with {labels}"
    return sum(sample.value for sample in found)


@pytest.mark.parametrize(("name", "kind", "labels"), FAMILIES, ids=[row[0] for row in FAMILIES])
def test_family_has_the_type_and_labels_that_users_scrape(
    name: str, kind: str, labels: str
) -> None:
    counters = make_counters()
    assert f"# TYPE {name} {kind}\n" in scrape(counters)
    suffix = "_count" if kind == "histogram" else ""
    for sample in samples_of(counters, name + suffix):
        assert sorted(sample.labels) == labels.split()


def test_scrape_holds_no_family_that_the_table_lacks() -> None:
    types = [line.split() for line in scrape(make_counters()).splitlines() if "# TYPE" in line]
    extra = {fields[2] for fields in types} - {row[0] for row in FAMILIES}
    assert {name for name in extra if not name.startswith("process_")} == set()


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("coredns_dns_request_duration_seconds", DURATION_BUCKETS),
        ("coredns_proxy_request_duration_seconds", DURATION_BUCKETS),
        ("coredns_dns_request_size_bytes", SIZE_BUCKETS),
        ("coredns_dns_response_size_bytes", SIZE_BUCKETS),
        ("coredns_health_request_duration_seconds", HEALTH_BUCKETS),
    ],
)
def test_buckets_are_those_of_coredns_as_go_writes_them(name: str, bounds: str) -> None:
    samples = samples_of(make_counters(), f"{name}_bucket")
    first = {key: value for key, value in samples[0].labels.items() if key != "le"}
    one_series = [s for s in samples if {**s.labels, "le": ""} == {**first, "le": ""}]
    assert " ".join(s.labels["le"] for s in one_series) == bounds


def test_empty_counters_show_only_what_coredns_shows_before_the_first_query() -> None:
    names = {family.name for family in text_string_to_metric_families(scrape(Counters()))}
    coredns = {name for name in names if name.startswith("coredns_")}
    assert coredns == {
        "coredns_nodecache_setup_errors",
        "coredns_panics",
        "coredns_build_info",
        "coredns_forward_healthcheck_broken",
        "coredns_forward_max_concurrent_rejects",
        "coredns_health_request_duration_seconds",
        "coredns_health_request_failures",
    }


def test_setup_error_types_exist_before_the_first_error() -> None:
    counters = Counters()
    counters.setup_errors["configmap"] = 2
    samples = samples_of(counters, "coredns_nodecache_setup_errors_total")
    assert {s.labels["errortype"]: s.value for s in samples} == {
        "iptables": 0,
        "iptables_lock": 0,
        "interface_add": 0,
        "interface_check": 0,
        "configmap": 2,
    }


def test_series_that_differ_in_transport_are_one_where_transport_is_no_label() -> None:
    counters = make_counters()
    udp, tcp = counters.queries
    udp.durations.observe(0.1, times=4)
    tcp.count_response(0, "cache", 60, times=5)
    assert value_of(counters, "coredns_dns_responses_total") == 7
    assert len(samples_of(counters, "coredns_dns_responses_total")) == 1
    assert value_of(counters, "coredns_dns_do_requests_total") == 2
    name = "coredns_dns_request_duration_seconds"
    assert value_of(counters, f"{name}_count") == 6
    assert value_of(counters, f"{name}_sum") == pytest.approx(0.4006)
    assert value_of(counters, f"{name}_bucket", le="0.0005") == 2
    assert value_of(counters, f"{name}_bucket", le="0.128") == 6
    assert value_of(counters, "coredns_dns_response_size_bytes_count", proto="tcp") == 6
    assert value_of(counters, "coredns_dns_response_size_bytes_count", proto="udp") == 1


def test_series_of_both_families_stay_apart_only_in_requests() -> None:
    counters = Counters()
    for family, times in (("1", 3), ("2", 4)):
        series = QuerySeries(SERVER, ZONE, "udp", family)
        series.count_query(28, 50, wants_dnssec=False, times=times)
        counters.queries.append(series)
    assert value_of(counters, "coredns_dns_requests_total", family="2", type="AAAA") == 4
    assert value_of(counters, "coredns_dns_request_size_bytes_count") == 7


def test_caches_and_upstreams_with_equal_labels_are_added_up() -> None:
    counters = Counters()
    for hits in (1, 10):
        cache = CacheSeries(SERVER, ZONE)
        cache.success_hits, cache.denial_hits, cache.requests = hits, 2 * hits, 4 * hits
        cache.entries = {"success": lambda: 5}
        counters.caches.append(cache)
        upstream = UpstreamSeries("10.96.0.10:53")
        upstream.healthcheck_failures = hits
        counters.upstreams.append(upstream)
    assert value_of(counters, "coredns_cache_hits_total", type="success") == 11
    assert value_of(counters, "coredns_cache_hits_total", type="denial") == 22
    assert value_of(counters, "coredns_cache_requests_total") == 44
    assert value_of(counters, "coredns_cache_entries", type="success") == 10
    assert (
        value_of(counters, "coredns_proxy_healthcheck_failures_total", proxy_name="forward") == 11
    )


@pytest.mark.parametrize(
    ("qtype", "label"),
    [
        (1, "A"),
        (28, "AAAA"),
        (33, "SRV"),
        (65, "HTTPS"),
        (64, "other"),
        (255, "ANY"),
        (999, "other"),
    ],
)
def test_type_label_is_the_name_or_other(qtype: int, label: str) -> None:
    counters = Counters()
    series = QuerySeries(SERVER, ZONE, "udp", "1")
    series.count_query(qtype, 40, wants_dnssec=False)
    counters.queries.append(series)
    assert [s.labels["type"] for s in samples_of(counters, "coredns_dns_requests_total")] == [label]


def test_unknown_types_are_one_series() -> None:
    counters = Counters()
    series = QuerySeries(SERVER, ZONE, "udp", "1")
    for qtype in range(2000, 2500):
        series.count_query(qtype, 40, wants_dnssec=False)
    counters.queries.append(series)
    samples = samples_of(counters, "coredns_dns_requests_total")
    assert [(s.labels["type"], s.value) for s in samples] == [("other", 500)]


@pytest.mark.parametrize(
    ("rcode", "sent", "exchanged"),
    [
        (0, "NOERROR", "NOERROR"),
        (4, "NOTIMP", "NOTIMP"),
        (16, "BADSIG", "BADSIG"),
        (13, "RCODE13", "13"),
    ],
)
def test_rcode_labels_are_those_of_coredns(rcode: int, sent: str, exchanged: str) -> None:
    counters = Counters()
    series = QuerySeries(SERVER, ZONE, "udp", "1")
    series.count_response(rcode, "forward", 40)
    counters.queries.append(series)
    upstream = UpstreamSeries("10.96.0.10:53")
    upstream.count_response(rcode, 0.1)
    counters.upstreams.append(upstream)
    assert value_of(counters, "coredns_dns_responses_total", rcode=sent) == 1
    name = "coredns_proxy_request_duration_seconds_count"
    assert value_of(counters, name, rcode=exchanged) == 1


def test_hot_paths_hand_in_before_the_first_family_is_read() -> None:
    counters = make_counters()
    hits = [3]

    def hand_in() -> None:
        counters.queries[0].count_query(1, 50, wants_dnssec=False, times=hits[0])
        hits[0] = 0

    counters.before_scrape.append(hand_in)
    assert value_of(counters, "coredns_dns_requests_total", proto="udp") == 4
    assert value_of(counters, "coredns_dns_requests_total", proto="udp") == 4


def test_pieces_join_to_the_text_that_the_library_writes() -> None:
    counters = make_counters()
    for number in range(PIECE_SAMPLES * 2 + 1):
        counters.count_drop(f"reason{number}")
    collector = SeriesCollector(counters)
    pieces = list(render(collector))
    assert b"".join(pieces) == generate_latest(collector)
    assert max(piece.count(b"\n") for piece in pieces) <= PIECE_SAMPLES + 2


def test_counters_may_grow_between_two_families() -> None:
    counters = make_counters()
    counters.count_event("hedged")

    def read_slowly() -> Iterator[str]:
        for family in SeriesCollector(counters).collect():
            counters.count_event(f"event{len(counters.events)}")
            counters.gauges[f"gauge{len(counters.gauges)}"] = lambda: 1
            yield family.name

    assert "coredns_build_info" in set(read_slowly())


def test_zones_that_nobody_asked_have_no_histograms() -> None:
    counters = Counters()
    counters.queries = [QuerySeries(SERVER, ZONE, proto, "1") for proto in ("udp", "tcp")]
    assert ZONE not in scrape(counters)


def test_escaped_errors_are_what_coredns_calls_panics() -> None:
    counters = Counters()
    counters.panics = 2
    assert value_of(counters, "coredns_panics_total") == 2


def test_directive_named_twice_is_one_series_of_value_one() -> None:
    counters = Counters()
    counters.plugins = [(SERVER, ZONE, "forward")] * 2
    samples = samples_of(counters, "coredns_plugin_enabled")
    assert [(s.labels["name"], s.value) for s in samples] == [("forward", 1)]
