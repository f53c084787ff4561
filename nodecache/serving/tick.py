"""What is done once a second: the caches are swept, sums are written, the loop's lag is noted."""

from __future__ import annotations

import asyncio
from time import monotonic

from nodecache.counters import Counters
from nodecache.serving.blocks import Blocks
from nodecache.serving.errorlogs import ErrorLogs
from nodecache.telemetry.loglines import flush_lines

_INTERVAL_S = 1.0


class Tick:
    """The tick of one worker."""

    def __init__(
        self,
        blocks: Blocks,
        error_logs: ErrorLogs,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._blocks = blocks
        self._error_logs = error_logs
        self._counters = counters
        self._loop = loop
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._slice: asyncio.Handle | None = None

    def start(self) -> None:
        """Ticks now, and every second from now on."""
        self._due = monotonic()
        self._tick()

    def stop(self) -> None:
        """Ticks no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._slice is not None:
            self._slice.cancel()

    def _sweep(self) -> None:
        """Sweeps the caches in slices, between which queries are served."""
        self._slice = None
        if self._blocks.sweep(monotonic()):
            self._slice = self._loop.call_soon(self._sweep)

    def _tick(self) -> None:
        now = monotonic()
        self._counters.loop_lag.observe(max(0.0, now - self._due))
        if self._slice is None:
            self._sweep()
        self._error_logs.tick(now)
        flush_lines()
        self._due = now + _INTERVAL_S
        self._timer = self._loop.call_later(_INTERVAL_S, self._tick)
