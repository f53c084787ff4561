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

from nodecache.config.node import NodePlan

# linux/netlink.h, rtnetlink.h and nfnetlink.h; Python knows none of them.
_NETLINK_ROUTE = 0
_NETLINK_NETFILTER = 12
_LINKS_AND_ADDRESSES = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_NFTABLES = 1 << (7 - 1)  # NFNLGRP_NFTABLES

_SIOCGIFFLAGS = 0x8913
_IFREQ = struct.Struct("16sh22x")  # netdevice(7)
_IFF_UP = 0x1

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
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))
            return ip_address(probe.getsockname()[0]) == wanted
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


def _is_down(link: str) -> bool:
    """Whether there is such a link and it is not up."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            reply = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, _IFREQ.pack(link.encode(), 0))
    except OSError:
        return False
    return not _IFREQ.unpack(reply)[1] & _IFF_UP


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
