"""Connects a socket without the loop's own way, which starts threads to look numbers up."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any


async def connect(sock: socket.socket, place: Any) -> None:
    """Connects a non-blocking socket to a socket address in numbers.

    Raises:
        OSError: Why that failed; the socket stays open.
    """
    error = sock.connect_ex(place)
    if error == errno.EINPROGRESS:
        await _until_writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


async def _until_writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable = loop.create_future()

    def note() -> None:
        if not writable.done():
            writable.set_result(None)

    loop.add_writer(sock.fileno(), note)
    try:
        await writable
    finally:
        loop.remove_writer(sock.fileno())
