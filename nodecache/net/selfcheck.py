"""Asks ourselves through our own listening sockets, as a stub resolver would.

What answers here answers everybody: kernel, socket, loop and server are all on the way. Knows
nothing of zones and upstreams; a failing upstream is no reason to restart us.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable, Sequence

from nodecache.config.model import Address
from nodecache.net.dialling import connect

# Unassigned (RFC 1035 section 4.1.1, IANA's registry ends at 6), so no stub resolver sends it.
_OPCODE = 15
_MARK_OCTETS = 16
_HEADER_OCTETS = 12
_QR = 0x80
_MOST_REPLY_OCTETS = 512
# Of more addresses, each call asks some at random: two sockets for each must not use them up.
_MOST_ADDRESSES = 32
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # not bound to

_Ask = Callable[[socket.socket, bytes], Awaitable[None]]


def make_probe() -> bytes:
    """Returns a message that only this process knows; its ID is a placeholder.

    A header with opcode 15, nothing counted in it, and 16 random octets behind. Whoever answers
    can tell it from all other messages by comparing what follows the ID.
    """
    return bytes([0, 0, _OPCODE << 3]) + bytes(_HEADER_OCTETS - 3) + os.urandom(_MARK_OCTETS)


async def ask_ourselves(addresses: Sequence[Address], probe: bytes, timeout_s: float) -> list[str]:
    """Returns what is wrong with our listeners, one sentence for each that did not answer.

    Any response with the probe's ID is an answer. All are asked at once, so the call takes little
    more than ``timeout_s``. Wildcard addresses are asked through loopback.

    Args:
        addresses: Where we listen over UDP and TCP.
        probe: At least a header; its ID is replaced by a random one each time.
        timeout_s: How long an answer may take.

    Raises nothing but asyncio's cancellation.
    """
    if len(addresses) > _MOST_ADDRESSES:
        addresses = random.sample(addresses, _MOST_ADDRESSES)
    complaints = await asyncio.gather(
        *(
            _complaint(address, transport, probe, timeout_s)
            for address in addresses
            for transport in _TRANSPORTS
        )
    )
    return [complaint for complaint in complaints if complaint]


async def _complaint(address: Address, transport: str, probe: bytes, timeout_s: float) -> str:
    """Returns what is wrong with one listener, "" if nothing is."""
    kind, ask = _TRANSPORTS[transport]
    try:
        async with asyncio.timeout(timeout_s):
            with _open(address, kind) as sock:
                await _connect(sock, address)
                await ask(sock, os.urandom(2) + probe[2:])
    except TimeoutError:
        reason = f"no answer within {timeout_s:g} s"
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
    else:
        return ""
    return f"{address} over {transport}: {reason}"


def _open(address: Address, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock


async def _connect(sock: socket.socket, address: Address) -> None:
    """Connects a socket of either kind; a refusal then arrives as an error, over UDP too."""
    host = _LOOPBACK.get(address.host, address.host).encode("ascii")
    found = socket.getaddrinfo(host, address.port, flags=socket.AI_NUMERICHOST)
    await connect(sock, found[0][4])


async def _ask_udp(sock: socket.socket, query: bytes) -> None:
    """Returns when the answer is here; whatever else arrives is passed over."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, query)
    while not _answers(await loop.sock_recv(sock, _MOST_REPLY_OCTETS), query):
        pass


async def _ask_tcp(sock: socket.socket, query: bytes) -> None:
    """The same over TCP, where the first message is the answer (RFC 1035 section 4.2.2)."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)
    received = b""
    while len(received) < 2 + _HEADER_OCTETS:
        octets = await loop.sock_recv(sock, _MOST_REPLY_OCTETS)
        if not octets:
            raise ConnectionError("closed without an answer")
        received += octets
    if not _answers(received[2:], query):
        raise ConnectionError("the answer belongs to another query")


def _answers(reply: bytes, query: bytes) -> bool:
    return len(reply) >= _HEADER_OCTETS and reply[:2] == query[:2] and bool(reply[2] & _QR)


_TRANSPORTS: dict[str, tuple[socket.SocketKind, _Ask]] = {
    "UDP": (socket.SOCK_DGRAM, _ask_udp),
    "TCP": (socket.SOCK_STREAM, _ask_tcp),
}
