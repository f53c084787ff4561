"""Carries descriptors from process to process beside messages, and judges those that arrive.

Sockets are what their name says, or refused; files in memory are sealed (memfd_create(2)), so that
whoever made one can no longer change it, or cut it off under our reads.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import re
import socket
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from nodecache.config.values import printable
from nodecache.errors import HandoverError
from nodecache.net.handover import (
    HANDOVER,
    MESSAGE_OCTETS,
    SOCKET_FILE,
    Message,
    compose_message,
)

# A kind, a literal (in brackets with an optional zone, IPv4, or "" for every address), a port.
_NAME = re.compile(r"(udp|tcp|http) (?:\[([!-Z^-~]+)\]|([0-9.]*)):([1-9][0-9]{0,4})", re.ASCII)
_STREAM = (socket.SOCK_STREAM, socket.IPPROTO_TCP, True)
# What the first word of a name means: type, protocol, and whether it accepts connections.
_KINDS = {"udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP, False), "tcp": _STREAM, "http": _STREAM}

_DESCRIPTOR = array.array("i").itemsize
_NEEDED_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def send_once(peer: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Sends one message with copies of open descriptors.

    Raises:
        HandoverError: The message is too long.
        OSError: As sendmsg(2).
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    peer.sendmsg([compose_message(message)], [rights] if descriptors else [])


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
    space = socket.CMSG_SPACE(room * _DESCRIPTOR) if room else 0
    octets, ancillary, flags, _ = peer.recvmsg(MESSAGE_OCTETS, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, contents in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            held.extend(_read_descriptors(contents))
    if flags & socket.MSG_TRUNC:
        raise HandoverError(f"the other side sent more than {MESSAGE_OCTETS} octets at once")
    if flags & socket.MSG_CTRUNC:
        raise HandoverError(
            "descriptors that the other side sent were lost; if it is one of ours, raise the limit"
            " (ulimit -n)"
        )
    if not octets:
        raise HandoverError("the other side went away")
    return octets


def _read_descriptors(contents: bytes) -> array.array[int]:
    descriptors = array.array("i")
    descriptors.frombytes(contents[: len(contents) - len(contents) % _DESCRIPTOR])
    return descriptors


def close_descriptors(descriptors: list[int]) -> None:
    """Closes and forgets all of them."""
    while descriptors:
        os.close(descriptors.pop())


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


def memfd_of(chunks: Iterable[bytes]) -> int:
    """Returns a sealed file in memory with these octets; the caller closes it.

    Raises:
        OSError: No memory, or no descriptor.
    """
    descriptor = open_memfd()
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.writelines(chunks)
        seal_memfd(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


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
