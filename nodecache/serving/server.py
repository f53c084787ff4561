"""One listening address: its two sockets, what serves them, and the server blocks behind it."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nodecache.cache.packet import PacketCache
from nodecache.config.model import Address, Timeouts
from nodecache.net.stream import TcpBounds
from nodecache.net.tcp import TcpServer
from nodecache.net.udp import UdpServer
from nodecache.resolve.block import BlockState
from nodecache.resolve.listener import Listener


@dataclass(slots=True)
class Server:
    """What serves one address.

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


def tcp_bounds(timeouts: Iterable[Timeouts | None]) -> TcpBounds:
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
