"""The TCP listener: accepts connections, and bounds how many there are.

What happens on one of them is in net/stream.py and net/connection.py. They are accepted here, not
by the loop's own server: asyncio and uvloop log a traceback for each accept(2) without descriptors,
libuv throws the waiting clients out, and neither lets us decide who goes when all is full.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.net.connection import ClientConnection
from nodecache.net.stream import Overdue, TcpBounds
from nodecache.resolve.listener import Answers, Listener

# Connections accepted before the loop's other work gets its turn.
_ACCEPTS_PER_TURN = 16

# Until accept(2) is tried again after it failed for want of descriptors.
_ACCEPT_RETRY_S = 0.1

# How long an aborted connection may take to tell us that it is gone.
_ABORT_S = 1.0

# A connection is closed at the end when nothing has come over it for this long.
_QUIET_S = 0.2
_NEVER_QUIET_S = 1.0

# accept(2) hands over the error of a connection that died in the queue: the next may be well.
_DIED_IN_QUEUE = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)


class TcpServer:
    """Serves one listening TCP socket.

    ``listener.deliver`` is set to send late replies; the client given to ``resolver.query`` is
    the connection.

    Args:
        sock: Bound, listening, non-blocking; stays the caller's, who closes it after ``close``.
        listener: Its labels and routes.
        resolver: Answers queries.
        flush: Called once after all queries of one received chunk went to ``resolver``.
        counters: Drops are counted here, each reason starts with "tcp_".
        loop: asyncio's or uvloop's.
        bounds: What clients may hold.
    """

    def __init__(
        self,
        sock: socket.socket,
        listener: Listener,
        resolver: Answers,
        flush: Callable[[], None],
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        bounds: TcpBounds = TcpBounds(),  # noqa: B008 - a frozen value
    ) -> None:
        self.listener = listener
        self.resolver = resolver
        self.flush = flush
        self.counters = counters
        self.loop = loop
        self.bounds = bounds
        self.buffer = bytearray(bounds.chunk_octets)
        self.is_draining = False
        self._sock = sock
        # In order of the last octet received: the longest silent one is the first.
        self._connections: OrderedDict[ClientConnection, None] = OrderedDict()
        self._per_client: dict[str, int] = {}
        self._adoptions: set[asyncio.Task[object]] = set()
        self._is_accepting = False
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._all_gone = asyncio.Event()
        listener.deliver = _deliver
        listener.locate = _locate

    @property
    def connection_count(self) -> int:
        """Open connections, those about to close included."""
        return len(self._connections)

    def start(self) -> None:
        """Begins to accept connections."""
        self._start_accepting()
        self._sweep_timer = self.loop.call_later(self.bounds.sweep_s, self._on_timer)

    def pause(self) -> None:
        """Leaves those who wait to be accepted to whoever has the socket, too."""
        self.is_draining = True
        self._stop_accepting()

    def accept_waiting(self) -> None:
        """Accepts who waits for it; for an end without a successor."""
        if self._is_accepting:
            self._accept()

    async def close(self, grace_s: float) -> None:
        """Stops accepting, and closes each connection once its client has what it asked for.

        That is when nothing came for a moment: a query may be on its way already (RFC 7766 section
        6.2.4 wants clients to ask again, not all do). Who never stops asking is closed in between
        after a second. Connections that wait to be accepted stay in
        the socket, for a successor.

        Args:
            grace_s: Seconds after which connections with unanswered queries are aborted.
        """
        self.pause()
        now = monotonic()
        never_quiet_at, give_up_at = now + _NEVER_QUIET_S, now + grace_s
        while self._connections and now < give_up_at:
            self._close_quiet(now - _QUIET_S if now < never_quiet_at else now, now)
            await self._wait_until_gone(_QUIET_S / 4)
            now = monotonic()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for connection in list(self._connections):
            if not connection.is_closing:
                connection.abort("tcp_shutdown", now)
        await self._wait_until_gone(_ABORT_S)

    def _close_quiet(self, before: float, now: float) -> None:
        """Closes idle connections that have been silent since ``before``."""
        for connection in list(self._connections):
            if connection.is_idle and connection.stream.active_at <= before:
                connection.close(now)

    async def _wait_until_gone(self, seconds: float) -> None:
        if self._connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), seconds)

    def touch(self, connection: ClientConnection) -> None:
        """Notes that ``connection`` received something just now."""
        if connection in self._connections:
            self._connections.move_to_end(connection)

    def forget(self, connection: ClientConnection) -> None:
        """Takes ``connection`` out of the count; harmless if it is out already."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        left = self._per_client[connection.address.host] - 1
        if left:
            self._per_client[connection.address.host] = left
        else:
            del self._per_client[connection.address.host]
        if self.is_draining and not self._connections:
            self._all_gone.set()

    def _start_accepting(self) -> None:
        if not self._is_accepting and not self.is_draining:
            self._is_accepting = True
            self.loop.add_reader(self._sock.fileno(), self._accept)

    def _stop_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self.loop.remove_reader(self._sock.fileno())

    def _accept(self) -> None:
        now = monotonic()
        for taken in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _DIED_IN_QUEUE:
                    continue
                if not taken:
                    self._pause_accepting(now)
                # Else nobody may be waiting: Linux wants a free descriptor before it looks.
                return
            self._admit(sock, Address(address[0], address[1]), now)

    def _pause_accepting(self, now: float) -> None:
        """Stops for a moment for want of descriptors; the longest idle connection makes room.

        The socket stays readable, so that going on at once would spin.
        """
        self._stop_accepting()
        self._evict("tcp_accept_failed", now)
        self.loop.call_later(_ACCEPT_RETRY_S, self._start_accepting)

    def _admit(self, sock: socket.socket, address: Address, now: float) -> None:
        """Adopts an accepted connection, or closes it if there is no room."""
        bounds, client = self.bounds, address.host
        has_room = True
        if self._per_client.get(client, 0) >= bounds.connections_per_client:
            has_room = self._evict("tcp_client_limit", now, client)
        elif len(self._connections) >= bounds.connections:
            has_room = self._evict("tcp_connection_limit", now)
        if not has_room:
            sock.close()
            return
        sock.setblocking(False)
        connection = ClientConnection(self, sock, address, now)
        self._connections[connection] = None
        self._per_client[client] = self._per_client.get(client, 0) + 1
        adoption = self.loop.create_task(
            self.loop.connect_accepted_socket(lambda: connection, sock)
        )
        self._adoptions.add(adoption)
        adoption.add_done_callback(functools.partial(self._adopted, connection))

    def _adopted(self, connection: ClientConnection, adoption: asyncio.Task[object]) -> None:
        self._adoptions.discard(adoption)
        if adoption.cancelled() or adoption.exception() is not None:
            self.counters.count_drop("tcp_accept_failed")
            self.forget(connection)
            connection.sock.close()

    def _evict(self, reason: str, now: float, client: str | None = None) -> bool:
        """Closes the longest silent idle connection, of ``client`` if given.

        Counts ``reason`` for it, or for the newcomer if none is idle: then it returns False.
        """
        self.counters.count_drop(reason)
        for connection in self._connections:
            if connection.is_idle and client in (None, connection.address.host):
                connection.close(now)
                self.forget(connection)
                return True
        return False

    def _on_timer(self) -> None:
        self.sweep(monotonic())
        self._sweep_timer = self.loop.call_later(self.bounds.sweep_s, self._on_timer)

    def sweep(self, now: float) -> None:
        """Closes every connection whose time is over; one timer instead of one for each."""
        unsent = 0
        for connection in list(self._connections):
            connection.check(now)
            unsent += connection.unsent_octets
            if unsent > self.bounds.unsent_octets_in_all:
                unsent -= connection.unsent_octets
                connection.abort(Overdue.CLIENT.value, now)


def _locate(client: ClientConnection) -> Address:
    return client.address


def _deliver(client: ClientConnection, reply: bytes) -> None:
    client.deliver(reply)
