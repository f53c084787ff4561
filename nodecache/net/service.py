"""Asks DNS servers for the address of a Service that our environment does not name.

One-off and off every query's path, so plain asyncio will do. Who answers is not trusted: ID and
question must match, and a server that has an address for any name is not believed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from nodecache.config.model import Address, Name
from nodecache.config.names import parse_name
from nodecache.wire.const import (
    CLASS_IN,
    HEADER_OCTETS,
    NOERROR,
    RCODE_MASK,
    RD,
    TC,
    TYPE_A,
    TYPE_AAAA,
    TYPE_AND_CLASS,
)
from nodecache.wire.framing import frame
from nodecache.wire.reply import compose_upstream_query
from nodecache.wire.response import matches_question
from nodecache.wire.rrs import RR, read_contents

_MAX_SERVERS = 16
_ADDRESS_OCTETS = {TYPE_A: 4, TYPE_AAAA: 16}

# Sends a query to a server, and returns the first message that belongs to it. Raises OSError, or
# EOFError when the server closes the connection.
Exchange = Callable[[Address, bytes], Awaitable[bytes]]


async def find_service(
    name: str, namespace: str, cluster_domain: Name, servers: Sequence[Address], timeout_s: float
) -> str | None:
    """Returns the ClusterIP of a Service as text, or None if no server tells it.

    All servers (16 at most) are asked at once, over TCP and UDP, for A and then AAAA. None is
    also the answer for a headless Service: the addresses of its pods do not last.

    Args:
        name: Of the Service.
        namespace: In which it is.
        cluster_domain: Of the cluster.
        servers: Who may know.
        timeout_s: Seconds for all of this.

    Raises nothing for trouble with the network.
    """
    suffix = f"{namespace}.svc.{cluster_domain.text}"
    try:
        # The second name exists nowhere: whoever has an address for it has one for every name.
        qname, control = (parse_name(f"{x}.{suffix}").wire for x in (name, secrets.token_hex(8)))
    except ValueError:
        return None
    tasks = [
        asyncio.ensure_future(_ask(exchange, server, qname, control))
        for server in servers[:_MAX_SERVERS]
        for exchange in (_exchange_tcp, _exchange_udp)
    ]
    try:
        return await _first_found(tasks, timeout_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _first_found(tasks: Sequence[asyncio.Future[str | None]], timeout_s: float) -> str | None:
    """The first address that any task finds; of several at once that of the first task."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    pending = set(tasks)
    while pending and (left_s := deadline - loop.time()) > 0:
        done, pending = await asyncio.wait(
            pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
        )
        found = [task.result() for task in tasks if task in done]
        for address in found:
            if address:
                return address
    return None


async def _ask(exchange: Exchange, server: Address, qname: bytes, control: bytes) -> str | None:
    try:
        for qtype in (TYPE_A, TYPE_AAAA):
            address = await _look_up(exchange, server, qname, qtype)
            if address:
                is_hijacked = await _look_up(exchange, server, control, qtype)
                return None if is_hijacked else address
    except (OSError, EOFError):
        return None
    return None


async def _look_up(exchange: Exchange, server: Address, qname: bytes, qtype: int) -> str | None:
    question = qname + TYPE_AND_CLASS.pack(qtype, CLASS_IN)
    query = secrets.token_bytes(2) + compose_upstream_query(question, RD, dnssec_ok=False)
    return read_address(await exchange(server, query), question)


def read_address(response: bytes, question: bytes) -> str | None:
    """Returns the one address that a response gives for the name asked for, or None.

    Loopback, link-local, multicast and unspecified addresses belong to no Service.
    """
    contents = read_contents(response)
    if contents is None or contents.flags & (RCODE_MASK | TC) != NOERROR:
        return None
    qtype, _ = TYPE_AND_CLASS.unpack(question[-4:])
    found = [rr for rr in contents.answer if _answers(rr, question, qtype)]
    if len(found) != 1:
        return None
    address = ipaddress.ip_address(found[0].rdata)
    odd = address.is_loopback or address.is_link_local
    return None if odd or address.is_multicast or address.is_unspecified else str(address)


def _answers(rr: RR, question: bytes, qtype: int) -> bool:
    return (
        rr.rtype == qtype
        and rr.rclass == CLASS_IN
        and rr.owner.lower() == question[:-4]
        and len(rr.rdata) == _ADDRESS_OCTETS.get(qtype)
    )


def _belongs(response: bytes, query: bytes) -> bool:
    question = query[HEADER_OCTETS : query.index(b"\0", HEADER_OCTETS) + 5]
    return response[:2] == query[:2] and matches_question(response, question)


async def _exchange_tcp(server: Address, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(frame(query))
        while True:
            octets = int.from_bytes(await reader.readexactly(2), "big")
            response = await reader.readexactly(octets)
            if _belongs(response, query):
                return response
    finally:
        writer.close()


async def _exchange_udp(server: Address, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(query, answered), remote_addr=(server.host, server.port)
    )
    try:
        return await answered
    finally:
        transport.close()


class _Datagrams(asyncio.DatagramProtocol):
    """Sends one query from a port of its own; waits for what belongs to it."""

    def __init__(self, query: bytes, answered: asyncio.Future[bytes]) -> None:
        self._query = query
        self._answered = answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.DatagramTransport", transport).sendto(self._query)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._answered.done() and _belongs(data, self._query):
            self._answered.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc or ConnectionAbortedError())
