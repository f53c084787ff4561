"""Links and addresses of the node by rtnetlink: pyroute2 behind one small typed class.

Decides nothing. Needs asyncio's own loop; on uvloop pyroute2 does not run.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pyroute2.iproute.linux import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

DUMMY = "dummy"

# linux/if.h, if_addr.h, if_link.h, rtnetlink.h
_IFF_UP = 0x1
_IFF_NOARP = 0x80
_IFA_F_NODAD = 0x2
_IN6_ADDR_GEN_MODE_NONE = 1
_RT_SCOPE_HOST = 254

_NO_SUCH_LINK = frozenset((errno.ENODEV, errno.ENOENT))

IpAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface; ``kind`` is "" for those that no driver was asked to make."""

    index: int
    name: str
    kind: str
    is_up: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """An address with its prefix length in bits, on a link."""

    address: IpAddress
    prefix: int
    index: int

    @property
    def is_host(self) -> bool:
        """Whether the prefix is the address alone."""
        return self.prefix == self.address.max_prefixlen


@asynccontextmanager
async def open_links() -> AsyncIterator[Links]:
    """Gives access until the block ends. Raises OSError if the kernel permits none."""
    async with AsyncIPRoute() as route:
        yield Links(route)


class Links:
    """One connection to rtnetlink; every method raises OSError for what the kernel refuses."""

    def __init__(self, route: Any) -> None:
        self._route = route

    async def find(self, name: str) -> Link | None:
        """Returns the link of that name, if there is one."""
        try:
            with _as_os_error():
                [found] = await self._route.link("get", ifname=name)
        except OSError as error:
            if error.errno in _NO_SUCH_LINK:
                return None
            raise
        kind = found.get(("linkinfo", "kind")) or ""
        return Link(found["index"], name, kind, bool(found["flags"] & _IFF_UP))

    async def name_of(self, index: int) -> str:
        """Returns the name of a link."""
        with _as_os_error():
            [found] = await self._route.link("get", index=index)
        return str(found.get("ifname"))

    async def addresses(self) -> list[Standing]:
        """Returns all addresses of the node, of both families."""
        found = []
        with _as_os_error():
            async for row in await self._route.get_addr():
                # Of a point-to-point link, "address" is the other end (rtnetlink(7)).
                text = row.get("local") or row.get("address")
                if text and row["family"] in (socket.AF_INET, socket.AF_INET6):
                    found.append(Standing(ip_address(text), row["prefixlen"], row["index"]))
        return found

    async def add_dummy(self, name: str) -> None:
        """Makes a dummy link; the kernel loads the driver if it can."""
        with _as_os_error():
            await self._route.link("add", ifname=name, kind=DUMMY)

    async def quieten(self, link: Link) -> None:
        """Makes a dummy link ask for nothing: no ARP, no NDP, no address of its own choice."""
        with _as_os_error():
            await self._route.link("set", index=link.index, flags=_IFF_NOARP, change=_IFF_NOARP)
            mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE)]}
            await self._route.link(
                "set", index=link.index, IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]}
            )

    async def set_up(self, link: Link) -> None:
        """Brings a link up."""
        with _as_os_error():
            await self._route.link("set", index=link.index, state="up")

    async def delete(self, link: Link) -> None:
        """Deletes a link and all addresses on it."""
        with _as_os_error():
            await self._route.link("del", index=link.index)

    async def add_address(self, address: IpAddress, link: Link) -> None:
        """Adds a host prefix that serves at once, and that nobody sends from by chance.

        Without duplicate address detection (RFC 4862 section 5.4). Scope host, respectively a
        preferred lifetime of 0 (RFC 6724 section 5, rule 3), keep the kernel from choosing it as
        the source of the node's connections to others.
        """
        if address.version == 4:
            more = {"scope": _RT_SCOPE_HOST}
        else:
            more = {"flags": _IFA_F_NODAD, "preferred_lft": 0}
        with _as_os_error():
            await self._route.addr(
                "add",
                index=link.index,
                address=str(address),
                prefixlen=address.max_prefixlen,
                **more,
            )

    async def delete_address(self, standing: Standing) -> None:
        """Deletes an address from its link."""
        with _as_os_error():
            await self._route.addr(
                "del",
                index=standing.index,
                address=str(standing.address),
                prefixlen=standing.prefix,
            )


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error
