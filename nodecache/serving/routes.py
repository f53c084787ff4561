"""Which server block answers what at one listening address, and under which series it counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nodecache.config.model import ServerBlock
from nodecache.counters import CacheSeries, Counters
from nodecache.resolve.block import BlockState
from nodecache.resolve.listener import Listener
from nodecache.resolve.resolver import Resolver
from nodecache.resolve.zones import ServedZone, Zones
from nodecache.serving.directives import before_cache_settings, build_before_cache
from nodecache.serving.server import Server

if TYPE_CHECKING:
    from nodecache.resolve.before_cache import BeforeCache, Directives


class Routes:
    """Leads the queries of all servers to their server blocks."""

    def __init__(self, resolver: Resolver, counters: Counters) -> None:
        self._resolver = resolver
        self._counters = counters

    def lead(self, server: Server, label: str, states: tuple[BlockState, ...]) -> None:
        """Lets ``states`` serve the queries of ``server``, whose series are those of ``label``.

        Its packets stay if they would be made alike again.
        """
        for state in states:
            for zone in state.block.zones:
                self._counters.plugins += [
                    (label, zone.text, name) for name in state.block.directives
                ]
        routes = (label, *((state, _shape(state.block)) for state in states))
        if routes == server.routes:
            return
        server.packets.clear()
        server.states, server.routes = states, routes
        for listener in (server.udp_listener, server.tcp_listener):
            listener.server = label
            labels = (label, "dropped", listener.proto, listener.family)
            unserved = self._counters.query_series(*labels)
            listener.zones = Zones(self._served(listener, states), unserved)

    def _served(self, listener: Listener, states: tuple[BlockState, ...]) -> Iterable[ServedZone]:
        """Yields the zones of one listener, each with series of its own."""
        for state in states:
            caches = cache_series(self._counters, listener.server, state)
            directives = build_before_cache(state.block)
            for zone in state.block.zones:
                labels = (listener.server, zone.text, listener.proto, listener.family)
                served = ServedZone(zone, state, self._counters.query_series(*labels), caches)
                if directives is not None:
                    served.before_cache = self._before_cache(directives, listener, served)
                yield served

    def _before_cache(
        self, directives: Directives, listener: Listener, served: ServedZone
    ) -> BeforeCache:
        from nodecache.resolve.before_cache import BeforeCache  # noqa: PLC0415 # see serving/directives.py

        inner = ServedZone(served.zone, served.state, served.queries, served.caches)

        def note_synthesis() -> None:
            counts = self._counters.dns64_translated
            counts[listener.server] = counts.get(listener.server, 0) + 1

        later = self._resolver.results.send_as_it_is
        return BeforeCache(directives, self._resolver, listener, inner, later, note_synthesis)


def cache_series(counters: Counters, label: str, state: BlockState) -> CacheSeries:
    """Returns the series of a block's cache at the server ``label``."""
    zones = state.block.zones_label
    if state.messages is None:
        return CacheSeries(label, zones)  # counts what nobody reads
    return counters.cache_series(label, zones)


def _shape(block: ServerBlock) -> tuple[object, ...]:
    """Returns what else than the cached message the octets of a reply depend on."""
    before = before_cache_settings(block)
    return block.zones, block.bufsize, block.cache is None, block.nsid, before
