"""The names, types, labels and buckets that dashboards ask for, in a scrape as it is rendered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from nodecache.counters import CacheSeries, Counters, QuerySeries, UpstreamSeries
from nodecache.telemetry.catalogue import Exposure, Part
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

# Name as scraped, type, labels in alphabetical order: CoreDNS's and node-cache's, then our own.
BY_TEMPLATE = "class section server template type view zone"
SERVING = [
    ("coredns_cache_entries", "gauge", "server type view zones"),
    ("coredns_cache_evictions_total", "counter", "server type view zones"),
    ("coredns_cache_hits_total", "counter", "server type view zones"),
    ("coredns_cache_misses_total", "counter", "server view zones"),
    ("coredns_cache_prefetch_total", "counter", "server view zones"),
    ("coredns_cache_requests_total", "counter", "server view zones"),
    ("coredns_cache_served_stale_total", "counter", "server view zones"),
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
    ("coredns_reload_failed_total", "counter", ""),
    ("coredns_reload_version_info", "gauge", "hash value"),
    ("coredns_hosts_entries", "gauge", "hostsfile"),
    ("coredns_hosts_reload_timestamp_seconds", "gauge", ""),
    ("coredns_template_matches_total", "counter", "class server type view zone"),
    ("coredns_template_template_failures_total", "counter", BY_TEMPLATE),
    ("coredns_template_rr_failures_total", "counter", BY_TEMPLATE),
    ("coredns_dns64_requests_translated_total", "counter", "server"),
    ("nodecache_coalesced_total", "counter", ""),
    ("nodecache_hedged_total", "counter", ""),
    ("nodecache_doubted_total", "counter", ""),
    ("nodecache_refreshed_total", "counter", ""),
    ("nodecache_stale_total", "counter", ""),
    ("nodecache_shed_total", "counter", ""),
    ("nodecache_shed_client_share_total", "counter", ""),
    ("nodecache_shed_paced_total", "counter", ""),
    ("nodecache_upstream_failures_total", "counter", ""),
    ("nodecache_upstream_malformed_total", "counter", ""),
    ("nodecache_upstream_strays_total", "counter", ""),
    ("nodecache_upstream_edns_off_total", "counter", ""),
    ("nodecache_other_events_total", "counter", "event"),
    ("nodecache_hits_total", "counter", "tier"),
    ("nodecache_nxdomain_total", "counter", "suffix"),
    ("nodecache_drops_total", "counter", "reason"),
    ("nodecache_receive_queue_drops_total", "counter", "server"),
    ("nodecache_pending_exchanges", "gauge", ""),
    ("nodecache_tcp_connections", "gauge", ""),
    ("nodecache_upstream_connections", "gauge", "state to"),
    ("nodecache_paced_total", "counter", "to"),
    ("nodecache_left_out_total", "counter", "to"),
    ("nodecache_interface_repaired_total", "counter", ""),
    ("nodecache_rules_repaired_total", "counter", ""),
    ("nodecache_beats_heard_total", "counter", ""),
    ("nodecache_beats_unheard_total", "counter", ""),
    ("nodecache_fallbacks_total", "counter", ""),
    ("nodecache_fallback_seconds_total", "counter", ""),
    ("nodecache_fallback_packets_total", "counter", ""),
    ("nodecache_restored_total", "counter", ""),
    ("nodecache_worker_restarts_total", "counter", ""),
    ("nodecache_keeper_refused_total", "counter", ""),
    ("nodecache_keeper_dropped_total", "counter", ""),
    ("nodecache_cache_octets", "gauge", ""),
    ("nodecache_packet_cache_octets", "gauge", ""),
    ("nodecache_packet_cache_entries", "gauge", ""),
    ("nodecache_loop_lag_seconds", "histogram", ""),
]
PROCESS = [
    ("process_cpu_seconds_total", "counter", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_virtual_memory_bytes", "gauge", ""),
    ("process_virtual_memory_max_bytes", "gauge", ""),
    ("process_network_receive_bytes_total", "counter", ""),
    ("process_network_transmit_bytes_total", "counter", ""),
    ("process_start_time_seconds", "gauge", ""),
    ("process_open_fds", "gauge", ""),
    ("process_max_fds", "gauge", ""),
]
LEGACY = [
    ("coredns_forward_requests_total", "counter", "to"),
    ("coredns_forward_responses_total", "counter", "rcode to"),
    ("coredns_forward_request_duration_seconds", "histogram", "rcode to"),
    ("coredns_forward_healthcheck_failures_total", "counter", "to"),
    ("coredns_forward_conn_cache_hits_total", "counter", "proto to"),
    ("coredns_forward_conn_cache_misses_total", "counter", "proto to"),
]
SETUP = [
    ("coredns_nodecache_setup_errors_total", "counter", "errortype"),
    ("nodecache_build_info", "gauge", "version"),
]


def make_counters() -> Counters:
    """Returns counters in which each family has something to show."""
    counters = Counters()
    for proto in ("udp", "tcp"):
        series = counters.query_series(SERVER, ZONE, proto, "1")
        series.count_query(1, 50, wants_dnssec=True)
        series.count_response(0, "cache", 120)
        series.count_nxdomain(b"\4nope\7cluster\5local\0")
        series.durations.observe(0.0003)
    cache = counters.cache_series(SERVER, ZONE)
    cache.entries = {"success": lambda: 7, "denial": lambda: 2}
    upstream = UpstreamSeries("10.96.0.10:53")
    upstream.count_response(3, 0.0021)
    upstream.reused["tcp"] = upstream.dialled["tcp"] = upstream.connections["idle"] = 1
    counters.upstreams.append(upstream)
    counters.count_drop("too_short")
    counters.count_event("udp_receive_enomem")
    for name in ("pending_exchanges", "tcp_connections", "cache_octets"):
        counters.gauges[name] = lambda: 3
    counters.gauges["packet_cache_octets"] = counters.gauges["packet_cache_entries"] = lambda: 4
    counters.plugins = [(SERVER, ZONE, "cache"), (SERVER, ZONE, "forward")]
    counters.config_sha512 = "ab" * 64
    counters.hosts_entries["/etc/hosts"] = 5
    counters.template_matches[(SERVER, ZONE, "IN", "A")] = 6
    failure = (SERVER, ZONE, "IN", "A", "answer", "{{ .Name }}")
    counters.template_failures[failure] = counters.template_rr_failures[failure] = 1
    counters.dns64_translated[SERVER] = 8
    counters.receive_drops[SERVER] = 9
    return counters


def scrape(counters: Counters, exposure: Exposure = Exposure.ALL, *, legacy: bool = False) -> str:
    return b"".join(render(make_registry(counters, exposure, legacy=legacy))).decode()


def samples_of(counters: Counters, name: str, *, legacy: bool = False) -> list[Sample]:
    """Returns the samples called ``name`` in a rendered scrape."""
    families = text_string_to_metric_families(scrape(counters, legacy=legacy))
    return [sample for family in families for sample in family.samples if sample.name == name]


def value_of(counters: Counters, name: str, *, legacy: bool = False, **labels: str) -> float:
    """Returns the sum of the samples that carry ``labels``."""
    samples = samples_of(counters, name, legacy=legacy)
    found = [sample for sample in samples if labels.items() <= sample.labels.items()]
    assert found, f"no {name} with {labels}"
    return sum(sample.value for sample in found)


def families_in(text: str) -> list[tuple[str, str, str]]:
    """Returns name as scraped, type and labels of each family, in the form of the tables above."""
    return [
        (
            f"{family.name}_total" if family.type == "counter" else family.name,
            family.type,
            " ".join(sorted({name for s in family.samples for name in s.labels} - {"le"})),
        )
        for family in text_string_to_metric_families(text)
    ]


@pytest.mark.parametrize(
    ("exposure", "legacy", "table"),
    [
        (Exposure.ALL, False, [*SERVING, *PROCESS, *SETUP]),
        (Exposure.ALL, True, [*SERVING, *LEGACY, *PROCESS, *SETUP]),
        (Exposure.SERVING, False, [*SERVING, *PROCESS]),
        (Exposure.SERVING, True, [*SERVING, *LEGACY, *PROCESS]),
        (Exposure.SETUP, True, SETUP),
    ],
)
def test_scrape_holds_what_users_scrape_and_nothing_else(
    exposure: Exposure, legacy: bool, table: list[tuple[str, str, str]]
) -> None:
    text = scrape(make_counters(), exposure, legacy=legacy)
    assert sorted(families_in(text)) == sorted(table)


def test_no_series_is_on_both_kinds_of_pages() -> None:
    assert {row[0] for row in SETUP}.isdisjoint(row[0] for row in [*SERVING, *LEGACY, *PROCESS])


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("coredns_dns_request_duration_seconds", DURATION_BUCKETS),
        ("coredns_proxy_request_duration_seconds", DURATION_BUCKETS),
        ("coredns_dns_request_size_bytes", SIZE_BUCKETS),
        ("coredns_dns_response_size_bytes", SIZE_BUCKETS),
        ("coredns_health_request_duration_seconds", HEALTH_BUCKETS),
        ("coredns_forward_request_duration_seconds", DURATION_BUCKETS),
        ("nodecache_loop_lag_seconds", DURATION_BUCKETS),
    ],
)
def test_buckets_are_those_of_coredns_as_go_writes_them(name: str, bounds: str) -> None:
    samples = samples_of(make_counters(), f"{name}_bucket", legacy=True)
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
        "coredns_reload_failed",
        "coredns_hosts_reload_timestamp_seconds",
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
    collector = SeriesCollector(counters, frozenset(Part) - {Part.WEBHOOK})
    pieces = list(render(collector))
    assert b"".join(pieces) == generate_latest(collector)
    assert max(piece.count(b"\n") for piece in pieces) <= PIECE_SAMPLES + 2


def test_counters_may_grow_between_two_families() -> None:
    counters = make_counters()

    def read_slowly() -> Iterator[str]:
        for family in SeriesCollector(counters, frozenset(Part) - {Part.WEBHOOK}).collect():
            counters.count_event(f"event{len(counters.events)}")
            counters.count_drop(f"reason{len(counters.drops)}")
            yield family.name

    assert "nodecache_build_info" in set(read_slowly())


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


def test_events_and_drops_exist_before_the_first_one() -> None:
    assert value_of(Counters(), "nodecache_hedged_total") == 0
    assert value_of(Counters(), "nodecache_stale_total") == 0
    assert value_of(Counters(), "nodecache_drops_total", reason="udp_socket_full") == 0


def test_rare_events_share_one_family() -> None:
    counters = Counters()
    counters.count_event("udp_receive_enomem", times=3)
    counters.count_event("hedged", times=2)
    samples = samples_of(counters, "nodecache_other_events_total")
    assert [(s.labels["event"], s.value) for s in samples] == [("udp_receive_enomem", 3)]
    assert value_of(counters, "nodecache_hedged_total") == 2


def test_each_hit_has_one_tier() -> None:
    counters = Counters()
    cache = counters.cache_series(SERVER, ZONE)
    cache.success_hits, cache.denial_hits, cache.packet_hits = 10, 5, 9
    assert value_of(counters, "nodecache_hits_total", tier="packet") == 9
    assert value_of(counters, "nodecache_hits_total", tier="message") == 6


def test_former_names_carry_the_numbers_of_the_present_ones() -> None:
    counters = Counters()
    upstream = UpstreamSeries("10.96.0.10:53")
    for rcode in (0, 0, 3):
        upstream.count_response(rcode, 0.1)
    upstream.healthcheck_failures = 4
    upstream.reused, upstream.dialled = {"udp": 5}, {"tcp": 6}
    counters.upstreams.append(upstream)

    def value(name: str, **labels: str) -> float:
        return value_of(
            counters, f"coredns_forward_{name}", legacy=True, to="10.96.0.10:53", **labels
        )

    assert value("requests_total") == 3
    assert value("responses_total", rcode="NOERROR") == 2
    assert value("request_duration_seconds_count", rcode="NXDOMAIN") == 1
    assert value("healthcheck_failures_total") == 4
    assert value("conn_cache_hits_total", proto="udp") == 5
    assert value("conn_cache_misses_total", proto="tcp") == 6


def test_configuration_in_force_is_named_by_its_hash() -> None:
    counters = Counters()
    assert samples_of(counters, "coredns_reload_version_info") == []
    counters.config_sha512 = "c0ffee"
    value = value_of(counters, "coredns_reload_version_info", hash="sha512", value="c0ffee")
    assert value == 1


def test_series_found_again_count_on() -> None:
    counters = Counters()
    first = counters.query_series(SERVER, ZONE, "udp", "1")
    assert counters.query_series(SERVER, ZONE, "udp", "1") is first
    assert counters.query_series(SERVER, ZONE, "udp", "2") is not first
    cache = counters.cache_series(SERVER, ZONE)
    assert counters.cache_series(SERVER, ZONE) is cache
    assert counters.cache_series(SERVER, ".") is not cache
    assert (len(counters.queries), len(counters.caches)) == (2, 2)


def test_lateness_of_the_loop_is_a_histogram() -> None:
    counters = Counters()
    counters.loop_lag.observe(0.003)
    assert value_of(counters, "nodecache_loop_lag_seconds_bucket", le="0.004") == 1
    assert value_of(counters, "nodecache_loop_lag_seconds_bucket", le="0.002") == 0
