"""Reads queries in place of a worker that does not, and answers each REFUSED at once.

A stub resolver then asks its next nameserver within a millisecond; silence would cost it a second.
Works on the held sockets only when told to; never waits.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterable

from nodecache.net.pktinfo import MOST_CONTROL_OCTETS, without_interface
from nodecache.process.keeper.refusal import MAX_QUERY_OCTETS, compose_refusal
from nodecache.wire.framing import Deframer, frame

# Datagrams a socket and turn: signals and timers must get their turn under any load.
_DATAGRAMS_AT_ONCE = 64
# What waits in a queue: the largest that net/sockets.py asks for holds about 5,000.
_MOST_WAITING = 8192
_MAX_CONNECTIONS = 64
_CONNECTION_S = 1.0
# After an error that will stay for a while, such as no descriptor left.
_REST_S = 0.5

Polled = tuple[int, int, Callable[[float], None]]  # descriptor, events of poll, what to call


class Refuser:
    """Refuses what comes to the held sockets.

    Attributes:
        refused: Queries answered.
        dropped: Messages that got no reply, because they are no queries.
        places: Where queries are refused; elsewhere they wait.
        question: The keeper's own; what has its octets behind the ID is neither.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.dropped = 0
        self.places: set[str] = set()
        self.question = b""
        self._connections: dict[int, _Connection] = {}
        self._udp_rests_until = 0.0
        self._tcp_rests_until = 0.0

    def polled(self, held: dict[str, socket.socket], now: float) -> Iterable[Polled]:
        """Yields what is to be polled for, in order to refuse."""
        may_read = now >= self._udp_rests_until
        may_accept = now >= self._tcp_rests_until and self._make_room()
        for name, sock in held.items():
            kind, _, place = name.partition(" ")
            if place not in self.places:
                continue
            if kind == "udp" and may_read:
                yield sock.fileno(), select.POLLIN, self._datagrams_of(sock)
            elif kind == "tcp" and may_accept:
                yield sock.fileno(), select.POLLIN, self._connections_of(sock)

    def polled_connections(self) -> Iterable[Polled]:
        """Yields accepted connections; these are ours, whoever reads the held sockets."""
        for connection in self._connections.values():
            yield connection.sock.fileno(), select.POLLIN, self._queries_of(connection)

    def expire(self, now: float) -> None:
        """Closes connections whose time is over."""
        for connection in [c for c in self._connections.values() if now >= c.ends_at]:
            self._close(connection)

    def sweep(self, held: dict[str, socket.socket], now: float) -> None:
        """Refuses all datagrams that wait now, and accepts the connections, wherever that is."""
        for name, sock in held.items():
            if name.startswith("udp "):
                self._refuse_datagrams(sock, _MOST_WAITING, now)
            elif name.startswith("tcp "):
                self._accept(sock, now)

    def close(self) -> None:
        """Closes all connections."""
        for connection in list(self._connections.values()):
            self._close(connection)

    def _datagrams_of(self, sock: socket.socket) -> Callable[[float], None]:
        return lambda now: self._refuse_datagrams(sock, _DATAGRAMS_AT_ONCE, now)

    def _connections_of(self, sock: socket.socket) -> Callable[[float], None]:
        return lambda now: self._accept(sock, now)

    def _queries_of(self, connection: _Connection) -> Callable[[float], None]:
        return lambda _now: self._read(connection)

    def _refuse_datagrams(self, sock: socket.socket, most: int, now: float) -> None:
        for _ in range(most):
            try:
                query, control, _, client = sock.recvmsg(MAX_QUERY_OCTETS, MOST_CONTROL_OCTETS)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._udp_rests_until = now + _REST_S
                return
            reply = self._answer(query)
            if reply is not None:
                beside = [without_interface(sock.family, item) for item in control]
                with contextlib.suppress(OSError):  # a client that is gone, a full buffer
                    sock.sendmsg([reply], beside, 0, client)

    def _answer(self, query: bytes) -> bytes | None:
        if self.question and query[2:] == self.question[2:]:
            return None
        reply = compose_refusal(query)
        if reply is None:
            self.dropped += 1
        else:
            self.refused += 1
        return reply

    def _accept(self, listener: socket.socket, now: float) -> None:
        while self._make_room():
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._tcp_rests_until = now + _REST_S
                return
            sock.setblocking(False)
            self._connections[sock.fileno()] = _Connection(sock, now + _CONNECTION_S)

    def _make_room(self) -> bool:
        """Returns whether one more may be accepted; those who have their answer go first."""
        if len(self._connections) >= _MAX_CONNECTIONS:
            for connection in [c for c in self._connections.values() if c.is_answered]:
                self._close(connection)
        return len(self._connections) < _MAX_CONNECTIONS

    def _read(self, connection: _Connection) -> None:
        try:
            octets = connection.sock.recv(MAX_QUERY_OCTETS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            octets = b""
        if not octets or not self._serve(connection, octets):
            self._close(connection)

    def _serve(self, connection: _Connection, octets: bytes) -> bool:
        """Answers the whole queries of a connection; returns whether it stays open.

        With all answered, we are the first to close, and wait until the client does too: closing
        a socket with unread octets would destroy the replies that are under way (RFC 1122
        section 4.2.2.13).
        """
        if connection.is_answered:
            return True
        messages = connection.take(octets)
        if messages is None:
            return False
        replies = [self._answer(message) for message in messages]
        frames = [frame(reply) for reply in replies if reply is not None]
        try:
            sent = connection.sock.send(b"".join(frames)) if frames else 0
            if frames and not connection.has_part:
                connection.is_answered = True
                connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return sent == sum(map(len, frames)) and None not in replies

    def _close(self, connection: _Connection) -> None:
        self._connections.pop(connection.sock.fileno(), None)
        connection.sock.close()


class _Connection:
    """An accepted connection.

    Attributes:
        sock: Ours.
        ends_at: When it is closed whatever happens, monotonic seconds.
        is_answered: All that was asked was answered; what still comes is thrown away.
    """

    __slots__ = ("_deframer", "ends_at", "is_answered", "sock")

    def __init__(self, sock: socket.socket, ends_at: float) -> None:
        self.sock = sock
        self.ends_at = ends_at
        self.is_answered = False
        self._deframer = Deframer()

    @property
    def has_part(self) -> bool:
        """Whether the beginning of another query is there."""
        return self._deframer.pending_octets > 0

    def take(self, octets: bytes) -> list[bytes] | None:
        """Returns the messages that are whole now; None if one is too long."""
        messages = self._deframer.feed(octets)
        lengths = [self._deframer.announced_octets, *map(len, messages)]
        return messages if max(lengths) + 2 <= MAX_QUERY_OCTETS else None
