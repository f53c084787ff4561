from __future__ import annotations

from math import inf

from nodecache.timers import TICKS_PER_S, Timers


def test_items_come_in_order_of_time() -> None:
    timers: Timers[str] = Timers()
    timers.add(2.0, "late")
    timers.add(1.0, "early")
    assert timers.take_due(3.0) == ["early", "late"]


def test_nothing_is_due_before_its_time_and_all_a_tick_later() -> None:
    timers: Timers[str] = Timers()
    timers.add(1.0, "a")
    timers.add(1.001, "b")
    assert timers.take_due(1.0) == []
    assert timers.take_due(1.002 + 1 / TICKS_PER_S) == ["a", "b"]


def test_next_at_is_when_something_is_due() -> None:
    timers: Timers[str] = Timers()
    assert timers.next_at == inf
    timers.add(5.0, "b")
    timers.add(1.0, "a")
    assert 1.0 < timers.next_at <= 1.0 + 1 / TICKS_PER_S
    assert timers.take_due(timers.next_at) == ["a"]
    assert 5.0 < timers.next_at <= 5.0 + 1 / TICKS_PER_S
    timers.take_due(timers.next_at)
    assert timers.next_at == inf
