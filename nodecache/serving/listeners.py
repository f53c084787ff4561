"""What listens where: sockets, servers, and the server blocks behind each address.

``apply`` goes over from one configuration to the next: sockets, series, packets and messages that
are still right stay.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from nodecache.cache.packet import PacketCache
from nodecache.config.model import Address, Config, ServerBlock, Timeouts
from nodecache.counters import CacheSeries, Counters
from nodecache.engine.block import BlockState
from nodecache.engine.listener import Listener
from nodecache.engine.resolver import Resolver
from nodecache.engine.zones import ServedZone, Zones
from nodecache.net.listening import ListeningSockets
from nodecache.net.sockets import has_ipv6, receive_drops
from nodecache.net.stream import TcpBounds
from nodecache.net.tcp import TcpServer
from nodecache.net.udp import UdpServer, seal_for_this_platform, udp_server_class
from nodecache.serving.blocks import Blocks
from nodecache.serving.directives import build_front

if TYPE_CHECKING:
    from nodecache.engine.front import Directives, Front

_MOST_PACKETS = 16_384  # of one listening address
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 # what a block without ``bind`` asks for
# How long clients of an address that a reload took away may still wait for their replies.
_GRACE_S = 5.0


@dataclass(slots=True)
class Server:
    """One listening address: its two sockets, and what serves them.

    Attributes:
        states: The server blocks that share it.
        routes: What ``states`` mean for a query; packets hold while it stays the same.
    """

    address: Address
    packets: PacketCache
    udp_socket: socket.socket
    tcp_socket: socket.socket
    udp_listener: Listener
    tcp_listener: Listener
    udp: UdpServer
    tcp: TcpServer
    states: tuple[BlockState, ...] = ()
    routes: tuple[object, ...] = ()

    @property
    def label(self) -> str:
        """CoreDNS's label, "dns://169.254.20.10:53"."""
        return self.udp_listener.server

    def start(self) -> None:
        """Begins to serve."""
        self.udp.start()
        self.tcp.start()

    def close(self) -> None:
        """Closes both sockets at once."""
        self.udp.close()
        self.udp_socket.close()
        self.tcp_socket.close()


