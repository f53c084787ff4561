"""What listens where: addresses are opened, kept and given up as the configuration says.

``apply`` goes over from one configuration to the next: sockets, series, packets and messages that
are still right stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic

from nodecache.cache.packet import PacketCache
from nodecache.config.model import Address, Config
from nodecache.counters import Counters
from nodecache.net.listening import ListeningSockets
from nodecache.net.mmsg import seal
from nodecache.net.sockets import has_ipv6
from nodecache.net.tcp import TcpServer
from nodecache.net.udp import UdpServer
from nodecache.resolve.listener import Listener
from nodecache.resolve.resolver import Resolver
from nodecache.resolve.zones import Zones
from nodecache.serving.addresses import WILDCARDS, group_by_address
from nodecache.serving.beating import Voice
from nodecache.serving.blocks import Blocks
from nodecache.serving.numbers import Numbers
from nodecache.serving.routes import Routes
from nodecache.serving.server import Server, tcp_bounds

_MOST_PACKETS = 16_384  # of one listening address
# How long clients of an address that a reload took away may still wait for their replies.
_GRACE_S = 5.0


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
        self._routes = Routes(resolver, counters)
        self._numbers = Numbers(self.servers, blocks, counters)

    def apply(self, config: Config) -> None:
        """Serves ``config`` instead of what was served before; nothing that holds is dropped.

        Raises:
            SocketError: An address cannot be used; everything is as it was.
        """
        wanted, labels = group_by_address(config.blocks, has_ipv6=has_ipv6())
        added = self._open(
            (address, labels[address]) for address in wanted if address not in self.servers
        )
        states = self._blocks.apply(config, monotonic())
        self._counters.plugins.clear()
        for server in added:
            self.servers[server.address] = server
        octets = self._blocks.packet_octets // max(1, len(wanted))
        for address, indices in wanted.items():
            server = self.servers[address]
            server.packets.resize(octets)
            server.packets.doubt()
            server.tcp.bounds = tcp_bounds(config.blocks[index].timeouts for index in indices)
            self._routes.lead(server, labels[address], tuple(states[index] for index in indices))
        for address in self.servers.keys() - wanted.keys():
            self._leave(self.servers.pop(address))
        self._numbers.apply()
        if self._is_serving:
            for server in added:
                server.start()

    def start(self) -> None:
        """Begins to serve."""
        self._is_serving = True
        for server in self.servers.values():
            server.start()

    def places(self, hosts: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yields hosts and ports where we answer; ``hosts`` in place of "every address"."""
        for address in self.servers:
            own = [host for host in hosts if (":" in host) == (":" in address.host)]
            is_wildcard = address.host in WILDCARDS
            for host in own if is_wildcard and own else [address.host]:
                yield host, address.port

    def voices(self, hosts: Sequence[str], port: int) -> list[Voice]:
        """Returns where to speak from as one of ``hosts``: one voice for each family."""
        found: dict[bool, Voice] = {}
        for host in hosts:
            is_ipv6 = ":" in host
            server = self.servers.get(Address(host, port))
            server = server or self.servers.get(Address(WILDCARDS[is_ipv6], port))
            if server is not None and is_ipv6 not in found:
                found[is_ipv6] = Voice(server.udp_socket, host, port, server.packets.reads_until)
        return list(found.values())

    def yield_sockets(self) -> None:
        """Reads no more: what is queued and what is to come is a successor's."""
        for server in self.servers.values():
            server.udp.pause()
            server.tcp.pause()

    def stop_reading_datagrams(self) -> None:
        """Takes the queries that are queued in the UDP sockets, and no more."""
        for server in self.servers.values():
            server.udp.stop_reading()

    def accept_waiting(self) -> None:
        """Takes the connections that wait to be accepted."""
        for server in self.servers.values():
            server.tcp.accept_waiting()

    async def drain_connections(self, grace_s: float) -> None:
        """Takes no more over TCP; returns when the clients have what they asked for."""
        await asyncio.gather(*(server.tcp.close(grace_s) for server in self.servers.values()))

    def close(self) -> None:
        """Closes all sockets."""
        for task in self._leaving:
            task.cancel()
        for server in self.servers.values():
            server.close()

    def _open(self, addresses: Iterable[tuple[Address, str]]) -> list[Server]:
        """Opens listeners that do not serve yet; all of them or, with SocketError, none."""
        opened: list[Server] = []
        try:
            for address, label in addresses:
                opened.append(self._open_one(address, label))
        except BaseException:
            for server in opened:
                server.close()
                self._give_up(server.address)
            raise
        return opened

    def _give_up(self, address: Address) -> None:
        self._sockets.give_up(f"udp {address}")
        self._sockets.give_up(f"tcp {address}")

    def _open_one(self, address: Address, label: str) -> Server:
        family = "2" if ":" in address.host else "1"
        packets = PacketCache(_MOST_PACKETS, 0, seal)
        udp_socket = self._sockets.udp(address)
        try:
            tcp_socket = self._sockets.tcp(address)
        except BaseException:
            udp_socket.close()
            self._give_up(address)
            raise
        udp_listener = self._listen(label, "udp", family, packets)
        tcp_listener = self._listen(label, "tcp", family)
        shared = (self._resolver, self._flush, self._counters, self._loop)
        udp = UdpServer(udp_socket, udp_listener, *shared)
        tcp = TcpServer(tcp_socket, tcp_listener, *shared)
        return Server(
            address, packets, udp_socket, tcp_socket, udp_listener, tcp_listener, udp, tcp
        )

    def _listen(
        self, label: str, proto: str, family: str, packets: PacketCache | None = None
    ) -> Listener:
        """Returns a listener that no query is led from yet."""
        series = self._counters.query_series(label, "dropped", proto, family)
        return Listener(label, proto, family, Zones((), series), _undeliverable, packets)

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


def _undeliverable(client: object, reply: bytes) -> None:
    """Stands in until a server takes the listener."""
