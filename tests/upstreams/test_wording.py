"""What is said of a failure is what CoreDNS's users wrote their patterns for."""

from __future__ import annotations

import pytest

from nodecache.config.model import ROOT, Address, ForwardPolicy, Transport, Upstream
from nodecache.counters import UpstreamSeries
from nodecache.upstreams import wording
from nodecache.upstreams.connection import Connection
from nodecache.upstreams.datagrams import DatagramPool
from nodecache.upstreams.exchange import Attempt, Exchange, Failure
from nodecache.upstreams.outside import Outside
from nodecache.upstreams.streams import StreamPool
from tests.cache.building import query
from tests.resolve.resolving import FORWARD, Bed

UDP = Upstream(Address("10.96.0.10", 53))
TCP = Upstream(Address("2001:db8::a", 53), Transport.TCP)
TLS = Upstream(Address("9.9.9.9", 853), Transport.TLS)
OURS = "10.1.2.3:40123"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.dial_timeout(TCP), "dial tcp [2001:db8::a]:53: i/o timeout"),
        (wording.dial_timeout(TLS), "dial tcp 9.9.9.9:853: i/o timeout"),
        (wording.read_timeout(UDP, OURS), f"read udp {OURS}->10.96.0.10:53: i/o timeout"),
        (
            wording.no_connection(UDP, "network is unreachable", "connect"),
            "dial udp 10.96.0.10:53: connect: network is unreachable",
        ),
        (
            wording.broken(TLS, OURS, "connection reset by peer", "read"),
            f"read tcp {OURS}->9.9.9.9:853: read: connection reset by peer",
        ),
        (wording.too_many(100), "concurrent queries exceeded maximum 100"),
        (
            wording.unverified("certificate signed by unknown authority"),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
    ],
)
def test_text(text: str, expected: str) -> None:
    assert text == expected


def exchange_to(*upstreams: Upstream) -> Exchange:
    policy = ForwardPolicy(ROOT, upstreams)
    return Exchange(b"", b"", policy, 0.0, 4.5, lambda *_: True)


def attempt_over(exchange: Exchange, upstream: Upstream) -> Attempt:
    kind = DatagramPool if upstream.transport is Transport.UDP else StreamPool
    pool = kind(upstream, UpstreamSeries("x"), Outside(lambda: 0.0, lambda: 0))
    connection = Connection(pool, 0.0)
    connection.locate = lambda: OURS
    attempt = Attempt(exchange, pool, connection, 0.0)
    exchange.attempts.append(attempt)
    return attempt


def test_time_out_names_the_attempt_that_was_waited_for_last() -> None:
    exchange = exchange_to(UDP, TCP)
    attempt_over(exchange, UDP)
    attempt_over(exchange, TCP)
    exchange.last_error = "EOF"
    assert wording.describe(exchange, Failure.TIMED_OUT) == (
        f"read tcp {OURS}->[2001:db8::a]:53: i/o timeout",
        "timed out, 2 attempts",
    )


def test_time_out_while_dialling_names_the_latest_setback_or_the_dial() -> None:
    exchange = exchange_to(TCP)
    dial = "dial tcp [2001:db8::a]:53: i/o timeout"
    assert wording.describe(exchange, Failure.TIMED_OUT) == (dial, "timed out")
    attempt_over(exchange, TCP).is_live = False
    assert wording.describe(exchange, Failure.TIMED_OUT)[0] == dial
    exchange.last_error = "EOF"
    assert wording.describe(exchange, Failure.TIMED_OUT)[0] == "EOF"


def test_where_nobody_was_asked_nobody_was_healthy() -> None:
    exchange = exchange_to(UDP)
    assert wording.describe(exchange, Failure.UNREACHABLE)[0] == "no healthy proxies"
    exchange.last_error = "EOF"
    assert wording.describe(exchange, Failure.UNREACHABLE)[0] == "EOF"
    assert wording.describe(exchange_to(), Failure.TIMED_OUT)[0] == "no healthy proxies"


def test_query_above_max_concurrent_is_told_as_refused() -> None:
    policy = ForwardPolicy(ROOT, FORWARD.upstreams, max_concurrent=1)
    bed = Bed(forwards=(policy,))
    bed.ask(query("a.test"))
    bed.ask(query("b.test"))
    (error,) = bed.resolver.results.failures
    assert error.question.startswith(b"\1b\4test")
    assert (error.rcode, error.text) == (5, "concurrent queries exceeded maximum 1")
