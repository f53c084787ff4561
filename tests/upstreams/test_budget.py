"""Questions that are asked more than once stay a share of all."""

from __future__ import annotations

from nodecache.upstreams.budget import Budget


def test_there_is_a_burst_and_then_one_for_so_many_exchanges() -> None:
    budget = Budget(share=0.05, burst=10.0)
    assert sum(budget.take(0) for _ in range(50)) == 10
    assert sum(budget.take(submitted) for submitted in range(1, 1001)) == 50


def test_what_was_not_taken_is_no_more_than_a_burst() -> None:
    budget = Budget(share=0.5, burst=3.0)
    assert sum(budget.take(1_000_000) for _ in range(50)) == 3
