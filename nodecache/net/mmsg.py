"""recvmmsg(2) and sendmmsg(2) by ctypes: up to 64 datagrams in each of two system calls.

Knows nothing of DNS. What it lays out in memory once, and why:

- ``octets``: 64 receive slots in one anonymous mapping; slicing a mapping gives bytes in one step,
  where a memoryview needs two objects (150 against 260 ns per query, bench/micro/batch_loop.py).
- One array of headers for receiving, one for sending. Slot i is answered from header i: its peer
  address is read where recvmmsg wrote it, so nothing is copied.
- Each outgoing header has two parts: the first two octets of the receive slot (the DNS ID), and
  whatever ``iovecs[slot]`` was set to, an address and a length as ``seal`` makes them.

- A third array for whole replies that come later, each with the peer that its slot had then.

The octets behind a sealed reply must stay referenced until ``send`` has returned.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
import struct
import sys
from collections.abc import Callable, Sequence

from nodecache.config.model import Address
from nodecache.errors import SocketError
from nodecache.net.pktinfo import CONTROL_OCTETS, interface_span

SLOTS = 64
# What stubs send fits in 512 octets; longer datagrams are cut here, and refused as broken
# unless only octets behind the message were lost. An odd number of cache lines, so that the
# slots do not compete for the same ones.
SLOT_OCTETS = 2112
_PEER_OCTETS = 128
_CONTROL_AT = 32
_ADDRESS_OCTETS = {socket.AF_INET: 16, socket.AF_INET6: 28}
_IOVEC = struct.Struct("@PN")
# Where the octets of a bytes object begin: CPython's header, less the final NUL it counts in.
_BYTES_AT = bytes.__basicsize__ - 1


class _Message(ctypes.Structure):
    """struct msghdr of <sys/socket.h>."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_octets", ctypes.c_uint),
        ("iovecs", ctypes.c_void_p),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_octets", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr of <sys/socket.h>."""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint))


_HEADER_OCTETS = ctypes.sizeof(_Header)
_LENGTH_AT = _Header.length.offset
_AFTER_LENGTH = _HEADER_OCTETS - _LENGTH_AT - 4
# Reads the lengths of a batch of n datagrams in one call.
_LENGTHS = tuple(
    struct.Struct("=" + f"{_LENGTH_AT}xI{_AFTER_LENGTH}x" * n) for n in range(SLOTS + 1)
)


def is_available() -> bool:
    """Whether this interpreter keeps octets where ``seal`` looks for them, on this system."""
    sample = b"nodecache"
    return (
        sys.platform == "linux"
        and sys.implementation.name == "cpython"
        and hasattr(_LIBC, "recvmmsg")
        and hasattr(_LIBC, "sendmmsg")
        and ctypes.string_at(id(sample) + _BYTES_AT, len(sample)) == sample
    )


# PyDLL keeps the GIL: the calls never block, and giving it up costs more than they do.
_LIBC = ctypes.PyDLL(None, use_errno=True)
if is_available():
    _LIBC.recvmmsg.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_void_p,
    ]
    _LIBC.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]


def seal(reply: bytes) -> bytes:
    """Returns the struct iovec of ``reply``, to be set in ``Batch.iovecs``."""
    return _IOVEC.pack(id(reply) + _BYTES_AT, len(reply))


