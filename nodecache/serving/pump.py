"""What moves after each event: replies and failures go out, upstreams are asked, the alarm is set.

Servers call ``flush`` after queries, the upstream shell after whatever it told the forwarder.
There is one alarm for all that the resolver and the forwarder wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Protocol

from nodecache.resolve.results import FailedQuery, Results

# Event loops round to milliseconds, some of them down; too early would be once more for nothing.
_SLACK_S = 0.001


class Timed(Protocol):
    """What has something to do later: the resolver, the forwarder."""

    def next_timer(self) -> float | None:
        """Returns when ``timer`` must be called next, monotonic seconds; None for never."""

    def timer(self, now: float) -> None:
        """Does what is due."""


class Pump:
    """Carries results to where they belong.

    Attributes:
        ask_upstreams: Carries out what the forwarder has to do; it may call ``flush`` meanwhile.
    """

    def __init__(
        self,
        results: Results,
        timed: Sequence[Timed],
        note_failure: Callable[[FailedQuery], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Begins with nothing to do.

        Args:
            results: What the resolver has for us.
            timed: The forwarder and the resolver, who are asked for their time.
            note_failure: Tells the error log of its block.
            loop: Has the alarm.
        """
        self.ask_upstreams: Callable[[], None] = _ask_nobody
        self._results = results
        self._timed = timed
        self._note_failure = note_failure
        self._loop = loop
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = inf

    def flush(self) -> None:
        """Takes note that something has happened; cheap when nothing came of it."""
        results = self._results
        if results.replies:
            replies, results.replies = results.replies, []
            for listener, client, reply in replies:
                listener.deliver(client, reply)
        if results.failures:
            failures, results.failures = results.failures, []
            for failure in failures:
                self._note_failure(failure)
        self.ask_upstreams()
        for timed in self._timed:
            due = timed.next_timer()
            if due is not None and due < self._alarm_at:
                self._set_alarm(due)

    def stop(self) -> None:
        """Sets no alarm any more; what is ready is still delivered."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = -inf  # earlier than anything is due

    def _set_alarm(self, due: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self._loop.call_later(max(0.0, due - monotonic()) + _SLACK_S, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm, self._alarm_at = None, inf
        now = monotonic()
        for timed in self._timed:
            timed.timer(now)
        self.flush()


def _ask_nobody() -> None:
    """Stands in until there is a shell for the upstreams."""
