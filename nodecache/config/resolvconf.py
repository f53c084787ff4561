"""The nameservers of a resolv.conf, and whether an address is one of our own.

Pure text work; who wrote the file may be anybody (DHCP, a VPN client), so nothing in it is a fault.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from nodecache.config.model import Address
from nodecache.config.values import parse_ip

_MAX_NAMESERVERS = 15  # as many as a forward may have
_COMMENT = re.compile("[#;]")


def parse_nameservers(text: str) -> tuple[list[str], list[str]]:
    """Returns the addresses of the first 15 ``nameserver`` lines, and the words that are none.

    Everything behind ``#`` or ``;`` is a comment; options, search and the like do not matter to
    a forwarder. Addresses are in normal form, each once; IPv6 may carry a zone (fe80::1%eth0).
    """
    hosts: dict[str, None] = {}
    others: list[str] = []
    for line in text.split("\n"):
        fields = _COMMENT.split(line, maxsplit=1)[0].split()
        if fields[:1] != ["nameserver"]:
            continue
        word = fields[1] if len(fields) > 1 else ""
        try:
            hosts[parse_ip(word)] = None
        except ValueError:
            others.append(word)
        if len(hosts) + len(others) >= _MAX_NAMESERVERS:
            break
    return list(hosts), others


def is_own(address: Address, own: Iterable[Address]) -> bool:
    """Returns whether ``address`` reaches one of ``own``, however it is written.

    The zone does not matter, ::ffff:10.0.0.1 is 10.0.0.1, and a query to the unspecified
    address goes to the loopback address.
    """
    place = _reached(address)
    return any(_reached(other) == place for other in own)


def _reached(address: Address) -> tuple[str, int]:
    ip = ipaddress.ip_address(address.host.partition("%")[0] or "::")
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_unspecified:
        return "127.0.0.1" if ip.version == 4 else "::1", address.port
    return str(ip), address.port
