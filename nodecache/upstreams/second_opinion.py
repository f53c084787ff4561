"""Second opinions: when an error is not believed at once because another backend may do better.

Behind a service address one backend may be ill, say SERVFAIL to everything or cut what needs no
cutting, while its siblings are well. A response over a stream tells nothing of which it is; but
on another connection the same question probably meets another backend.
"""

from __future__ import annotations

from nodecache.counters import Counters
from nodecache.upstreams.asking import Asker
from nodecache.upstreams.budget import Budget
from nodecache.upstreams.connection import Connection, Pool
from nodecache.upstreams.exchange import Exchange
from nodecache.wire.const import TC
from nodecache.wire.numbers import SERVFAIL

MOST_OPINIONS = 5  # the first too
OPINION_SHARE = 0.01  # of all exchanges, so that names that are really broken cost little
OPINION_BURST = 30.0  # so that all connections to a backend that falls ill are found at once


class SecondOpinions:
    """Of all exchanges.

    Attributes:
        budget: Shared with questions that are asked again without EDNS.
    """

    __slots__ = ("_asker", "_counters", "budget")

    def __init__(self, asker: Asker, counters: Counters) -> None:
        self._asker = asker
        self._counters = counters
        self.budget = Budget(OPINION_SHARE, OPINION_BURST)

    def seek(self, exchange: Exchange, connection: Connection, message: bytes, now: float) -> bool:
        """Asks on another connection whether a SERVFAIL, or TC over TCP, is true.

        Returns whether somebody is asked.
        """
        pool = connection.pool
        if not (is_doubtful(message) and pool.is_stream):
            return False
        connection.well_at = 0.0
        setbacks = exchange.setback()
        if (
            setbacks.opinions >= MOST_OPINIONS - 1
            or not (self._asker.may_ask(exchange) and pool.has_spare(now))
            or not self.budget.take(self._asker.submitted)
        ):
            return False
        setbacks.opinions += 1
        setbacks.response = message
        self._counters.count_event("doubted")
        pool.distrust(connection)
        return pool.ask(exchange, now) is None

    def learn(self, exchange: Exchange, pool: Pool, message: bytes, now: float) -> None:
        """Takes note that one backend answered what others, or another one, would not."""
        setbacks = exchange.setbacks
        if setbacks is not None and setbacks.opinions and not is_doubtful(message):
            pool.keep_what_works(now)


def is_doubtful(message: bytes) -> bool:
    """Whether a response over a stream may be the fault of one backend among several."""
    return message[3] & 0xF == SERVFAIL or bool(message[2] & TC >> 8)
