"""To which of the machine's addresses a datagram came, so that its reply can leave from there.

For sockets that are bound to every address. The kernel tells it in a control message (cmsg(3)) with
struct in_pktinfo or in6_pktinfo, which goes back with the reply. That also names the interface;
it is cleared, because replies leave by the routing table (as CoreDNS's do), not by where the query
came in. Imports nothing that the keeper would have to pay for.
"""

from __future__ import annotations

import socket

_IP_PKTINFO = 8  # nameless in Python 3.11
_INDEX_OCTETS = 4  # of the interface's number
_INDEX_AT: dict[int, int] = {socket.AF_INET: 0, socket.AF_INET6: 16}
_HEADER_OCTETS = socket.CMSG_LEN(0)

# What one control message takes, by family.
CONTROL_OCTETS: dict[int, int] = {
    socket.AF_INET: socket.CMSG_SPACE(12),
    socket.AF_INET6: socket.CMSG_SPACE(20),
}
MOST_CONTROL_OCTETS = max(CONTROL_OCTETS.values())


def keep_destination(sock: socket.socket) -> None:
    """Has the kernel tell to which address each datagram came."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def without_interface(family: int, message: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """Returns a control message of ``recvmsg`` as ``sendmsg`` should have it."""
    level, kind, data = message
    at = _INDEX_AT[family]
    return level, kind, data[:at] + bytes(_INDEX_OCTETS) + data[at + _INDEX_OCTETS :]


def interface_span(family: int) -> range:
    """Returns which octets of a whole control message tell the interface."""
    first = _HEADER_OCTETS + _INDEX_AT[family]
    return range(first, first + _INDEX_OCTETS)
