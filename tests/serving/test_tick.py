"""What is done once a second."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from nodecache.cache.store import EXPIRE_AT_ONCE, MessageCache
from nodecache.config.model import CachePolicy
from nodecache.counters import Counters
from nodecache.serving import tick as module
from nodecache.serving.blocks import Blocks
from nodecache.serving.tick import Tick
from tests.cache.building import key, message


class Told:
    """Stands in for whatever is told of a tick."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def tick(self, now: float) -> None:
        self.times.append(now)

    def sweep(self, now: float) -> bool:
        self.times.append(now)
        return False


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
    assert len(budget.times) == len(logs.times)
    assert budget.times == sorted(budget.times)


def test_what_expires_together_goes_in_slices_between_which_the_loop_turns() -> None:
    blocks = Blocks(1 << 30, Counters())
    store = MessageCache(CachePolicy(), blocks.budget, None)
    now = monotonic() - 10
    for count in range(5 * EXPIRE_AT_ONCE):
        store.admit(message(key(f"n{count}.example"), now, ttl_s=1), now)
    left: list[int] = []

    async def run() -> None:
        parts: tuple[Any, Any] = (blocks, Told())
        tick = Tick(*parts, Counters(), asyncio.get_running_loop())
        tick.start()
        while len(store):
            left.append(len(store))
            await asyncio.sleep(0)
        tick.stop()

    asyncio.run(run())
    assert left == [count * EXPIRE_AT_ONCE for count in (4, 3, 2, 1)]
