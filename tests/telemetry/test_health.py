"""Asking ourselves: once for all who want to know, and never from an answer that is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from nodecache.telemetry import health
from nodecache.telemetry.health import SelfCheck
from tests.loops import run

Scene = Callable[["Oracle", SelfCheck], Awaitable[None]]


class Oracle:
    """Counts how often it is asked, and answers when it is allowed to."""

    def __init__(self) -> None:
        self.asked = 0
        self.complaints: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self) -> list[str]:
        self.asked += 1
        complaints = list(self.complaints)
        await self.may_answer.wait()
        return complaints


def play(scene: Scene) -> None:
    async def main() -> None:
        oracle = Oracle()
        check = SelfCheck(oracle, asyncio.get_running_loop())
        await scene(oracle, check)
        await check.close()

    run(main())


def test_nothing_is_asked_before_somebody_wants_to_know() -> None:
    async def scene(oracle: Oracle, check: SelfCheck) -> None:
        await asyncio.sleep(0.01)
        assert oracle.asked == 0
        assert await check() == ()
        assert oracle.asked == 1

    play(scene)


def test_all_who_ask_meanwhile_share_one_question() -> None:
    async def scene(oracle: Oracle, check: SelfCheck) -> None:
        oracle.complaints = ["10.0.0.1:53 over TCP: no answer within 1 s"]
        oracle.may_answer.clear()
        asking = [asyncio.create_task(check()) for _ in range(50)]
        await asyncio.sleep(0)
        oracle.may_answer.set()
        assert set(await asyncio.gather(*asking)) == {tuple(oracle.complaints)}
        assert oracle.asked == 1

    play(scene)


def test_answer_is_kept_for_a_second_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert health.KEPT_S == 1.0
    now = 5.0

    async def scene(oracle: Oracle, check: SelfCheck) -> None:
        nonlocal now
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        assert await check() == ()
        oracle.complaints = ["something broke"]
        assert await check() == ()
        now += 0.99
        assert await check() == ()
        assert oracle.asked == 1
        now += 0.01
        assert await check() == ("something broke",)
        assert oracle.asked == 2

    play(scene)


def test_whoever_gives_up_waiting_stops_nobody_else() -> None:
    async def scene(oracle: Oracle, check: SelfCheck) -> None:
        oracle.may_answer.clear()
        impatient = asyncio.create_task(check())
        patient = asyncio.create_task(check())
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        oracle.may_answer.set()
        assert await patient == ()
        assert impatient.cancelled()
        assert oracle.asked == 1

    play(scene)


def test_failure_to_ask_is_told_and_not_kept() -> None:
    async def scene(oracle: Oracle, check: SelfCheck) -> None:
        oracle.may_answer = None  # type: ignore[assignment] # an error of ours
        with pytest.raises(AttributeError):
            await check()
        oracle.may_answer = asyncio.Event()
        oracle.may_answer.set()
        assert await check() == ()

    play(scene)


def test_closing_gives_up_a_question_under_way() -> None:
    async def scene(oracle: Oracle, check: SelfCheck) -> None:
        oracle.may_answer.clear()
        asking = asyncio.create_task(check())
        await asyncio.sleep(0)
        await check.close()
        with pytest.raises(asyncio.CancelledError):
            await asking

    play(scene)
