"""How ``loadbalance`` orders addresses, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from nodecache.config.model import Setting


@dataclass(frozen=True, slots=True)
class LoadBalance:
    """The ``loadbalance`` directive: the order of A, AAAA and MX records in each reply.

    Attributes:
        is_weighted: One address is chosen by weight and comes first; nothing is shuffled.
        weights: Name in wire format -> (RDATA of an address, weight from 1 to 255) pairs;
            addresses without one weigh 1.
        prefer: Networks whose addresses come first, in this order.
    """

    is_weighted: bool = False
    weights: tuple[tuple[bytes, tuple[tuple[bytes, int], ...]], ...] = ()
    prefer: tuple[str, ...] = ()


LOADBALANCE: Setting[LoadBalance | None] = Setting("loadbalance", None)
