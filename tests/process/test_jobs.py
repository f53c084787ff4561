from __future__ import annotations

import asyncio
import gc
import logging
import warnings

import pytest

from nodecache.counters import Counters
from nodecache.process.jobs import Jobs, first_of
from tests.loops import run, until


async def for_ever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def fail() -> None:
    raise RuntimeError("a mistake of ours")


async def nothing() -> None:
    """Is done at once."""


def test_first_that_is_done_ends_the_others_before_it_returns() -> None:
    ended: list[str] = []
    run(first_of(nothing(), for_ever(ended), for_ever(ended)))
    assert ended == ["ended", "ended"]


def test_error_of_the_first_is_raised_when_the_others_have_ended() -> None:
    ended: list[str] = []
    with pytest.raises(RuntimeError, match="a mistake"):
        run(first_of(for_ever(ended), fail()))
    assert ended == ["ended"]


def test_job_that_fails_is_counted_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "nodecache")
    counters = Counters()
    ended: list[str] = []

    async def main() -> None:
        jobs = Jobs(counters, asyncio.get_running_loop())
        jobs.begin(for_ever(ended))
        jobs.begin(fail())
        await until(lambda: counters.panics)
        assert ended == []
        await jobs.stop()

    run(main())
    assert ended == ["ended"]
    assert "serving goes on without what was under way" in caplog.text


def test_job_that_is_stopped_before_its_first_step_is_no_coroutine_left_over() -> None:
    async def main() -> None:
        jobs = Jobs(Counters(), asyncio.get_running_loop())
        jobs.begin(nothing())
        await jobs.stop()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main())
        gc.collect()
