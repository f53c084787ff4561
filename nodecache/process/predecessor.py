"""Waits for a successor and gives it our sockets and cache: the predecessor's side of a hand-over.

Runs on the serving loop and never blocks it. Whatever a successor says, and whenever it goes away,
nothing changes here until it has said that it serves. Messages are in process/handover.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import islice

from nodecache.errors import HandoverError
from nodecache.process.descriptors import receive_once, send_once
from nodecache.process.handover import (
    HANDOVER,
    MOST_IN_BATCH,
    MOST_SOCKETS,
    SNAPSHOT_OCTETS,
    Batch,
    Declined,
    Hello,
    Said,
    Welcome,
    Word,
    parse_message,
    peer_user,
    why_strangers,
)
from nodecache.process.rights import close_descriptors

logger = logging.getLogger("nodecache")

# A successor speaks at once; what it says waits in the kernel while our loop is busy.
_HELLO_S = 2.0
_SEND_S = 2.0
_SNAPSHOT_S = 1.0
# From the last socket to the successor's word that it serves: it reads the snapshot meanwhile.
_CONFIRM_S = 10.0
# Until accept(2) is tried again after it failed for want of descriptors or memory.
_ACCEPT_RETRY_S = 1.0


class _Line:
    """A connection from a successor, on the loop.

    Attributes:
        has_heard: Something came over it.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.has_heard = False
        self._sock = sock
        self._loop = loop

    async def receive(self, within_s: float) -> Said:
        """Returns the next message; raises HandoverError if there is none in time."""
        deadline = self._loop.time() + within_s
        # Tried before each wait and after the last, so that what came while we were stopped counts.
        while True:
            is_late = self._loop.time() >= deadline
            try:
                return parse_message(self._receive())
            except BlockingIOError:
                if is_late:
                    raise HandoverError(f"nothing came within {within_s:g} s") from None
            except OSError as error:
                raise HandoverError(f"cannot receive: {error.strerror}") from error
            await self._wait(self._loop.add_reader, self._loop.remove_reader, deadline)

    def _receive(self) -> bytes:
        held: list[int] = []
        try:
            octets = receive_once(self._sock, held, 0)
        finally:
            close_descriptors(held)
        self.has_heard = True
        return octets

    async def send(self, message: Said, descriptors: list[int]) -> None:
        """Sends one message; raises HandoverError if it cannot go out in time."""
        deadline = self._loop.time() + _SEND_S
        while True:
            is_late = self._loop.time() >= deadline
            try:
                return send_once(self._sock, message, descriptors)
            except BlockingIOError:
                if is_late:
                    raise HandoverError(f"nothing was read within {_SEND_S:g} s") from None
            except OSError as error:
                raise HandoverError(f"cannot send: {error.strerror}") from error
            await self._wait(self._loop.add_writer, self._loop.remove_writer, deadline)

    def say(self, message: Said) -> None:
        """Sends what may be lost: nobody waits for it who is still there."""
        with suppress(OSError):
            send_once(self._sock, message)

    async def _wait(
        self,
        add: Callable[..., object],
        remove: Callable[[socket.socket], object],
        deadline: float,
    ) -> None:
        """Returns when the socket is ready, or at the deadline."""
        ready = self._loop.create_future()
        timer = self._loop.call_at(deadline, _wake, ready)
        add(self._sock, _wake, ready)
        try:
            await ready
        finally:
            remove(self._sock)
            timer.cancel()

    def is_gone(self) -> bool:
        """Whether the successor has hung up, whatever it said before that."""
        poll = select.poll()
        poll.register(self._sock, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def close(self) -> None:
        """Hangs up."""
        self._sock.close()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class HandoverServer:
    """Hands over to one successor; others are told that it is busy.

    Args:
        listener: Of ``open_handover_socket`` or a predecessor; stays the caller's, who closes it
            after ``close``.
        loop: asyncio's or uvloop's.
        identity: Who we are.
        sockets: Returns what to hand over, by name: "udp 169.254.20.10:53", "tcp [fd00::a]:53",
            "http 0.0.0.0:9253". The listener is added as "handover".
        make_snapshot: Returns a sealed file as of ``seal_memfd``, which is ours to close then, or
            None. It has one second; without it the successor starts cold.
        on_confirmed: Called once, when the successor serves. On return nothing may read from the
            sockets any more (readers must be removed, not only closed: the successor holds the
            same sockets open). After that no successor is heard.
    """

    def __init__(
        self,
        listener: socket.socket,
        loop: asyncio.AbstractEventLoop,
        identity: Hello,
        sockets: Callable[[], Mapping[str, socket.socket]],
        make_snapshot: Callable[[], Awaitable[int | None]],
        on_confirmed: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._identity = identity
        self._sockets = sockets
        self._make_snapshot = make_snapshot
        self._on_confirmed = on_confirmed
        self._is_open = False
        self._line: _Line | None = None
        self._task: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listens to successors from now on."""
        self._is_open = True
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Ends a conversation and listens no more; a successor keeps what it has. Idempotent.

        After ``on_confirmed`` was called there is nothing left to do.
        """
        if not self._is_open:
            return
        self._stop_listening()
        if self._task is not None:
            self._task.cancel()

    def _stop_listening(self) -> None:
        self._is_open = False
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listener)

    # Who comes in.

    def _accept(self) -> None:
        """Accepts one connection; the loop calls again while others wait."""
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.warning("cannot accept a successor: %s", error.strerror)
            # It would be ready again at once, for ever.
            self._loop.remove_reader(self._listener)
            self._retry = self._loop.call_later(_ACCEPT_RETRY_S, self.start)
            return
        sock.setblocking(False)
        line = _Line(sock, self._loop)
        refusal = self._why_not(sock)
        if refusal:
            logger.warning("a successor is refused: %s", refusal)
            line.say(Declined(refusal))
            line.close()
            return
        self._line = line
        self._task = self._loop.create_task(self._converse(line))
        self._task.add_done_callback(lambda task: self._end(task, line))

    def _why_not(self, sock: socket.socket) -> str:
        if peer_user(sock) != os.geteuid():
            return f"it runs as user {peer_user(sock)}, this daemon as {os.geteuid()}"
        if self._line is None or self._task is None:
            return ""
        if not self._line.is_gone():
            return "another successor is taking over"
        # It crashed, and this may be its next attempt.
        self._task.cancel()
        return ""

    def _end(self, task: asyncio.Task[None], line: _Line) -> None:
        line.close()
        if self._line is line:
            self._line = self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the hand-over failed by a mistake of ours: %r", error)

    # One conversation.

    async def _converse(self, line: _Line) -> None:
        try:
            successor = await self._give(line)
            if await line.receive(_CONFIRM_S) is not Word.SERVING:
                raise HandoverError("it spoke out of turn")
        except HandoverError as error:
            # Who only looks whether somebody is here, such as ``nodecache cleanup``, says nothing.
            level = logging.WARNING if line.has_heard else logging.DEBUG
            logger.log(level, "no hand-over, we go on: %s", error)
            line.say(Declined(str(error)))
            return
        self._stop_listening()
        logger.info("successor %s serves; we leave", successor.version)
        self._on_confirmed()
        line.say(Word.LEAVING)

    async def _give(self, line: _Line) -> Hello:
        """Sends everything; returns to whom."""
        hello = await line.receive(_HELLO_S)
        if not isinstance(hello, Hello):
            raise HandoverError("it spoke out of turn")
        strangers = why_strangers(self._identity, hello)
        if strangers:
            raise HandoverError(strangers)
        snapshot: list[int] = []
        if hello.snapshot_format == self._identity.snapshot_format:
            snapshot = await self._take_snapshot()
        try:
            await self._send_all(line, hello, snapshot)
        finally:
            close_descriptors(snapshot)
        return hello

    async def _send_all(self, line: _Line, hello: Hello, snapshot: list[int]) -> None:
        octets = sum(os.fstat(descriptor).st_size for descriptor in snapshot)
        sockets = {**self._sockets(), HANDOVER: self._listener}
        if len(sockets) > MOST_SOCKETS:
            raise HandoverError(f"{len(sockets)} sockets are more than can be handed over")
        logger.info(
            "successor %s gets %d sockets and %d octets of cache",
            hello.version,
            len(sockets),
            octets,
        )
        welcome = Welcome(self._identity, len(sockets), octets)
        await line.send(welcome, snapshot)
        rest = iter(sockets.items())
        while batch := dict(islice(rest, MOST_IN_BATCH)):
            # Numbers are read at the last moment: a socket closed meanwhile has none (-1, EBADF).
            await line.send(Batch(tuple(batch)), [sock.fileno() for sock in batch.values()])
            await asyncio.sleep(0)

    async def _take_snapshot(self) -> list[int]:
        """Returns the descriptor of a snapshot, or nothing if there is none in time."""
        task = self._loop.create_task(self._snapshot())
        is_there = False
        try:
            await asyncio.wait({task}, timeout=_SNAPSHOT_S)
            is_there = task.done()
        finally:
            if not is_there:
                # What it makes in the last moment is nobody's but ours to close.
                task.add_done_callback(_close_result)
                task.cancel()
        if not is_there:
            logger.warning("the cache is not handed over: no snapshot within %g s", _SNAPSHOT_S)
            return []
        return [] if task.cancelled() else task.result()

    async def _snapshot(self) -> list[int]:
        try:
            made = await self._make_snapshot()
        except Exception as error:  # noqa: BLE001 # whatever it is, the sockets are worth more
            logger.warning("the cache is not handed over: %s", error)
            return []
        if made is None:
            return []
        octets = os.fstat(made).st_size
        if 0 < octets <= SNAPSHOT_OCTETS:
            return [made]
        os.close(made)
        logger.warning("the cache is not handed over: its snapshot has %d octets", octets)
        return []


def _close_result(task: asyncio.Task[list[int]]) -> None:
    if not task.cancelled() and task.exception() is None:
        close_descriptors(task.result())
