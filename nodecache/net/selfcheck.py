"""Asks ourselves through our own listening sockets, as a stub resolver would.

What answers here answers everybody: kernel, socket, loop and server are all on the way. Knows
nothing of zones and upstreams; a failing upstream is no reason to restart us.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence

from nodecache.config.model import Address
from nodecache.config.node import SELF_CHECK_SOURCES
from nodecache.net.dial import ask
from nodecache.wire.const import HEADER, HEADER_OCTETS, OPCODE_SELF_CHECK, QR, RCODE_MASK
from nodecache.wire.numbers import REFUSED

_MARK_OCTETS = 16
# Of more addresses, each call asks some at random: two sockets for each must not use them up.
_MOST_ADDRESSES = 32
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # not bound to

_TRANSPORTS = ("UDP", "TCP")


def make_probe() -> bytes:
    """Returns a message that only this process knows; its ID is a placeholder.

    A header with opcode 15, nothing counted in it, and 16 random octets behind. Whoever answers
    can tell it from all other messages by comparing what follows the ID.
    """
    return HEADER.pack(0, OPCODE_SELF_CHECK, 0, 0, 0, 0) + os.urandom(_MARK_OCTETS)


async def ask_ourselves(addresses: Sequence[Address], probe: bytes, timeout_s: float) -> list[str]:
    """Returns what is wrong with our listeners, one sentence for each that did not answer.

    Any response with the probe's ID is an answer, but REFUSED. All are asked at once, so the call
    takes little more than ``timeout_s``. Wildcard addresses are asked through loopback.

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
    host = _LOOPBACK.get(address.host, address.host)
    query = os.urandom(2) + probe[2:]
    try:
        async with asyncio.timeout(timeout_s):
            # From anywhere else the rules may lead to somebody who answers in our place.
            source = None if "%" in host else SELF_CHECK_SOURCES
            await ask(Address(host, address.port), transport.lower(), query, _answers, source)
    except TimeoutError:
        reason = f"no answer within {timeout_s:g} s"
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
    else:
        return ""
    return f"{address} over {transport}: {reason}"


def _answers(query: bytes, reply: bytes) -> bool:
    if len(reply) < HEADER_OCTETS or reply[:2] != query[:2]:
        return False
    flags = reply[2] << 8 | reply[3]
    # REFUSED is what the keeper says while we do not answer; we never say it to a probe.
    return bool(flags & QR) and flags & RCODE_MASK != REFUSED
