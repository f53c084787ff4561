"""What becomes of exchanges that an upstream let down: a connection died, or talked nonsense."""

from __future__ import annotations

from nodecache.upstreams.asking import Asker
from nodecache.upstreams.connection import Pool
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.upstreams.truncated import Truncated, is_cut

MAX_SILENT = 4  # attempts without an answer: more would add load where it hurts


class Rescue:
    """Of all exchanges."""

    __slots__ = ("_asker", "_truncated")

    def __init__(self, asker: Asker, truncated: Truncated) -> None:
        self._asker = asker
        self._truncated = truncated

    def move_all(self, stranded: list[Exchange], pool: Pool, now: float) -> None:
        """Asks for each exchange again that ``pool`` let down."""
        for exchange in stranded:
            if not exchange.is_done:
                self.move(exchange, pool, now)

    def move(self, exchange: Exchange, pool: Pool, now: float) -> None:
        """Asks for an exchange again that ``pool`` let down, if it is not under way elsewhere."""
        setbacks = exchange.setbacks
        if is_cut(exchange):
            self._truncated.end_with_half(exchange, now)
        elif exchange.is_under_way():
            return
        elif _gave_up_dialling(exchange):
            exchange.fail(Failure.UNREACHABLE, now)
        elif pool.is_to_blame(exchange):
            self._asker.pass_over(exchange, None, now, Failure.HUNG_UP)
        elif setbacks is not None and setbacks.given_up >= MAX_SILENT:
            return  # nobody has answered so often; it ends with its time
        elif not self._ask_there(exchange, pool, now):
            self._asker.ask_somebody(exchange, now)

    def _ask_there(self, exchange: Exchange, pool: Pool, now: float) -> bool:
        """Asks ``pool`` once more, if it is likely to answer; returns whether it is asked."""
        is_nonsense = exchange.setbacks is not None and exchange.setbacks.malformed > 0
        if is_nonsense or not pool.is_usable(now) or not self._asker.may_ask(exchange):
            return False
        return self._asker.carrier(exchange, pool, now).ask(exchange, now) is None


def _gave_up_dialling(exchange: Exchange) -> bool:
    most, setbacks = exchange.policy.max_connect_attempts, exchange.setbacks
    return bool(most) and setbacks is not None and setbacks.dial_failures >= most
