"""Messages come out by the second in which their time is over, and leave no trace before."""

from __future__ import annotations

from nodecache.cache.expiry import Expiry
from tests.cache.building import NOW, key, message


def drain(expiry: Expiry[str], until: float) -> list[str]:
    found = []
    while (popped := expiry.pop(until)) is not None:
        found.append(popped[1])
    return found


def test_a_message_comes_out_once_its_second_is_over() -> None:
    expiry: Expiry[str] = Expiry()
    expiry.add(10.5, message(key("late.example")), "late")
    expiry.add(9.5, message(key("early.example")), "early")
    assert drain(expiry, 9.9) == []
    assert drain(expiry, 10.0) == ["early"]
    assert drain(expiry, 10.9) == []
    assert drain(expiry, 11.0) == ["late"]
    assert drain(expiry, 99.0) == []


def test_seconds_come_in_order_whatever_the_order_of_admission() -> None:
    expiry: Expiry[str] = Expiry()
    for second in (7, 3, 9, 1, 5):
        expiry.add(float(second), message(key()), str(second))
    assert drain(expiry, 99.0) == ["1", "3", "5", "7", "9"]


def test_what_leaves_early_is_gone_at_once() -> None:
    expiry: Expiry[str] = Expiry()
    known, unknown = message(key()), message(key())
    expiry.add(10.5, known, "known")
    assert not expiry.drop(10.5, unknown)
    assert not expiry.drop(12.5, known)
    assert expiry.drop(10.5, known)
    assert not expiry.drop(10.5, known)
    assert len(expiry) == 0
    assert drain(expiry, 99.0) == []


def test_a_second_that_is_emptied_and_used_again_gives_each_message_once() -> None:
    expiry: Expiry[str] = Expiry()
    made = message(key())
    for _ in range(3):
        expiry.add(10.0, made, "a")
        expiry.drop(10.0, made)
    expiry.add(10.0, made, "b")
    assert drain(expiry, 99.0) == ["b"]


def test_seconds_that_were_emptied_early_do_not_pile_up() -> None:
    expiry: Expiry[str] = Expiry()
    for second in range(10_000):
        made = message(key(), NOW)
        expiry.add(float(second), made, "a")
        expiry.drop(float(second), made)
    assert len(expiry._order) < 2000
