"""The pools of all upstreams, and what of them outlives a reload of the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nodecache.config.model import Address, ForwardPolicy, Transport, Upstream
from nodecache.counters import Counters, UpstreamSeries
from nodecache.upstreams.connection import Pool
from nodecache.upstreams.datagrams import DatagramPool
from nodecache.upstreams.exchange import Exchange
from nodecache.upstreams.forms import Forms
from nodecache.upstreams.outside import Outside
from nodecache.upstreams.pace import Pace
from nodecache.upstreams.route import Route
from nodecache.upstreams.streams import StreamPool

PROTO_LABELS = {Transport.UDP: "udp", Transport.TCP: "tcp", Transport.TLS: "tcp-tls"}


class Pools:
    """One for each upstream, and for each that is asked over TCP what was cut over UDP.

    Attributes:
        routes: By the ``id`` of their policy; only those that were asked for since a reload.
    """

    __slots__ = (
        "_counters",
        "_forms",
        "_old_routes",
        "_outside",
        "_paces",
        "_pools",
        "_reloaded_at",
        "_retired",
        "routes",
    )

    def __init__(self, counters: Counters, outside: Outside) -> None:
        self._counters = counters
        self._outside = outside
        self._pools: dict[Upstream, Pool] = {}
        self._retired: list[Pool] = []
        self._paces: dict[tuple[Address, int], Pace] = {}
        self._forms: dict[Address, Forms] = {}
        self.routes: dict[int, Route] = {}
        self._old_routes: dict[int, Route] = {}
        self._reloaded_at = 0.0
        counters.before_scrape.append(self._hand_in)

    def pool(self, upstream: Upstream) -> Pool:
        """Returns the one pool of ``upstream``."""
        pool = self._pools.get(upstream)
        if pool is None:
            series = self._series(str(upstream.address))
            kind = DatagramPool if upstream.transport is Transport.UDP else StreamPool
            pool = self._pools[upstream] = kind(upstream, series, self._outside)
            pool.pace = self._pace(upstream)
            pool.forms = self._forms.setdefault(upstream.address, pool.forms)
        return pool

    def all(self) -> list[Pool]:
        """Returns the pools of all upstreams in use."""
        return list(self._pools.values())

    def streams(self, pool: Pool) -> Pool:
        """Returns the pool that asks the same server over TCP, after a truncated response."""
        return self.pool(_over_tcp(pool.upstream))

    def route(self, policy: ForwardPolicy) -> Route:
        """Returns the route of ``policy``, for a new exchange."""
        route = self.routes.get(id(policy))
        if route is None:
            pools = tuple(self.pool(upstream) for upstream in policy.upstreams)
            route = self.routes[id(policy)] = Route(policy, pools, self._outside.random)
        return route

    def route_of(self, exchange: Exchange) -> Route:
        """Returns the route that ``exchange`` began on: those under way outlive a reload."""
        known = None
        if exchange.started_at < self._reloaded_at:
            known = self._old_routes.get(id(exchange.policy))
        return known or self.route(exchange.policy)

    def keep_only(self, upstreams: Iterable[Upstream], now: float) -> None:
        """Drains the connections to all other upstreams: the configuration changed."""
        kept = set(upstreams)
        kept |= {_over_tcp(upstream) for upstream in kept if upstream.transport is Transport.UDP}
        for upstream in list(self._pools):
            if upstream not in kept:
                pool = self._pools.pop(upstream)
                pool.retire()
                self._retired.append(pool)
        addresses = {upstream.address for upstream in kept}
        self._forms = {to: forms for to, forms in self._forms.items() if to in addresses}
        paces = {(upstream.address, upstream.max_rate) for upstream in kept}
        self._paces = {key: pace for key, pace in self._paces.items() if key in paces}
        self._old_routes = dict(self.routes)
        self.routes.clear()
        self._reloaded_at = now

    def _pace(self, upstream: Upstream) -> Pace | None:
        """Returns what all pools of the upstream's address share, None without ``max_rate``."""
        if not upstream.max_rate:
            return None
        key = (upstream.address, upstream.max_rate)
        return self._paces.get(key) or self._paces.setdefault(key, Pace(upstream.max_rate))

    def _series(self, to: str) -> UpstreamSeries:
        """Returns the series of an address, the old one if there was one before a reload."""
        for series in self._counters.upstreams:
            if series.to == to:
                return series
        series = UpstreamSeries(to)
        self._counters.upstreams.append(series)
        return series

    def _hand_in(self) -> None:
        """Puts what the pools counted into the series."""
        pools = [*self._pools.values(), *self._retired]
        for pool in pools:
            pool.series.connections.clear()
        for pool in pools:
            series, proto = pool.series, PROTO_LABELS[pool.upstream.transport]
            for state, count in pool.connection_counts().items():
                series.connections[state] = series.connections.get(state, 0) + count
            reused = max(0, pool.attempts - pool.dialled)
            series.reused[proto] = series.reused.get(proto, 0) + reused
            series.dialled[proto] = series.dialled.get(proto, 0) + pool.dialled
            pool.attempts = pool.dialled = 0
        self._retired = [p for p in self._retired if any(p.connection_counts().values())]


def _over_tcp(upstream: Upstream) -> Upstream:
    return replace(upstream, transport=Transport.TCP)
