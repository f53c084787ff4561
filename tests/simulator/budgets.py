"""How many queries one look-up may cost the upstreams."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.exchange import Exchange
from tests.simulator.history import History
from tests.simulator.servers import Asked
from tests.simulator.zone import BADVERS, Saying, Sense

MOST_SILENT = 4  # queries without any answer
ROUND_TRIP_S = 0.1  # an answer to what was sent less long ago may be on its way
MOST_WRONG = 3  # that were answered by nonsense, for each upstream
MOST_ANSWERED = 10  # that ended in silence or in an answer, of whatever kind
MOST_ATTEMPTS = 40  # with those that ended with their connection
# Of a single upstream that takes so many seconds for every name: queries for each look-up.
SLOW_BUDGETS = {1.0: 1.5, 3.0: 2.0}
FEWEST_FOR_A_RATIO = 100


@dataclass(slots=True)
class Cost:
    """What one exchange has cost.

    Attributes:
        lost: Queries whose connection ended by no will of the node's.
        silent: Connections on which it was asked, without any answer yet -> when.
        wrong: Nonsense and BADVERS, by upstream.
    """

    exchange: Exchange
    sent: int = 0
    without_edns: int = 0
    lost: int = 0
    silent: dict[Connection, float] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)


class Budgets:
    """The costs of all exchanges."""

    def __init__(self, history: History) -> None:
        self._costs: dict[bytes, Cost] = {}
        self._places: dict[Connection, int] = {}
        kinds = {fault.kind for fault in history.faults}
        asks_udp = any(place.transport == "udp" for place in history.places)
        # Once without OPT, or once with 512 octets, is worth a query more.
        self._most_silent = MOST_SILENT + (asks_udp or "edns_silent" in kinds)
        self._slow_s = _slowness(history)
        self._exchanges = self._sent = 0

    def sent(
        self,
        asked: Asked,
        connection: Connection,
        exchange: Exchange | None,
        lost: set[Connection],
    ) -> str:
        """Takes note of a query for ``exchange``; returns what is too much, or nothing."""
        self._sent += 1
        if exchange is None:
            return ""  # answered in the same moment
        cost = self._costs.get(asked.question)
        if cost is None or cost.exchange is not exchange:
            cost = self._costs[asked.question] = Cost(exchange)
            self._exchanges += 1
        cost.sent += 1
        cost.without_edns += not asked.has_edns
        ended = [each for each in cost.silent if each in lost]
        cost.lost += len(ended)
        for each in ended:
            del cost.silent[each]
        cost.silent[connection] = asked.sent_at
        return self._judge(cost, str(connection.upstream.address), asked.sent_at)

    def _judge(self, cost: Cost, to: str, now: float) -> str:
        # This query is one more: it is asked although there were so many wrong ones before.
        most_wrong = MOST_WRONG + bool(cost.without_edns)
        if cost.wrong.get(to, 0) >= most_wrong:
            return f"asked again after {cost.wrong[to]} answers that are nonsense"
        silent = sum(now - sent_at > ROUND_TRIP_S for sent_at in cost.silent.values())
        if silent >= self._most_silent:
            return f"asked again after {silent} queries without any answer"
        if cost.sent > MOST_ATTEMPTS or cost.sent - cost.lost > MOST_ANSWERED:
            return f"{cost.sent} queries, {cost.lost} of them lost with their connections"
        return ""

    def answered(self, saying: Saying, connection: Connection) -> None:
        """Takes note of a response."""
        cost = self._costs.get(saying.question)
        if cost is None:
            return
        cost.silent.pop(connection, None)
        is_nonsense = saying.sense is Sense.WRONG or saying.rcode == BADVERS
        if is_nonsense and connection.state is not State.CLOSED:
            to = str(connection.upstream.address)
            cost.wrong[to] = cost.wrong.get(to, 0) + 1

    def excess(self) -> str:
        """Returns what is too much over the whole history, or nothing."""
        for slow_s, most in SLOW_BUDGETS.items():
            if 0 < self._slow_s <= slow_s and self._exchanges >= FEWEST_FOR_A_RATIO:
                ratio = self._sent / self._exchanges
                return "" if ratio <= most else f"{ratio:.2f} queries a look-up, all slow"
        return ""


def _slowness(history: History) -> float:
    """Returns how long the one upstream takes for every name, if nothing else is wrong."""
    if len(history.places) > 1 or len(history.faults) != 1:
        return 0.0
    fault = history.faults[0]
    is_all = fault.kind == "slow" and not fault.at and fault.until >= history.ends_at
    return fault.value if is_all else 0.0
