"""Upstreams over UDP, with TCP behind TC, and over TLS with checked certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.rcode
import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import HOST, free_port
from tests.daemon.servers import TLS_NAME, Upstream, make_certificate, start_unbound
from tests.daemon.stubs import addresses, ask, scrape, texts, total
from tests.daemon.zone import LONG_STRINGS, MANY, ORIGIN
from tests.kept import Kept

OVER_UDP = "max_fails 2"
Tls = tuple[Upstream, int]


def test_without_force_tcp_the_upstream_is_asked_over_udp(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted, options=OVER_UDP)
    for tcp in (False, True):
        name = f"over-{'tcp' if tcp else 'udp'}.test"
        assert addresses(ask(daemon, name, tcp=tcp)) == [right_address(name)]
    assert {asked.transport for asked in scripted.asked} == {"udp"}


def test_a_truncated_response_is_asked_for_again_over_tcp(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    scripted.udp_truncates = True
    daemon = daemon_for(scripted, options=OVER_UDP)
    reply = ask(daemon, "cut.test")
    assert addresses(reply) == [right_address("cut.test")]
    assert not reply.flags & dns.flags.TC
    assert [asked.transport for asked in scripted.asked_for("cut.test")] == ["udp", "tcp"]


def test_big_answers_of_an_upstream_over_udp_are_whole(
    daemon_for: StartDaemon, knot: Upstream
) -> None:
    daemon = daemon_for(knot, options=OVER_UDP)
    assert addresses(ask(daemon, f"plain.{ORIGIN}")) == ["192.0.2.1"]
    assert addresses(ask(daemon, f"many.{ORIGIN}", tcp=True)) == MANY
    long = texts(ask(daemon, f"long.{ORIGIN}", "TXT", tcp=True), "TXT")
    assert long == [f'"{text}"' for text in LONG_STRINGS]
    assert ask(daemon, f"many.{ORIGIN}", payload=1232).flags & dns.flags.TC


def test_300_queries_in_a_row_over_udp_are_all_answered(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted, options=OVER_UDP)
    for number in range(300):
        name = f"u{number}.test"
        assert addresses(ask(daemon, name)) == [right_address(name)]


@pytest.fixture(scope="module")
def tls_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept[Tls]]:
    with Kept(lambda: tls_server(tmp_path_factory.mktemp("tls"))) as kept:
        yield kept


@pytest.fixture
def tls(tls_servers: Kept[Tls], request: pytest.FixtureRequest) -> Tls:
    """unbound with a certificate of its own for ``TLS_NAME``, and its TLS port."""
    return tls_servers.get(request)


@contextmanager
def tls_server(folder: Path) -> Iterator[Tls]:
    tls_port = free_port()
    upstream = start_unbound(folder, tls_port)
    try:
        upstream.wait_until_serving()
        yield upstream, tls_port
    finally:
        upstream.stop()


def tls_options(upstream: Upstream, name: str = TLS_NAME) -> str:
    return f"tls {upstream.folder}/cert.pem\n        tls_servername {name}"


def test_a_tls_upstream_with_the_right_certificate_answers(
    daemon_for: StartDaemon, tls: Tls
) -> None:
    upstream, port = tls
    daemon = daemon_for(f"tls://{HOST}:{port}", options=tls_options(upstream))
    assert addresses(ask(daemon, f"plain.{ORIGIN}")) == ["192.0.2.1"]
    assert addresses(ask(daemon, f"many.{ORIGIN}", tcp=True)) == MANY
    long = texts(ask(daemon, f"long.{ORIGIN}", "TXT", tcp=True), "TXT")
    assert long == [f'"{text}"' for text in LONG_STRINGS]
    samples = scrape(daemon)
    assert total(samples, "coredns_proxy_conn_cache_misses_total", proto="tcp-tls") >= 1


def test_a_certificate_for_another_name_is_not_believed(daemon_for: StartDaemon, tls: Tls) -> None:
    upstream, port = tls
    daemon = daemon_for(f"tls://{HOST}:{port}", options=tls_options(upstream, "other.test"))
    reply = ask(daemon, f"plain.{ORIGIN}")
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert reply.answer == []
    daemon.wait_for_log("(?i)certificate")
    samples = scrape(daemon)
    assert total(samples, "coredns_proxy_request_duration_seconds_count") == 0


def test_a_certificate_of_an_unknown_authority_is_not_believed(
    daemon_for: StartDaemon, tls: Tls, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, port = tls
    other = tmp_path_factory.mktemp("other")
    make_certificate(other)
    options = f"tls {other}/cert.pem\n        tls_servername {TLS_NAME}"
    daemon = daemon_for(f"tls://{HOST}:{port}", options=options)
    assert ask(daemon, f"plain.{ORIGIN}").rcode() == dns.rcode.SERVFAIL
    daemon.wait_for_log("(?i)certificate")


def test_a_server_that_speaks_no_tls_gets_no_query(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, tls: Tls
) -> None:
    upstream, _ = tls
    target = f"tls://{scripted.host}:{scripted.port}"
    daemon = daemon_for(target, options=tls_options(upstream))
    assert ask(daemon, "plain.test").rcode() == dns.rcode.SERVFAIL
    assert scripted.asked == []
