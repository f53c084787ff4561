"""The error logs of all server blocks that have the ``errors`` directive."""

from __future__ import annotations

from collections.abc import Iterable

from nodecache.resolve.block import BlockState
from nodecache.resolve.results import FailedQuery
from nodecache.telemetry.errorlog import ErrorLog


class ErrorLogs:
    """One log for each block."""

    def __init__(self) -> None:
        self._logs: dict[BlockState, ErrorLog] = {}

    def open(self, states: Iterable[BlockState]) -> None:
        """Begins anew, by the directives that are in force now; what is summed up is written."""
        self.finish()
        self._logs = {
            state: ErrorLog(state.block.errors)
            for state in states
            if state.block.errors is not None
        }

    def note(self, failure: FailedQuery) -> None:
        """Tells the log of its block, if there is one."""
        log = self._logs.get(failure.state)
        if log is not None:
            log.note(failure.question, failure.rcode, failure.text, failure.detail)

    def tick(self, now: float) -> None:
        """Writes the sums that are due; to be called once a second, ``now`` monotonic."""
        for log in self._logs.values():
            log.tick(now)

    def finish(self) -> None:
        """Writes what is summed up at present."""
        for log in self._logs.values():
            log.finish()
