"""Does what the forwarder says: opens, writes, closes; and tells it what happened, with the time.

Decides nothing. Whatever a peer does ends in ``Forwarder.closed``, never in an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic
from typing import cast

from nodecache.config.model import Address, Transport, Upstream
from nodecache.net.dial import connect, sockaddr
from nodecache.net.tls import checked_name, error_text, make_client_context
from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.forwarder import Forwarder
from nodecache.upstreams.wording import ENDED, broken, no_connection

log = logging.getLogger(__name__)

MAX_DATAGRAM_OCTETS = 65535
DATAGRAMS_AT_ONCE = 16  # strays read before the loop gets its turn
USER_TIMEOUT_MS = 2000  # octets that the peer's kernel does not acknowledge for so long
KEEPALIVE_IDLE_S = 2  # so that the death of an idle connection is found before its next query
KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_PROBES = 3
SECONDS_BETWEEN_WARNINGS = 30.0  # for each upstream

# Write buffers need no bound of their own: a connection has at most 16 pending queries.


@dataclass(slots=True)
class _Trouble:
    """An upstream that could not be reached.

    Attributes:
        since: Of the first failure, monotonic seconds.
        warned_at: When that was last logged.
        left_out: Failures since then.
        is_over: It has been reached since it was last logged.
    """

    since: float
    warned_at: float = -inf
    left_out: int = 0
    is_over: bool = False


class UpstreamShell:
    """All sockets towards upstreams.

    Args:
        forwarder: The engine.
        loop: asyncio's or uvloop's.
        after: Called after each event that the forwarder was told; it has ``flush`` called.
    """

    def __init__(
        self, forwarder: Forwarder, loop: asyncio.AbstractEventLoop, after: Callable[[], None]
    ) -> None:
        self.forwarder = forwarder
        self._outbox = forwarder.outbox
        self._loop = loop
        self._after = after
        self._transports: dict[Connection, asyncio.Transport] = {}
        self._sockets: dict[Connection, socket.socket] = {}
        self._dials: dict[Connection, asyncio.Task[None]] = {}
        self._contexts: dict[Upstream, asyncio.Task[ssl.SSLContext]] = {}
        self._troubles: dict[Address, _Trouble] = {}
        self._is_flushing = False
        self._is_closed = False

    def flush(self) -> None:
        """Does what the forwarder has to be done; cheap when there is nothing."""
        if self._is_flushing or self._is_closed:
            return
        outbox = self._outbox
        if not (outbox.to_write or outbox.to_open or outbox.to_close):
            return
        self._is_flushing = True
        try:
            # Carrying out an action may bring the next: a socket that cannot be opened.
            while outbox.to_write or outbox.to_open or outbox.to_close:
                self._carry_out()
        finally:
            self._is_flushing = False

    def _carry_out(self) -> None:
        outbox = self._outbox
        opens, outbox.to_open = outbox.to_open, []
        writes, outbox.to_write = outbox.to_write, []
        closes, outbox.to_close = outbox.to_close, []
        for connection in opens:
            if connection.state is not State.CLOSED:
                self._open(connection)
        for connection in writes:
            transport = self._transports.get(connection)
            if transport is not None and connection.out and not transport.is_closing():
                transport.write(connection.take_out())
        for connection in closes:
            self._close(connection)

    def _open(self, connection: Connection) -> None:
        if connection.pool.is_stream:
            self._dials[connection] = self._loop.create_task(self._dial(connection))
            return
        try:
            sock = _open_socket(connection.upstream.address, socket.SOCK_DGRAM)
        except OSError as error:
            self._lost(connection, error)
            return
        self._sockets[connection] = sock
        try:
            sock.connect(sockaddr(connection.upstream.address))
            connection.locate = partial(_own_end, sock)
            sock.send(connection.take_out())
            self._loop.add_reader(sock.fileno(), self._read_datagrams, connection, sock)
        except OSError as error:
            self._lost(connection, error)

    def _close(self, connection: Connection) -> None:
        """Lets go of whatever the connection has: a dial, a transport or a UDP socket."""
        dial = self._dials.pop(connection, None)
        if dial is not None:
            dial.cancel()
        transport = self._transports.pop(connection, None)
        if transport is not None:
            # Nothing is left to send: every query on it was answered or given up.
            transport.abort()
        sock = self._sockets.pop(connection, None)
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            sock.close()

    # Streams.

    async def _dial(self, connection: Connection) -> None:
        """Opens a TCP or TLS connection; ends in ``made`` or in ``_lost``."""
        upstream = connection.upstream
        try:
            is_tls = upstream.transport is Transport.TLS
            context = await self._context(upstream) if is_tls else None
            sock = await self._connect(upstream.address)
            await self._loop.create_connection(
                lambda: _Stream(self, connection),
                sock=sock,
                ssl=context,
                server_hostname=checked_name(upstream) if context is not None else None,
            )
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                self._contexts.pop(upstream, None)  # the files may be replaced until the next dial
            self._dials.pop(connection, None)
            self._lost(connection, error)

    async def _connect(self, address: Address) -> socket.socket:
        sock = _open_socket(address, socket.SOCK_STREAM)
        try:
            await connect(sock, sockaddr(address))
        except BaseException:  # a cancelled dial must not leave its socket behind either
            sock.close()
            raise
        return sock

    async def _context(self, upstream: Upstream) -> ssl.SSLContext:
        """Returns the TLS context of an upstream, made once. Raises OSError.

        In a thread: reading the system's trust store takes tens of milliseconds.
        """
        making = self._contexts.get(upstream)
        if making is None:
            making = self._loop.create_task(asyncio.to_thread(make_client_context, upstream))
            making.add_done_callback(lambda made: made.cancelled() or made.exception())
            self._contexts[upstream] = making
        try:
            return await asyncio.shield(making)
        except OSError:
            self._contexts.pop(upstream, None)
            raise

    def made(self, connection: Connection, transport: asyncio.Transport) -> None:
        """Takes note that a stream is open."""
        self._dials.pop(connection, None)
        if connection.state is State.CLOSED or self._is_closed:
            transport.abort()
            return
        self._transports[connection] = transport
        # Asked for now: once it has ended, nobody knows any more.
        connection.locate = partial(_place, transport.get_extra_info("sockname"))
        log.debug("upstream %s: a connection is open", connection.upstream.address)
        self._note_reached(connection.upstream)
        self.forwarder.connected(connection, monotonic())
        self._after()

    def received(self, connection: Connection, octets: bytes) -> None:
        """Hands octets to the forwarder."""
        self.forwarder.received(connection, octets, monotonic())
        self._after()

    def stream_lost(self, connection: Connection, error: Exception | None) -> None:
        """Takes note that a stream ended."""
        if self._transports.pop(connection, None) is not None:
            self._lost(connection, error)

    # Datagrams.

    def _read_datagrams(self, connection: Connection, sock: socket.socket) -> None:
        try:
            for _ in range(DATAGRAMS_AT_ONCE):
                octets = sock.recv(MAX_DATAGRAM_OCTETS)
                self.forwarder.received(connection, octets, monotonic())
                if connection.state is State.CLOSED:
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:  # an ICMP message, "connection refused"
            self._lost(connection, error)
            return
        self._note_reached(connection.upstream)
        self._after()

    # Events.

    def _lost(self, connection: Connection, error: Exception | None) -> None:
        if connection.state is State.CLOSED or self._is_closed:
            return
        connection.error = _error_text(connection, error)
        if not connection.pool.is_stream:
            self._close(connection)
        is_unopened = connection.state is State.CONNECTING or not connection.pool.is_stream
        if is_unopened and error is not None:
            self._warn(connection.upstream, error)
        if connection.pool.is_stream:
            log.debug("upstream %s: a connection ended: %s", connection.upstream.address, error)
        self.forwarder.closed(connection, monotonic())
        self._after()

    def _warn(self, upstream: Upstream, error: Exception) -> None:
        """Logs why a connection cannot be opened: once in a while for each upstream."""
        now, address = monotonic(), upstream.address
        trouble = self._troubles.setdefault(address, _Trouble(now))
        if now - trouble.warned_at < SECONDS_BETWEEN_WARNINGS:
            trouble.left_out += 1
            return
        if trouble.is_over:
            trouble = self._troubles[address] = _Trouble(now, left_out=trouble.left_out)
        left_out, trouble.left_out, trouble.warned_at = trouble.left_out, 0, now
        more = f" ({left_out} more failures since the last report)" if left_out else ""
        kind = upstream.transport.value
        log.warning("upstream %s cannot be reached over %s: %s%s", address, kind, error, more)

    def _note_reached(self, upstream: Upstream) -> None:
        """Logs that what was warned of is over: once a warning, so no flapping fills a log."""
        trouble = self._troubles.get(upstream.address)
        if trouble is not None and not trouble.is_over:
            trouble.is_over = True
            after_s, kind = monotonic() - trouble.since, upstream.transport.value
            log.info(
                "upstream %s is reached over %s, after %.1f s", upstream.address, kind, after_s
            )

    async def close(self) -> None:
        """Closes all sockets. Exchanges under way are not ended: their owner goes as well."""
        self._is_closed = True
        dials = list(self._dials.values())
        for connection in [*self._dials, *self._transports, *self._sockets]:
            self._close(connection)
        await asyncio.gather(*dials, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop


class _Stream(asyncio.Protocol):
    """One TCP or TLS connection."""

    __slots__ = ("_connection", "_shell", "_socket")

    def __init__(self, shell: UpstreamShell, connection: Connection) -> None:
        self._shell = shell
        self._connection = connection
        self._socket: socket.socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = transport.get_extra_info("socket")
        self._shell.made(self._connection, cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._shell.received(self._connection, data)
        if self._connection.pending:
            self._acknowledge_now()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shell.stream_lost(self._connection, exc)

    def _acknowledge_now(self) -> None:
        """Sends the ACK that the kernel would put off.

        Servers that use Nagle's algorithm (knot, unbound, BIND) hold the next small response
        back until it comes: 43 ms for each round of pipelined queries, 0.2 ms with it.
        """
        if self._socket is not None and _QUICKACK is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def _open_socket(address: Address, kind: socket.SocketKind) -> socket.socket:
    """Returns a non-blocking socket with the options that we want. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    if kind is not socket.SOCK_STREAM:
        return sock
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:
        sock.close()
        raise
    return sock


def _own_end(sock: socket.socket) -> str:
    """Returns a socket's own address and port as text, "" when it is closed."""
    try:
        return _place(sock.getsockname())
    except OSError:
        return ""


def _place(name: tuple[str, int] | tuple[str, int, int, int] | None) -> str:
    return str(Address(name[0], name[1])) if name else ""


def _error_text(connection: Connection, error: Exception | None) -> str:
    """Returns why a connection ended, or cannot be opened, as Go would say it."""
    upstream, local = connection.upstream, connection.local
    if error is None:
        return ENDED
    if isinstance(error, ssl.SSLError):
        return error_text(error, upstream)
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number).lower() if number else str(error)
    if not local:
        return no_connection(upstream, reason, "connect" if number else "")
    return broken(upstream, local, reason, "read" if number else "")
