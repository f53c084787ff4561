"""Cheap looks at the node, by the standard library alone: is all there, and did anything change?

Reads no netlink message: that something happened is enough to look again. Changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from nodecache.config.node import NodePlan

# linux/netlink.h, rtnetlink.h and nfnetlink.h; Python knows none of them.
_NETLINK_ROUTE = 0
_NETLINK_NETFILTER = 12
_LINKS_AND_ADDRESSES = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_NFTABLES = 1 << (7 - 1)  # NFNLGRP_NFTABLES

_SIOCGIFFLAGS, _SIOCGIFNETMASK = 0x8913, 0x891B
_IFREQ = struct.Struct("16sh22x")  # netdevice(7)
_IFREQ_ADDRESS = struct.Struct("16sH2x4s16x")
_IFF_UP = 0x1
_HOST_MASK = b"\xff\xff\xff\xff"
_IF_INET6 = Path("/proc/net/if_inet6")  # address, index, prefix, scope, flags, name

# Our table and our chains are called so in every backend, and nobody else's are.
_OUR_NAME = b"nodecache"
_MOST_READS = 32  # datagrams a wake-up; what is left wakes us again
_MOST_OCTETS = 65536  # of a datagram; the kernel's own are half as long at most

_AN_EVENT = b""  # stands for the events that the kernel had no room for


def is_local(address: str) -> bool:
    """Returns whether the node has ``address`` and delivers to it; raises nothing.

    The kernel is asked by a connected UDP socket, which sends nothing: it chooses the address
    itself as the source if, and only if, the node has it. Binding would not tell, where
    net.ipv4.ip_nonlocal_bind is 1. Not local are IPv6 addresses whose uniqueness is still being
    checked (RFC 4862 section 5.4), and addresses that only a wider prefix makes so (127.0.0.0/8).
    """
    try:
        wanted = ip_address(address)
        family = socket.AF_INET if wanted.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((address, 53))
            return ip_address(asking.getsockname()[0]) == wanted
    except (OSError, ValueError):
        return False


def find_gaps(plan: NodePlan) -> list[str]:
    """Returns what the interface of ``plan`` lacks, a phrase for each; raises nothing.

    Addresses count wherever they stand, since they may be on another link for good reason.
    """
    gaps = [f"{address} is not local" for address in plan.addresses if not is_local(address)]
    if _is_down(plan.interface):
        gaps.append(f"{plan.interface} is down")
    return gaps


def find_misplaced(plan: NodePlan) -> list[str]:
    """Returns what is on lo although there is a link for it, a phrase each; raises nothing.

    Not IPv6 where the link has it switched off: that has to stay.
    """
    if _flags(plan.interface) is None:
        return []
    return [
        f"{address} is on lo although there is {plan.interface}"
        for address in plan.addresses
        if _is_on_loopback(address) and (":" not in address or _has_ipv6(plan.interface))
    ]


def _is_on_loopback(address: str) -> bool:
    """Whether lo has the address, and as a host prefix."""
    if ":" in address:
        start, end = ip_address(address).packed.hex(), [f"{128:02x}", "lo"]
        rows = [line.split() for line in _text(_IF_INET6).splitlines()]
        return any(row[0] == start and [row[2], row[-1]] == end for row in rows)
    # Among the addresses of lo the kernel takes the one named, or else the first.
    request = _IFREQ_ADDRESS.pack(b"lo", socket.AF_INET, ip_address(address).packed)
    reply = _ask_about_link(_SIOCGIFNETMASK, request)
    return reply is not None and _IFREQ_ADDRESS.unpack(reply)[2] == _HOST_MASK


def _has_ipv6(link: str) -> bool:
    return _text(Path("/proc/sys/net/ipv6/conf") / link / "disable_ipv6").strip() == "0"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _is_down(link: str) -> bool:
    """Whether there is such a link and it is not up."""
    flags = _flags(link)
    return flags is not None and not flags & _IFF_UP


def _flags(link: str) -> int | None:
    """Returns the flags of a link, None if there is none."""
    reply = _ask_about_link(_SIOCGIFFLAGS, _IFREQ.pack(link.encode(), 0))
    return None if reply is None else int(_IFREQ.unpack(reply)[1])


def _ask_about_link(request: int, about: bytes) -> bytes | None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            return fcntl.ioctl(any_socket, request, about)
    except OSError:
        return None


class Events:
    """Tells when links or addresses of the node, or our rules in nftables, have changed.

    Hints, not facts: some changes are told twice, others (those of iptables-legacy) never.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: list[socket.socket] = []

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        on_route_event: Callable[[], None],
        on_rules_event: Callable[[], None],
    ) -> None:
        """Calls back from ``loop`` until ``close``, once a wake-up at most; raises nothing.

        What the kernel does not permit is left out: the events of nftables need CAP_NET_ADMIN.
        """
        self._loop = loop
        self._listen(_NETLINK_ROUTE, _LINKS_AND_ADDRESSES, on_route_event, b"")
        self._listen(_NETLINK_NETFILTER, _NFTABLES, on_rules_event, _OUR_NAME)

    def close(self) -> None:
        """Ends the calls; may be called twice."""
        for opened in list(self._sockets):
            self._forget(opened)

    def _listen(self, protocol: int, groups: int, call: Callable[[], None], mark: bytes) -> None:
        with contextlib.suppress(OSError):
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
            opened = socket.socket(socket.AF_NETLINK, kind, protocol)
            try:
                opened.bind((0, groups))
            except OSError:
                opened.close()
                raise
            self._sockets.append(opened)
            assert self._loop is not None  # noqa: S101 # set by start
            self._loop.add_reader(opened, self._read, opened, call, mark)

    def _read(self, readable: socket.socket, call: Callable[[], None], mark: bytes) -> None:
        """Empties the socket as far as the bound allows; kube-proxy's events end here."""
        is_event = False
        for _ in range(_MOST_READS):
            try:
                events = _receive(readable)
            except BlockingIOError:
                break
            except OSError:
                self._forget(readable)  # what fails for good would wake us for ever
                break
            is_event = is_event or events == _AN_EVENT or mark in events.lower()
        if is_event:
            call()

    def _forget(self, opened: socket.socket) -> None:
        assert self._loop is not None  # noqa: S101 # only opened by start
        self._sockets.remove(opened)
        self._loop.remove_reader(opened)
        opened.close()


def _receive(readable: socket.socket) -> bytes:
    """Returns one datagram; one that got lost for want of room may have been about us."""
    try:
        return readable.recv(_MOST_OCTETS)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return _AN_EVENT
