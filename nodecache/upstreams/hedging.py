"""When a question is asked again because its answer is later than usual, and of whom."""

from __future__ import annotations

from math import inf

from nodecache.counters import Counters
from nodecache.upstreams.asking import Asker
from nodecache.upstreams.budget import Budget
from nodecache.upstreams.connection import Pool
from nodecache.upstreams.exchange import Attempt, Carrier, Exchange, Failure
from nodecache.upstreams.forms import Form
from nodecache.upstreams.patience import MOST_PATIENCE_S
from nodecache.upstreams.rescue import MAX_SILENT
from nodecache.upstreams.truncated import waits_until

HEDGE_SHARE = 0.05  # extra queries that a healthy upstream is burdened with at most
HEDGE_BURST = 50.0  # so that all queries of one dead connection can be asked again at once
# After the hedge, so that there are no two seconds in which nothing is asked.
RETRY_AFTER_S = (0.6, 2.0)


class Hedging:
    """Of all exchanges."""

    __slots__ = ("_asker", "_budget", "_counters")

    def __init__(self, asker: Asker, counters: Counters) -> None:
        self._asker = asker
        self._counters = counters
        self._budget = Budget(HEDGE_SHARE, HEDGE_BURST)

    def look(self, exchange: Exchange, now: float) -> None:
        """Asks again, because an answer is later than usual, or ends the exchange."""
        ends_at = waits_until(exchange)
        if now >= ends_at:
            exchange.fail(Failure.TIMED_OUT, now)
            return
        setbacks = exchange.setback()
        silent = _mark_silent(exchange, now)
        look_at = now + RETRY_AFTER_S[min(setbacks.looks, len(RETRY_AFTER_S) - 1)]
        queue = exchange.waiting_in
        if queue is None:
            if len(silent) + setbacks.given_up < MAX_SILENT:
                look_at = min(look_at, self._ask_again(exchange, silent, now))
        elif queue.waiting[exchange] is queue:  # who waits for a pace has a turn soon
            self._wait_elsewhere(exchange, queue.waiting[exchange], now)
        if not exchange.is_done:
            self._asker.look_at(exchange, min(look_at, ends_at))

    def _wait_elsewhere(self, exchange: Exchange, pool: Carrier, now: float) -> None:
        """Asks another upstream than the one whose connection does not come, if one is usable."""
        exchange.setback().looks += 1
        ranked = self._asker.rank(exchange, now)
        others = [p for p in ranked if p.is_usable(now) and p is not pool]
        if not others:
            pool.serve_waiting(now)
            return
        pool.take_waiting(exchange)
        if self._asker.ask_first(exchange, [*others, pool], now) is not None:
            self._asker.ask_somebody(exchange, now)

    def _ask_again(self, exchange: Exchange, silent: list[Attempt], now: float) -> float:
        """Asks on a second connection, of another upstream if there is one that is usable.

        Returns when to look again at the latest.
        """
        asker, setbacks = self._asker, exchange.setback()
        ranked = asker.rank(exchange, now)
        due = [pool for pool in ranked if _due_at(silent, pool) <= now]
        if not due:  # soon more may be known of one that nothing is known of yet
            next_at = min(_due_at(silent, pool) for pool in ranked)
            return min(next_at, now + MOST_PATIENCE_S)
        due[0].patience.is_scouted = True
        setbacks.looks += 1
        if setbacks.looks == 1:
            due = _with_spare(due, now)
            if not due or not self._budget.take(asker.submitted):
                return inf
            self._counters.count_event("hedged")
        # Large datagrams may be lost on the way, or all of them.
        datagrams = sum(not attempt.pool.is_stream for attempt in silent)
        setbacks.needs_stream |= datagrams > 1
        if datagrams:
            setbacks.form = max(setbacks.form, Form.SMALL)
        asker.ask_first(exchange, [asker.carrier(exchange, pool, now) for pool in due], now)
        return inf


def _with_spare(pools: list[Pool], now: float) -> list[Pool]:
    """Returns the pools that have room for a hedge."""
    spare = [pool for pool in pools if pool.has_spare(now)]
    if not spare:
        pools[0].series.left_out += 1
    return spare


def _mark_silent(exchange: Exchange, now: float) -> list[Attempt]:
    """Returns the attempts without an answer; connections that are later than usual get a rest."""
    silent = exchange.live_attempts()
    for attempt in silent:
        if now >= _due_at(silent, attempt.pool):
            attempt.link.mark_late()
    return silent


def _due_at(silent: list[Attempt], pool: Carrier) -> float:
    """Returns from when on ``pool`` may be asked again: when its answer is later than usual.

    Only the first question that one of which nothing is known keeps waiting is asked again
    early, because the connection may be dead.
    """
    sent = [attempt.sent_at for attempt in silent if attempt.pool is pool]
    if not sent:
        return -inf
    if len(sent) == 1 and not pool.patience.is_scouted:
        return pool.patience.may_be_late_at(sent[0])
    return pool.patience.late_at(sent[0], len(sent))
