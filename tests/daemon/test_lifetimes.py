"""TTLs as a stub sees them pass, and many stubs that want the same at once."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack

import dns.message
import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import wait_until
from tests.daemon.stubs import (
    addresses,
    ask,
    make_query,
    scrape,
    tcp_socket,
    total,
    udp_socket,
)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_ttl_counts_down_second_by_second(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, tcp: bool
) -> None:
    daemon = daemon_for(scripted)
    name = "down.ttl-60.test"
    asked_at = time.monotonic()
    assert ask(daemon, name, tcp=tcp).answer[0].ttl == 60
    answered_at = time.monotonic()
    seen = []
    for second in range(1, 5):
        time.sleep(max(0.0, answered_at + second - time.monotonic()))
        before = time.monotonic()
        ttl = ask(daemon, name, tcp=tcp).answer[0].ttl
        after = time.monotonic()
        # Never more than what remains; tier 1 may show the TTL as of the end of its second.
        assert 60 - (after - asked_at) - 2 <= ttl <= math.ceil(60 - (before - answered_at))
        seen.append(ttl)
    assert seen == sorted(set(seen), reverse=True)
    assert len(scripted.asked_for(name)) == 1


def test_an_expired_answer_is_asked_for_again(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    name = "brief.ttl-1.test"
    assert ask(daemon, name).answer[0].ttl <= 1
    time.sleep(1.1)
    assert ask(daemon, name).answer[0].ttl <= 1
    assert len(scripted.asked_for(name)) == 2


def test_a_ttl_of_zero_reaches_the_stub_and_is_not_kept(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    for _ in range(3):
        assert ask(daemon, "never.ttl-0.test").answer[0].ttl == 0
    assert len(scripted.asked_for("never.ttl-0.test")) == 3


def test_the_cap_of_the_corefile_holds(daemon_for: StartDaemon, scripted: ScriptedUpstream) -> None:
    daemon = daemon_for(scripted, cache="30")
    for _ in range(3):
        assert ask(daemon, "long.ttl-86400.test").answer[0].ttl in (29, 30)


@pytest.mark.slow
def test_a_hot_name_is_refreshed_before_it_expires(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    name = "hot.ttl-4.test"
    begun_at = time.monotonic()
    while time.monotonic() < begun_at + 6:
        assert ask(daemon, name).answer[0].ttl >= 0
        time.sleep(0.1)
    samples = scrape(daemon)
    assert total(samples, "coredns_cache_misses_total") == 1
    assert total(samples, "coredns_cache_prefetch_total") >= 1
    assert len(scripted.asked_for(name)) >= 2


def test_500_stubs_that_want_one_cold_name_cost_one_upstream_query(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    name = "cold.wait-200.test"
    with ExitStack() as stack:
        socks = [stack.enter_context(udp_socket(daemon)) for _ in range(500)]
        queries = [make_query(name) for _ in socks]
        for sock, query in zip(socks, queries, strict=True):
            sock.send(query.to_wire())
        for sock, query in zip(socks, queries, strict=True):
            reply = dns.message.from_wire(sock.recv(65535))
            assert reply.id == query.id
            assert addresses(reply) == [right_address(name)]
    samples = scrape(daemon)
    # A query that is later than usual is asked a second time: that alone may add to the one.
    hedged = total(samples, "nodecache_hedged_total")
    assert len(scripted.asked_for(name)) == 1 + hedged
    assert hedged <= 1
    assert total(samples, "nodecache_coalesced_total") == 499


def test_stubs_over_udp_and_tcp_with_and_without_edns_share_one_exchange(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    name = "shared.wait-200.test"
    with udp_socket(daemon) as udp, tcp_socket(daemon) as tcp:
        plain, edns = make_query(name), make_query(name.upper(), payload=1232)
        udp.send(plain.to_wire())
        udp.send(edns.to_wire())
        wire = make_query(name).to_wire()
        tcp.sendall(len(wire).to_bytes(2, "big") + wire)
        replies = {reply.id: reply for reply in (dns.message.from_wire(udp.recv(65535))
                                                 for _ in range(2))}  # fmt: skip
        assert tcp.recv(65535)
    assert replies[plain.id].edns == -1
    assert replies[edns.id].edns == 0
    assert replies[edns.id].question[0].name.to_text() == f"{name.upper()}."
    assert len(scripted.asked_for(name)) <= 1 + total(scrape(daemon), "nodecache_hedged_total")


def test_a_retransmission_joins_the_query_that_waits(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    query = make_query("again.wait-300.test").to_wire()
    with udp_socket(daemon) as sock:
        for _ in range(3):
            sock.send(query)
        assert len({sock.recv(65535) for _ in range(3)}) == 1
    wait_until(lambda: total(scrape(daemon), "nodecache_coalesced_total") == 2, "two joined")
