"""The pace of one upstream: how many queries a second it may get, and who waits for a turn.

Sans-I/O, and knows nothing of connections. One pace belongs to a server's address, so its pools
for UDP and for TCP share it.
"""

from __future__ import annotations

from nodecache.upstreams.exchange import Exchange, Queue

# A stub that gives up after 1 s must still get its answer, and a stale one goes out by then.
TURN_WITHIN_S = 0.4
# Of a second's queries, what may leave at once: misses come in small heaps.
BURST_SHARE = 0.05


class Pace(Queue):
    """A token bucket, and the exchanges that wait for a token.

    The bucket fills more slowly than ``rate`` by its burst, so that no second sees more than
    ``rate`` queries, wherever it begins. Whoever waits gets a turn within TURN_WITHIN_S, because
    no more wait than that time has tokens for.

    Attributes:
        most_waiting: Exchanges.
        is_planned: Somebody looks at the queue when the next token is there.
    """

    __slots__ = ("_at", "_burst", "_fill", "_next", "_tokens", "is_planned", "most_waiting")

    def __init__(self, rate: int) -> None:
        """Makes a full bucket for ``rate`` queries a second, 1 at least."""
        super().__init__()
        self._burst = max(1.0, rate * BURST_SHARE)
        self._fill = rate - self._burst + 1.0  # a full bucket's first query is of this second
        self._tokens = self._burst
        self._at = 0.0
        self._next: Exchange | None = None
        self.most_waiting = max(1, int(self._fill * TURN_WITHIN_S))
        self.is_planned = False

    def __repr__(self) -> str:
        """Returns the figures that tests and people debugging look at."""
        return f"<{self._tokens:.2f} of {self._burst:g} tokens, {len(self.waiting)} waiting>"

    def admits(self, exchange: Exchange, now: float) -> bool:
        """Takes a token for ``exchange`` if it may go out now."""
        if self._next is exchange:
            self._next = None
            return True
        if not (self.has_spare(now) if exchange.is_spare else self.has_room(now)):
            return False
        self._tokens -= 1.0
        return True

    def spend(self) -> None:
        """Takes a token for a probe, after ``has_spare``."""
        self._tokens -= 1.0

    def has_room(self, now: float) -> bool:
        """Whether a query may go out now."""
        return not self.waiting and self._filled(now) >= 1.0

    def has_spare(self, now: float) -> bool:
        """Whether a query that can be done without may go out: it leaves half a burst to others."""
        return not self.waiting and self._filled(now) >= max(1.0, self._burst / 2)

    def take_turn(self, now: float) -> Exchange | None:
        """Removes and returns who is next, with its token; None while there is none."""
        if not self.waiting or self._filled(now) < 1.0:
            return None
        self._tokens -= 1.0
        exchange = self._next = next(iter(self.waiting))
        exchange.waiting_in = None
        return exchange

    def next_at(self, now: float) -> float:
        """Returns when the next token is there, monotonic seconds."""
        return now + max(0.0, 1.0 - self._filled(now)) / self._fill

    def _filled(self, now: float) -> float:
        """Returns the tokens that there are now."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._fill)
            self._at = now
        return self._tokens
