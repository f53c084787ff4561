"""What is done once a second."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nodecache.counters import Counters
from nodecache.serving import tick as module
from nodecache.serving.tick import Tick


class Told:
    """Stands in for whatever is told of a tick."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def tick(self, now: float) -> None:
        self.times.append(now)

    expire = tick


def test_it_ticks_at_once_and_again_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTERVAL_S", 0.01)
    budget, logs, counters = Told(), Told(), Counters()

    async def run() -> None:
        parts: tuple[Any, Any] = (budget, logs)
        tick = Tick(*parts, counters, asyncio.get_running_loop())
        tick.start()
        assert len(budget.times) == 1
        async with asyncio.timeout(20):
            while len(budget.times) < 4:  # noqa: ASYNC110 - what is waited for knows no events
                await asyncio.sleep(0.005)
        tick.stop()
        seen = len(budget.times)
        await asyncio.sleep(0.05)  # several intervals
        assert len(budget.times) == seen
        assert sum(counters.loop_lag.counts) == seen

    asyncio.run(run())
    assert budget.times == logs.times == sorted(budget.times)
