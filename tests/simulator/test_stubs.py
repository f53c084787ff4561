"""Stub resolvers ask as often, as long and over what the real ones do."""

from __future__ import annotations

import pytest

from tests.cache.building import A
from tests.simulator.clock import Clock
from tests.simulator.history import Lookup
from tests.simulator.stubs import Asking, Query
from tests.simulator.zone import Reply


def ask(stub: str, *replies: Reply | None) -> list[tuple[float, str]]:
    """When and over what a stub asks, if it gets these replies at once, and then none."""
    clock, asked, left = Clock(0.0), [], list(replies)

    def take(query: Query) -> None:
        asked.append((clock.now, "tcp" if query.over_tcp else "udp"))
        query.reply = left.pop(0) if left else None
        clock.after(0.1, lambda: asking.take(query))

    asking = Asking(Lookup(0.0, "n1", stub), A, clock, 7, take)
    asking.ask()
    while clock.next_at < 60:
        clock.step()
    return asked


def reply(rcode: int = 0, is_truncated: bool = False) -> Reply:
    return Reply(rcode, is_truncated, 1, {1}, 30)


@pytest.mark.parametrize(
    ("stub", "times"),
    [("once", [0]), ("glibc", [0, 5]), ("musl", [0, 2.5]), ("go", [0, 5]), ("c-ares", [0, 2, 6])],
)
def test_silence_is_asked_again(stub: str, times: list[float]) -> None:
    assert ask(stub) == [(when, "udp") for when in times]


def test_an_answer_ends_it() -> None:
    assert ask("c-ares", reply()) == [(0, "udp")]


def test_an_error_is_asked_again_at_once() -> None:
    assert ask("glibc", reply(rcode=2)) == [(0, "udp"), (0.1, "udp")]


def test_a_truncated_reply_is_asked_again_over_tcp() -> None:
    assert ask("glibc", reply(is_truncated=True), reply()) == [(0, "udp"), (0.1, "tcp")]


def test_who_asks_over_tcp_takes_what_is_truncated() -> None:
    assert ask("tcp", reply(is_truncated=True)) == [(0, "tcp")]
