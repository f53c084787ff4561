"""Takes over from a daemon that serves here: the successor's side of a hand-over.

Blocks, within bounds, so it runs before the loop serves. Nothing that the predecessor says is
believed: each descriptor must be the socket that its name says, or the take-over is refused and
everything received is closed. Messages are in process/handover.py.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from nodecache.errors import HandoverError, RefusedError
from nodecache.process.descriptors import (
    check_socket,
    map_sealed,
    receive_once,
    send_once,
)
from nodecache.process.handover import (
    HANDOVER,
    MOST_IN_BATCH,
    SOCKET_FILE,
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

# How long the predecessor may take to say that it has stopped reading. We serve meanwhile.
_CONFIRM_S = 2.0


class _Line:
    """The blocking end of a conversation, of which each step counts against one deadline."""

    def __init__(self, sock: socket.socket, within_s: float) -> None:
        self._sock = sock
        self._within_s = within_s
        self._deadline = monotonic() + within_s

    def restart(self, within_s: float) -> None:
        """Allows this much time from now on."""
        self._within_s = within_s
        self._deadline = monotonic() + within_s

    def connect(self, path: str) -> None:
        """Dials the predecessor; OSError if it is not there."""
        self._set_timeout()
        self._sock.connect(path)

    def peer_user(self) -> int:
        """Returns the effective user ID of the predecessor."""
        return peer_user(self._sock)

    def send(self, message: Said) -> None:
        """Sends; if the other side has gone, its last words tell more than an error here."""
        self._set_timeout()
        with suppress(BrokenPipeError, ConnectionResetError):
            send_once(self._sock, message)

    def receive(self, held: list[int]) -> Said:
        """Returns the next message; descriptors that come along are added to ``held``."""
        self._set_timeout()
        try:
            octets = receive_once(self._sock, held, MOST_IN_BATCH)
        except ConnectionResetError:
            # Said once when the other side closed without reading all; its own words come behind.
            octets = receive_once(self._sock, held, MOST_IN_BATCH)
        return parse_message(octets)

    def _set_timeout(self) -> None:
        left_s = self._deadline - monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)

    def explain(self, error: OSError) -> HandoverError:
        """Returns what an error of the methods above means for the take-over."""
        if isinstance(error, TimeoutError):
            return HandoverError(f"the predecessor gave no answer within {self._within_s:g} s")
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        return HandoverError(f"cannot talk to the predecessor: {reason}")

    def close(self) -> None:
        """Hangs up."""
        self._sock.close()


class Inheritance:
    """What a predecessor gave, and the line to it, until ``confirm`` or ``abandon``.

    Attributes:
        sockets: By name, "udp 169.254.20.10:53", "tcp …", "http …", "handover". Non-blocking; the
            predecessor reads from the same ones until ``confirm``.
        snapshot: The message cache, at most 256 MiB, or None. The content is not checked. The
            caller closes it when it is read.
        version: Of the predecessor's program.
    """

    def __init__(
        self,
        line: _Line,
        sockets: dict[str, socket.socket],
        snapshot: mmap.mmap | None,
        version: str,
    ) -> None:
        self.sockets = sockets
        self.snapshot = snapshot
        self.version = version
        self._line = line
        self._is_over = False

    def confirm(self) -> bool:
        """Tells the predecessor that we serve; returns whether it says that it has stopped.

        To be called when the sockets are read, within 10 s of ``take_over``. Takes 2 s at most.
        False means that the predecessor died or hangs: we serve all the same, but it may not have
        left the node as it promised. Called again, or after ``abandon``, it does nothing.

        Raises:
            HandoverError: The predecessor waited no longer and goes on serving. The sockets are
                still open; ``abandon`` closes them.
        """
        if self._is_over:
            return True
        answer = self._ask_to_leave()
        if isinstance(answer, Declined):
            raise HandoverError(f"the predecessor goes on: {answer.reason}")
        self._is_over = True
        self._line.close()
        return answer is Word.LEAVING

    def _ask_to_leave(self) -> Said | None:
        held: list[int] = []
        self._line.restart(_CONFIRM_S)
        try:
            self._line.send(Word.SERVING)
            return self._line.receive(held)
        except HandoverError as error:
            logger.warning("the predecessor did not say that it left: %s", error)
        except OSError as error:
            logger.warning("%s after we took over", self._line.explain(error))
        finally:
            close_descriptors(held)
        return None

    def abandon(self) -> None:
        """Closes everything received, and the predecessor goes on; nothing after ``confirm``."""
        if self._is_over:
            return
        self._is_over = True
        self._line.close()
        for sock in self.sockets.values():
            sock.close()
        if self.snapshot is not None:
            with suppress(BufferError):  # somebody still holds a view of it, and frees it later
                self.snapshot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Abandons what was not confirmed."""
        self.abandon()


