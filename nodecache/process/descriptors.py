"""The hand-over's descriptors: carried beside what is said, and judged when they arrive.

Sockets are what their name says, or refused; files in memory are sealed (memfd_create(2)), so that
whoever made one can no longer change it, or cut it off under our reads.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from nodecache.errors import HandoverError
from nodecache.printing import printable
from nodecache.process.handover import (
    HANDOVER,
    MESSAGE_OCTETS,
    SOCKET_FILE,
    Said,
    compose_message,
)
from nodecache.process.rights import receive_with, send_with

# A kind, a literal (in brackets with an optional zone, IPv4, or "" for every address), a port.
_NAME = re.compile(r"(udp|tcp|http) (?:\[([!-Z^-~]+)\]|([0-9.]*)):([1-9][0-9]{0,4})", re.ASCII)
_STREAM = (socket.SOCK_STREAM, socket.IPPROTO_TCP, True)
# What the first word of a name means: type, protocol, and whether it accepts connections.
_KINDS = {"udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP, False), "tcp": _STREAM, "http": _STREAM}

_NEEDED_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def send_once(peer: socket.socket, said: Said, descriptors: Sequence[int] = ()) -> None:
    """Sends one message with copies of open descriptors.

    Raises:
        HandoverError: The message is too long.
        OSError: As sendmsg(2).
    """
    send_with(peer, compose_message(said), descriptors)


def receive_once(peer: socket.socket, held: list[int], room: int) -> bytes:
    """Returns one message as it came.

    Args:
        peer: Connected; its timeout holds.
        held: Gets every descriptor that came along, whatever is wrong with the message. They are
            the caller's, who closes them.
        room: How many may come; the kernel drops further ones.

    Raises:
        HandoverError: The other side is gone, or sent more than fits.
        OSError: As recvmsg(2).
    """
    octets, wrong = receive_with(peer, MESSAGE_OCTETS, room, held)
    if wrong & socket.MSG_TRUNC:
        raise HandoverError(f"the other side sent more than {MESSAGE_OCTETS} octets at once")
    if wrong & socket.MSG_CTRUNC:
        raise HandoverError(
            "descriptors that the other side sent were lost; if it is one of ours, raise the limit"
            " (ulimit -n)"
        )
    if not octets:
        raise HandoverError("the other side went away")
    return octets


def check_socket(name: str, descriptor: int) -> None:
    """Raises HandoverError unless the descriptor is the socket that its name says."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        raise HandoverError(f"{printable(name)} from the predecessor is no socket") from None
    try:
        is_right = _is_handover(sock) if name == HANDOVER else _is_bound_as(name, sock)
    finally:
        sock.detach()
    if not is_right:
        raise HandoverError(f"{printable(name)} from the predecessor is another socket than that")


def _is_handover(sock: socket.socket) -> bool:
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
        return False
    # Bound under a name of its own and renamed; the kernel remembers the first.
    name = Path(os.fsdecode(sock.getsockname())).name
    return name.startswith(SOCKET_FILE) and _accepts(sock)


def _is_bound_as(name: str, sock: socket.socket) -> bool:
    match = _NAME.fullmatch(name)
    if match is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    kind, bracketed, plain, port = match.groups()
    if (sock.type, sock.proto, _accepts(sock)) != _KINDS[kind]:
        return False
    return (sock.family, sock.getsockname()) in _places(bracketed or plain, int(port))


def _places(host: str, port: int) -> set[tuple[int, object]]:
    """Returns families and socket addresses that a literal may mean; none if it is no literal."""
    if not host:
        return {(socket.AF_INET6, ("::", port, 0, 0)), (socket.AF_INET, ("0.0.0.0", port))}  # noqa: S104
    try:
        # Never asks a resolver, and gives a zone its number; octets need no IDNA tables.
        found = socket.getaddrinfo(host.encode("ascii"), port, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return set()
    return {(place[0], place[4]) for place in found}


def _accepts(sock: socket.socket) -> bool:
    """Whether listen(2) was called on it."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def open_memfd() -> int:
    """Returns an empty file in memory, for a snapshot; the caller's to write, seal and close."""
    return os.memfd_create("nodecache-snapshot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal_memfd(descriptor: int) -> None:
    """Makes the file of ``open_memfd`` unchangeable: a successor reads no other."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _NEEDED_SEALS | fcntl.F_SEAL_SEAL)


def map_sealed(descriptor: int, octets: int) -> mmap.mmap:
    """Maps a file that nobody can change; OSError or ValueError if it is not one."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != octets:
        raise ValueError("it has another size than announced")
    # EINVAL from fcntl(2) where the file system knows no seals.
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _NEEDED_SEALS != _NEEDED_SEALS:
        raise ValueError("it is not sealed against change")
    # Before Linux 6.7 a shared mapping of a sealed file is refused, even for reading.
    return mmap.mmap(descriptor, octets, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
