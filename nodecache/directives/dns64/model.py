"""How ``dns64`` makes addresses, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from nodecache.config.model import Setting


@dataclass(frozen=True, slots=True)
class Dns64:
    """The ``dns64`` directive: AAAA records made of A records (RFC 6147).

    Attributes:
        prefix: IPv6 network, length 32, 40, 48, 56, 64 or 96.
        translate_all: Also where there is an AAAA record.
        allow_ipv4: Also for queries that arrive over IPv4.
    """

    prefix: str = "64:ff9b::/96"
    translate_all: bool = False
    allow_ipv4: bool = False


DNS64: Setting[Dns64 | None] = Setting("dns64", None)
