"""Errors that are not believed at once (see also test_balance.py, for minutes of them)."""

from __future__ import annotations

from typing import Any

import pytest

from nodecache.upstreams.second_opinion import OPINION_BURST
from tests.upstreams.forwarding import (
    ONE,
    Network,
    answer,
)


@pytest.mark.parametrize("ill", [{"rcode": 2}, {"truncated": True}])
def test_an_ill_backend_among_others_is_asked_once(ill: dict[str, Any]) -> None:
    bed = Network()
    for n in range(3):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.reply_all()
    count = len(bed.open)
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    bed.deliver(connection, answer(query, **ill))
    [(other, query)] = bed.queries
    assert other is not connection
    bed.deliver(other, answer(query))
    assert bed.outcomes[-1] == answer(query)
    assert connection in bed.closed
    assert len(bed.open) == count - 1 > 0


def test_second_opinions_are_a_hundredth_of_all_queries_after_a_burst() -> None:
    bed = Network()
    for n in range(1000):
        bed.ask(ONE, f"n{n}.cluster.local")
        while bed.queries:
            bed.reply_all(rcode=2)
        bed.results.clear()
    assert OPINION_BURST + 9 <= bed.counters.events["doubted"] <= OPINION_BURST + 11


def test_an_error_that_nobody_contradicts_in_time_is_the_answer() -> None:
    bed = Network()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    bed.deliver(connection, answer(query, rcode=2))
    bed.wait(5.0)
    assert bed.outcomes == [answer(query, rcode=2)]
