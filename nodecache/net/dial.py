"""Connects to addresses in numbers, and asks single questions, off every query's path.

uvloop's own ways start threads to look numbers up, and a loop where one of them was cancelled may
never close.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Callable
from typing import Any

from nodecache.config.model import Address
from nodecache.wire.const import MAX_MESSAGE_OCTETS, RD, TYPE_AND_CLASS
from nodecache.wire.framing import Deframer, frame
from nodecache.wire.numbers import CLASS_IN
from nodecache.wire.reply import compose_upstream_query
from nodecache.wire.response import matches_question

# Query and message -> whether the message answers the query.
Belongs = Callable[[bytes, bytes], bool]


def sockaddr(address: Address) -> tuple[str, int] | tuple[str, int, int, int]:
    """Returns what ``connect`` takes; the zone of a link-local address becomes a number."""
    host, _, zone = address.host.partition("%")
    if ":" not in host:
        return (host, address.port)
    scope = 0
    if zone:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return (host, address.port, 0, scope)


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


async def ask(
    server: Address,
    transport: str,
    query: bytes,
    belongs: Belongs,
    source: tuple[str, str] | None = None,
) -> bytes:
    """Returns the first message from ``server`` that belongs to ``query``; waits for ever.

    Args:
        server: In numbers.
        transport: "udp" or "tcp"; each call has a socket and a port of its own.
        query: The whole message.
        belongs: Tells the answer from strays.
        source: The addresses to ask from, of IPv4 and of IPv6; None for the kernel's choice.

    Raises:
        OSError: Why there is no answer.
    """
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind | socket.SOCK_NONBLOCK) as sock:
        if source is not None:
            sock.bind((source[family == socket.AF_INET6], 0))
        await connect(sock, sockaddr(server))
        if transport == "udp":
            return await _ask_udp(sock, query, belongs)
        return await _ask_tcp(sock, query, belongs)


async def ask_for(server: Address, transport: str, qname: bytes, qtype: int) -> bytes:
    """Returns what ``server`` answers to one question of class IN; the same holds as for ``ask``.

    ID and question of the response match; everything else in it is as it came.
    """
    question = qname + TYPE_AND_CLASS.pack(qtype, CLASS_IN)
    query = secrets.token_bytes(2) + compose_upstream_query(question, RD, dnssec_ok=False)

    def belongs(query: bytes, response: bytes) -> bool:
        return response[:2] == query[:2] and matches_question(response, question)

    return await ask(server, transport, query, belongs)


async def _ask_udp(sock: socket.socket, query: bytes, belongs: Belongs) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, query)
    while True:
        message = await loop.sock_recv(sock, MAX_MESSAGE_OCTETS)
        if belongs(query, message):
            return message


async def _ask_tcp(sock: socket.socket, query: bytes, belongs: Belongs) -> bytes:
    loop, deframer = asyncio.get_running_loop(), Deframer()
    await loop.sock_sendall(sock, frame(query))
    while True:
        octets = await loop.sock_recv(sock, MAX_MESSAGE_OCTETS)
        if not octets:
            raise ConnectionError("closed without an answer")
        for message in deframer.feed(octets):
            if belongs(query, message):
                return message


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
