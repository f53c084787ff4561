from __future__ import annotations

import asyncio
import re
import threading
from http import HTTPStatus

import pytest

from nodecache.directives.pprof import pages as profiling
from nodecache.directives.pprof.pages import (
    Profiler,
    collapse,
    heap_text,
    make_pages,
    parse_seconds,
    sample_stacks,
    tasks_text,
)
from nodecache.telemetry.http_server import PageRequest, Response
from tests.loops import run


def ask(path: str, **query: str) -> tuple[HTTPStatus, str]:
    """Returns what a page answers on a loop of its own."""

    async def answer() -> Response:
        return await make_pages({"octets": lambda: 17.0})[path](PageRequest(path, query, False))

    response = run(answer())
    return response.status, response.body.decode()


def busy_work(stopping: threading.Event) -> int:
    count = 0
    while not stopping.is_set():
        count += 1
    return count


def test_stacks_of_the_thread_are_counted_from_the_outermost() -> None:
    stopping = threading.Event()
    thread = threading.Thread(target=busy_work, args=(stopping,))
    thread.start()
    try:
        assert thread.ident is not None
        seen = sample_stacks(thread.ident, 0.2, threading.Event())
    finally:
        stopping.set()
        thread.join()
    stacks = [stack for stack in seen if any(name.endswith(".busy_work") for name in stack)]
    assert stacks
    assert all(stack[0].startswith("threading.Thread.") for stack in stacks)


def test_a_thread_that_is_gone_is_said_so() -> None:
    assert set(sample_stacks(-1, 0.02, threading.Event())) == {("(no such thread)",)}


def test_sampling_ends_when_it_is_told() -> None:
    stopping = threading.Event()
    stopping.set()
    assert not sample_stacks(threading.get_ident(), 60.0, stopping)


def test_stacks_beyond_the_bound_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_MAX_STACKS", 0)
    assert set(sample_stacks(threading.get_ident(), 0.02, threading.Event())) == {
        ("(other stacks)",)
    }


def test_collapsed_stacks_are_what_flame_graphs_are_made_of() -> None:
    text = collapse({("m.f", "m.<locals>;g h"): 17, ("a.b",): 1})
    assert text == "a.b 1\nm.f;m.<locals>:g_h 17\n"


def test_one_profile_is_taken_at_a_time() -> None:
    async def scenario() -> None:
        profiler = Profiler(threading.get_ident())
        first = asyncio.create_task(profiler.profile(0.05))
        await asyncio.sleep(0)
        assert await profiler.profile(0.05) is None
        assert re.search(r"^\S+ \d+$", await first or "", re.MULTILINE)
        assert await profiler.profile(0.02) is not None

    run(scenario())


def test_a_client_that_goes_away_ends_the_profile() -> None:
    async def scenario() -> None:
        profiler = Profiler(threading.get_ident())
        asking = asyncio.create_task(profiler.profile(60.0))
        await asyncio.sleep(0.02)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await profiler.profile(0.02) is not None

    run(scenario())  # which waits for the thread, too


@pytest.mark.parametrize(
    ("text", "seconds", "refusal"),
    [
        ("", 30.0, ""),
        ("1", 1.0, ""),
        ("2.5", 2.5, ""),
        ("soon", 0.0, "seconds is no number"),
        ("61", 61.0, "61 is out of range: give 1 to 60 seconds"),
        ("-1", -1.0, "-1 is out of range: give 1 to 60 seconds"),
        ("inf", float("inf"), "inf is out of range: give 1 to 60 seconds"),
    ],
)
def test_seconds_of_a_profile(text: str, seconds: float, refusal: str) -> None:
    found = parse_seconds(text)
    assert (found[0], found[1].partition(" (")[0]) == (seconds, refusal)


def test_nan_seconds_are_refused() -> None:
    assert parse_seconds("nan")[1]


def test_seconds_out_of_range_are_a_bad_request() -> None:
    status, body = ask("/debug/pprof/profile", seconds="3600")
    assert status is HTTPStatus.BAD_REQUEST
    assert body.startswith("3600 is out of range")


def test_a_profile_shows_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "parse_seconds", lambda _text: (0.05, ""))
    status, body = ask("/debug/pprof/profile")
    assert status is HTTPStatus.OK
    assert "asyncio.base_events.BaseEventLoop.run_forever" in body


@pytest.mark.parametrize("path", ["/debug/pprof", "/debug/pprof/"])
def test_the_index_names_all_pages(path: str) -> None:
    status, body = ask(path)
    assert status is HTTPStatus.OK
    pages = make_pages({})
    assert all(page in body for page in pages if page.count("/") > 2)


async def wait_inside(event: asyncio.Event) -> None:
    await wait_deeper(event)


async def wait_deeper(event: asyncio.Event) -> None:
    await event.wait()


def test_tasks_that_wait_alike_are_counted_together() -> None:
    async def scenario() -> str:
        event = asyncio.Event()
        tasks = [asyncio.create_task(wait_inside(event)) for _ in range(3)]
        await asyncio.sleep(0)
        text = tasks_text(tasks)
        event.set()
        await asyncio.gather(*tasks)
        return text

    lines = run(scenario()).splitlines()
    assert lines[:3] == ["3 tasks", "", "3 x"]
    places = [line.split(" at ")[0].strip() for line in lines[3:]]
    assert places == ["wait_inside", "wait_deeper", "Event.wait", "FutureIter"]


def test_the_page_of_tasks_shows_itself() -> None:
    assert "1 tasks" in ask("/debug/pprof/tasks")[1]


class Grain:
    pass


def test_the_heap_is_counted_by_type() -> None:
    grains = [Grain() for _ in range(1234)]
    text = heap_text({"cached_octets": 5.0})
    assert re.search(rf"^ *{len(grains)} +\d+ octets  \S*Grain$", text, re.MULTILINE)
    assert re.search(r"^resident_octets \d{7,}$", text, re.MULTILINE)
    assert "cached_octets 5\n" in text


def test_counting_the_heap_takes_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_HEAP_S", -1.0)
    assert re.search(r"^0 of \d+ objects", heap_text({}), re.MULTILINE)


def test_the_page_of_the_heap_shows_the_gauges() -> None:
    assert "octets 17\n" in ask("/debug/pprof/heap")[1]
