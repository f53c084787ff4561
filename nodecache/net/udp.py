"""The UDP listeners: hits are answered here, the rest goes to the resolver.

``BatchUdpServer`` is the hot path: two system calls for up to 64 queries and a few bytecodes for
each hit. ``PlainUdpServer`` does the same work one datagram at a time where recvmmsg is missing;
one set of tests holds both.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.engine.listener import Answers, Listener
from nodecache.net import mmsg

# Batches per wake-up: more would let UDP starve TCP and the upstreams, fewer would pay for the
# event loop's round more often (1.5 us a round).
_BATCHES_AT_ONCE = 8
_PLAIN_QUERIES_AT_ONCE = 64
# A stop answers what is queued in the socket; this many rounds empty the largest queue.
_ROUNDS_AT_THE_END = 16
# Replies that wait because the socket is full; beyond it they are dropped and counted.
_MOST_BACKLOG = 1024
_MOST_QUERY_OCTETS = mmsg.SLOT_OCTETS
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 # compared with, not bound to


def seal_for_this_platform() -> Callable[[bytes], Any]:
    """Returns the ``seal`` that packet caches of this platform's UDP server need."""
    return mmsg.seal if mmsg.is_available() else _as_it_is


def _as_it_is(reply: bytes) -> bytes:
    return reply


def is_wildcard(sock: socket.socket) -> bool:
    """Whether replies must say from which of the machine's addresses they come."""
    return sock.getsockname()[0] in _WILDCARDS


