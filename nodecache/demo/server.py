"""Serves the demo zone over UDP and TCP on one loopback port; pipelined queries in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from nodecache.demo.zone import compose_reply

TCP_IDLE_S = 10.0  # as CoreDNS
PORT_ATTEMPTS = 20


async def serve(host: str, port: int) -> None:
    """Serves until cancelled; says where on standard output once it does (port 0 chooses one).

    Raises:
        OSError: The port is taken.
    """
    loop = asyncio.get_running_loop()
    stream, datagram = bind_both(host, port)
    transport, _ = await loop.create_datagram_endpoint(_Datagrams, sock=datagram)
    server = await asyncio.start_server(_serve_stream, sock=stream)
    print_line(f"listening on {host} {stream.getsockname()[1]}")
    try:
        await server.serve_forever()
    finally:
        transport.close()


def bind_both(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Returns a TCP listener and a UDP socket on the same port; port 0 chooses a free one."""
    for attempt in range(PORT_ATTEMPTS):
        stream = socket.create_server((host, port))
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            datagram.bind(stream.getsockname())
        except OSError:
            stream.close()
            datagram.close()
            if port or attempt == PORT_ATTEMPTS - 1:
                raise
        else:
            return stream, datagram
    raise AssertionError("the last attempt returns or raises")


class _Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if reply := compose_reply(data, is_udp=True):
            self.transport.sendto(reply, addr)


async def _serve_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the queries of one connection, in order, until it is idle or ends."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        while True:
            async with asyncio.timeout(TCP_IDLE_S):
                length = int.from_bytes(await reader.readexactly(2))
                query = await reader.readexactly(length)
            reply = compose_reply(query, is_udp=False)
            if not reply:
                break
            writer.write(len(reply).to_bytes(2) + reply)
            await writer.drain()
    writer.close()


def print_line(text: str) -> None:
    """Writes a line at once, also into a pipe."""
    print(text, flush=True)  # noqa: T201 (a program for people, not part of the daemon)
