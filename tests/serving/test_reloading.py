from __future__ import annotations

import asyncio

import pytest

from nodecache.config.flags import Flags
from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.loading import Source
from nodecache.serving import reloading
from nodecache.serving.reloading import Reloader
from tests.loops import run, until


class Failing(Source):
    """Fails as only a mistake of ours can, the first time."""

    def __init__(self) -> None:
        super().__init__(Flags(), {})
        self.loads = 0

    def load(self) -> Config:
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
        for _ in range(2):  # the first one fails
            reloader.ask()
            await until(lambda: counters.panics)
        await until(lambda: applied)
        looking.cancel()

    run(scenario())
    assert [config.max_inflight for config in applied] == [7]
    assert counters.panics == 1


class Growing(Source):
    """Is still being written when it is read the first times."""

    def __init__(self, changes: int) -> None:
        super().__init__(Flags(), {})
        self.loads = 0
        self._changes = changes

    def load(self) -> Config:
        self.loads += 1
        return Config((), max_inflight=self.loads)

    def has_changed(self) -> bool:
        return self.loads <= self._changes


def reload_once(source: Source, monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    monkeypatch.setattr(reloading, "_AT_REST_S", 0.001)
    applied: list[Config] = []

    async def scenario() -> None:
        config = Config((), is_watched=False)
        reloader = Reloader(source, config, applied.append, Counters())
        looking = asyncio.create_task(reloader.run())
        reloader.ask()
        await until(lambda: applied)
        looking.cancel()

    run(scenario())
    return applied


def test_file_that_is_still_being_written_is_read_again_before_it_is_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [config.max_inflight for config in reload_once(Growing(2), monkeypatch)] == [3]


def test_file_that_changes_all_the_time_comes_into_force_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [config.max_inflight for config in reload_once(Growing(1000), monkeypatch)] == [5]
