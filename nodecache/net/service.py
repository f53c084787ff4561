"""Asks DNS servers for the address of a Service that our environment does not name.

Who answers is not trusted: ID and question must match, and a server that has an address for any
name is not believed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Sequence

from nodecache.config.model import Address, Name
from nodecache.config.names import parse_name
from nodecache.net.dial import ask_for
from nodecache.wire.const import RCODE_MASK, TC, TYPE_AND_CLASS
from nodecache.wire.numbers import CLASS_IN, NOERROR, TYPE_A, TYPE_AAAA
from nodecache.wire.rrs import read_contents

_MAX_SERVERS = 16


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
        asyncio.ensure_future(_find_at(server, transport, qname, control))
        for server in servers[:_MAX_SERVERS]
        for transport in ("tcp", "udp")
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


async def _find_at(server: Address, transport: str, qname: bytes, control: bytes) -> str | None:
    try:
        for qtype in (TYPE_A, TYPE_AAAA):
            address = await _look_up(server, transport, qname, qtype)
            if address:
                is_hijacked = await _look_up(server, transport, control, qtype)
                return None if is_hijacked else address
    except OSError:
        return None
    return None


async def _look_up(server: Address, transport: str, qname: bytes, qtype: int) -> str | None:
    response = await ask_for(server, transport, qname, qtype)
    return read_address(response, qname + TYPE_AND_CLASS.pack(qtype, CLASS_IN))


def read_address(response: bytes, question: bytes) -> str | None:
    """Returns the one address that a response gives for the name asked for, or None.

    Loopback, link-local, multicast and unspecified addresses belong to no Service.
    """
    contents = read_contents(response)
    if contents is None or contents.flags & (RCODE_MASK | TC) != NOERROR:
        return None
    qtype, _ = TYPE_AND_CLASS.unpack(question[-4:])
    found = [rr for rr in contents.answers_of(qtype) if rr.owner.lower() == question[:-4]]
    if len(found) != 1:
        return None
    address = ipaddress.ip_address(found[0].rdata)
    odd = address.is_loopback or address.is_link_local
    return None if odd or address.is_multicast or address.is_unspecified else str(address)
