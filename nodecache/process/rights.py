"""Descriptors beside a message on a Unix socket (SCM_RIGHTS): sent, and read, in one place.

What comes is not judged here. Standard library only, and little of that: the keeper imports it.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

_DESCRIPTOR = array.array("i").itemsize


def send_with(peer: socket.socket, octets: bytes, descriptors: Sequence[int] = ()) -> None:
    """Sends one message with copies of open descriptors. Raises OSError, as sendmsg(2)."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    peer.sendmsg([octets], [rights] if descriptors else [])


def receive_with(
    peer: socket.socket, most_octets: int, most_descriptors: int, held: list[int]
) -> tuple[bytes, int]:
    """Returns one message as it came, b"" at the end, and what is wrong with it.

    That is MSG_TRUNC if it was longer, MSG_CTRUNC if descriptors were lost, or both, or 0.

    Args:
        peer: Keeps the boundaries of messages.
        most_octets: What is longer is cut.
        most_descriptors: The kernel drops further ones.
        held: Gets every descriptor that came along, whatever is wrong with the message. They are
            close-on-exec, and the caller's, who closes them.

    Raises:
        OSError: As recvmsg(2).
    """
    space = socket.CMSG_SPACE(most_descriptors * _DESCRIPTOR) if most_descriptors else 0
    octets, control, flags, _ = peer.recvmsg(most_octets, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, contents in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(contents[: len(contents) - len(contents) % _DESCRIPTOR])
            held.extend(numbers)
    return octets, flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)


def close_descriptors(descriptors: list[int]) -> None:
    """Closes and forgets all of them."""
    while descriptors:
        os.close(descriptors.pop())
