"""A listening socket as the resolver sees it: its labels, its server blocks, the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from nodecache.cache.packet import PacketCache
from nodecache.config.model import Address
from nodecache.resolve.zones import Zones
from nodecache.wire.const import MAX_MESSAGE_OCTETS

MOST_UDP_OCTETS = 65507  # what an IPv4 datagram can carry


class Answers(Protocol):
    """The resolver, as the servers of listeners need it."""

    def query(self, octets: bytes, listener: Listener, client: Any, now: float) -> bytes | None:
        """Returns the whole reply, b"" if there never is one, None if it is delivered later."""


class TakesReplies(Protocol):
    """A BeforeCache (resolve/before_cache.py), as the resolver needs it."""

    def deliver(self, client: Any, reply: bytes, now: float, upstream: str) -> None:
        """Takes a whole reply that came later, and who answered, "" for none of the upstreams."""


class Listener:
    """One listening address with one transport.

    Attributes:
        server: CoreDNS's label, "dns://169.254.20.10:53".
        proto: "udp" or "tcp".
        family: "1" for IPv4, "2" for IPv6.
        zones: Which server block serves which names here. Replaced on reload.
        locate: Client -> its IP address and port, as far as they are known.
        before_cache: What takes replies instead of ``deliver``, for a listener that is no socket
            but the inner side of a BeforeCache.
        deliver: Sends a whole reply, ID included, to a client that ``Resolver.query`` was given.
            The client may be gone; then it counts the drop and returns.
        most_octets: Longest reply that the transport can carry.
        packets: The packet cache in front of a UDP socket, None for TCP.
    """

    __slots__ = (
        "before_cache",
        "deliver",
        "family",
        "locate",
        "most_octets",
        "packets",
        "proto",
        "server",
        "zones",
    )

    def __init__(
        self,
        server: str,
        proto: str,
        family: str,
        zones: Zones,
        deliver: Callable[[Any, bytes], None],
        packets: PacketCache | None = None,
    ) -> None:
        self.server = server
        self.proto = proto
        self.family = family
        self.zones = zones
        self.deliver = deliver
        self.most_octets = MOST_UDP_OCTETS if proto == "udp" else MAX_MESSAGE_OCTETS
        self.packets = packets
        self.locate: Callable[[Any], Address] = _unknown
        self.before_cache: TakesReplies | None = None


def _unknown(_client: object) -> Address:
    return Address("", 0)