def take_over(rundir: Path, hello: Hello, within_s: float) -> Inheritance | None:
    """Asks the daemon that serves here for its sockets and its message cache.

    Args:
        rundir: The directory of -rundir.
        hello: Who we are.
        within_s: Seconds for all of it; the predecessor may need 1 of them for its snapshot.

    Returns None if no daemon waits there.

    Raises:
        HandoverError: One does, and gives nothing: it hangs, lies, speaks another version, belongs
            to another user or network namespace, or serves other addresses. Nothing stays open.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = _Line(sock, within_s)
    inheritance = None
    held: list[int] = []
    try:
        if _reaches(line, str(rundir / SOCKET_FILE)):
            inheritance = _inherit(line, hello, held)
    except OSError as error:
        raise line.explain(error) from error
    finally:
        close_descriptors(held)
        if inheritance is None:
            line.close()
    return inheritance


def _reaches(line: _Line, path: str) -> bool:
    """Whether somebody of our user listens there.

    Raises:
        HandoverError: Somebody else does.
    """
    try:
        line.connect(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return False
    except BlockingIOError:
        raise HandoverError(f"too many others wait for the predecessor at {path}") from None
    user = line.peer_user()
    if user != os.geteuid():
        raise RefusedError(
            f"the daemon at {path} runs as user {user}, this one as {os.geteuid()};"
            " stop it, or choose another -rundir"
        )
    return True


def _inherit(line: _Line, hello: Hello, held: list[int]) -> Inheritance:
    """Goes through the conversation; the caller closes what is left in ``held``."""
    line.send(hello)
    welcome = line.receive(held)
    if not isinstance(welcome, Welcome):
        raise _out_of_turn(welcome)
    strangers = why_strangers(hello, welcome.identity)
    if strangers:
        raise RefusedError(strangers)
    snapshots = held.copy()
    if len(snapshots) != bool(welcome.snapshot_octets):
        raise HandoverError("the predecessor's welcome comes with a wrong number of descriptors")
    names = _receive_sockets(line, welcome.socket_count, held)
    for name, descriptor in zip(names, held[len(snapshots) :], strict=True):
        check_socket(name, descriptor)
    snapshot = _map_snapshot(welcome, hello.snapshot_format, snapshots)
    # Nothing can go wrong from here, so nothing is closed twice.
    sockets = {name: socket.socket(fileno=held.pop()) for name in reversed(names)}
    for sock in sockets.values():
        sock.setblocking(False)
    return Inheritance(line, sockets, snapshot, welcome.identity.version)


def _out_of_turn(message: Said) -> HandoverError:
    if isinstance(message, Declined):
        return RefusedError(f"the predecessor refuses: {message.reason}")
    return HandoverError("the predecessor spoke out of turn")


def _receive_sockets(line: _Line, count: int, held: list[int]) -> list[str]:
    """Returns ``count`` names; their descriptors are added to ``held`` in the same order."""
    names: list[str] = []
    while len(names) < count:
        before = len(held)
        batch = line.receive(held)
        if not isinstance(batch, Batch):
            raise _out_of_turn(batch)
        if not batch.names or len(held) - before != len(batch.names):
            raise HandoverError("the predecessor sent a wrong number of descriptors")
        names.extend(batch.names)
    if len(names) != count or len(set(names)) != count or HANDOVER not in names:
        raise HandoverError("the predecessor sent other sockets than it promised")
    return names


def _map_snapshot(welcome: Welcome, known: int, descriptors: list[int]) -> mmap.mmap | None:
    """Returns the snapshot's octets, or None, with a line in the log if one came that is unfit."""
    if not descriptors:
        return None
    reason = f"its format is {welcome.identity.snapshot_format}, ours {known}"
    if welcome.identity.snapshot_format == known:
        try:
            return map_sealed(descriptors[0], welcome.snapshot_octets)
        except (OSError, ValueError) as error:
            reason = str(error)
    logger.warning("the predecessor's cache is left out: %s", reason)
    return None
