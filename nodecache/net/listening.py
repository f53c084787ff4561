"""Listening sockets that outlive a process: inherited if somebody held them for us, else made.

Names say what a socket is for: "udp 169.254.20.10:53", "tcp [fd00::a]:53", "http 0.0.0.0:9253".
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping

from nodecache.config.model import Address
from nodecache.net.sockets import open_http, open_tcp, open_udp


class ListeningSockets:
    """Makes and keeps every listening socket of one process.

    What ``udp``, ``tcp`` and ``http`` return is a duplicate that its user closes; the one kept here
    is what a successor gets. Both are the same socket to the kernel.
    """

    def __init__(
        self,
        inherited: Mapping[str, socket.socket],
        freebind_hosts: Collection[str] = (),
        hold: Callable[[str, socket.socket], object] = lambda _name, _sock: None,
        release: Callable[[str], object] = lambda _name: None,
    ) -> None:
        """Takes what a predecessor or the keeper held.

        Args:
            inherited: By name; closed here when nobody wants them.
            freebind_hosts: Addresses that are bound even if no interface has them yet.
            hold: Called with each socket that is made or taken, for the keeper.
            release: Called with the name of each that is given up.
        """
        self._inherited = dict(inherited)
        self._kept: dict[str, socket.socket] = {}
        self._freebind_hosts = freebind_hosts
        self._hold = hold
        self._release = release

    @property
    def has_inherited(self) -> bool:
        """Whether somebody held sockets for us."""
        return bool(self._inherited)

    @property
    def all(self) -> Mapping[str, socket.socket]:
        """Every socket in use, by name."""
        return self._kept

    @property
    def inodes(self) -> frozenset[int]:
        """What tells our sockets from others', whoever holds a duplicate."""
        return frozenset(os.fstat(sock.fileno()).st_ino for sock in self._kept.values())

    def udp(self, address: Address) -> socket.socket:
        """Returns a bound, non-blocking UDP socket. Raises SocketError."""
        freebind = address.host in self._freebind_hosts
        return self.take(f"udp {address}", lambda: open_udp(address, freebind=freebind))

    def tcp(self, address: Address) -> socket.socket:
        """Returns a listening, non-blocking TCP socket. Raises SocketError."""
        freebind = address.host in self._freebind_hosts
        return self.take(f"tcp {address}", lambda: open_tcp(address, freebind=freebind))

    def http(self, address: Address) -> socket.socket:
        """Returns a listening, non-blocking TCP socket for pages. Raises OSError."""
        freebind = address.host in self._freebind_hosts
        return self.take(f"http {address}", lambda: open_http(address, freebind=freebind))

    def take(self, name: str, make: Callable[[], socket.socket]) -> socket.socket:
        """Returns the socket of that name, made if nobody has held it; raises what that raises."""
        kept = self._kept.get(name)
        if kept is None:
            kept = self._inherited.pop(name, None) or make()
            kept.setblocking(False)
            self._kept[name] = kept
            self._hold(name, kept)
        return kept.dup()

    def give_up(self, name: str) -> None:
        """Closes the socket of that name for good, at the keeper's, too."""
        sock = self._kept.pop(name, None)
        if sock is not None:
            sock.close()
            self._release(name)

    def drop_unused(self) -> None:
        """Closes what was inherited and nobody wanted."""
        for name, sock in self._inherited.items():
            sock.close()
            self._release(name)
        self._inherited.clear()

    def close(self) -> None:
        """Closes everything here; who holds duplicates goes on holding them."""
        for sock in [*self._kept.values(), *self._inherited.values()]:
            sock.close()
        self._kept.clear()
        self._inherited.clear()