class UdpServer:
    """What both servers share: misses, late replies, a full socket."""

    def __init__(
        self,
        sock: socket.socket,
        listener: Listener,
        resolver: Answers,
        flush: Callable[[], None],
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Takes a bound, non-blocking socket; ``start`` begins to serve.

        Args:
            sock: Closed by ``close``.
            listener: Has a packet cache whose ``seal`` is ``seal_for_this_platform()``.
            resolver: Answers what the packet cache does not.
            flush: Called when queries may have given work to the upstreams.
            counters: Of the whole daemon.
            loop: Serves the socket.
        """
        if listener.packets is None:
            msg = "a UDP listener needs a packet cache"
            raise ValueError(msg)
        self._sock = sock
        self._listener = listener
        self._packets = listener.packets
        self._resolver = resolver
        self._flush = flush
        self._counters = counters
        self._loop = loop
        self._backlog: deque[tuple[bytes, Any]] = deque()
        keeps_destination = is_wildcard(sock)
        if keeps_destination:
            _keep_destination(sock)
        self._prepare(sock, keeps_destination)
        listener.deliver = self.deliver
        listener.locate = self._locate

    def _prepare(self, sock: socket.socket, keeps_destination: bool) -> None:
        """Makes what the way of serving needs; replies may have to leave from where they came."""
        raise NotImplementedError

    def start(self) -> None:
        """Begins to serve."""
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def pause(self) -> None:
        """Leaves what has arrived, and what will, to whoever has the socket, too."""
        self._loop.remove_reader(self._sock.fileno())

    def stop_reading(self) -> None:
        """Serves what has arrived, and no more; late replies still go out."""
        self._loop.remove_reader(self._sock.fileno())
        for _ in range(_ROUNDS_AT_THE_END):
            self._on_readable()

    def close(self) -> None:
        """Stops, and closes the socket."""
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._backlog.clear()
        # The number of the descriptor may soon be somebody else's.
        self._listener.deliver = self._drop

    def _drop(self, _client: Any, _reply: bytes) -> None:
        self._counters.count_drop("udp_closed")

    def deliver(self, client: Any, reply: bytes) -> None:
        """Sends a whole reply; what cannot be sent is counted."""
        if self._backlog or not self._send(reply, client):
            self._wait_for_room(reply, client)

    def _on_readable(self) -> None:
        raise NotImplementedError

    def _send_now(self, reply: bytes, client: Any) -> bool:
        """Sends one reply; False if the socket is full. Raises OSError."""
        raise NotImplementedError

    def _locate(self, client: Any) -> Address:
        """Returns the address of a client that was given to the resolver."""
        raise NotImplementedError

    def _send(self, reply: bytes, client: Any) -> bool:
        """Sends one reply; False if the socket is full. A hopeless one is counted as sent."""
        try:
            return self._send_now(reply, client)
        except OSError as error:
            self._count_hopeless(error)
            return True

    def _count_hopeless(self, error: OSError) -> None:
        # A spoofed source port 0, a peer without route, a rule that forbids it: nobody to tell.
        name = errno.errorcode.get(error.errno or 0, "unknown")
        self._counters.count_drop(f"udp_send_{name.lower()}")

    def _count_receive_error(self, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        self._counters.count_event(f"udp_receive_{name.lower()}")

    def _wait_for_room(self, reply: bytes, client: Any) -> None:
        if len(self._backlog) >= _MOST_BACKLOG:
            self._counters.count_drop("udp_socket_full")
            return
        if not self._backlog:
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
        self._backlog.append((reply, client))

    def _on_writable(self) -> None:
        while self._backlog:
            if not self._send(*self._backlog[0]):
                return
            self._backlog.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _resolve(self, missed: list[tuple[bytes, Any]], now: float) -> None:
        """Answers what the packet cache could not, or lets it wait for its upstream."""
        for octets, client in missed:
            try:
                reply = self._resolver.query(octets, self._listener, client, now)
            except Exception as error:  # noqa: BLE001 # a query must not take its batch with it
                self._counters.count_drop("panic")
                context = {"message": "error while answering a query", "exception": error}
                self._loop.call_exception_handler(context)
                continue
            if reply:
                self.deliver(client, reply)
        self._flush()


class BatchUdpServer(UdpServer):
    """Serves by recvmmsg and sendmmsg."""

    def _prepare(self, sock: socket.socket, keeps_destination: bool) -> None:
        self._batch = mmsg.Batch(sock, keeps_destination)
        self._late: list[tuple[bytes, bytes]] = []

    def _on_readable(self) -> None:
        for _ in range(_BATCHES_AT_ONCE):
            try:
                lengths = self._batch.receive()
            except OSError as error:
                self._count_receive_error(error)
                return
            if lengths:
                self._serve(lengths)
            if len(lengths) < mmsg.SLOTS:
                return

    def _serve(self, lengths: tuple[int, ...]) -> None:
        """Answers one batch. Every bytecode in this loop is paid for by every query."""
        batch, packets, now = self._batch, self._packets, monotonic()
        if now >= packets.turns_at:
            packets.turn(now)
        octets, iovecs, fresh = batch.octets, batch.iovecs, packets.fresh.get
        missed = []
        for (slot, behind_id, start, span), length in zip(batch.spans, lengths, strict=False):
            packet = fresh(octets[behind_id : start + length])
            if packet is None:
                packet = packets.revive(octets[behind_id : start + length], now)
                if packet is None:
                    missed.append(slot)
                    continue
            packet.hits += 1
            iovecs[span] = packet.sealed
        first = 0
        for slot in missed:
            self._send_run(first, slot)
            first = slot + 1
        self._send_run(first, len(lengths))
        packets.durations.observe(monotonic() - now, len(lengths) - len(missed))
        if missed:
            starts = [batch.spans[slot][2] for slot in missed]
            self._resolve(
                [
                    (octets[start : start + lengths[slot]], batch.peer(slot))
                    for slot, start in zip(missed, starts, strict=True)
                ],
                now,
            )

    def _send_run(self, first: int, end: int) -> None:
        """Sends the replies of the slots from ``first`` up to ``end``."""
        self._send_all(first, end, self._batch.send, self._batch.unsent)

    def _send_all(
        self,
        first: int,
        end: int,
        send: Callable[[int, int], int],
        unsent: Callable[[int], tuple[bytes, bytes]],
    ) -> None:
        """Has ``send`` send from ``first`` up to ``end``; what finds no room waits for it."""
        while first < end:
            try:
                sent = send(first, end - first)
            except OSError as error:
                self._count_hopeless(error)
                first += 1
                continue
            first += sent
            if not sent:
                for index in range(first, end):
                    self._wait_for_room(*unsent(index))
                return

    def deliver(self, client: bytes, reply: bytes) -> None:
        """Sends a whole reply at the end of the loop's round, with all others of that round."""
        if not self._late:
            self._loop.call_soon(self._send_late)
        self._late.append((reply, client))

    def close(self) -> None:
        """Stops, and closes the socket."""
        self._send_late()
        super().close()

    def _send_late(self) -> None:
        late, self._late = self._late, []
        if self._backlog:
            for reply, client in late:
                self._wait_for_room(reply, client)
            return
        self._send_all(
            0,
            len(late),
            lambda first, _: self._batch.send_late(late[first : first + mmsg.SLOTS]),
            late.__getitem__,
        )

    def _send_now(self, reply: bytes, client: bytes) -> bool:
        return self._batch.send_late([(reply, client)]) == 1

    def _locate(self, client: bytes) -> Address:
        return mmsg.read_peer(client)


class PlainUdpServer(UdpServer):
    """Serves by recvmsg and sendmsg, on every platform."""

    def _prepare(self, sock: socket.socket, keeps_destination: bool) -> None:
        self._control_octets = socket.CMSG_SPACE(20) if keeps_destination else 0

    def _on_readable(self) -> None:
        missed = []
        packets, now = self._packets, monotonic()
        if now >= packets.turns_at:
            packets.turn(now)
        for _ in range(_PLAIN_QUERIES_AT_ONCE):
            received = self._receive()
            if received is None:
                break
            octets, client = received
            packet = packets.fresh.get(octets[2:]) or packets.revive(octets[2:], now)
            if packet is None:
                missed.append((octets, client))
                continue
            packet.hits += 1
            packets.durations.observe(monotonic() - now)
            self.deliver(client, octets[:2] + packet.reply)
        if missed:
            self._resolve(missed, now)

    def _receive(self) -> tuple[bytes, Any] | None:
        try:
            octets, control, _, address = self._sock.recvmsg(
                _MOST_QUERY_OCTETS, self._control_octets
            )
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            self._count_receive_error(error)
            return None
        return octets, (address, [self._without_interface(item) for item in control])

    def _without_interface(self, item: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
        # Replies leave by the routing table, not by where the query came in.
        level, kind, data = item
        at = mmsg.INTERFACE_IN_PKTINFO[self._sock.family]
        return level, kind, data[:at] + bytes(4) + data[at + 4 :]

    def _send_now(self, reply: bytes, client: Any) -> bool:
        address, control = client
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._sock.sendmsg([reply], control, 0, address)
            return True
        return False

    def _locate(self, client: Any) -> Address:
        (host, port, *_), _ = client
        return Address(host, port)


def _keep_destination(sock: socket.socket) -> None:
    """Asks the kernel to say which address a datagram came to, so that replies leave from it."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_PKTINFO", 8), 1)


def udp_server_class() -> type[UdpServer]:
    """Returns the fastest server class that works here."""
    return BatchUdpServer if mmsg.is_available() else PlainUdpServer
