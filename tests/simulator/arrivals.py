"""Every honest answer that reaches the node reaches who asked, and is kept.

What the node is told over a connection that it has closed counts, too: it need not have closed it.
Then the answer may come by another way, but come it must.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

from nodecache.upstreams.connection import Connection, State
from tests.simulator.clock import Clock
from tests.simulator.stubs import Query
from tests.simulator.weather import Weather
from tests.simulator.zone import Saying, Sense

SLACK_S = 0.01  # what the node may take to hand on what it has
EDGE_S = 0.02  # an answer that comes with the deadline may miss it
LISTENS_S = 9.0  # for an answer that nobody waits for any more, a second less than it should be
TRUNCATED_S = 2.0  # how long TCP is waited for while there is a truncated answer to hand on


class Arrivals:
    """What arrived, for whom, and who waits.

    Attributes:
        waiting: Question -> queries without reply.
        told_at: Question -> when an upstream last answered with an error.
    """

    def __init__(self, clock: Clock, weather: Weather, fail: Callable[[str, str], None]) -> None:
        self.waiting: dict[bytes, list[Query]] = {}
        self.told_at: dict[bytes, float] = {}
        self._clock = clock
        self._weather = weather
        self._fail = fail
        self._failed: dict[bytes, list[Query]] = {}
        self._heard_at: dict[bytes, float] = {}
        self._truncated_at: dict[bytes, float] = {}
        self._live: dict[bytes, Saying] = {}
        self._any: dict[bytes, Saying] = {}

    # Stub resolvers.

    def pending(self, query: Query) -> None:
        """The node asks for what a query wants."""
        if self._is_valid(self._live, query):
            self._fail("kept", f"{query} is asked for; its answer had come before")

    def failed(self, query: Query) -> None:
        """A query got an error."""
        if self._is_valid(self._any, query):
            self._fail("kept", f"{query} failed; its answer had come before, too late")

    def failed_untold(self, query: Query) -> None:
        """A query got an error of the node's own."""
        if self._truncated_at.get(query.question, -inf) >= query.began_at and not query.over_tcp:
            self._fail("truncated", f"{query} failed, though an upstream had said TC")
        if query.is_owed:
            self._fail("answers arrive", f"{query} failed; an attempt was answered")
        self._failed.setdefault(query.question, []).append(query)

    def _is_valid(self, sayings: dict[bytes, Saying], query: Query) -> bool:
        """Whether an answer came before the query, and is not too old for it.

        A reload may have ended what was kept, and what was on its way.
        """
        saying, now = sayings.get(query.question), query.asked_at
        if saying is None or now >= saying.arrived_at + saying.ttl_s - EDGE_S:
            return False
        return not self._weather.blinked(saying.asked_at, now)

    # Upstreams.

    def arrived(self, saying: Saying, connection: Connection) -> None:
        """The last octet of a response reaches the node, whether it still listens or not."""
        saying.arrived_at = self._clock.now
        if saying.sense is Sense.ERROR:
            self.told_at[saying.question] = self._clock.now
        elif saying.sense is Sense.TRUNCATED:
            self._truncated(saying)
        elif saying.sense is Sense.TRUE:
            is_live = connection.state is not State.CLOSED
            # Its exchange had an answer already: who asks anew is owed one of a query of his own.
            is_second = self._heard_at.get(saying.question, -inf) >= saying.asked_at
            if is_live:
                self._note(self._live, saying)
                self._heard_at[saying.question] = self._clock.now
            if is_live or self._is_awaited(saying, connection):
                self._note(self._any, saying)
                if not is_second:
                    self._owe(saying, is_live)
                    self._blame(saying)

    def _is_awaited(self, saying: Saying, connection: Connection) -> bool:
        """Whether the node should have listened so long; a limit on connections may forbid it."""
        waited_s = self._clock.now - saying.asked_at
        return waited_s < LISTENS_S and not connection.upstream.max_connections

    def _note(self, sayings: dict[bytes, Saying], saying: Saying) -> None:
        """Puts down that there is an answer, unless it may be the second to the same exchange."""
        known = sayings.get(saying.question)
        if known is None or known.arrived_at + max(known.ttl_s, LISTENS_S) <= self._clock.now:
            sayings[saying.question] = saying

    def _truncated(self, saying: Saying) -> None:
        now = self._truncated_at[saying.question] = self._clock.now
        for query in self.waiting.get(saying.question, ()):
            if not query.over_tcp and query.must_by > now + TRUNCATED_S:
                self._clock.after(TRUNCATED_S, partial(self._check_truncated, query))

    def _check_truncated(self, query: Query) -> None:
        if not query.replies:
            self._fail("truncated", f"{query} still waits, though an upstream said TC")

    def _owe(self, saying: Saying, is_live: bool) -> None:
        """Those who wait must get it: at once if the node heard it."""
        for query in self.waiting.get(saying.question, ()):
            if query.is_pending and self._clock.now <= query.must_by - EDGE_S:
                query.is_owed = True
                if is_live:
                    self._clock.after(SLACK_S, partial(self._check_owed, query))

    def _check_owed(self, query: Query) -> None:
        if not query.replies:
            self._fail("answers arrive", f"an answer came for {query}, and no reply")

    def _blame(self, saying: Saying) -> None:
        """Nobody may have failed already who had the time to wait for it."""
        for query in self._failed.pop(saying.question, ()):
            if saying.asked_at <= query.replied_at and self._clock.now <= query.must_by - EDGE_S:
                self._fail("answers arrive", f"{query} had failed before its answer came")

    def forget(self) -> None:
        """Forgets whom nothing is owed any more."""
        self._failed = {
            question: left
            for question, queries in self._failed.items()
            if (left := [each for each in queries if each.must_by > self._clock.now])
        }