class Listeners:
    """All listeners for DNS.

    Attributes:
        servers: By listening address.
    """

    def __init__(
        self,
        resolver: Resolver,
        counters: Counters,
        blocks: Blocks,
        flush: Callable[[], None],
        sockets: ListeningSockets,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Prepares an empty house; nothing is read before ``start``.

        Args:
            resolver: Answers what no packet cache does.
            counters: Gets the series of every listener.
            blocks: The server blocks at work.
            flush: Called when queries may have given work to the upstreams.
            sockets: Where the listening sockets come from.
            loop: Serves the sockets.
        """
        self.servers: dict[Address, Server] = {}
        self._resolver = resolver
        self._counters = counters
        self._blocks = blocks
        self._flush = flush
        self._sockets = sockets
        self._loop = loop
        self._is_serving = False
        self._leaving: set[asyncio.Task[None]] = set()
        # One of its servers shows what is counted once for a block, so that sums hold.
        self._server_of: dict[BlockState, str] = {}
        self._watch_numbers()

    def apply(self, config: Config) -> None:
        """Serves ``config`` instead of what was served before; nothing that holds is dropped.

        Raises:
            SocketError: An address cannot be used; everything is as it was.
        """
        wanted = _group_by_address(config.blocks)
        added = self._open(address for address in wanted if address not in self.servers)
        states = self._blocks.apply(config, monotonic())
        self._counters.plugins.clear()
        for server in added:
            self.servers[server.address] = server
        octets = self._blocks.packet_octets // max(1, len(wanted))
        for address, indices in wanted.items():
            server = self.servers[address]
            server.packets.resize(octets)
            server.tcp.bounds = _tcp_bounds(config.blocks[index].timeouts for index in indices)
            self._route(server, tuple(states[index] for index in indices))
        for address in self.servers.keys() - wanted.keys():
            self._leave(self.servers.pop(address))
        self._name_numbers()
        if self._is_serving:
            for server in added:
                server.start()

    def start(self) -> None:
        """Begins to serve."""
        self._is_serving = True
        for server in self.servers.values():
            server.start()

    def yield_sockets(self) -> None:
        """Reads no more: what is queued and what is to come is a successor's."""
        for server in self.servers.values():
            server.udp.pause()
            server.tcp.pause()

    def stop_reading_datagrams(self) -> None:
        """Takes the queries that are queued in the UDP sockets, and no more."""
        for server in self.servers.values():
            server.udp.stop_reading()

    async def drain_connections(self, grace_s: float) -> None:
        """Takes no more over TCP; returns when the clients have what they asked for."""
        await asyncio.gather(*(server.tcp.close(grace_s) for server in self.servers.values()))

    def close(self) -> None:
        """Closes all sockets."""
        for task in self._leaving:
            task.cancel()
        for server in self.servers.values():
            server.close()

    # Addresses.

    def _open(self, addresses: Iterable[Address]) -> list[Server]:
        """Opens listeners that do not serve yet; all of them or, with SocketError, none."""
        opened: list[Server] = []
        try:
            for address in addresses:
                opened.append(self._open_one(address))  # noqa: PERF401 - closed if one fails
        except BaseException:
            for server in opened:
                server.close()
                self._give_up(server.address)
            raise
        return opened

    def _give_up(self, address: Address) -> None:
        self._sockets.give_up(f"udp {address}")
        self._sockets.give_up(f"tcp {address}")

    def _open_one(self, address: Address) -> Server:
        label = f"dns://:{address.port}" if address.host in _WILDCARDS else f"dns://{address}"
        family = "2" if ":" in address.host else "1"
        packets = PacketCache(_MOST_PACKETS, 0, seal_for_this_platform())
        udp_socket = self._sockets.udp(address)
        try:
            tcp_socket = self._sockets.tcp(address)
        except BaseException:
            udp_socket.close()
            self._give_up(address)
            raise
        unrouted = Zones((), self._counters.query_series(label, "dropped", "udp", family))
        udp_listener = Listener(label, "udp", family, unrouted, _undeliverable, packets)
        unrouted = Zones((), self._counters.query_series(label, "dropped", "tcp", family))
        tcp_listener = Listener(label, "tcp", family, unrouted, _undeliverable)
        shared = (self._resolver, self._flush, self._counters, self._loop)
        udp = udp_server_class()(udp_socket, udp_listener, *shared)
        tcp = TcpServer(tcp_socket, tcp_listener, *shared)
        return Server(
            address, packets, udp_socket, tcp_socket, udp_listener, tcp_listener, udp, tcp
        )

    def _leave(self, server: Server) -> None:
        """Gives an address up: who asked there is still answered for a while."""

        async def leave() -> None:
            closing = self._loop.create_task(server.tcp.close(_GRACE_S))
            try:
                await asyncio.sleep(0)  # now it accepts no more, and whoever comes is refused
                server.tcp_socket.close()
                self._give_up(server.address)
                await asyncio.gather(closing, asyncio.sleep(_GRACE_S))
            finally:
                server.close()

        server.udp.stop_reading()
        server.packets.clear()
        task = self._loop.create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # Routes.

    def _route(self, server: Server, states: tuple[BlockState, ...]) -> None:
        """Lets ``states`` serve the queries of ``server``."""
        for state in states:
            for zone in state.block.zones:
                self._counters.plugins += [
                    (server.label, zone.text, name) for name in state.block.directives
                ]
        routes = tuple((state, _shape(state.block)) for state in states)
        if routes == server.routes:
            return
        server.packets.clear()
        server.states, server.routes = states, routes
        for listener in (server.udp_listener, server.tcp_listener):
            listener.zones = Zones(self._served(listener, states), listener.zones.unserved)

    def _served(self, listener: Listener, states: tuple[BlockState, ...]) -> Iterable[ServedZone]:
        """Yields the zones of one listener, each with series of its own."""
        for state in states:
            caches = self._cache_series(listener.server, state)
            directives = build_front(state.block)
            for zone in state.block.zones:
                labels = (listener.server, zone.text, listener.proto, listener.family)
                served = ServedZone(zone, state, self._counters.query_series(*labels), caches)
                if directives is not None:
                    served.front = self._front(directives, listener, served)
                yield served

    def _front(self, directives: Directives, listener: Listener, served: ServedZone) -> Front:
        from nodecache.engine.front import Front  # noqa: PLC0415 # see serving/directives.py

        inner = ServedZone(served.zone, served.state, served.queries, served.caches)

        def note_synthesis() -> None:
            counts = self._counters.dns64_translated
            counts[listener.server] = counts.get(listener.server, 0) + 1

        return Front(directives, self._resolver, listener, inner, self._later, note_synthesis)

    def _later(self, listener: Listener, client: Any, reply: bytes) -> None:
        self._resolver.replies.append((listener, client, reply))

    # Numbers.

    def _name_numbers(self) -> None:
        """Says again which caches the gauges of entries are about."""
        for series in self._counters.caches:
            series.entries.clear()
        self._server_of.clear()
        for server in self.servers.values():
            for state in server.states:
                self._server_of.setdefault(state, server.label)
                if state.messages is not None:
                    series = self._cache_series(server.label, state)
                    series.entries["success"] = state.messages.success.__len__
                    series.entries["denial"] = state.messages.denial.__len__

    def _cache_series(self, label: str, state: BlockState) -> CacheSeries:
        zones = ",".join(zone.text for zone in state.block.zones)
        if state.messages is None:
            return CacheSeries(label, zones)  # counts what nobody reads
        return self._counters.cache_series(label, zones)

    def _watch_numbers(self) -> None:
        """Names what is read only when somebody scrapes."""
        servers, gauges = self.servers, self._counters.gauges
        gauges["pending_exchanges"] = lambda: self._resolver.pending_count
        gauges["cache_octets"] = lambda: self._blocks.budget.octets
        gauges["packet_cache_octets"] = lambda: sum(s.packets.octets for s in servers.values())
        gauges["packet_cache_entries"] = lambda: sum(len(s.packets) for s in servers.values())
        gauges["tcp_connections"] = lambda: sum(s.tcp.connection_count for s in servers.values())
        self._counters.before_scrape.append(self._hand_in)

    def _hand_in(self) -> None:
        now = monotonic()
        drops: dict[str, int] = {}
        for server in self.servers.values():
            server.packets.hand_in(now)
            # The wildcards of both families share a label.
            drops[server.label] = drops.get(server.label, 0) + receive_drops(server.udp_socket)
        self._counters.receive_drops |= drops
        self._blocks.hand_in(self._server_of)
        for state, label in self._server_of.items():
            if state.messages is not None:
                series = self._cache_series(label, state)
                series.success_evictions = state.messages.success.evictions
                series.denial_evictions = state.messages.denial.evictions


def _group_by_address(blocks: Iterable[ServerBlock]) -> dict[Address, list[int]]:
    """Returns which server blocks, by their place in the order, share which address."""
    wanted: dict[Address, list[int]] = {}
    for index, block in enumerate(blocks):
        for host in block.bind or _WILDCARDS[: 1 + has_ipv6()]:
            wanted.setdefault(Address(host, block.port), []).append(index)
    return wanted


def _shape(block: ServerBlock) -> tuple[object, ...]:
    """Returns what else than the cached message the octets of a reply depend on."""
    front = (block.dns64, block.loadbalance, block.logs)
    return block.zones, block.bufsize, block.cache is None, front


def _tcp_bounds(timeouts: Iterable[Timeouts | None]) -> TcpBounds:
    """Returns the bounds of a TCP server: the longest times that its blocks ask for."""
    given = [t for t in timeouts if t is not None]
    own = TcpBounds()
    read_s = max((t.read_s for t in given if t.read_s is not None), default=None)
    return replace(
        own,
        first_octet_s=own.first_octet_s if read_s is None else read_s,
        message_s=own.message_s if read_s is None else read_s,
        blocked_s=max((t.write_s for t in given if t.write_s is not None), default=own.blocked_s),
        idle_s=max((t.idle_s for t in given if t.idle_s is not None), default=own.idle_s),
    )


def _undeliverable(client: object, reply: bytes) -> None:
    """Stands in until a server takes the listener."""
