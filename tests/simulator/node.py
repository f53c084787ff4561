"""The node: resolver, caches and forwarder of nodecache, put together as its daemon does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from nodecache.cache.packet import PacketCache
from nodecache.config.model import (
    ROOT,
    Address,
    CachePolicy,
    Config,
    ForwardPolicy,
    SelectionPolicy,
    ServerBlock,
    ServeStale,
    StaleMode,
    Transport,
    Upstream,
)
from nodecache.counters import CacheSeries, Counters, QuerySeries
from nodecache.resolve.listener import Listener
from nodecache.resolve.resolver import Resolver
from nodecache.resolve.zones import ServedZone, Zones
from nodecache.serving.blocks import Blocks
from nodecache.upstreams.connection import Connection, Pool, State
from nodecache.upstreams.forwarder import Forwarder
from tests.simulator.clock import Clock
from tests.simulator.history import History
from tests.simulator.network import Network
from tests.simulator.stubs import Query

MOST_PENDING = 1000
CACHE_OCTETS = 4 << 20
STALE = {
    "off": None,
    "immediate": ServeStale(),
    "verify": ServeStale(mode=StaleMode.VERIFY),
}
TRANSPORTS = {"tcp": Transport.TCP, "udp": Transport.UDP}


class Node:
    """What serves, and its one timer.

    Attributes:
        udp, tcp: Its listeners.
        on_reply: Called with each query and its reply.
    """

    def __init__(
        self,
        history: History,
        clock: Clock,
        network: Network,
        dice: random.Random,
        on_reply: Callable[[Query, bytes], None],
    ) -> None:
        self.clock = clock
        self.network = network
        self.on_reply = on_reply
        self.counters = Counters()
        self.forwarder = Forwarder(self.counters, dice.random, lambda: dice.randrange(1 << 16))
        self.resolver = Resolver(self.forwarder, self.counters, dice.random, MOST_PENDING)
        self.upstreams = [
            Upstream(
                Address(f"192.0.2.{index + 1}", 53),
                TRANSPORTS[place.transport],
                max_connections=place.most_connections,
            )
            for index, place in enumerate(history.places)
        ]
        self._places = {each.address: index for index, each in enumerate(self.upstreams)}
        self._history = history
        self.blocks = Blocks(CACHE_OCTETS, self.counters)
        self.go_over(tuple(range(len(self.upstreams))))
        self.state = self.blocks.states[0]
        self.packets = PacketCache(1000, 1 << 20, bytes)
        self.udp = self._listen("udp", self.packets)
        self.tcp = self._listen("tcp", None)

    def _listen(self, proto: str, packets: PacketCache | None) -> Listener:
        series = QuerySeries("dns://x", ".", proto, "1")
        unserved = QuerySeries("dns://x", "dropped", proto, "1")
        served = ServedZone(ROOT, self.state, series, CacheSeries("dns://x", "."))
        listener = Listener(
            "dns://x", proto, "1", Zones([served], unserved), self.on_reply, packets
        )
        listener.locate = lambda _client: Address("192.0.2.100", 40_000)
        return listener

    def go_over(self, upstreams: tuple[int, ...]) -> None:
        """Reloads: the ``forward`` directive has these upstreams now."""
        chosen = tuple(self.upstreams[index] for index in upstreams)
        history, now = self._history, self.clock.now
        forward = ForwardPolicy(ROOT, chosen, selection=SelectionPolicy(history.selection))
        cache = replace(CachePolicy(), serve_stale=STALE[history.stale])
        block = ServerBlock((ROOT,), 53, cache=cache, forwards=(forward,))
        self.blocks.apply(Config((block,)), now)
        self.forwarder.keep_only(chosen, now)
        self._told()

    # Clients.

    def ask(self, query: Query) -> None:
        """Takes a query, as net/udp.py and net/tcp.py do."""
        now, packets = self.clock.now, self.packets
        if now >= packets.turns_at:
            packets.turn(now)
        if not query.over_tcp:
            key = query.octets[2:]
            packet = packets.fresh.get(key) or packets.revive(key, now)
            if packet is not None:
                packet.hits += 1
                self.on_reply(query, query.octets[:2] + packet.reply)
                return
        drops = sum(self.counters.drops.values())
        listener = self.tcp if query.over_tcp else self.udp
        reply = self.resolver.query(query.octets, listener, query, now)
        if reply:
            self.on_reply(query, reply)
        elif reply is None:
            self._note_exchange(query)
        else:
            query.is_dropped = sum(self.counters.drops.values()) > drops
        self._told()

    def _note_exchange(self, query: Query) -> None:
        query.is_pending = True
        query.must_by = query.asked_at + query.patience_s
        pending = self.state.pending.get(query.question + b"\1")
        if pending is not None:  # otherwise its reply lies in the resolver already
            query.began_at = pending.started_at
            query.must_by = min(query.must_by, pending.deadline)

    # Upstreams.

    def connected(self, connection: Connection) -> None:
        self.forwarder.connected(connection, self.clock.now)
        self._told()

    def received(self, connection: Connection, octets: bytes) -> None:
        self.forwarder.received(connection, octets, self.clock.now)
        self._told()

    def closed(self, connection: Connection) -> None:
        self.forwarder.closed(connection, self.clock.now)
        self._told()

    def next_timer(self) -> float | None:
        """Returns when ``timer`` is to be called, None for never."""
        times = [self.forwarder.next_timer(), self.resolver.next_timer()]
        return min((each for each in times if each is not None), default=None)

    def timer(self) -> None:
        """Does what is due."""
        self.forwarder.timer(self.clock.now)
        self.resolver.timer(self.clock.now)
        self._told()

    def _told(self) -> None:
        """Hands replies out, and does what the forwarder says, as net/forward.py does."""
        outbox = self.forwarder.outbox
        self._hand_out()
        while outbox.to_open or outbox.to_write or outbox.to_close:
            opens, outbox.to_open = outbox.to_open, []
            writes, outbox.to_write = outbox.to_write, []
            closes, outbox.to_close = outbox.to_close, []
            for connection in opens:
                if connection.state is not State.CLOSED:
                    self.network.open(connection, self._places[connection.upstream.address])
            for connection in writes:
                if connection.out and connection.state is not State.CLOSED:
                    self.network.write(connection)
            for connection in closes:
                self.network.close(connection)
        self._hand_out()

    def _hand_out(self) -> None:
        results = self.resolver.results
        replies, results.replies = results.replies, []
        for listener, client, reply in replies:
            listener.deliver(client, reply)
        results.failures.clear()

    def pools(self) -> list[Pool]:
        """Returns the pools of all upstreams, those over TCP of UDP upstreams, too."""
        over_tcp = [replace(each, transport=Transport.TCP) for each in self.upstreams]
        both = dict.fromkeys([*self.upstreams, *over_tcp])
        return [self.forwarder.pool(upstream) for upstream in both]
