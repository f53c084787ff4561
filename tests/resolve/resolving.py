"""A resolver between scripted stub resolvers and a scripted forwarder; time is a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dns.edns
import dns.message

from nodecache.cache.packet import PacketCache
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import (
    CLUSTER_DOMAIN,
    ROOT,
    Address,
    CachePolicy,
    ErrorsPolicy,
    ForwardPolicy,
    Name,
    ServerBlock,
    Upstream,
)
from nodecache.counters import CacheSeries, Counters, QuerySeries
from nodecache.directives.table import PLUGINS
from nodecache.directives.whoami.act import whoami_response
from nodecache.resolve.behind_cache import BehindCache
from nodecache.resolve.block import BlockState, Pending
from nodecache.resolve.listener import Listener
from nodecache.resolve.resolver import Resolver
from nodecache.resolve.zones import ServedZone, Zones
from nodecache.upstreams.exchange import Exchange, Failure
from tests.cache.building import NOW, a, response
from tests.cache.building import name as wire_name

UPSTREAMS = (Upstream(Address("192.0.2.53", 53)),)
FORWARD = ForwardPolicy(ROOT, UPSTREAMS)


def zone(text: str) -> Name:
    return Name(text, wire_name(text))


class FakeForwarder:
    """Collects exchanges; ``instantly`` is how each of them ends at once, if set.

    ``submitted`` are those that somebody waits for, ``asked`` are all; ``is_dead`` is what it
    says of its upstreams.
    """

    def __init__(self) -> None:
        self.asked: list[Exchange] = []
        self.submitted: list[Pending] = []
        self.instantly: bytes | Failure | None = None
        self.refused: Failure | None = None
        self.is_dead = False

    def looks_dead(self, policy: ForwardPolicy, now: float) -> bool:
        return self.is_dead

    def submit(self, exchange: Exchange, now: float) -> None:
        self.asked.append(exchange)
        if not isinstance(exchange, Pending):
            return
        self.submitted.append(exchange)
        if self.instantly is not None:
            self.finish(exchange, self.instantly, now)

    def refusal(self, policy: ForwardPolicy) -> Failure | None:
        return self.refused

    def settle(self, exchange: Exchange, message: bytes, now: float) -> None:
        self.finish(exchange, message, now)

    def finish(self, exchange: Exchange, result: bytes | Failure, now: float) -> None:
        assert not exchange.is_done
        exchange.is_done = True
        exchange.is_done = exchange.on_done(exchange, result, now)

    @property
    def under_way(self) -> list[Pending]:
        return [exchange for exchange in self.submitted if not exchange.is_done]


@dataclass
class Bed:
    """One server block behind a UDP and a TCP listener.

    Attributes:
        got: Client -> all replies it got so far, at once or later.
    """

    policy: CachePolicy | None = field(default_factory=CachePolicy)
    forwards: tuple[ForwardPolicy, ...] = (FORWARD,)
    zones: tuple[Name, ...] = (ROOT,)
    most_pending: int = 1000
    now: float = NOW
    got: dict[Any, list[bytes]] = field(default_factory=dict)
    seal: Callable[[bytes], Any] = bytes
    behind_cache: BehindCache | None = None
    is_whoami: bool = False
    directives: tuple[str, ...] = ("errors", "cache", "forward")
    bufsize: int | None = None
    random: Callable[[], float] = lambda: 0.0

    def __post_init__(self) -> None:
        self.counters = Counters()
        self.forwarder = FakeForwarder()
        self.resolver = Resolver(self.forwarder, self.counters, self.random, self.most_pending)
        block = ServerBlock(
            self.zones,
            53,
            errors=ErrorsPolicy(),
            forwards=self.forwards,
            takes_queries=any(PLUGINS[name].is_about_queries for name in self.directives),
            directives=self.directives,
            bufsize=self.bufsize,
        )
        self.messages: MessageCache | None = None
        if self.policy is not None:
            self.messages = MessageCache(self.policy, Budget(1 << 22), CLUSTER_DOMAIN.wire)
        self.state = BlockState(block, self.messages, self.behind_cache)
        if self.is_whoami:
            self.state.whoami = whoami_response
        self.packets = PacketCache(1000, 1 << 20, self.seal)
        self.packets.turn(self.now)
        self.series = QuerySeries("dns://x", ".", "udp", "1")
        self.unserved = QuerySeries("dns://x", "dropped", "udp", "1")
        self.caches = CacheSeries("dns://x", ".")
        served = [ServedZone(each, self.state, self.series, self.caches) for each in self.zones]
        zones = Zones(served, self.unserved)
        self.udp = Listener("dns://x", "udp", "1", zones, self._deliver, self.packets)
        self.tcp = Listener("dns://x", "tcp", "1", zones, self._deliver)
        for listener in (self.udp, self.tcp):
            listener.locate = lambda client: Address("192.0.2.7", 40_000)

    def _deliver(self, client: Any, reply: bytes) -> None:
        self.got.setdefault(client, []).append(reply)

    def ask(self, octets: bytes, client: Any = "stub", tcp: bool = False) -> bytes | None:
        """Returns what ``query`` returned; later replies are in ``got``."""
        if self.now >= self.packets.turns_at:
            self.packets.turn(self.now)
        listener = self.tcp if tcp else self.udp
        reply = self.resolver.query(octets, listener, client, self.now)
        if reply:
            self._deliver(client, reply)
        self.collect()
        return reply

    def ask_now(self, octets: bytes, tcp: bool = False) -> dns.message.Message:
        """The reply that must come at once."""
        reply = self.ask(octets, object(), tcp)
        assert reply
        return dns.message.from_wire(reply)

    def collect(self) -> None:
        results = self.resolver.results
        replies, results.replies = results.replies, []
        for listener, client, reply in replies:
            listener.deliver(client, reply)

    def answer(self, result: bytes | Failure | None = None, index: int = 0) -> None:
        """Ends an exchange that is under way, with one address unless said otherwise."""
        exchange = self.forwarder.under_way[index]
        octets = response(exchange.key, [a(30)]) if result is None else result
        self.forwarder.finish(exchange, octets, self.now)
        self.collect()

    def wait(self, seconds: float) -> None:
        """Lets time pass, timer by timer."""
        end = self.now + seconds
        while (due := self.resolver.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.resolver.timer(self.now)
            self.collect()
        self.now = end

    def last(self, client: Any = "stub") -> dns.message.Message:
        return dns.message.from_wire(self.got[client][-1])

    @property
    def exchanges(self) -> int:
        return len(self.forwarder.submitted)


def extended_errors(reply: dns.message.Message) -> list[int]:
    return [int(o.code) for o in reply.options if isinstance(o, dns.edns.EDEOption)]


def shown_ttls(reply: dns.message.Message) -> list[int]:
    return [rrset.ttl for rrset in [*reply.answer, *reply.authority, *reply.additional]]
