"""Finds out from /proc which process holds an address, to name it in an error message."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

from nodecache.config.model import Address

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LISTENING = "0A"  # TCP_LISTEN in the state column of /proc/net/tcp
_PROC = Path("/proc")


def describe_holder(address: Address, transport: str) -> str:
    """Returns "dnsmasq (pid 812)", or what else can be said of who holds ``address``.

    Args:
        address: The one that could not be bound.
        transport: "udp" or "tcp".

    Raises nothing: what cannot be read is left out.
    """
    inodes = frozenset(_holding_inodes(address, transport))
    for pid in _pids():
        if _has_socket(pid, inodes):
            return f"{_command(pid)} (pid {pid})"
    return "another process (only root can see which)" if inodes else "another socket"


def _holding_inodes(address: Address, transport: str) -> Iterator[str]:
    """Yields the inodes of sockets whose address stands in the way of ``address``."""
    try:
        wanted = _plain(ipaddress.ip_address(address.host))
    except ValueError:
        return
    for name in (transport, transport + "6"):
        for line in _lines(_PROC / "net" / name)[1:]:
            fields = line.split()
            host, _, port = fields[1].partition(":")
            if transport == "tcp" and fields[3] != _LISTENING:
                continue
            if int(port, 16) == address.port and _overlaps(wanted, _parse_address(host)):
                yield fields[9]


def _overlaps(wanted: _IPAddress, held: _IPAddress) -> bool:
    # "::" may hold the IPv4 port as well, so an unspecified address counts for both families.
    return wanted == held or wanted.is_unspecified or held.is_unspecified


def _parse_address(text: str) -> _IPAddress:
    """Returns the address that /proc/net prints as 32-bit words in the machine's order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return _plain(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def _plain(address: _IPAddress) -> _IPAddress:
    """Returns an address without its zone; an IPv4-mapped one as IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(address.packed)
    return address


def _pids() -> list[int]:
    try:
        return sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    except OSError:
        return []


def _has_socket(pid: int, inodes: frozenset[str]) -> bool:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        descriptors = list((_PROC / f"{pid}/fd").iterdir())
    except OSError:
        return False  # another user's, or gone meanwhile
    return any(_link(descriptor) in wanted for descriptor in descriptors)


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _command(pid: int) -> str:
    return (_lines(_PROC / f"{pid}/comm") or ["a process"])[0]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
