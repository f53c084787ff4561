"""Answers that were truncated over UDP: the whole is asked for over TCP."""

from __future__ import annotations

from nodecache.upstreams.asking import Asker
from nodecache.upstreams.connection import Pool
from nodecache.upstreams.exchange import Exchange, Failure

# A stub that waits 2 s is better off with half an answer than with none: then it asks over TCP.
TRUNCATED_S = 1.8


class Truncated:
    """Of all exchanges."""

    __slots__ = ("_asker",)

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def ask_whole(self, exchange: Exchange, pool: Pool, message: bytes, now: float) -> None:
        """Asks over TCP what ``pool`` truncated; without TCP, half an answer has to do."""
        asker, setbacks = self._asker, exchange.setback()
        stream = asker.pools.streams(pool)
        setbacks.needs_stream = setbacks.truncated = True
        setbacks.response = message
        if exchange.started_at + TRUNCATED_S < exchange.wake_at:
            asker.look_at(exchange, exchange.started_at + TRUNCATED_S)
        if (
            _is_asked_over_tcp(exchange)
            or stream in setbacks.unreached
            or not asker.may_ask(exchange)
            or stream.ask(exchange, now) is not None
        ):
            self.end_with_half(exchange, now)

    def end_with_half(self, exchange: Exchange, now: float) -> None:
        """Hands on a truncated response when nobody is left who might send the whole."""
        if _is_asked_over_tcp(exchange):
            return
        tried = exchange.tried() | exchange.setback().unreached
        if not self._asker.ask_untried(exchange, tried, now):
            exchange.fail(Failure.UNREACHABLE, now)


def is_cut(exchange: Exchange) -> bool:
    """Whether ``exchange`` has half an answer, and waits for the whole."""
    return exchange.setbacks is not None and exchange.setbacks.truncated


def waits_until(exchange: Exchange) -> float:
    """Returns when the exchange ends at the latest, with half an answer if it has one."""
    if is_cut(exchange) and not exchange.wants_whole:
        return min(exchange.deadline, exchange.started_at + TRUNCATED_S)
    return exchange.deadline


def _is_asked_over_tcp(exchange: Exchange) -> bool:
    """Whether an answer over TCP may still come."""
    if exchange.waiting_in is not None:
        return True
    return any(attempt.pool.is_stream for attempt in exchange.live_attempts())
