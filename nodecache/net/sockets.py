"""Makes listening sockets, and explains in one sentence why one cannot be made.

Knows addresses and socket options, nothing of what is served on them.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
from contextlib import suppress
from pathlib import Path

from nodecache.config.model import Address
from nodecache.errors import SocketError
from nodecache.net.holders import describe_holder

# A burst of queries waits in the kernel while the loop is busy: 4 MiB hold about 5,000 small
# datagrams as the kernel accounts them (768 octets each), 20 ms of the most that we can serve.
RECEIVE_BUFFER_OCTETS = 4 * 1024 * 1024

# Connections that wait for accept(2). The kernel cuts it to net.core.somaxconn.
TCP_BACKLOG = 1024
_HTTP_BACKLOG = 128

# Kernel memory of each accepted connection, both ways: enough for the largest message twice.
# Without it the kernel grows a send buffer to 4 MiB for a client that does not read.
TCP_BUFFER_OCTETS = 128 * 1024

# Linux values for constants that the socket module of Python 3.11 lacks.
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78

# What SO_MEMINFO gives: 32 bit words, of which the ninth (SK_MEMINFO_DROPS) is the same counter of
# the kernel as SO_RXQ_OVFL, without a control message on every datagram.
_MEMINFO = struct.Struct("=9I")

_ADDRESS_ADVICE = "no interface of this machine has it; add it to one, or correct -localip and bind"
_DESCRIPTOR_ADVICE = "no file descriptor is left; raise the limit (ulimit -n, LimitNOFILE)"
_PORT_ADVICE = (
    "the port needs the capability NET_BIND_SERVICE; run as root, grant the capability,"
    " or choose a port from {least}"
)
_ADVICE = {
    errno.EADDRNOTAVAIL: _ADDRESS_ADVICE,
    errno.EMFILE: _DESCRIPTOR_ADVICE,
    errno.ENFILE: "the machine has no file descriptor left; raise the sysctl fs.file-max",
    errno.EAFNOSUPPORT: "this machine has IPv6 turned off; leave the address out",
    errno.EINVAL: "a link-local IPv6 address needs its interface; write it as fe80::1%eth0",
    errno.ENODEV: "the interface behind % does not exist; correct the address",
    errno.ENOBUFS: "the kernel is short of memory; free some and start again",
    errno.ENOMEM: "the kernel is short of memory; free some and start again",
}


def open_udp(address: Address, *, freebind: bool = False) -> socket.socket:
    """Returns a bound, non-blocking UDP socket.

    Args:
        address: IPv4 or IPv6 literal and port; "0.0.0.0" and "::" take the whole family only.
        freebind: Bind even if no interface has the address yet.

    Raises:
        SocketError: With address, reason and next step.
    """
    return _open(address, socket.SOCK_DGRAM, freebind)


def open_tcp(address: Address, *, freebind: bool = False) -> socket.socket:
    """Returns a listening, non-blocking TCP socket; arguments and errors as ``open_udp``."""
    return _open(address, socket.SOCK_STREAM, freebind)


def open_http(address: Address, *, freebind: bool = False) -> socket.socket:
    """Returns a listening, non-blocking socket for pages; an empty host means every address.

    Made here, because a loop that is given a host looks it up in threads, and these stay.

    Raises:
        OSError: As the kernel gave it; the caller knows what the page was for.
    """
    is_dual = not address.host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual or ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A successor may bind beside us before we go.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
        if freebind:
            _bind_freely(sock)
        sock.bind((address.host, address.port))
        sock.listen(_HTTP_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def has_ipv6() -> bool:
    """Whether this machine has IPv6, not only this Python."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def receive_drops(sock: socket.socket) -> int:
    """Returns how many datagrams the kernel dropped because the socket's queue was full.

    Counted modulo 2**32 since the socket was made. 0 where the kernel does not tell, and for a
    closed socket.
    """
    try:
        words = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return 0
    return int(_MEMINFO.unpack(words)[8]) if len(words) == _MEMINFO.size else 0


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open descriptors to the hard one; returns the soft limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _open(address: Address, kind: socket.SocketKind, freebind: bool) -> socket.socket:
    family, place = _resolve(address)
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        raise _explained(address, kind, error) from error
    try:
        sock.setblocking(False)
        _set_options(sock, freebind)
        sock.bind(place)
        if kind == socket.SOCK_STREAM:
            sock.listen(TCP_BACKLOG)
    except OSError as error:
        sock.close()
        raise _explained(address, kind, error) from error
    return sock


def _resolve(address: Address) -> tuple[int, tuple[object, ...]]:
    """Returns family and socket address of a literal; never asks a resolver."""
    try:
        # As octets: a str would load the IDNA tables (0.4 MB) for nothing.
        host = address.host.encode("ascii")
        found = socket.getaddrinfo(host, address.port, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError) as error:
        text = f"cannot listen on {address}: not an IP address of this machine; write it in digits"
        raise SocketError(text) from error
    family, _, _, _, place = found[0]
    return family, place


def _set_options(sock: socket.socket, freebind: bool) -> None:
    # As CoreDNS: a successor may bind beside us before we go.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        # "::" beside "0.0.0.0" on the same port is two sockets.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if freebind:
        _bind_freely(sock)
    if sock.type == socket.SOCK_STREAM:
        _set_tcp_options(sock)
    else:
        _raise_receive_buffer(sock)


def _bind_freely(sock: socket.socket) -> None:
    """Lets ``sock`` bind an address that no interface has yet."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)


def _set_tcp_options(sock: socket.socket) -> None:
    """Sets what accepted connections inherit, too."""
    # Connections of a predecessor in TIME-WAIT must not keep the port.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Nagle's algorithm would hold a reply back until the previous one is acknowledged.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TCP_BUFFER_OCTETS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TCP_BUFFER_OCTETS)


def _raise_receive_buffer(sock: socket.socket) -> None:
    """Asks for RECEIVE_BUFFER_OCTETS; without NET_ADMIN the kernel grants net.core.rmem_max."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_OCTETS)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_OCTETS)


def _explained(address: Address, kind: socket.SocketKind, error: OSError) -> SocketError:
    """Returns the error with address, reason and next step."""
    transport = "TCP" if kind == socket.SOCK_STREAM else "UDP"
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EADDRINUSE:
        holder = describe_holder(address, transport.lower())
        advice = f"{holder} holds it; stop that, or choose another address or port"
    elif error.errno in (errno.EACCES, errno.EPERM):
        advice = _PORT_ADVICE.format(least=_least_free_port())
    else:
        advice = _ADVICE.get(error.errno or 0, "correct the address or free the resource")
    return SocketError(f"cannot listen on {address} ({transport}): {reason.lower()}: {advice}")


def _least_free_port() -> int:
    """Returns the lowest port that needs no capability."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_bytes())
    except (OSError, ValueError):
        return 1024
