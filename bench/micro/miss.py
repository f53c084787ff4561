"""A miss without sockets: from a query's octets to the reply's, with an upstream that just answers.

    python -m bench.micro.miss

Tells what a rule on the way of a miss costs (client shares, max_rate), and what one miss in flight
takes in memory. Verdict (CPython 3.11, us per miss, best of 40): 27.9 before clients had shares,
28.6 since, 32.5 when crowded (so that clients are counted), 30.3 with a max_rate that is never
reached; refused because an upstream hangs 5.4, which was 16.6 while each began an exchange first.
In flight: 1,150 octets over TCP, 1,940 over UDP.
"""

from __future__ import annotations

import random
import struct
import time
import tracemalloc

from nodecache.cache.packet import PacketCache
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import (
    CLUSTER_DOMAIN,
    ROOT,
    Address,
    CachePolicy,
    ForwardPolicy,
    ServerBlock,
    Transport,
    Upstream,
)
from nodecache.counters import CacheSeries, Counters, QuerySeries
from nodecache.net.mmsg import read_peer
from nodecache.resolve.block import BlockState
from nodecache.resolve.listener import Listener
from nodecache.resolve.resolver import Resolver
from nodecache.resolve.zones import ServedZone, Zones
from nodecache.upstreams.forwarder import Forwarder

ROUNDS = 40
MISSES = 500
HANGING = 900  # the pool of one upstream takes so many
_ANSWER = b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\n\0\0\1"
_CLIENT = b"\2\0\x9c\x40\xc0\0\2\7" + bytes(8)  # 192.0.2.7, as the kernel has it


class Bench:
    """A resolver, its forwarder, and an upstream that is a function."""

    def __init__(self, upstream: Upstream, **resolver: int) -> None:
        dice = random.Random(7)
        self.counters = Counters()
        self.forwarder = Forwarder(self.counters, dice.random, lambda: dice.randrange(65536))
        most = resolver.pop("most_pending", 10_000)
        self.resolver = Resolver(
            self.forwarder,
            self.counters,
            dice.random,
            most,
            **resolver,
        )
        block = ServerBlock((ROOT,), 53, forwards=(ForwardPolicy(ROOT, (upstream,)),))
        messages = MessageCache(CachePolicy(), Budget(1 << 25), CLUSTER_DOMAIN.wire)
        state = BlockState(block, messages)
        series = QuerySeries("dns://x", ".", "udp", "1")
        served = [ServedZone(ROOT, state, series, CacheSeries("dns://x", "."))]
        packets = PacketCache(1000, 1 << 20, bytes)
        zones = Zones(served, series)
        self.listener = Listener("dns://x", "udp", "1", zones, lambda *_: None, packets)
        self.listener.locate = read_peer
        self.number = 0

    def ask(self, now: float) -> None:
        """Asks for a name that nobody asked for before."""
        self.number += 1
        name = b"\x08u%07d\5bench\7cluster\5local\0\0\1\0\1" % self.number
        octets = struct.pack("!6H", self.number & 0xFFFF, 0x100, 1, 0, 0, 0) + name
        self.resolver.query(octets, self.listener, _CLIENT, now)

    def answer(self, now: float) -> None:
        """Opens what is to be opened, and answers all that is written."""
        outbox = self.forwarder.outbox
        while outbox.to_open or outbox.to_write:
            opens, outbox.to_open = outbox.to_open, []
            for connection in opens:
                self.forwarder.connected(connection, now)
            writes, outbox.to_write = outbox.to_write, []
            for connection in writes:
                frames = connection.take_out()
                while frames:
                    end = 2 + (frames[0] << 8 | frames[1])
                    self.forwarder.received(connection, _respond(frames[2:end]), now)
                    frames = frames[end:]
        self.resolver.results.replies.clear()


def _respond(query: bytes) -> bytes:
    end = query.index(b"\0", 12) + 5
    response = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:end] + _ANSWER
    return len(response).to_bytes(2, "big") + response


def miss_us(upstream: Upstream, **resolver: int) -> float:
    """Returns what one miss costs, in microseconds; the best of ROUNDS."""
    bench, best, now = Bench(upstream, **resolver), float("inf"), 1000.0
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(MISSES):
            now += 0.0001
            bench.ask(now)
            bench.answer(now)
        best = min(best, time.process_time() - began)
        bench.forwarder.timer(now)
    return best / MISSES * 1e6


def refused_us(upstream: Upstream) -> float:
    """Returns what one miss costs that an upstream takes no more, as ``miss_us`` does."""
    bench, best = Bench(upstream), float("inf")
    for _ in range(HANGING * 4):
        bench.ask(1000.0)
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(MISSES):
            bench.ask(1000.0)
        best = min(best, time.process_time() - began)
    return best / MISSES * 1e6


def octets_in_flight(upstream: Upstream) -> float:
    """Returns the octets of one miss in flight to an upstream that hangs."""
    bench = Bench(upstream)
    bench.ask(1000.0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(HANGING):
        bench.ask(1000.0)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return taken / HANGING


def main() -> None:
    """Prints one line for each."""
    address = Address("10.0.0.1", 53)
    tcp, udp = Upstream(address, Transport.TCP), Upstream(address, Transport.UDP)
    print(f"a miss: {miss_us(tcp):.1f} us")
    if "client_share" in Resolver.__init__.__annotations__:
        print(f"  with -client-share 20: {miss_us(tcp, client_share=20):.1f} us")
        crowded = miss_us(tcp, client_share=20, most_pending=1)
        print(f"  the same when crowded: {crowded:.1f} us")
        paced = Upstream(address, Transport.TCP, max_rate=1_000_000)
        print(f"  with max_rate: {miss_us(paced):.1f} us")
    print(f"refused, because the upstream hangs: {refused_us(tcp):.1f} us")
    for upstream in (tcp, udp):
        taken = octets_in_flight(upstream)
        print(f"in flight over {upstream.transport.value}: {taken:.0f} octets each")


if __name__ == "__main__":
    main()
