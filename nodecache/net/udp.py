"""The UDP listeners: hits are answered here, the rest goes to the resolver.

This is the hot path: two system calls for up to 64 queries and a few bytecodes for each hit.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from nodecache.counters import Counters
from nodecache.net import mmsg
from nodecache.net.pktinfo import keep_destination
from nodecache.resolve.listener import Answers, Listener

# Batches per wake-up: more would let UDP starve TCP and the upstreams, fewer would pay for the
# event loop's round more often (1.5 us a round).
_BATCHES_AT_ONCE = 8
# A stop answers what is queued in the socket; this many rounds empty the largest queue.
_ROUNDS_AT_THE_END = 16
# Replies that wait because the socket is full; beyond it they are dropped and counted.
_MOST_BACKLOG = 1024
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 # compared with, not bound to


class UdpServer:
    """Serves one UDP socket by recvmmsg and sendmmsg."""

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
            listener: Has a packet cache whose ``seal`` is ``mmsg.seal``.
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
        self._backlog: deque[tuple[bytes, bytes]] = deque()
        self._late: list[tuple[bytes, bytes]] = []
        is_wildcard = sock.getsockname()[0] in _WILDCARDS
        if is_wildcard:
            keep_destination(sock)
        self._batch = mmsg.Batch(sock, keeps_destination=is_wildcard)
        listener.deliver = self.deliver
        listener.locate = mmsg.read_peer

    def start(self) -> None:
        """Begins to serve."""
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    @property
    def batch(self) -> mmsg.Batch:
        """Where queries arrive, for who watches them."""
        return self._batch

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
        self._send_late()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._backlog.clear()
        # The number of the descriptor may soon be somebody else's.
        self._listener.deliver = self._drop

    def _drop(self, _client: Any, _reply: bytes) -> None:
        self._counters.count_drop("udp_closed")

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

    def _resolve(self, missed: list[tuple[bytes, bytes]], now: float) -> None:
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

    def _send(self, reply: bytes, client: bytes) -> bool:
        """Sends one reply; False if the socket is full. A hopeless one is counted as sent."""
        try:
            return self._batch.send_late([(reply, client)]) == 1
        except OSError as error:
            self._count_hopeless(error)
            return True

    def _wait_for_room(self, reply: bytes, client: bytes) -> None:
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

    def _count_hopeless(self, error: OSError) -> None:
        # A spoofed source port 0, a peer without route, a rule that forbids it: nobody to tell.
        name = errno.errorcode.get(error.errno or 0, "unknown")
        self._counters.count_drop(f"udp_send_{name.lower()}")

    def _count_receive_error(self, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        self._counters.count_event(f"udp_receive_{name.lower()}")
