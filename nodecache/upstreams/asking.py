"""Whom an exchange is asked of next, when the first who was asked did not do."""

from __future__ import annotations

from collections.abc import Sequence

from nodecache.timers import Timers
from nodecache.upstreams.connection import Pool
from nodecache.upstreams.exchange import Carrier, Exchange, Failure
from nodecache.upstreams.pools import Pools

MAX_ATTEMPTS = 16  # one that moves from dying connection to dying connection included


class Asker:
    """Asks for all exchanges, and says when to look at them.

    Attributes:
        submitted: Exchanges until now.
        timers: Exchanges by their ``wake_at``.
        pools: All there are.
    """

    __slots__ = ("pools", "submitted", "timers")

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self.timers: Timers[Exchange] = Timers()
        self.submitted = 0

    def look_at(self, exchange: Exchange, when: float) -> None:
        """Has the exchange looked at next at ``when``; what was planned before is void."""
        exchange.wake_at = min(when, exchange.deadline)
        self.timers.add(exchange.wake_at, exchange)

    def may_ask(self, exchange: Exchange) -> bool:
        """Whether it may have one attempt more."""
        return len(exchange.attempts) < MAX_ATTEMPTS

    def rank(self, exchange: Exchange, now: float, tried: set[Carrier] | None = None) -> list[Pool]:
        """Returns its pools, those first that are most likely to answer; ``tried`` are last."""
        seen = exchange.tried() if tried is None else tried
        route = self.pools.route_of(exchange)
        return [self.carrier(exchange, pool, now) for pool in route.rank(seen, now)]

    def carrier(self, exchange: Exchange, pool: Pool, now: float) -> Pool:
        """Returns the pool that asks the server of ``pool`` the way that ``exchange`` needs."""
        if pool.is_stream:
            return pool
        needs_stream = exchange.setbacks is not None and exchange.setbacks.needs_stream
        if needs_stream or pool.forms.loses_datagrams(now):
            return self.pools.streams(pool)
        return pool

    def ask_first(self, exchange: Exchange, pools: Sequence[Carrier], now: float) -> Failure | None:
        """Asks the first pool that takes the query; returns why none does."""
        failure: Failure | None = Failure.UNREACHABLE
        if not self.may_ask(exchange):
            return failure
        for pool in pools:
            failure = pool.ask(exchange, now)
            if failure is None:
                break
        return failure

    def ask_somebody(self, exchange: Exchange, now: float) -> None:
        """Asks whoever is most likely to answer; ends the exchange if nobody can be asked."""
        failure = self.ask_first(exchange, self.rank(exchange, now), now)
        if failure is not None and not exchange.is_under_way():
            exchange.fail(failure, now)

    def pass_over(
        self,
        exchange: Exchange,
        message: bytes | None,
        now: float,
        failure: Failure = Failure.UNREACHABLE,
    ) -> None:
        """Hands the exchange to an untried upstream; without one, ``message`` is the answer."""
        setbacks = exchange.setback()
        setbacks.response = message or setbacks.response
        if not self.ask_untried(exchange, exchange.tried(), now) and not exchange.is_under_way():
            exchange.fail(failure, now)

    def ask_untried(self, exchange: Exchange, tried: set[Carrier], now: float) -> bool:
        """Asks whoever is not among ``tried``; returns whether there is somebody."""
        others = [pool for pool in self.rank(exchange, now, tried) if pool not in tried]
        return self.ask_first(exchange, others, now) is None
