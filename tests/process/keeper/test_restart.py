from __future__ import annotations

import pytest

from nodecache.process.keeper.restart import Restarts, describe_end

NOW = 1000.0


def test_delay_doubles_to_five_seconds_and_a_good_life_resets_it() -> None:
    restarts = Restarts()
    delays = [restarts.next_delay_s(NOW, NOW + 1) for _ in range(9)]
    assert delays == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    assert restarts.next_delay_s(None, NOW + 100) == 5
    assert restarts.next_delay_s(NOW, NOW + 60) == 0
    assert restarts.next_delay_s(NOW, NOW + 1) == 0.1


@pytest.mark.parametrize(
    ("code", "text"),
    [(1, "exit code 1"), (2, "configuration"), (-9, "SIGKILL, as the"), (-63, "signal 63")],
)
def test_end_is_told_in_words(code: int, text: str) -> None:
    assert text in describe_end(code)


def test_worker_that_the_keeper_killed_is_not_put_down_to_memory() -> None:
    assert describe_end(-9, was_ours=True) == "was killed by SIGKILL"
