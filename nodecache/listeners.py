"""What listens where: sockets, servers, and the caches and series that belong to each listener.

Built once from the server blocks; the daemon starts and stops it as a whole.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from time import monotonic

from nodecache.cache.packet import PacketCache
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import ROOT, Address, Config, NxdomainScope, ServerBlock
from nodecache.counters import CacheSeries, Counters, QuerySeries
from nodecache.engine.block import BlockState
from nodecache.engine.listener import Listener
from nodecache.engine.resolver import Resolver
from nodecache.engine.zones import ServedZone, Zones
from nodecache.net.sockets import has_ipv6, open_tcp, open_udp
from nodecache.net.tcp import TcpServer
from nodecache.net.udp import UdpServer, seal_for_this_platform, udp_server_class

# Part of the octet budget that holds ready replies; the rest holds the messages they are made of.
_PACKET_PART = 0.25
_MOST_PACKETS = 16_384  # of one listening address
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 # what a block without ``bind`` asks for


class Listeners:
    """All listeners for DNS.

    Attributes:
        servers: Listening address -> the server blocks that share it.
        budget: Of all message caches.
    """

    def __init__(
        self,
        config: Config,
        resolver: Resolver,
        counters: Counters,
        flush: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Prepares everything but the sockets.

        Args:
            config: Blocks, and octets for all caches.
            resolver: Answers what no packet cache does.
            counters: Gets the series of every listener.
            flush: Called when queries may have given work to the upstreams.
            loop: Serves the sockets.
        """
        self.budget = Budget(int(config.cache_octets * (1 - _PACKET_PART)))
        self.servers = self._group_by_address(config)
        self._packet_octets = int(config.cache_octets * _PACKET_PART / max(1, len(self.servers)))
        self._resolver = resolver
        self._counters = counters
        self._flush = flush
        self._loop = loop
        self._evictions: dict[MessageCache, CacheSeries] = {}
        self._packets: list[PacketCache] = []
        self._udp: list[UdpServer] = []
        self._tcp: list[TcpServer] = []
        self._sockets: list[socket.socket] = []

    @property
    def states(self) -> Iterator[BlockState]:
        """Every server block once."""
        return iter(dict.fromkeys(state for states in self.servers.values() for state in states))

    def start(self) -> None:
        """Opens all listeners and serves.

        Raises:
            SocketError: An address cannot be used; ``close`` closes what was opened.
        """
        for address, states in self.servers.items():
            self._listen(address, states)
        for udp in self._udp:
            udp.start()
        for tcp in self._tcp:
            tcp.start()
        self._watch_numbers()

    def stop_reading_datagrams(self) -> None:
        """Takes the queries that are queued in the UDP sockets, and no more."""
        for udp in self._udp:
            udp.stop_reading()

    async def drain_connections(self, grace_s: float) -> None:
        """Takes no more over TCP; returns when the clients have what they asked for."""
        await asyncio.gather(*(tcp.close(grace_s) for tcp in self._tcp))

    def close(self) -> None:
        """Closes all sockets."""
        for udp in self._udp:
            udp.close()
        for sock in self._sockets:
            sock.close()

    def _group_by_address(self, config: Config) -> dict[Address, list[BlockState]]:
        """Returns which server blocks share which listening address."""
        covering = config.cluster_domain if config.nxdomain_scope is NxdomainScope.CLUSTER else ROOT
        servers: dict[Address, list[BlockState]] = {}
        for block in config.blocks:
            messages = None
            if block.cache is not None:
                messages = MessageCache(block.cache, self.budget, covering.wire)
            state = BlockState(block, messages)
            for host in block.bind or _WILDCARDS[: 1 + has_ipv6()]:
                servers.setdefault(Address(host, block.port), []).append(state)
        return servers

    def _listen(self, address: Address, states: list[BlockState]) -> None:
        """Opens the UDP and the TCP listener of one address."""
        server = f"dns://:{address.port}" if address.host in _WILDCARDS else f"dns://{address}"
        family = "2" if ":" in address.host else "1"
        caches = {state: self._cache_series(server, state) for state in states}
        packets = PacketCache(_MOST_PACKETS, self._packet_octets, seal_for_this_platform())
        self._packets.append(packets)
        udp_socket = open_udp(address)
        self._sockets.append(udp_socket)
        tcp_socket = open_tcp(address)
        self._sockets.append(tcp_socket)
        shared = (self._resolver, self._flush, self._counters, self._loop)
        zones = self._zones(server, "udp", family, caches)
        listener = Listener(server, "udp", family, zones, _undeliverable, packets)
        self._udp.append(udp_server_class()(udp_socket, listener, *shared))
        zones = self._zones(server, "tcp", family, caches)
        listener = Listener(server, "tcp", family, zones, _undeliverable)
        self._tcp.append(TcpServer(tcp_socket, listener, *shared))

    def _zones(
        self, server: str, proto: str, family: str, caches: dict[BlockState, CacheSeries]
    ) -> Zones:
        """Returns the zones of one listener, each with series of its own."""
        served = []
        for state, cache_series in caches.items():
            for zone in state.block.zones:
                queries = self._query_series(server, zone.text, proto, family)
                served.append(ServedZone(zone, state, queries, cache_series))
                self._counters.plugins += [
                    (server, zone.text, name) for name in state.block.directives
                ]
        return Zones(served, self._query_series(server, "dropped", proto, family))

    def _query_series(self, server: str, zone: str, proto: str, family: str) -> QuerySeries:
        series = QuerySeries(server, zone, proto, family)
        self._counters.queries.append(series)
        return series

    def _cache_series(self, server: str, state: BlockState) -> CacheSeries:
        zones = ",".join(zone.text for zone in state.block.zones)
        series = CacheSeries(server, zones)
        messages = state.messages
        if messages is not None:
            series.entries["success"] = lambda: len(messages.success)
            series.entries["denial"] = lambda: len(messages.denial)
            self._counters.caches.append(series)
            # One of its servers shows the evictions of a block, so that sums over servers hold.
            self._evictions.setdefault(messages, series)
        return series

    def _watch_numbers(self) -> None:
        """Names what is read only when somebody scrapes."""
        gauges = self._counters.gauges
        gauges["pending_exchanges"] = lambda: self._resolver.pending_count
        gauges["cache_octets"] = lambda: self.budget.octets
        gauges["packet_cache_octets"] = lambda: sum(cache.octets for cache in self._packets)
        gauges["packet_cache_entries"] = lambda: sum(len(cache) for cache in self._packets)
        gauges["tcp_connections"] = lambda: sum(server.connection_count for server in self._tcp)
        self._counters.before_scrape.append(self._hand_in)

    def _hand_in(self) -> None:
        for cache in self._packets:
            cache.hand_in(monotonic())
        for messages, series in self._evictions.items():
            series.success_evictions = messages.success.evictions
            series.denial_evictions = messages.denial.evictions


def describe(block: ServerBlock) -> str:
    """Returns "zones -> upstreams" of a server block, for people."""
    zones = " ".join(zone.text for zone in block.zones)
    if not block.forwards:
        return f"{zones} -> nobody: queries are refused"
    upstreams = [
        f"{upstream.transport.value}://{upstream.address}"
        for policy in block.forwards
        for upstream in policy.upstreams
    ]
    return f"{zones} -> {', '.join(upstreams) or 'no upstream: queries get SERVFAIL'}"


def _undeliverable(client: object, reply: bytes) -> None:
    """Stands in until a server takes the listener."""
