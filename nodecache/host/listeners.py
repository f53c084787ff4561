"""Who has the DNS port of our addresses, asked of the kernel's own list of sockets.

Sockets are seen from wherever the node's network is: a debug pod has files and processes of its
own. The standard library does; nothing is changed or sent.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from nodecache.config.node import NodePlan

_NET = Path("/proc/net")
# tcp_states.h: a datagram socket without a peer, a listener. The latter come first in their list
# (Documentation/networking/proc_net_tcp.rst), before thousands of connections.
_STATES = {"udp": "07", "tcp": "0A"}
_WORD_DIGITS = 8
_INODE = 9

_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def who_serves(plan: NodePlan, but: Collection[int] = ()) -> list[str]:
    """Returns the sockets on the plan's addresses and DNS port, such as "udp 10.96.0.10:53".

    Sockets without an address count where ours are so. Of a plan without addresses it is all
    sockets on the port but those for the host alone.

    Args:
        plan: Whose addresses and port.
        but: Inodes of sockets that do not count, whoever else holds them.

    Raises:
        OSError: The kernel does not show its sockets.
    """
    ours = set(map(ipaddress.ip_address, plan.addresses))
    found = {
        f"{transport} [{host}]:{port}" if host.version == 6 else f"{transport} {host}:{port}": None
        for transport, host, port, inode in _listeners()
        if inode not in but and port == plan.dns_port and _is_ours(plan, ours, host)
    }
    return list(found)


def _is_ours(plan: NodePlan, ours: set[_IpAddress], host: _IpAddress) -> bool:
    if host.is_unspecified:
        return plan.is_wildcard
    return host in ours if ours else not host.is_loopback


def _listeners() -> Iterator[tuple[str, _IpAddress, int, int]]:
    for transport, state in _STATES.items():
        yield from _read(_NET / transport, transport, state)
        if (_NET / f"{transport}6").exists():  # a kernel may be without IPv6
            yield from _read(_NET / f"{transport}6", transport, state)


def _read(path: Path, transport: str, state: str) -> Iterator[tuple[str, _IpAddress, int, int]]:
    with path.open() as lines:
        next(lines, "")
        for line in lines:
            fields = line.split()
            if fields[3] == state:
                host, _, port = fields[1].partition(":")
                yield transport, _parse(host), int(port, 16), int(fields[_INODE])
            elif transport == "tcp":
                return


def _parse(digits: str) -> _IpAddress:
    """Reads an address as the kernel prints it: words of 32 bits as this machine keeps them."""
    places = range(0, len(digits), _WORD_DIGITS)
    words = [int(digits[place : place + _WORD_DIGITS], 16) for place in places]
    return ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
