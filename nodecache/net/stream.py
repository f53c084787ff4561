"""One TCP connection of a stub resolver: framing, flow control, time limits (RFC 7766).

Knows nothing of names or caches. Invariants, while the connection is open:
- a message waits only while queries are unanswered or the client does not read its replies;
- octets are read only while no message waits, so one chunk is the most that ever waits;
- each query given to the resolver is counted as unanswered until its reply was written.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.engine.listener import Answers, Listener
from nodecache.wire.framing import Deframer, frame

_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class TcpBounds:
    """What TCP clients may hold, for how long.

    Attributes:
        connections: Open at once over all clients: a node has at most some 250 pods.
        connections_per_client: Of one address: processes in the node's own network share one.
        unanswered: Queries of one connection without reply: glibc and Go pipeline two.
        junk: Messages without any reply (QR set, too short) after which a connection closes.
        chunk_octets: Read at once, so also the most that waits unread in our own memory.
        unsent_octets: Written but not taken by the client, above which no more is read: one
            reply of the largest size.
        most_unsent_octets: The same, above which the connection is aborted: pending queries
            are answered even when no more are read.
        unsent_octets_in_all: The same over all connections.
        first_octet_s: From the connection to its first octet, as CoreDNS.
        message_s: From the first octet of a message to its last: it fits a few segments.
        idle_s: Without any message or reply (RFC 7766 section 6.2.3 asks for a few seconds;
            CoreDNS has 10).
        blocked_s: That a client may leave its replies unread, as CoreDNS's write timeout.
        sweep_s: Between two looks at all of these times.
    """

    connections: int = 1024
    connections_per_client: int = 256
    unanswered: int = 128
    junk: int = 16
    chunk_octets: int = 16 * 1024
    unsent_octets: int = 64 * 1024
    most_unsent_octets: int = 512 * 1024
    unsent_octets_in_all: int = 32 * 1024 * 1024
    first_octet_s: float = 3.0
    message_s: float = 5.0
    idle_s: float = 10.0
    blocked_s: float = 5.0
    sweep_s: float = 1.0


class Owner(Protocol):
    """The server, as a connection needs it."""

    listener: Listener
    resolver: Answers
    flush: Callable[[], None]
    counters: Counters
    loop: asyncio.AbstractEventLoop
    bounds: TcpBounds
    buffer: bytearray

    def touch(self, connection: Connection) -> None:
        """Notes that ``connection`` received something."""

    def forget(self, connection: Connection) -> None:
        """Takes ``connection`` out of the count."""


class Connection(asyncio.BufferedProtocol):
    """One client's connection; as ``client`` of the resolver it stands for where to reply.

    Attributes:
        sock: The accepted socket; the transport closes it.
        address: Where it comes from.
        client: Its IP address.
        unanswered: Queries that the resolver still has.
        active_at: Monotonic seconds of the last message or reply.
    """

    __slots__ = (
        "_blocked_at",
        "_closing_at",
        "_deframer",
        "_fault",
        "_has_spoken",
        "_is_at_eof",
        "_is_reading",
        "_is_scheduled",
        "_junk",
        "_partial_at",
        "_server",
        "_transport",
        "_waiting",
        "active_at",
        "address",
        "client",
        "sock",
        "unanswered",
    )

    def __init__(self, server: Owner, sock: socket.socket, address: Address, now: float) -> None:
        self.sock = sock
        self.address = address
        self.client = address.host
        self.unanswered = 0
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._deframer = Deframer()
        self._waiting: deque[bytes] = deque()
        self._junk = 0
        self._fault = ""
        self._has_spoken = False
        self._is_at_eof = False
        self._is_reading = True
        self._is_scheduled = False
        self.active_at = now
        # Monotonic seconds: the first octet of the message that is incomplete, since when the
        # client does not read, since when we are closing.
        self._partial_at = now
        self._blocked_at: float | None = None
        self._closing_at: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody loses anything if it is closed now."""
        return (
            self._transport is not None
            and self._closing_at is None
            and self._blocked_at is None
            and not (self.unanswered or self._waiting or self._deframer.pending_octets)
            and not self.unsent_octets
        )

    @property
    def is_closing(self) -> bool:
        """Whether it only has to send what was written."""
        return self._closing_at is not None

    @property
    def unsent_octets(self) -> int:
        """Octets written that the kernel has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins, called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._server.bounds.unsent_octets)
        self.settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends, called by the loop; replies still to come find nobody."""
        self._transport = None
        self._waiting.clear()
        self._server.forget(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Returns the server's one buffer: it is emptied before anybody else reads into it."""
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Takes received octets, and hands complete messages to the resolver."""
        if self._closing_at is not None:
            return
        now = time.monotonic()
        messages = self._deframer.feed(bytes(memoryview(self._server.buffer)[:nbytes]))
        if messages or nbytes == self._deframer.pending_octets:
            self._partial_at = now
        self._has_spoken = True
        self.active_at = now
        self._server.touch(self)
        if messages:
            self._waiting.extend(messages)
            self._work(now)

    def eof_received(self) -> bool:
        """Keeps a half-closed connection open until its queries are answered."""
        self._is_at_eof = True
        if self._deframer.pending_octets:
            self._deframer = Deframer()
            self._server.counters.count_drop("tcp_incomplete")
        self.settle()
        return self._closing_at is None

    def pause_writing(self) -> None:
        """Notes that the client does not read, called by the loop."""
        self._blocked_at = time.monotonic()

    def resume_writing(self) -> None:
        """Goes on once the client has read, called by the loop."""
        self._blocked_at = None
        self.active_at = time.monotonic()
        self.settle()

    def deliver(self, reply: bytes) -> None:
        """Sends a reply that the resolver had announced; counts it if nobody is left."""
        self.unanswered -= 1
        if self._transport is None or self._transport.is_closing():
            self._server.counters.count_drop("tcp_client_gone")
            return
        self.active_at = time.monotonic()
        self._transport.write(frame(reply))
        if self.unsent_octets > self._server.bounds.most_unsent_octets:
            self.abort("tcp_slow_client")
            return
        self.settle()

    def close(self) -> None:
        """Closes in order: what was written is still sent."""
        if self._transport is not None and self._closing_at is None:
            self._closing_at = time.monotonic()
            self._waiting.clear()
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Closes at once and resets, so that the kernel keeps no replies for who never reads."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self._server.counters.count_drop(reason)
        self._closing_at = time.monotonic()
        self._waiting.clear()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()

    def check(self, now: float) -> None:
        """Closes the connection if one of its times is over."""
        bounds = self._server.bounds
        stuck_at = self._closing_at if self._closing_at is not None else self._blocked_at
        if stuck_at is not None:
            if now - stuck_at > bounds.blocked_s:
                self.abort("tcp_slow_client")
        elif self._is_reading and self._is_partial_late(now):
            self._drop("tcp_incomplete")
        elif now - self.active_at > (bounds.idle_s if self._has_spoken else bounds.first_octet_s):
            self.close()

    def settle(self) -> None:
        """Reads on, pauses or closes, as the state now says."""
        transport = self._transport
        if transport is None or self._closing_at is not None:
            return
        bounds = self._server.bounds
        is_blocked = self._blocked_at is not None or self.unanswered >= bounds.unanswered
        if self._waiting and not is_blocked and not self._is_scheduled:
            # Not at once: we may be called by the resolver while it is answering others.
            self._is_scheduled = True
            self._server.loop.call_soon(self._resume)
        self._read(not is_blocked and not self._waiting)
        if self._is_at_eof and not (self._waiting or self.unanswered):
            self.close()

    def _read(self, is_wanted: bool) -> None:
        """Starts or stops reading; a half-closed connection never reads again."""
        transport = self._transport
        if self._is_at_eof or transport is None:
            return
        if is_wanted and not self._is_reading:
            self._partial_at = time.monotonic()
            transport.resume_reading()
        elif self._is_reading and not is_wanted:
            transport.pause_reading()
        self._is_reading = is_wanted

    def _resume(self) -> None:
        self._is_scheduled = False
        self._work(time.monotonic())

    def _work(self, now: float) -> None:
        """Gives waiting messages to the resolver as far as the bounds allow."""
        bounds = self._server.bounds
        replies: list[bytes] = []
        octets = 0
        while self._waiting and self._blocked_at is None and self.unanswered < bounds.unanswered:
            reply = self._ask(self._waiting.popleft(), now)
            if reply:
                replies.append(frame(reply))
                octets += len(reply)
                if octets >= bounds.unsent_octets:
                    self._write(replies)
                    octets = 0
        self._write(replies)
        self._server.flush()
        if self._fault:
            self._drop(self._fault)
        self.settle()

    def _ask(self, octets: bytes, now: float) -> bytes:
        """Returns the reply to one message, b"" if there is none now."""
        if not octets:
            # RFC 7766 knows no empty message: whoever sends one does not speak DNS.
            self._waiting.clear()
            self._fault = "tcp_empty_message"
            return b""
        self.unanswered += 1
        reply = self._server.resolver.query(octets, self._server.listener, self, now)
        if reply is None:
            return b""
        self.unanswered -= 1
        if not reply:
            self._junk += 1
            if self._junk >= self._server.bounds.junk:
                self._waiting.clear()
                self._fault = "tcp_junk"
        return reply

    def _write(self, replies: list[bytes]) -> None:
        """Writes and empties ``replies``: one system call for all of them."""
        if replies and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(replies))
        replies.clear()

    def _drop(self, reason: str) -> None:
        self._server.counters.count_drop(reason)
        self.close()

    def _is_partial_late(self, now: float) -> bool:
        late_at = self._partial_at + self._server.bounds.message_s
        return now > late_at and self._deframer.pending_octets > 0
