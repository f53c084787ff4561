"""What moves after each event, on a loop whose time is a number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest

from nodecache.config.model import ROOT, ErrorsPolicy, ServerBlock
from nodecache.counters import QuerySeries
from nodecache.resolve.block import BlockState
from nodecache.resolve.listener import Listener
from nodecache.resolve.results import FailedQuery, Results
from nodecache.resolve.zones import Zones
from nodecache.serving import pump as module
from nodecache.serving.pump import Pump
from tests.loops import run

NOW = 1000.0
ENOUGH_S = 0.002  # more than the alarm is ever late


@dataclass
class Handle:
    """An alarm that was set."""

    when: float
    call: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Loop:
    """Has the time, and calls what is due when time passes."""

    now: float = NOW
    handles: list[Handle] = field(default_factory=list)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Handle:
        handle = Handle(self.now + delay_s, call)
        self.handles.append(handle)
        return handle

    @property
    def waiting(self) -> list[Handle]:
        return [handle for handle in self.handles if not handle.is_cancelled]

    def wait_until(self, end: float) -> None:
        while due := [handle for handle in self.waiting if handle.when <= end]:
            first = min(due, key=lambda handle: handle.when)
            self.handles.remove(first)
            self.now = first.when
            first.call()
        self.now = end


@dataclass
class Chore:
    """What waits for a time: the resolver, the forwarder."""

    loop: Loop
    due_at: float = inf
    called_at: list[float] = field(default_factory=list)

    def next_timer(self) -> float | None:
        return None if self.due_at == inf else self.due_at

    def timer(self, now: float) -> None:
        self.called_at.append(now)
        if now >= self.due_at:
            self.due_at = inf


class PumpHouse:
    """A pump, and all that it moves: ``events`` are what happened, in order."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.results = Results()
        self.forwarder, self.resolver = Chore(self.loop), Chore(self.loop)
        self.events: list[str] = []
        loop: Any = self.loop
        timed = (self.forwarder, self.resolver)
        self.pump = Pump(self.results, timed, self._note, loop)
        self.pump.ask_upstreams = lambda: self.events.append("asked")
        series = QuerySeries("dns://x", "dropped", "udp", "1")
        self.listener = Listener("dns://x", "udp", "1", Zones((), series), self._deliver)
        self.state = BlockState(ServerBlock((ROOT,), 53, errors=ErrorsPolicy()), None)

    def _note(self, failure: FailedQuery) -> None:
        self.events.append(f"noted {failure.text}")

    def _deliver(self, client: Any, reply: bytes) -> None:
        self.events.append(f"{client} got {reply!r}")

    def reply(self, client: str, reply: bytes) -> None:
        self.results.send_as_it_is(self.listener, client, reply)

    def fail(self, text: str) -> None:
        self.results.note_failure(FailedQuery(self.state, b"\0\0\1\0\1", 2, text))


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> PumpHouse:
    house = PumpHouse()
    monkeypatch.setattr(module, "monotonic", lambda: house.loop.now)
    return house


def test_replies_go_out_before_upstreams_are_asked_and_each_only_once(house: PumpHouse) -> None:
    house.reply("first", b"1")
    house.reply("second", b"2")
    house.fail("timeout")
    house.pump.flush()
    assert house.events == ["first got b'1'", "second got b'2'", "noted timeout", "asked"]
    house.pump.flush()
    assert house.events[4:] == ["asked"]


def test_reply_that_comes_of_a_delivery_goes_out_with_the_next_event(house: PumpHouse) -> None:
    def deliver(client: Any, _reply: bytes) -> None:
        house.events.append(client)
        if client == "first":
            house.reply("second", b"2")

    house.listener.deliver = deliver
    house.reply("first", b"1")
    house.pump.flush()
    house.pump.flush()
    assert [event for event in house.events if event != "asked"] == ["first", "second"]


def test_upstream_that_cannot_be_reached_may_flush_while_it_is_asked(house: PumpHouse) -> None:
    asked = 0

    def ask_upstreams() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:  # a socket that cannot be opened ends an exchange at once
            house.reply("stub", b"servfail")
            house.pump.flush()

    house.pump.ask_upstreams = ask_upstreams
    house.pump.flush()
    assert (asked, house.events) == (2, ["stub got b'servfail'"])


def test_without_anything_to_wait_for_no_alarm_is_set(house: PumpHouse) -> None:
    house.pump.flush()
    assert house.loop.handles == []


@pytest.mark.parametrize("first", ["forwarder", "resolver"])
def test_one_alarm_stands_for_whoever_is_due_first(house: PumpHouse, first: str) -> None:
    second = "resolver" if first == "forwarder" else "forwarder"
    getattr(house, first).due_at = NOW + 1
    getattr(house, second).due_at = NOW + 2
    house.pump.flush()
    assert len(house.loop.waiting) == 1
    house.loop.wait_until(NOW + 1 + ENOUGH_S)
    assert (getattr(house, first).due_at, getattr(house, second).due_at) == (inf, NOW + 2)
    assert len(house.loop.waiting) == 1
    house.loop.wait_until(NOW + 2 + ENOUGH_S)
    assert getattr(house, second).due_at == inf
    assert house.loop.waiting == []


def test_alarm_is_never_early_and_what_it_brings_goes_out_at_once(house: PumpHouse) -> None:
    house.resolver.due_at = NOW + 0.5
    house.pump.flush()
    house.events.clear()
    house.reply("stub", b"stale")
    house.loop.wait_until(NOW + 0.5 + ENOUGH_S)
    assert house.resolver.called_at[0] >= NOW + 0.5
    assert house.events == ["stub got b'stale'", "asked"]


def test_earlier_time_replaces_the_alarm_and_a_later_one_leaves_it(house: PumpHouse) -> None:
    house.forwarder.due_at = NOW + 4
    house.pump.flush()
    house.resolver.due_at = NOW + 1
    house.pump.flush()
    (alarm,) = house.loop.waiting
    assert NOW + 1 <= alarm.when <= NOW + 1 + ENOUGH_S
    house.resolver.due_at = NOW + 3
    house.pump.flush()
    assert house.loop.waiting == [alarm]


def test_time_that_is_past_is_due_at_once(house: PumpHouse) -> None:
    house.resolver.due_at = NOW - 5
    house.pump.flush()
    house.loop.wait_until(NOW + ENOUGH_S)
    assert len(house.resolver.called_at) == 1


def test_stop_cancels_the_alarm_and_sets_none_any_more_but_delivers(house: PumpHouse) -> None:
    house.forwarder.due_at = NOW + 1
    house.pump.flush()
    house.pump.stop()
    house.forwarder.due_at = NOW + 0.1
    house.reply("stub", b"last")
    house.pump.flush()
    assert house.loop.waiting == []
    assert "stub got b'last'" in house.events


def test_real_loop_calls_within_its_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        class Once:
            due_at: float | None = loop.time() + 0.01

            def next_timer(self) -> float | None:
                return self.due_at

            def timer(self, now: float) -> None:
                if self.due_at is not None and now >= self.due_at:
                    self.due_at = None
                    done.set()

        pump = Pump(Results(), (Once(),), lambda _: None, loop)
        pump.flush()
        await done.wait()
        pump.stop()

    run(main())
