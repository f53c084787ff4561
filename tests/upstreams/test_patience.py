"""When an answer is later than usual; test_slow_upstreams.py shows what follows from it."""

from __future__ import annotations

import pytest

from nodecache.upstreams.patience import (
    LEAST_PATIENCE_S,
    LONGEST_PATIENCE_S,
    MOST_PATIENCE_S,
    UNKNOWN_PATIENCE_S,
    Patience,
)


def patience_after(rtt_s: float, times: int = 50) -> Patience:
    patience = Patience()
    for n in range(times):
        patience.observe(rtt_s, 100.0 + n)
    return patience


@pytest.mark.parametrize(
    ("rtt_s", "usual_s"),
    [
        (0.001, LEAST_PATIENCE_S),
        (0.02, 0.08),
        (0.1, MOST_PATIENCE_S),
        (0.4, 0.6),
        (5.0, LONGEST_PATIENCE_S),
    ],
)
def test_an_answer_may_take_four_round_trips_or_half_as_long_again(
    rtt_s: float, usual_s: float
) -> None:
    assert patience_after(rtt_s).usual_s == pytest.approx(usual_s)


def test_each_attempt_gets_twice_the_time_of_the_one_before() -> None:
    patience = patience_after(0.02)
    assert [patience.late_at(10.0, n) for n in (1, 2, 3)] == pytest.approx([10.08, 10.24, 10.56])


def test_while_nothing_is_known_a_first_attempt_is_late_before_the_usual_time() -> None:
    patience = Patience()
    assert patience.may_be_late_at(10.0) == 10.0 + MOST_PATIENCE_S
    assert patience.late_at(10.0) == 10.0 + UNKNOWN_PATIENCE_S
    patience.observe(0.4, 10.4)
    assert patience.may_be_late_at(11.0) == patience.late_at(11.0)


def test_a_single_answer_that_takes_for_ever_is_no_habit() -> None:
    patience = patience_after(0.001)
    patience.observe(60.0, 200.0)
    patience.observe(0.001, 200.1)
    assert patience.usual_s < 0.6