def _memory(octets: int) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(-1, octets)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Countdown:
    """Counts queries down to the one that is looked at.

    Attributes:
        left: Until then; 0 or less if it was in the last batch, that many before its end.
    """

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Batch:
    """The slots of one non-blocking UDP socket.

    Attributes:
        octets: The receive slots: slot i begins at ``i * SLOT_OCTETS``.
        iovecs: Where the sealed replies go; ``spans`` says where each.
        spans: Per slot: its number, the offset behind the ID, the offset of the slot, and the
            slice of ``iovecs`` for its reply.
    """

    def __init__(self, sock: socket.socket, keeps_destination: bool) -> None:
        """Lays out the memory.

        Args:
            sock: Non-blocking UDP socket; the caller keeps it open.
            keeps_destination: The socket had ``pktinfo.keep_destination``: replies leave from
                the address that was asked.

        Raises:
            SocketError: It cannot be done here.
        """
        if not is_available():
            raise SocketError("UDP is served by CPython on Linux only; run nodecache there")
        self._fd = sock.fileno()
        self._family = sock.family
        self._control = CONTROL_OCTETS[sock.family] if keeps_destination else 0
        self._interface_octets = [_CONTROL_AT + at for at in interface_span(sock.family)]
        address_octets = _ADDRESS_OCTETS[sock.family]
        self._peer_octets = _CONTROL_AT + self._control if self._control else address_octets
        self.octets, octets_at = _memory(SLOTS * SLOT_OCTETS)
        self._peers, peers_at = _memory(2 * SLOTS * _PEER_OCTETS)
        self.iovecs, iovecs_at = _memory(SLOTS * 2 * _IOVEC.size)
        self._late_iovecs, late_iovecs_at = _memory(SLOTS * _IOVEC.size)
        self._receive_iovecs, receive_iovecs_at = _memory(SLOTS * _IOVEC.size)
        self._headers, self._headers_at = _memory(3 * SLOTS * _HEADER_OCTETS)
        self._send_at = self._headers_at + SLOTS * _HEADER_OCTETS
        self._late_at = self._headers_at + 2 * SLOTS * _HEADER_OCTETS
        for slot in range(SLOTS):
            start, one = octets_at + slot * SLOT_OCTETS, slot * _IOVEC.size
            _IOVEC.pack_into(self._receive_iovecs, one, start, SLOT_OCTETS)
            _IOVEC.pack_into(self.iovecs, 2 * one, start, 2)
            asker = peers_at + slot * _PEER_OCTETS
            self._put_header(slot, asker, receive_iovecs_at + one, 1)
            self._put_header(SLOTS + slot, asker, iovecs_at + 2 * one, 2)
            late = asker + SLOTS * _PEER_OCTETS
            self._put_header(2 * SLOTS + slot, late, late_iovecs_at + one, 1)
        self._fresh_headers = self._headers[: SLOTS * _HEADER_OCTETS] if self._control else b""
        self._late_spans = tuple(
            (
                slice(at := (SLOTS + slot) * _PEER_OCTETS, at + self._peer_octets),
                slice(slot * _IOVEC.size, (slot + 1) * _IOVEC.size),
            )
            for slot in range(SLOTS)
        )
        self.spans = tuple(
            (slot, slot * SLOT_OCTETS + 2, slot * SLOT_OCTETS, _reply_slice(slot))
            for slot in range(SLOTS)
        )

    def _put_header(self, index: int, peer_at: int, iovecs_at: int, iovec_count: int) -> None:
        message = _Message(
            name=peer_at,
            name_octets=_ADDRESS_OCTETS[self._family],
            iovecs=iovecs_at,
            iovec_count=iovec_count,
            control=peer_at + _CONTROL_AT if self._control else None,
            control_octets=self._control,
        )
        at = index * _HEADER_OCTETS
        self._headers[at : at + _HEADER_OCTETS] = bytes(_Header(message))

    def watch(self, countdown: Countdown, look: Callable[[Batch, tuple[int, ...]], None]) -> None:
        """Has ``look`` see the batches in which ``countdown`` comes to its end, once received.

        Who watches takes the place of ``receive`` on this one object, so that nobody pays for it
        while nobody does.
        """
        self.unwatch()
        receive = self.receive

        def receive_watched() -> tuple[int, ...]:
            lengths = receive()
            countdown.left -= len(lengths)
            if countdown.left <= 0 and lengths:
                look(self, lengths)
            return lengths

        self.__dict__["receive"] = receive_watched

    def unwatch(self) -> None:
        """Ends what ``watch`` began."""
        self.__dict__.pop("receive", None)

    def receive(self) -> tuple[int, ...]:
        """Returns the lengths of what was received into slots 0, 1, ...; empty for nothing.

        Raises:
            OSError: Anything but "nothing there".
        """
        if self._fresh_headers:
            # The kernel overwrites the length of the control area.
            self._headers[: len(self._fresh_headers)] = self._fresh_headers
        count = _LIBC.recvmmsg(self._fd, self._headers_at, SLOTS, socket.MSG_DONTWAIT, None)
        if count > 0:
            if self._fresh_headers:
                self._forget_interfaces(count)
            lengths: tuple[int, ...] = _LENGTHS[count].unpack_from(self._headers)
            return lengths
        if count < 0:
            self._raise_unless_blocked()
        return ()

    def _forget_interfaces(self, count: int) -> None:
        for at in self._interface_octets:
            self._peers[at : count * _PEER_OCTETS : _PEER_OCTETS] = bytes(count)

    def send(self, first: int, count: int) -> int:
        """Sends the replies of ``count`` slots from ``first``; returns how many went out.

        Fewer than ``count``: the socket is full (0), see ``send_late``.

        Raises:
            OSError: The first of them cannot be sent at all.
        """
        at = self._send_at + first * _HEADER_OCTETS
        sent: int = _LIBC.sendmmsg(self._fd, at, count, socket.MSG_DONTWAIT)
        if sent < 0:
            self._raise_unless_blocked()
            return 0
        return sent

    def peer(self, slot: int) -> bytes:
        """Returns who sent the datagram in ``slot`` (and to which address), for ``send_late``."""
        start = slot * _PEER_OCTETS
        return self._peers[start : start + self._peer_octets]

    def reply(self, slot: int) -> bytes:
        """Returns a copy of the whole reply that ``send`` would send for ``slot``."""
        start = slot * SLOT_OCTETS
        at, length = _IOVEC.unpack(self.iovecs[_reply_slice(slot)])
        return self.octets[start : start + 2] + ctypes.string_at(at, length)

    def unsent(self, slot: int) -> tuple[bytes, bytes]:
        """Returns reply and peer of a slot that ``send`` had no room for, for ``send_late``."""
        return self.reply(slot), self.peer(slot)

    def send_late(self, replies: Sequence[tuple[bytes, bytes]]) -> int:
        """Sends whole replies, each with its peer; returns how many of them went out.

        At most 64 go at once. None went out: the socket is full.

        Raises:
            OSError: The first of them cannot be sent at all.
        """
        peers, iovecs = self._peers, self._late_iovecs
        for (reply, peer), (peer_span, iovec_span) in zip(replies, self._late_spans, strict=False):
            peers[peer_span] = peer
            iovecs[iovec_span] = _IOVEC.pack(id(reply) + _BYTES_AT, len(reply))
        count = min(len(replies), SLOTS)
        sent: int = _LIBC.sendmmsg(self._fd, self._late_at, count, socket.MSG_DONTWAIT)
        if sent < 0:
            self._raise_unless_blocked()
            return 0
        return sent

    def _raise_unless_blocked(self) -> None:
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, errno.errorcode.get(number, "?"))


def read_peer(peer: bytes) -> Address:
    """Returns the address and port that ``Batch.peer`` returned in the kernel's form."""
    family = int.from_bytes(peer[:2], sys.byteorder)
    port = int.from_bytes(peer[2:4], "big")
    if family == socket.AF_INET6:
        return Address(socket.inet_ntop(socket.AF_INET6, peer[8:24]), port)
    return Address(socket.inet_ntop(socket.AF_INET, peer[4:8]), port)


def _reply_slice(slot: int) -> slice:
    start = (2 * slot + 1) * _IOVEC.size
    return slice(start, start + _IOVEC.size)
