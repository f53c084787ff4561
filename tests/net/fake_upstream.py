"""A DNS server on loopback that does what the test says, right or wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from nodecache.wire.framing import Deframer, frame
from tests.upstreams.forwarding import answer


class Peer(asyncio.Protocol):
    """One TCP connection, as the server sees it.

    Attributes:
        number: 0 for the first connection, and so on.
        queries: Messages received on it.
    """

    def __init__(self, server: FakeUpstream) -> None:
        self.server = server
        self.number = -1
        self.queries: list[bytes] = []
        self._deframer = Deframer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.number = len(self.server.peers)
        self.server.peers.append(self)

    def data_received(self, data: bytes) -> None:
        for query in self._deframer.feed(data):
            self.queries.append(query)
            self.server.on_query(self, query)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.lost += 1

    def send(self, message: bytes) -> None:
        self.transport.write(frame(message))

    def send_raw(self, octets: bytes) -> None:
        self.transport.write(octets)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class DatagramPeer(asyncio.DatagramProtocol):
    """The UDP side: one script for all datagrams."""

    def __init__(self, server: FakeUpstream) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.server.datagrams.append((data, addr))
        for reply in self.server.on_datagram(data):
            self.transport.sendto(reply, addr)


class FakeUpstream:
    """The server.

    Attributes:
        on_query: Called for each query over TCP; answers it unless a test replaces it.
        on_datagram: Returns the datagrams to send for one that came.
        peers: All connections ever accepted.
        datagrams: All datagrams received, with their source.
        lost: Connections that ended.
    """

    def __init__(self) -> None:
        self.on_query: Callable[[Peer, bytes], None] = lambda peer, query: peer.send(answer(query))
        self.on_datagram: Callable[[bytes], list[bytes]] = lambda query: [answer(query)]
        self.peers: list[Peer] = []
        self.datagrams: list[tuple[bytes, tuple[str, int]]] = []
        self.lost = 0
        self.port = 0


@asynccontextmanager
async def running(
    context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[FakeUpstream]:
    """Runs a server over TCP (TLS with a context) and UDP on one port of 127.0.0.1."""
    upstream = FakeUpstream()
    server, transport = await _listen(upstream, context, port)
    try:
        yield upstream
    finally:
        transport.close()
        server.close()
        for peer in upstream.peers:
            peer.transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0.01)


async def _listen(
    upstream: FakeUpstream, context: ssl.SSLContext | None, port: int
) -> tuple[asyncio.Server, asyncio.DatagramTransport]:
    """Opens both sockets; where any port will do, until one is free over TCP and UDP."""
    loop = asyncio.get_running_loop()
    while True:
        server = await loop.create_server(lambda: Peer(upstream), "127.0.0.1", port, ssl=context)
        upstream.port = server.sockets[0].getsockname()[1]
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: DatagramPeer(upstream), local_addr=("127.0.0.1", upstream.port)
            )
        except OSError:
            server.close()
            if port:
                raise
        else:
            return server, transport


def unused_port() -> int:
    """Returns a TCP port of 127.0.0.1 where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return cast("int", sock.getsockname()[1])
