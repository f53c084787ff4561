"""After a known number of queries the scrape says exactly these numbers."""

from __future__ import annotations

import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import ScriptedUpstream
from tests.daemon.processes import Daemon
from tests.daemon.servers import Upstream
from tests.daemon.stubs import ask, make_query, scrape, total, udp_socket
from tests.daemon.zone import ORIGIN

HITS = 500


@pytest.fixture
def asked(daemon_for: StartDaemon, knot: Upstream) -> Daemon:
    """A daemon that was asked 500 hits, 4 misses, and what nobody looks up."""
    daemon = daemon_for(knot)
    with udp_socket(daemon) as sock:
        query = make_query(f"plain.{ORIGIN}").to_wire()
        for _ in range(HITS + 1):
            sock.send(query)
            sock.recv(65535)
        sock.send(b"\0\1\x81")  # too short
        sock.send(query[:2] + b"\x81" + query[3:])  # a response
    ask(daemon, f"nowhere.{ORIGIN}")  # miss
    ask(daemon, f"nowhere.{ORIGIN}")  # denial hit
    ask(daemon, f"ipv6.{ORIGIN}", "AAAA", tcp=True)  # miss
    ask(daemon, f"ipv6.{ORIGIN}", "AAAA", tcp=True)
    ask(daemon, f"odd.{ORIGIN}", "TYPE65280", payload=1232)  # miss
    return daemon


def test_requests_are_counted_by_type_and_transport(asked: Daemon) -> None:
    samples = scrape(asked)
    name = "coredns_dns_requests_total"
    server = f"dns://{asked.host}:{asked.port}"
    labels = {"server": server, "zone": ".", "view": "", "family": "1"}
    assert total(samples, name, **labels, proto="udp", type="A") == HITS + 3
    assert total(samples, name, **labels, proto="tcp", type="AAAA") == 2
    assert total(samples, name, **labels, proto="udp", type="other") == 1
    assert total(samples, name) == HITS + 6


def test_responses_are_counted_by_rcode_and_origin(asked: Daemon) -> None:
    samples = scrape(asked)
    name = "coredns_dns_responses_total"
    assert total(samples, name, rcode="NOERROR", plugin="cache") == HITS + 1
    assert total(samples, name, rcode="NOERROR", plugin="forward") == 3
    assert total(samples, name, rcode="NXDOMAIN", plugin="cache") == 1
    assert total(samples, name, rcode="NXDOMAIN", plugin="forward") == 1
    assert total(samples, name) == HITS + 6


def test_hits_and_misses_add_up_to_the_requests(asked: Daemon) -> None:
    samples = scrape(asked)
    assert total(samples, "coredns_cache_hits_total", type="success") == HITS + 1
    assert total(samples, "coredns_cache_hits_total", type="denial") == 1
    assert total(samples, "coredns_cache_misses_total") == 4
    assert total(samples, "coredns_cache_requests_total") == HITS + 6
    assert total(samples, "coredns_cache_entries", type="success") == 3
    assert total(samples, "coredns_cache_entries", type="denial") == 1


def test_every_reply_has_a_duration_and_two_sizes(asked: Daemon) -> None:
    samples = scrape(asked)
    assert total(samples, "coredns_dns_request_duration_seconds_count") == HITS + 6
    assert total(samples, "coredns_dns_request_size_bytes_count") == HITS + 6
    assert total(samples, "coredns_dns_response_size_bytes_count") == HITS + 6
    plain, nowhere, ipv6, odd = (
        make_query(f"{label}.{ORIGIN}").to_wire() for label in ("plain", "nowhere", "ipv6", "odd")
    )
    octets = len(plain) * (HITS + 1) + 2 * len(nowhere) + 2 * len(ipv6) + len(odd) + 11
    assert total(samples, "coredns_dns_request_size_bytes_sum") == octets


def test_upstream_exchanges_are_counted_by_rcode(asked: Daemon, knot: Upstream) -> None:
    samples = scrape(asked)
    name = "coredns_proxy_request_duration_seconds_count"
    to = f"{knot.host}:{knot.port}"
    assert total(samples, name, to=to, rcode="NOERROR", proxy_name="forward") == 3
    assert total(samples, name, to=to, rcode="NXDOMAIN", proxy_name="forward") == 1
    assert total(samples, "coredns_proxy_conn_cache_hits_total", to=to, proto="tcp") + total(
        samples, "coredns_proxy_conn_cache_misses_total", to=to, proto="tcp"
    ) == total(samples, name)


def test_what_gets_no_reply_is_counted_by_reason(asked: Daemon) -> None:
    samples = scrape(asked)
    assert total(samples, "nodecache_drops_total", reason="too_short") == 1
    assert total(samples, "nodecache_drops_total", reason="is_response") == 1
    assert total(samples, "nodecache_drops_total") == 2


def test_two_scrapes_without_a_query_between_say_the_same(asked: Daemon) -> None:
    first, second = scrape(asked), scrape(asked)
    assert {key: value for key, value in first.items() if key[0].startswith("coredns_")} == {
        key: value for key, value in second.items() if key[0].startswith("coredns_")
    }


def test_the_numbers_of_a_busy_second_are_exact(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    queries = [make_query(f"busy{n}.test").to_wire() for n in range(50)]
    with udp_socket(daemon) as sock:
        for _ in range(100):
            for query in queries:
                sock.send(query)
            for _ in queries:
                sock.recv(65535)
    samples = scrape(daemon)
    assert total(samples, "coredns_dns_requests_total") == 5000
    assert total(samples, "coredns_dns_responses_total") == 5000
    assert total(samples, "coredns_cache_misses_total") == 50
    assert total(samples, "coredns_cache_hits_total") == 4950
    assert total(samples, "coredns_dns_request_duration_seconds_count") == 5000
    assert len(scripted.asked) == 50 + total(samples, "nodecache_hedged_total")
