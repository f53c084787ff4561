"""What must hold at every moment of every history.

The watch sees both ends: what stub resolvers ask and get, and what goes to and comes from the
upstreams. Of the engine it knows what that documents.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from math import inf

from nodecache.resolve.block import PATIENCE_S
from nodecache.upstreams.connection import Connection
from tests.simulator.arrivals import EDGE_S, Arrivals
from tests.simulator.bounds import (
    excess_of_all,
    excess_of_connection,
    excess_of_place,
    excess_of_tables,
    left_over,
)
from tests.simulator.budgets import Budgets
from tests.simulator.clock import Clock
from tests.simulator.history import History
from tests.simulator.node import Node
from tests.simulator.servers import Asked
from tests.simulator.stubs import Query
from tests.simulator.truth import Truth
from tests.simulator.violation import ViolationError
from tests.simulator.weather import Weather
from tests.simulator.zone import NOTIMP, SERVFAIL, Saying, Zone, first_label, read_reply

KEPT_RCODES = (SERVFAIL, NOTIMP)
SETTLED_S = 2.0  # how long the node may take to get over a fault
# For who had asked before it ended: an upstream that needs 3 s may be asked twice only, so the
# next question about his name may be so far off.
OVERCOME_S = 3.2
INVARIANTS = {
    "one reply": "each query ends in exactly one reply or a counted drop",
    "truth": "what is said was said by an honest response to the question, and for its time only",
    "answers arrive": "an answer to any attempt, within the patience of who asked, is handed on",
    "kept": "an answer that came too late for who asked serves who asks next",
    "truncated": "a truncated answer is handed on while TCP does not answer",
    "answerable": "nothing fails for which an upstream was good enough",
    "tried": "nothing fails without anybody having been asked",
    "two seconds": "once nothing is wrong, what is asked is answered within 2 s",
    "recovery": "once nothing is wrong, nothing fails",
    "budget": "a look-up costs the upstreams no more queries than it may",
    "bounds": "no table grows beyond its bound",
    "no busy loop": "time passes",
    "rest": "in the end nothing is left",
}


class Watch:
    """Checks one run. Every method raises ViolationError."""

    def __init__(
        self, history: History, clock: Clock, zone: Zone, ignored: Collection[str] = ()
    ) -> None:
        self.queries = 0
        self.node: Node
        self._history = history
        self._ignored = ignored
        self._clock = clock
        self._start = clock.now
        self._weather = weather = Weather(history, clock.now)
        self._arrivals = Arrivals(clock, weather, self.fail)
        self._truth = Truth(zone, history.stale != "off")
        self._budgets = Budgets(history)
        self._lost: set[Connection] = set()
        self._tried_at = -inf

    def fail(self, invariant: str, detail: str) -> None:
        """Ends the run, unless the invariant is ignored."""
        if invariant not in self._ignored:
            raise ViolationError(invariant, self._clock.now - self._start, detail)

    def _fail_if(self, invariant: str, detail: str) -> None:
        if detail:
            self.fail(invariant, detail)

    # Stub resolvers.

    def asked(self, query: Query) -> None:
        """A stub resolver sends a query; before the node sees it."""
        self.queries += 1
        self._arrivals.waiting.setdefault(query.question, []).append(query)

    def taken(self, query: Query) -> None:
        """The node has seen the query."""
        if query.replies:
            return
        if query.is_dropped:
            self._arrivals.waiting[query.question].remove(query)
        elif not query.is_pending:
            self.fail("one reply", f"silence, and no counted drop, for {query}")
        else:
            self._arrivals.pending(query)
            deadline = query.asked_at + PATIENCE_S + EDGE_S
            self._clock.at(deadline, partial(self._check_ended, query))
            self._clock.after(SETTLED_S + EDGE_S, partial(self._check_settled, query))

    def _check_ended(self, query: Query) -> None:
        if not query.replies:
            self.fail("one reply", f"no reply by the deadline for {query}")

    def _check_settled(self, query: Query) -> None:
        if not query.replies and self._weather.is_calm(query.asked_at, self._clock.now):
            self.fail("two seconds", f"nothing is wrong, yet no reply for {query}")

    def calmed(self) -> None:
        """A fault ended ``OVERCOME_S`` ago: who waited then has an answer, if it was the last."""
        now = self._clock.now
        since = now - OVERCOME_S
        if not self._weather.is_calm(since, now):
            return
        for queries in self._arrivals.waiting.values():
            for query in queries:
                if query.asked_at < since and query.must_by > now:
                    self.fail("two seconds", f"the faults are over, yet no reply for {query}")

    def replied(self, query: Query, octets: bytes) -> None:
        """The node replies."""
        now = self._clock.now
        query.replies += 1
        if query.replies > 1:
            self.fail("one reply", f"two replies for {query}")
            return
        reply = query.reply = read_reply(octets)
        query.replied_at = now
        self._arrivals.waiting[query.question].remove(query)
        untruth = self._truth.untruth(query, octets, reply, now)
        if untruth:
            self.fail("truth", f"{untruth}, for {query}")
        if query.has_failed or (reply.is_truncated and query.over_tcp):
            self._judge_failure(query)

    def _judge_failure(self, query: Query) -> None:
        """Whether a query may fail, by what an upstream said or by what went wrong."""
        self._arrivals.failed(query)
        if not query.is_pending and query.reply is not None and query.reply.rcode in KEPT_RCODES:
            return  # it failed just before (RFC 9520)
        now = self._clock.now
        if self._weather.is_calm(query.asked_at, now):
            self.fail("recovery", f"nothing is wrong, yet {query} failed")
        was_told = self._arrivals.told_at.get(query.question, -inf) >= query.began_at
        self._check_answerable(query, was_told)
        if was_told:
            return
        self._arrivals.failed_untold(query)
        was_tried = self._tried_at >= query.began_at or self.node.network.is_dialled()
        if not was_tried and self._weather.asked(query.asked_at, now):
            self.fail("tried", f"{query} failed, and nobody was asked")

    def _check_answerable(self, query: Query, was_told: bool) -> None:
        """One upstream that was good is enough; all, if what the node was told may be true."""
        since, now = query.asked_at - SETTLED_S, self._clock.now
        well = self._weather.well(first_label(query.question), since, now)
        if well and (all(well) if was_told else any(well)):
            self.fail("answerable", f"{query} failed although {self._weather.during(since, now)}")

    # Upstreams.

    def opened(self, place: int) -> None:
        """The node dials, or opens a UDP socket."""
        self._tried_at = self._clock.now
        most = self._history.places[place].most_connections
        self._fail_if("bounds", excess_of_place(self.node, place, most))

    def sent(self, asked: Asked, connection: Connection) -> None:
        """The node sends a query."""
        self._tried_at = self._clock.now
        self._fail_if("bounds", excess_of_connection(connection))
        exchange = self.node.state.pending.get(asked.question + b"\1")
        excess = self._budgets.sent(asked, connection, exchange, self._lost)
        if excess:
            self.fail("budget", f"{asked.label}: {excess}")

    def lost(self, connection: Connection) -> None:
        """A connection ends, or cannot be opened, by no will of the node's."""
        self._tried_at = self._clock.now  # those who came while it was dialled waited for it
        if connection.pending:
            self._lost.add(connection)

    def arrived(self, saying: Saying, connection: Connection) -> None:
        """The last octet of a response reaches the node, whether it still listens or not."""
        self._budgets.answered(saying, connection)
        self._arrivals.arrived(saying, connection)

    # Tables.

    def happened(self) -> None:
        """Something happened."""
        self._fail_if("bounds", excess_of_all(self.node))

    def sweep(self) -> None:
        """Another second has passed."""
        self._fail_if("bounds", excess_of_tables(self.node))
        self._arrivals.forget()

    def rest(self) -> None:
        """All is over, for longer than anything may take."""
        self._fail_if("budget", self._budgets.excess())
        unanswered = sum(map(len, self._arrivals.waiting.values()))
        if unanswered:
            self.fail("one reply", f"{unanswered} queries have none")
        left = left_over(self.node)
        if left:
            self.fail("rest", f"left over: {left}")
