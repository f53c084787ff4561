"""What the budgets count is what the process really takes."""

from __future__ import annotations

import gc
import struct
import tracemalloc
from collections.abc import Callable

import pytest

from nodecache.cache.admit import admit_response
from nodecache.cache.packet import Packet, PacketCache
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import CLUSTER_DOMAIN, CachePolicy
from nodecache.counters import CacheSeries, QuerySeries
from nodecache.wire.key import key_of
from nodecache.wire.query import Query, scan_query
from nodecache.wire.reply import compose_ends
from tests.cache.building import NOW, SOA, A, a, cname, key, query, record, response, soa

COUNT = 2000

Responses = Callable[[bytes], bytes]


def one_address(asked: bytes) -> bytes:
    return response(asked, [a()])


def nxdomain(asked: bytes) -> bytes:
    return response(asked, [], [soa()], rcode=3)


def nxdomain_like_coredns(asked: bytes) -> bytes:
    """With names that end in a pointer into the question."""
    origin = b"\xc0" + bytes([12 + asked.index(b"\7cluster")])
    rdata = b"\2ns\3dns" + origin + b"\nhostmaster" + origin + struct.pack("!5I", 1, 2, 3, 4, 30)
    return response(asked, [], [record(SOA, 30, rdata, origin)], rcode=3)


def nxdomain_of_its_own(asked: bytes) -> bytes:
    return response(
        asked, [], [record(SOA, 30, bytes(2) + asked[:16] + struct.pack("!I", 30))], rcode=3
    )


def many_addresses(asked: bytes) -> bytes:
    return response(asked, [cname(), *[a(30, bytes([10, 0, 0, n])) for n in range(20)]])


def iovec_of(reply: bytes) -> bytes:
    """As large as what the batch server seals a reply into."""
    return len(reply).to_bytes(16, "little")


def hosts() -> list[str]:
    return [f"service-{n}.namespace-{n % 50}.svc.cluster.local" for n in range(COUNT)]


def keep(respond: Responses, store: MessageCache, names: list[str]) -> None:
    for host in names:
        asked = key(host, A)
        assert admit_response(respond(asked), asked, store, NOW, 0.5) is not None


def real_octets(build: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        built = build()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        assert built is not None
    finally:
        tracemalloc.stop()
    return after - before


@pytest.mark.parametrize(
    "respond",
    [one_address, nxdomain, nxdomain_like_coredns, nxdomain_of_its_own, many_addresses],
)
def test_message_octets_are_about_what_is_allocated(respond: Responses) -> None:
    budget, names = Budget(1 << 30), hosts()

    def build() -> MessageCache:
        store = MessageCache(CachePolicy(), budget, CLUSTER_DOMAIN.wire)
        keep(respond, store, names)
        return store

    real = real_octets(build)
    assert 0.9 <= budget.octets / real <= 1.35


def test_names_that_share_an_soa_take_a_fifth_less_than_those_that_do_not() -> None:
    names, octets = hosts(), []
    for respond in (nxdomain_like_coredns, nxdomain_of_its_own):
        budget = Budget(1 << 30)

        def build(respond: Responses = respond, budget: Budget = budget) -> MessageCache:
            store = MessageCache(CachePolicy(), budget, CLUSTER_DOMAIN.wire)
            keep(respond, store, names)
            return store

        octets.append(real_octets(build) / COUNT)
    print(f"octets for an NXDOMAIN: {octets[0]:.0f} with a shared SOA, {octets[1]:.0f} without")
    assert octets[0] < 0.8 * octets[1]


@pytest.mark.parametrize("respond", [one_address, nxdomain, many_addresses])
def test_packet_octets_are_about_what_is_allocated(respond: Responses) -> None:
    store = MessageCache(CachePolicy(), Budget(1 << 30), CLUSTER_DOMAIN.wire)
    names = hosts()
    keep(respond, store, names)
    found = [scan_query(query(host)) for host in names]
    packets = PacketCache(COUNT, 1 << 30, iovec_of)
    packets.turn(NOW)
    series = QuerySeries("", "", "", ""), CacheSeries("", "")

    def build() -> PacketCache:
        for asked in found:
            assert isinstance(asked, Query)
            made = store.peek(key_of(asked))
            assert made is not None
            head, tail, _ = compose_ends(asked, made.flags, made.counts, made.records_octets, 4096)
            packets.admit(Packet(asked, made, made.pieces, (head, tail), series), NOW)
        return packets

    real = real_octets(build)
    assert len(packets) == COUNT
    assert 0.9 <= packets.octets / real <= 1.35
