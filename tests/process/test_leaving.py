from __future__ import annotations

import asyncio
import itertools
import logging
import signal

import pytest

from nodecache.process.leaving import STAGES, Leaving, Stage, Wish
from tests.loops import run

HURRIED = {Stage.HURRYING, Stage.SUCCEEDED_HURRYING}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def stage_after(*wishes: Wish) -> Stage:
    stage = Stage.SERVING
    for wish in wishes:
        stage = STAGES[stage].get(wish, stage)
    return stage


def test_way_out_leads_one_way_and_each_stage_is_reached() -> None:
    order = list(Stage)
    reached = {Stage.SERVING}
    for wishes in itertools.product(Wish, repeat=4):
        stages = [stage_after(*wishes[:count]) for count in range(len(wishes) + 1)]
        assert stages == sorted(stages, key=order.index)
        reached |= set(stages)
    assert reached == set(Stage)


@pytest.mark.parametrize("before", [(), (Wish.END,), (Wish.END_AT_ONCE,), (Wish.BE_ORPHANED,)])
def test_successor_counts_at_whatever_stage_it_comes(before: tuple[Wish, ...]) -> None:
    stage = stage_after(*before, Wish.BE_SUCCEEDED)
    assert stage in (Stage.SUCCEEDED, Stage.SUCCEEDED_HURRYING)
    assert (stage in HURRIED) == (Wish.END_AT_ONCE in before)
    assert stage_after(*before, Wish.BE_SUCCEEDED, Wish.END) is Stage.SUCCEEDED_HURRYING


def test_orphan_does_not_hurry_who_leaves_already() -> None:
    assert stage_after(Wish.END, Wish.BE_ORPHANED) is Stage.LEAVING
    assert stage_after(Wish.BE_ORPHANED) is Stage.LEAVING


def test_same_signal_twice_at_once_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nodecache")
    clock = Clock()
    leaving = Leaving(clock)
    leaving.on_signal(Wish.END)
    clock.now += 0.19
    leaving.on_signal(Wish.END)
    assert (leaving.stage, caplog.text) == (Stage.LEAVING, "")
    clock.now += 0.02
    leaving.on_signal(Wish.END)
    assert leaving.stage is Stage.HURRYING
    assert "leaving at once, as asked again" in caplog.text


def test_signal_to_end_at_once_hurries_however_soon_it_comes() -> None:
    leaving = Leaving(Clock())
    leaving.on_signal(Wish.END)
    leaving.on_signal(Wish.END_AT_ONCE)
    assert leaving.stage is Stage.HURRYING


def test_first_signal_after_a_successor_hurries() -> None:
    leaving = Leaving(Clock())
    leaving.want(Wish.BE_SUCCEEDED)
    leaving.on_signal(Wish.END)
    assert leaving.stage is Stage.SUCCEEDED_HURRYING


@pytest.mark.parametrize(
    ("wish", "begun", "hurried", "succeeded"),
    [
        (Wish.END, True, False, False),
        (Wish.END_AT_ONCE, True, True, False),
        (Wish.BE_SUCCEEDED, True, False, True),
        (Wish.BE_ORPHANED, True, False, False),
    ],
)
def test_who_waits_hears_of_what_came(
    wish: Wish, begun: bool, hurried: bool, succeeded: bool
) -> None:
    async def main() -> list[bool]:
        leaving = Leaving()
        waits = (leaving.begun(), leaving.hurried(), leaving.succeeded())
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.sleep(0)
        leaving.want(wish)
        for _ in range(3):
            await asyncio.sleep(0)
        done = [task.done() for task in tasks]
        for task in tasks:
            task.cancel()
        return done

    assert run(main()) == [begun, hurried, succeeded]


def test_signals_are_taken_while_it_lasts_and_do_no_harm_afterwards() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    reloads: list[str] = []

    async def main() -> Leaving:
        leaving = Leaving()
        with leaving.signals(asyncio.get_running_loop(), lambda: reloads.append("reload")):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            await leaving.begun()
        signal.raise_signal(signal.SIGTERM)
        return leaving

    try:
        assert run(main()).stage is Stage.LEAVING
        assert reloads == ["reload"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
