from __future__ import annotations

import asyncio

import pytest

from nodecache.config.flags import Flags
from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.loading import Source
from nodecache.serving import reloading
from nodecache.serving.reloading import Reloader


class Failing(Source):
    """Fails as only a mistake of ours can, the first time."""

    def __init__(self) -> None:
        super().__init__(Flags(), {})
        self.loads = 0

    def load(self, *, is_first: bool = False) -> Config:
        self.loads += 1
        if self.loads == 1:
            raise ZeroDivisionError
        return Config((), max_inflight=7)


def test_mistake_of_ours_does_not_end_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "_LOOK_S", 0.01)
    monkeypatch.setattr(reloading, "_RETRY_S", 0.01)
    source, counters, applied = Failing(), Counters(), list[Config]()

    async def scenario() -> None:
        reloader = Reloader(source, Config((), is_watched=False), applied.append, counters)
        looking = asyncio.create_task(reloader.run())
        for _ in range(200):
            reloader.ask()
            await asyncio.sleep(0.01)
            if applied:
                break
        looking.cancel()

    asyncio.run(scenario())
    assert [config.max_inflight for config in applied] == [7]
    assert counters.panics == 1
