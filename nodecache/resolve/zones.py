"""From QNAME to server block: the longest zone wins (CoreDNS's rule)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from nodecache.config.model import Name
from nodecache.counters import CacheSeries, QuerySeries
from nodecache.resolve.block import BlockState
from nodecache.wire.numbers import TYPE_DS
from nodecache.wire.query import Query


class TakesQueries(Protocol):
    """A BeforeCache (resolve/before_cache.py), as the resolver needs it."""

    def query(self, query: Query, client: Any, now: float) -> bytes | None:
        """Returns the whole reply, None if it is delivered later."""


class ServedZone:
    """One zone of a server block as one listener serves it.

    Attributes:
        zone: The zone.
        state: Its server block.
        queries, caches: The series of this listener and zone.
        before_cache: What queries go through before the cache, None for nothing.
    """

    __slots__ = ("before_cache", "caches", "queries", "state", "zone")

    def __init__(
        self,
        zone: Name,
        state: BlockState,
        queries: QuerySeries,
        caches: CacheSeries,
        before_cache: TakesQueries | None = None,
    ) -> None:
        self.zone = zone
        self.state = state
        self.queries = queries
        self.caches = caches
        self.before_cache = before_cache


class Zones:
    """All zones of one listener.

    ``unserved`` counts queries that no zone takes.
    """

    __slots__ = ("_by_name", "unserved")

    def __init__(self, zones: Iterable[ServedZone], unserved: QuerySeries) -> None:
        self._by_name = {served.zone.wire: served for served in zones}
        self.unserved = unserved

    def find(self, qname: bytes, qtype: int) -> ServedZone | None:
        """Returns the longest zone that ``qname`` is in, None if there is none.

        DS lives in the parent zone (RFC 4035 section 2.4), so the zone that is the QNAME itself
        takes it only if there is no other.
        """
        by_name = self._by_name
        fallback, position = None, 0
        if qtype == TYPE_DS and qname[0]:
            fallback, position = by_name.get(qname), qname[0] + 1
        while True:
            served = by_name.get(qname[position:])
            if served is not None:
                return served
            if not qname[position]:
                return fallback
            position += qname[position] + 1
