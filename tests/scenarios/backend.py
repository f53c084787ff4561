"""A CoreDNS-like backend: a program that takes orders as JSON lines and says what it has seen.

Over TCP one answer after the other on each connection; a connection is closed after 10 s without
a query, after 3 s if it never had one. Over UDP every answer on its own.

Orders on standard input, one JSON object each, one JSON line as the answer:
``{"fault": NAME}`` changes what happens to queries from now on (see ``FAULTS``),
``{"delay_ms": N}`` makes each answer take that long, ``{}`` only asks for the report.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import sys
from collections import deque
from time import monotonic
from typing import Any, cast

import uvloop

from tests.scenarios.names import bare, response

FIRST_QUERY_S = 3.0
IDLE_S = 10.0
LATE_S = 6.0  # behind the end of every stub's and every cache's patience
SWEEP_S = 0.2
SERVFAIL, TC = 2, 0x0200

# "refuse" and "fin", "reset" end what is open; the others wait for the next query.
FAULTS = (
    "none", "fin", "reset", "refuse", "hang", "late", "half",
    "wrong_id", "wrong_question", "servfail", "tc",
)  # fmt: skip

_LINGER_NOT = struct.pack("ii", 1, 0)


class Backend:
    """The listener, what it does wrong at present, and what it has seen.

    Attributes:
        fault: One of FAULTS.
        delay_s: How long an answer takes.
        ttl_s: Of the records.
        queries, unique: Over TCP; of those, for names that no client asks twice.
        longest_idle_s, oldest_s: Of any connection so far.
    """

    def __init__(self, host: str, port: int, ttl_s: int, delay_s: float) -> None:
        self.fault = "none"
        self.ttl_s = ttl_s
        self.delay_s = delay_s
        self.streams: set[Stream] = set()
        self.queries = self.unique = self.accepted = self.most = 0
        self.longest_idle_s = self.oldest_s = 0.0
        self.by_second: dict[int, int] = {}
        self._address = (host, port)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begins to listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Stream(self), *self._address, backlog=512, reuse_address=True
        )

    async def obey(self, order: dict[str, Any]) -> None:
        """Carries out an order."""
        self.delay_s = order.get("delay_ms", self.delay_s * 1e3) / 1e3
        fault = order.get("fault", self.fault)
        assert fault in FAULTS
        if fault == self.fault:
            return
        if self.fault == "refuse":
            await self.open()
        self.fault = fault
        if fault == "refuse" and self._server is not None:
            self._server.close()
        if fault in ("fin", "reset", "refuse"):
            for stream in list(self.streams):
                stream.end(is_reset=fault == "reset")

    def count(self, query: bytes) -> None:
        """Counts a query."""
        self.queries += 1
        self.unique += query[13:14] in b"uU"
        second = int(monotonic())
        self.by_second[second] = self.by_second.get(second, 0) + 1

    def sweep(self) -> None:
        """Closes what is idle, as CoreDNS does."""
        now = monotonic()
        for stream in list(self.streams):
            self.observe(stream, now)
            if not stream.queue and now - stream.active_at > stream.patience_s:
                stream.end()

    def observe(self, stream: Stream, now: float) -> None:
        """Takes note of a connection's age, and of how long nothing was asked on it."""
        self.oldest_s = max(self.oldest_s, now - stream.began)
        if not stream.queue:
            self.longest_idle_s = max(self.longest_idle_s, now - stream.active_at)

    def report(self) -> dict[str, Any]:
        """Returns everything seen so far; ``by_second`` by the machine's monotonic clock."""
        self.sweep()
        return {
            "queries": self.queries,
            "unique": self.unique,
            "accepted": self.accepted,
            "open": len(self.streams),
            "most": self.most,
            "oldest_s": self.oldest_s,
            "longest_idle_s": self.longest_idle_s,
            "by_second": self.by_second,
        }


class Stream(asyncio.Protocol):
    """One connection: queries are answered one after the other."""

    def __init__(self, backend: Backend) -> None:
        self.began = self.active_at = monotonic()
        self.patience_s = FIRST_QUERY_S
        self.queue: deque[bytes] = deque()
        self._backend = backend
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        backend = self._backend
        backend.accepted += 1
        backend.streams.add(self)
        backend.most = max(backend.most, len(backend.streams))

    def data_received(self, data: bytes) -> None:
        backend = self._backend
        backend.observe(self, monotonic())
        buffer = self._buffer + data
        while len(buffer) >= 2 and len(buffer) >= 2 + (size := int.from_bytes(buffer[:2])):
            query, buffer = buffer[2 : 2 + size], buffer[2 + size :]
            backend.count(query)
            self.queue.append(query)
            if len(self.queue) == 1:
                self._serve()
        self._buffer = buffer
        self.active_at = monotonic()
        self.patience_s = IDLE_S

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.observe(self, monotonic())
        self._backend.streams.discard(self)
        self._transport = None

    def end(self, *, is_reset: bool = False) -> None:
        """Closes the connection."""
        if self._transport is None:
            return
        if is_reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self._transport.abort()
        else:
            self._transport.close()

    def _serve(self) -> None:
        """Answers the first query of the queue, now or later; the rest waits for it."""
        backend = self._backend
        if backend.fault == "hang":
            return
        delay_s = LATE_S if backend.fault == "late" else backend.delay_s
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        if self._transport is None or not self.queue:
            return
        octets = compose(self.queue.popleft(), self._backend)
        if octets is None:
            self.end(is_reset=self._backend.fault == "reset")
            return
        self._transport.write(octets)
        self.active_at = monotonic()
        if self.queue:
            self._serve()


def compose(query: bytes, backend: Backend) -> bytes | None:
    """Returns what a query gets, framed; None for the end of its connection."""
    fault = backend.fault
    if fault in ("fin", "reset", "refuse"):
        return None
    if fault in ("servfail", "tc"):
        message = bare(query, SERVFAIL if fault == "servfail" else TC)
    elif fault == "wrong_id":
        message = response(query, backend.ttl_s, poison=True)
        message = bytes((message[0] ^ 1, message[1] ^ 1)) + message[2:]
    elif fault == "wrong_question":
        message = response(query[:12] + b"\5wrong" + query[12:], backend.ttl_s, poison=True)
    else:
        message = response(query, backend.ttl_s)
    framed = len(message).to_bytes(2, "big") + message
    return framed[: len(framed) // 2] if fault == "half" else framed


class Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram whole, however long the answer is."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._backend.fault == "none":
            self._transport.sendto(response(data, self._backend.ttl_s), addr)


async def serve(backend: Backend, host: str, port: int) -> None:
    """Serves until standard input ends."""
    loop = asyncio.get_running_loop()
    await backend.open()
    await loop.create_datagram_endpoint(lambda: Datagrams(backend), (host, port))
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            backend.sweep()

    sweeping = loop.create_task(sweep())
    print("{}", flush=True)
    while line := await orders.readline():
        await backend.obey(json.loads(line))
        print(json.dumps(backend.report()), flush=True)
    sweeping.cancel()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--ttl", type=int, default=30)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    arguments = parser.parse_args()
    backend = Backend(arguments.host, arguments.port, arguments.ttl, arguments.delay_ms / 1e3)
    uvloop.run(serve(backend, arguments.host, arguments.port))


if __name__ == "__main__":
    main()
