"""Asks DNS servers for the addresses of a host, off every query's path.

ID and question of a response must match; that its records tell the truth is up to the server, which
the configuration names.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import NamedTuple

from nodecache.config.model import Address, HostName
from nodecache.net.dial import ask_for
from nodecache.wire.const import RCODE_MASK, TC
from nodecache.wire.numbers import NOERROR, TYPE_A, TYPE_AAAA
from nodecache.wire.rrs import Contents, read_contents

_SERVER_S = 2.0  # for one server, as CoreDNS has it
_MOST_ADDRESSES = 64
_MOST_TTL_S = 0x7FFFFFFF


class Found(NamedTuple):
    """What is known of a host.

    Attributes:
        hosts: Its addresses, sorted, IPv4 first; empty if nobody knows one.
        ttl_s: Seconds for which they hold.
        trouble: Why there is none, "" if there is one.
    """

    hosts: tuple[str, ...] = ()
    ttl_s: int = 0
    trouble: str = ""


async def find_addresses(host: HostName) -> Found:
    """Returns what the first server says that has an address; each is given 2 s. Raises nothing."""
    found = Found(trouble="there is nobody to ask")
    for server in host.servers:
        found = await _ask_server(server, host.name.wire)
        if found.hosts:
            break
    return found


async def _ask_server(server: Address, qname: bytes) -> Found:
    """Asks for A and AAAA at once; one that fails does no harm if the other has an address."""
    asked = [asyncio.ensure_future(_look_up(server, qname, qtype)) for qtype in (TYPE_A, TYPE_AAAA)]
    try:
        await asyncio.wait(asked, timeout=_SERVER_S)
        answers = [task.result() if task.done() else Found() for task in asked]
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    good = [answer for answer in answers if answer.hosts]
    if good:
        hosts = tuple(host for answer in good for host in answer.hosts)
        return Found(hosts[:_MOST_ADDRESSES], min(answer.ttl_s for answer in good))
    troubles = [answer.trouble or "does not answer" for answer in answers]
    return Found(trouble=f"{server} {troubles[0]}")


async def _look_up(server: Address, qname: bytes, qtype: int) -> Found:
    try:
        contents = read_contents(await ask_for(server, "udp", qname, qtype))
        if contents is not None and contents.flags & TC:
            contents = read_contents(await ask_for(server, "tcp", qname, qtype))
    except OSError as error:
        return Found(trouble=f"cannot be asked: {error.strerror or error}")
    if contents is None:
        return Found(trouble="answers with what is no DNS message")
    return _read(contents, qtype)


def _read(contents: Contents, qtype: int) -> Found:
    """Takes the addresses of the answer section, whatever aliases lead to them."""
    rcode = contents.flags & RCODE_MASK
    if rcode != NOERROR:
        return Found(trouble=f"answers with RCODE {rcode}")
    found = {ipaddress.ip_address(rr.rdata) for rr in contents.answers_of(qtype)}
    addresses = sorted(found, key=int)
    hosts = tuple(str(a) for a in addresses if not (a.is_unspecified or a.is_multicast))
    if not hosts:
        return Found(trouble="knows no address")
    # A TTL with the highest bit set counts as 0 (RFC 2181 section 8).
    ttl_s = min(rr.ttl_s if rr.ttl_s <= _MOST_TTL_S else 0 for rr in contents.answer)
    return Found(hosts, ttl_s)
