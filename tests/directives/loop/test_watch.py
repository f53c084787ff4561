"""When blocks are looked at for loops; the look itself is tested in tests/resolve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from nodecache.counters import Counters
from nodecache.directives.loop import watch as module
from nodecache.directives.loop.act import LoopGuard
from nodecache.directives.loop.watch import LoopWatch
from nodecache.resolve.block import BlockState
from nodecache.serving.blocks import Blocks
from tests.cache.building import NOW
from tests.config.reading import read_corefile
from tests.loops import run, until

FORWARD = "forward . 192.0.2.1"


class Resolver:
    """Stands in for the miss path: takes looks, and lets a test say what becomes of them."""

    def __init__(self) -> None:
        self.looks: list[tuple[BlockState, LoopGuard]] = []
        self.flushed = 0
        self.on_look: Callable[[LoopGuard], object] = lambda guard: None

    def look_for_loop(self, state: BlockState, guard: LoopGuard, now: float) -> None:
        state.guard = guard
        self.looks.append((state, guard))
        self.on_look(guard)

    def flush(self) -> None:
        self.flushed += 1

    @property
    def zones(self) -> list[str]:
        """Those that were looked at, in order."""
        return [state.block.zones[0].text for state, _ in self.looks]


class Bench:
    """Blocks, and what looks after them."""

    def __init__(self) -> None:
        self.resolver = Resolver()
        self.blocks = Blocks(1 << 20, Counters())
        loop = asyncio.get_running_loop()
        self.watch = LoopWatch(cast("Any", self.resolver), self.resolver.flush, loop)

    async def apply(self, text: str) -> None:
        """Goes over to a Corefile; returns when what is to be looked at at once was."""
        self.blocks.apply(read_corefile(text), NOW)
        self.watch.watch(self.blocks.states)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    monkeypatch.setattr(module, "_REST_S", 0.01)
    caplog.set_level(logging.INFO, "nodecache")


def at_bench(scene: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        try:
            await scene(bench)
        finally:
            bench.watch.stop()

    run(main())


def returns(guard: LoopGuard) -> None:
    assert guard.stops(guard.qname)


def fails(guard: LoopGuard) -> None:
    guard.has_failed = True


def test_block_whose_question_does_not_return_is_looked_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.apply(f"example {{\nloop\n{FORWARD}\n}}\n. {{\n{FORWARD}\n}}")
        (state, guard), = bench.resolver.looks  # fmt: skip
        assert guard.qname.endswith(b"\7example\0")
        assert bench.resolver.flushed == 1
        await until(lambda: state.guard is None)
        assert bench.resolver.zones == ["example."]
        assert bench.watch.findings == []
        assert caplog.text == ""

    at_bench(scene)


def test_loop_is_told_once_and_looked_for_until_it_is_mended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(bench: Bench) -> None:
        bench.resolver.on_look = returns
        await bench.apply(f". {{\nloop\n{FORWARD}\n}}")
        (state,) = bench.blocks.states
        await until(lambda: len(bench.resolver.looks) >= 3)
        assert bench.watch.findings == [
            ".: what is forwarded comes back here, so misses get SERVFAIL"
        ]
        assert caplog.text.count("its misses get SERVFAIL") == 1
        names = [guard.qname for _, guard in bench.resolver.looks]
        assert len(set(names)) == len(names)
        assert state.guard is not None
        assert state.guard.is_looping
        bench.resolver.on_look = lambda guard: None
        await until(lambda: state.guard is None)
        assert bench.watch.findings == []
        assert caplog.text.count("forwards without a loop again") == 1

    at_bench(scene)


def test_look_that_nobody_answered_tells_nothing_and_is_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(bench: Bench) -> None:
        bench.resolver.on_look = fails
        await bench.apply(f". {{\nloop\n{FORWARD}\n}}")
        await until(lambda: len(bench.resolver.looks) >= 3)
        assert bench.watch.findings == []
        assert caplog.text == ""

    at_bench(scene)


def test_misses_are_refused_through_a_look_that_nobody_answered() -> None:
    async def scene(bench: Bench) -> None:
        bench.resolver.on_look = returns
        await bench.apply(f". {{\nloop\n{FORWARD}\n}}")
        bench.resolver.on_look = fails
        await until(lambda: len(bench.resolver.looks) >= 3)
        assert bench.resolver.looks[-1][1].is_looping

    at_bench(scene)


def test_reload_looks_at_what_forwards_otherwise_and_at_nothing_else() -> None:
    async def scene(bench: Bench) -> None:
        first = f"a.example {{\nloop\n{FORWARD}\n}}\nb.example {{\nloop\n{FORWARD}\n}}"
        await bench.apply(first)
        await until(lambda: all(state.guard is None for state in bench.blocks.states))
        assert sorted(bench.resolver.zones) == ["a.example.", "b.example."]
        await bench.apply(first + f"\nc.example {{\n{FORWARD}\n}}")
        assert len(bench.resolver.looks) == 2
        await bench.apply(first.replace("192.0.2.1", "192.0.2.2", 1))
        assert bench.resolver.zones[2:] == ["a.example."]

    at_bench(scene)


def test_block_that_has_no_loop_any_more_is_free() -> None:
    async def scene(bench: Bench) -> None:
        bench.resolver.on_look = returns
        await bench.apply(f". {{\nloop\n{FORWARD}\n}}")
        await until(lambda: bench.watch.findings)
        await bench.apply(f". {{\n{FORWARD}\n}}")
        assert bench.watch.findings == []
        assert all(state.guard is None for state in bench.blocks.states)

    at_bench(scene)


def test_zone_that_leaves_no_room_for_a_name_is_not_looked_at() -> None:
    async def scene(bench: Bench) -> None:
        zone = ".".join(["a" * 60] * 4)
        await bench.apply(f"{zone} {{\nloop\n{FORWARD}\n}}")
        assert bench.resolver.looks == []

    at_bench(scene)
