"""One TCP connection of a stub resolver on the loop: carries out what its ``Stream`` says."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from time import monotonic
from typing import Protocol, cast

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.net.stream import CLOSING, READING, Overdue, Stream, TcpBounds
from nodecache.resolve.listener import Answers, Listener
from nodecache.wire.framing import frame

_LINGER_NOT = struct.pack("ii", 1, 0)


class Owner(Protocol):
    """The server (net/tcp.py, which imports this module), as a connection needs it."""

    listener: Listener
    resolver: Answers
    flush: Callable[[], None]
    counters: Counters
    loop: asyncio.AbstractEventLoop
    bounds: TcpBounds
    buffer: bytearray

    def touch(self, connection: ClientConnection) -> None:
        """Notes that ``connection`` received something."""

    def forget(self, connection: ClientConnection) -> None:
        """Takes ``connection`` out of the count."""


class ClientConnection(asyncio.BufferedProtocol):
    """One client's connection; as ``client`` of the resolver it stands for where to reply.

    Attributes:
        sock: The accepted socket; the transport closes it.
        address: Where it comes from.
        stream: What is known of it.
        is_reading: Octets that come are read.
    """

    __slots__ = (
        "_is_scheduled",
        "_server",
        "_transport",
        "address",
        "is_reading",
        "sock",
        "stream",
    )

    def __init__(self, server: Owner, sock: socket.socket, address: Address, now: float) -> None:
        self.sock = sock
        self.address = address
        self.stream = Stream(server.bounds, now)
        self._server = server
        self._transport: asyncio.Transport | None = None
        self.is_reading = True
        self._is_scheduled = False

    @property
    def is_idle(self) -> bool:
        """Whether nobody loses anything if it is closed now."""
        return self._transport is not None and self.stream.is_idle and not self.unsent_octets

    @property
    def is_closing(self) -> bool:
        """Whether it only has to send what was written."""
        return self.stream.state is CLOSING

    @property
    def unsent_octets(self) -> int:
        """Octets written that the kernel has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins, called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._server.bounds.unsent_octets)
        self._settle(monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends, called by the loop; replies still to come find nobody."""
        self._transport = None
        self.stream.close(monotonic())
        self._server.forget(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Returns the server's one buffer: it is emptied before anybody else reads into it."""
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Takes received octets, and hands complete messages to the resolver."""
        stream = self.stream
        if stream.state is CLOSING:
            return
        now = monotonic()
        is_work = stream.receive(bytes(memoryview(self._server.buffer)[:nbytes]), now)
        self._server.touch(self)
        if is_work:
            self._work(now)

    def eof_received(self) -> bool:
        """Keeps a half-closed connection open until its queries are answered."""
        if self.stream.end():
            self._server.counters.count_drop("tcp_incomplete")
        self._settle(monotonic())
        return not self.is_closing

    def pause_writing(self) -> None:
        """Notes that the client does not read, called by the loop while we write."""
        self.stream.is_unread = True

    def resume_writing(self) -> None:
        """Goes on once the client has read, called by the loop."""
        now = monotonic()
        self.stream.resume(now)
        self._settle(now)

    def deliver(self, reply: bytes) -> None:
        """Sends a reply that the resolver had announced; counts it if nobody is left."""
        now = monotonic()
        self.stream.answer(now)
        if self._transport is None or self._transport.is_closing():
            self._server.counters.count_drop("tcp_client_gone")
            return
        self._transport.write(frame(reply))
        if self.unsent_octets > self._server.bounds.most_unsent_octets:
            self.abort(Overdue.CLIENT.value, now)
            return
        self._settle(now)

    def close(self, now: float) -> None:
        """Closes in order: what was written is still sent."""
        if self._transport is not None and not self.is_closing:
            self.stream.close(now)
            self._transport.close()

    def abort(self, reason: str, now: float) -> None:
        """Closes at once and resets, so that the kernel keeps no replies for who never reads."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self._server.counters.count_drop(reason)
        self.stream.close(now)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()

    def check(self, now: float) -> None:
        """Closes the connection if one of its times is over."""
        overdue = self.stream.overdue(now)
        if overdue is Overdue.CLIENT:
            self.abort(overdue.value, now)
        elif overdue is Overdue.MESSAGE:
            self._drop(overdue.value, now)
        elif overdue is Overdue.IDLE:
            self.close(now)

    def _settle(self, now: float) -> None:
        """Reads on, pauses, works or closes, as the state now says."""
        transport, stream = self._transport, self.stream
        if transport is None:
            return
        state = stream.settle(now)
        if state is CLOSING:
            transport.close()
            return
        is_wanted = state is READING
        if not is_wanted and stream.has_work and not self._is_scheduled:
            # Not at once: we may be called by the resolver while it is answering others.
            self._is_scheduled = True
            self._server.loop.call_soon(self._resume)
        if is_wanted != self.is_reading and not stream.is_at_eof:  # a half-closed one is past it
            self.is_reading = is_wanted
            (transport.resume_reading if is_wanted else transport.pause_reading)()

    def _resume(self) -> None:
        self._is_scheduled = False
        self._work(monotonic())

    def _work(self, now: float) -> None:
        """Gives waiting messages to the resolver as far as the bounds allow."""
        stream, server = self.stream, self._server
        replies: list[bytes] = []
        octets = 0
        is_junk = False
        while (message := stream.take()) is not None:
            reply = server.resolver.query(message, server.listener, self, now)
            is_junk = stream.judge(reply)
            if reply:
                replies.append(frame(reply))
                octets += len(reply)
                if octets >= server.bounds.unsent_octets:
                    self._write(replies)
                    octets = 0
        self._write(replies)
        server.flush()
        if is_junk:
            self._drop("tcp_junk", now)
        self._settle(now)

    def _write(self, replies: list[bytes]) -> None:
        """Writes and empties ``replies``: one system call for all of them."""
        if replies and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(replies))
        replies.clear()

    def _drop(self, reason: str, now: float) -> None:
        self._server.counters.count_drop(reason)
        self.close(now)
