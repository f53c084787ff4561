"""How much of what may be in flight one client may take, once much is in flight.

A client is an IPv4 address, or the 64 leading bits of an IPv6 address: a host has as many of the
others as it likes (RFC 8981). Until half of the room is taken nobody is counted, so a busy
client alone on a node is not held back, and a miss costs nothing here.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address

from nodecache.config.model import ForwardPolicy
from nodecache.upstreams.pool import MAX_WAITING

_WHOLE = 100  # per cent
_HOST_BITS = 64
_MOST_NETWORKS = 1024  # text -> network, remembered


class ClientShares:
    """Counts exchanges by the client that began them.

    What one client holds is at most what was begun while nobody was counted, half the room, and
    its share.

    Attributes:
        crowded_from: Exchanges under way from which clients are counted.
    """

    __slots__ = ("_counts", "_percent", "_room", "crowded_from")

    def __init__(self, percent: int, most_pending: int) -> None:
        """Counts nobody yet.

        Args:
            percent: Of the room, for each client; 100 sets no limit.
            most_pending: Exchanges under way, over all forwards.
        """
        # The pool of a single upstream is full long before the table of all exchanges is.
        self._room = min(most_pending, MAX_WAITING)
        self._percent = percent
        self._counts: dict[str, int] = {}
        self.crowded_from = most_pending if percent >= _WHOLE else self._room // 2

    def __repr__(self) -> str:
        """Returns who is counted, for tests and people debugging."""
        return repr(self._counts)

    def is_crowded(self, policy: ForwardPolicy, pending: int, pending_of_block: int) -> bool:
        """Whether half of what may be in flight is, over all blocks or by ``max_concurrent``."""
        if pending >= self.crowded_from:
            return True
        most = policy.max_concurrent
        return self._percent < _WHOLE and most > 0 and pending_of_block >= most // 2

    def take(self, host: str, policy: ForwardPolicy) -> str:
        """Counts one more exchange; returns the client to give it back for, "" if it has enough."""
        room = min(self._room, policy.max_concurrent or self._room)
        client = _network(host) if ":" in host else host
        count = self._counts.get(client, 0)
        if count >= max(1, room * self._percent // _WHOLE):
            return ""
        self._counts[client] = count + 1
        return client

    def give_back(self, client: str) -> None:
        """Takes note that an exchange which ``take`` counted has ended."""
        count = self._counts[client] - 1
        if count:
            self._counts[client] = count
        else:
            del self._counts[client]


@lru_cache(_MOST_NETWORKS)
def _network(host: str) -> str:
    """Returns who an IPv6 address belongs to; an IPv4 address that is mapped is itself."""
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{int(address) >> _HOST_BITS:x}"
