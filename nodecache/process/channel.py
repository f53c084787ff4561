"""What keeper and worker say to each other: one JSON object a message, sockets beside it.

A pair of Unix sockets of type SOCK_SEQPACKET. Only the worker speaks; that the keeper is gone shows
as end of file. Knows nothing of what either does. Standard library only, since the keeper's memory
is on every node: hence no dataclasses here (1.4 MB with what they import).
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Mapping, Sequence

from nodecache.process.rights import receive_with, send_with

MAX_MESSAGE_OCTETS = 64 * 1024
MAX_NAME_CHARACTERS = 200
MAX_ADDRESSES = 256
_MOST_STUCK_AFTER_S = 3600
_MAX_QUESTION_OCTETS = 512
_HEADER_OCTETS = 12
_MAX_DESCRIPTORS = 4  # of one message; one is wanted
# For a keeper that does not read. It stops for nothing, so this is a stopped or starved one.
_PATIENCE_MS = 500

_KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}


class KeeperLink:
    """The worker's end. No method raises, and none takes longer than half a second.

    Attributes:
        held: Listening sockets that the keeper holds, by name, such as "udp 169.254.20.10:53",
            "tcp [fd00::a]:53", "http 0.0.0.0:9253" and "handover". The worker takes out what it
            uses, and owns it.
        history: What the keeper counted until it started this worker: "restarts", "refused" and
            "dropped".
    """

    def __init__(
        self,
        sock: socket.socket,
        held: dict[str, socket.socket] | None = None,
        history: Mapping[str, int] | None = None,
    ) -> None:
        """Takes over ``sock``, connected to the keeper."""
        self._sock = sock
        sock.setblocking(False)
        self.held = {} if held is None else held
        self.history = dict(history or {})

    def fileno(self) -> int:
        """Returns the descriptor that becomes readable when the keeper is gone; -1 if closed."""
        return self._sock.fileno()

    def is_lost(self) -> bool:
        """Whether the keeper is gone. To be asked when ``fileno`` is readable; never waits."""
        try:
            return not self._sock.recv(1)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def hold(self, name: str, sock: socket.socket) -> bool:
        """Gives the keeper a duplicate of a listening socket, in place of one of that name.

        Returns, as all that follow, whether the message is on its way.
        """
        return self._say({"say": "hold", "name": name}, [sock.fileno()])

    def release(self, name: str) -> bool:
        """Has the keeper close its duplicate."""
        return self._say({"say": "release", "name": name})

    def serving(
        self,
        question: bytes,
        addresses: Sequence[tuple[str, int]],
        refusing: Sequence[tuple[str, int]],
        stuck_after_s: float,
    ) -> bool:
        """Says that queries are answered from now on; to be said again when something changes.

        Args:
            question: A query that the worker answers whatever happens upstream; its ID is replaced.
            addresses: Literals and ports where it answers over UDP, and is asked from 127.0.0.1 or
                ::1. At those that are not among ``refusing`` the keeper says goodbye for a worker
                that does not answer (see ``nodecache.host.beat``).
            refusing: Where queries are refused while it does not answer: they lead nowhere else.
            stuck_after_s: After so many seconds without an answer it is killed; 0 for never.
        """
        return self._say(
            {
                "say": "serving",
                "question": question.hex(),
                "addresses": [[host, port] for host, port in addresses],
                "refusing": [[host, port] for host, port in refusing],
                "stuck_after_s": stuck_after_s,
            }
        )

    def leaving(self) -> bool:
        """Says that the worker ends by itself, and takes down by itself what it set up."""
        return self._say({"say": "leaving"})

    def handed_over(self) -> bool:
        """Says that a successor serves: everything is to be released, and nothing touched."""
        return self._say({"say": "handed_over"})

    def close(self) -> None:
        """Closes the link and what is still in ``held``."""
        self._sock.close()
        while self.held:
            self.held.popitem()[1].close()

    def _say(self, message: dict[str, object], descriptors: Sequence[int] = ()) -> bool:
        octets = json.dumps(message, separators=(",", ":")).encode()
        if len(octets) > MAX_MESSAGE_OCTETS:
            return False
        try:
            if not self._send(octets, descriptors):
                poll = select.poll()
                poll.register(self._sock, select.POLLOUT)
                poll.poll(_PATIENCE_MS)
                return self._send(octets, descriptors)
        except (OSError, ValueError):  # closed at either end, or a socket that is none any more
            return False
        return True

    def _send(self, octets: bytes, descriptors: Sequence[int]) -> bool:
        """Returns False if there is no room at present."""
        try:
            send_with(self._sock, octets, descriptors)
        except (BlockingIOError, InterruptedError):
            return False
        return True


class Serving:
    """Where a worker answers, and what holds while it does not; see ``KeeperLink.serving``."""

    __slots__ = ("addresses", "question", "refusing", "stuck_after_s")

    def __init__(
        self,
        question: bytes,
        addresses: list[tuple[str, int]],
        refusing: list[tuple[str, int]],
        stuck_after_s: float,
    ) -> None:
        self.question = question
        self.addresses = addresses
        self.refusing = refusing
        self.stuck_after_s = stuck_after_s


class Notice:
    """One message of the worker.

    Attributes:
        kind: "hold", "release", "serving", "leaving" or "handed_over".
        name: Of the socket, for "hold" and "release".
        sock: For "hold"; the receiver owns it.
        serving: For "serving".
    """

    __slots__ = ("kind", "name", "serving", "sock")

    def __init__(
        self,
        kind: str,
        name: str = "",
        sock: socket.socket | None = None,
        serving: Serving | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.sock = sock
        self.serving = serving


class WorkerLink:
    """The keeper's end.

    Attributes:
        broken: How many messages were ignored because they made no sense.
        has_ended: The worker closed its end, or is gone.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Takes over ``sock``, connected to the worker."""
        self._sock = sock
        sock.setblocking(False)
        self.broken = 0
        self.has_ended = False

    def fileno(self) -> int:
        """Returns the descriptor to poll; -1 if closed."""
        return self._sock.fileno()

    def receive(self) -> Notice | None:
        """Returns the next message, None if there is none at present. Never waits, never raises."""
        while not self.has_ended:
            octets, socks = self._receive_octets()
            if octets is None:
                return None
            self.has_ended = not octets and not socks
            message = _parse(octets, socks)
            if message is not None:
                return message
            self.broken += not self.has_ended
        return None

    def close(self) -> None:
        """Closes the link."""
        self._sock.close()

    def _receive_octets(self) -> tuple[bytes | None, list[socket.socket]]:
        """Returns a message and its sockets; None for nothing there, b"" for the end."""
        numbers: list[int] = []
        try:
            octets, wrong = receive_with(self._sock, MAX_MESSAGE_OCTETS, _MAX_DESCRIPTORS, numbers)
        except (BlockingIOError, InterruptedError):
            return None, []
        except OSError:
            return b"", []
        return (b"?" if wrong else octets), _sockets_of(numbers)


def _sockets_of(descriptors: list[int]) -> list[socket.socket]:
    """Returns the sockets among descriptors, in their order; others are closed."""
    socks = []
    for descriptor in descriptors:
        try:
            socks.append(socket.socket(fileno=descriptor))
        except OSError:
            socket.close(descriptor)
    return socks


def _parse(octets: bytes, socks: list[socket.socket]) -> Notice | None:
    """Returns the message, None if it is none; sockets that it does not use are closed."""
    try:
        message = _read(json.loads(octets), socks)
    except (ValueError, KeyError, TypeError, RecursionError):
        message = None
    for sock in socks:
        if message is None or sock is not message.sock:
            sock.close()
    return message


def _read(fields: object, socks: list[socket.socket]) -> Notice | None:
    if not isinstance(fields, dict):
        return None
    kind = fields.get("say")
    if kind in ("leaving", "handed_over"):
        return Notice(str(kind))
    if kind == "serving":
        return Notice(kind, serving=_read_serving(fields))
    if kind == "hold" and len(socks) == 1:
        name = _read_name(fields["name"])
        return Notice(kind, name, socks[0]) if _fits(name, socks[0]) else None
    if kind == "release":
        return Notice(kind, _read_name(fields["name"]))
    return None


def _read_name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise ValueError("a name of 1 to 200 characters is wanted")
    return name


def _fits(name: str, sock: socket.socket) -> bool:
    """Whether the socket is what its name says; the keeper reads from some of them."""
    wanted = _KINDS.get(name.partition(" ")[0], sock.type)
    sock.setblocking(False)
    return sock.type == wanted


def _read_serving(fields: dict[str, object]) -> Serving:
    question = bytes.fromhex(str(fields["question"]))
    stuck_after_s = fields["stuck_after_s"]
    if not _HEADER_OCTETS <= len(question) <= _MAX_QUESTION_OCTETS:
        raise ValueError("a question of 12 to 512 octets is wanted")
    if isinstance(stuck_after_s, bool) or not isinstance(stuck_after_s, int | float):
        raise TypeError("a number of seconds is wanted")
    if not 0 <= stuck_after_s <= _MOST_STUCK_AFTER_S:
        raise ValueError("0 to 3600 seconds are wanted")
    addresses, refusing = (_read_addresses(fields[name]) for name in ("addresses", "refusing"))
    return Serving(question, addresses, refusing, stuck_after_s)


def _read_addresses(items: object) -> list[tuple[str, int]]:
    if not isinstance(items, list) or len(items) > MAX_ADDRESSES:
        raise ValueError("a list of at most 256 addresses is wanted")
    return [_read_address(item) for item in items]


def _read_address(item: object) -> tuple[str, int]:
    if not isinstance(item, list) or len(item) != 2:
        raise ValueError("a pair of host and port is wanted")
    host, port = item
    if not isinstance(host, str) or type(port) is not int or not 0 < port < 65536:
        raise ValueError("a literal and a port are wanted")
    return host, port
