from __future__ import annotations

from math import inf

from nodecache.engine.agenda import TICKS_PER_S, Agenda


def test_items_come_in_order_of_time() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.add(2.0, "late")
    agenda.add(1.0, "early")
    assert agenda.take_due(3.0) == ["early", "late"]


def test_nothing_is_due_before_its_time_and_all_a_tick_later() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.add(1.0, "a")
    agenda.add(1.001, "b")
    assert agenda.take_due(1.0) == []
    assert agenda.take_due(1.002 + 1 / TICKS_PER_S) == ["a", "b"]


def test_next_at_is_when_something_is_due() -> None:
    agenda: Agenda[str] = Agenda()
    assert agenda.next_at == inf
    agenda.add(5.0, "b")
    agenda.add(1.0, "a")
    assert 1.0 < agenda.next_at <= 1.0 + 1 / TICKS_PER_S
    assert agenda.take_due(agenda.next_at) == ["a"]
    assert 5.0 < agenda.next_at <= 5.0 + 1 / TICKS_PER_S
    agenda.take_due(agenda.next_at)
    assert agenda.next_at == inf
