"""How slow this machine is, for bounds on CPU time and on queues that a busy processor makes."""

from __future__ import annotations

import time

# CPU seconds that the loop below takes on the machine on which the bounds were set.
_NOMINAL_S = 0.011
_STEPS = 100_000


class _Made:
    """Objects and calls are what the product's time goes to; arithmetic says little of them."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def slowness() -> float:
    """Returns how many times slower Python is here and now than where bounds were set.

    At least 1. Neighbours on a shared machine come and go, so ask beside what is bounded.
    """
    return max(1.0, min(_one_loop_s() for _ in range(3)) / _NOMINAL_S)


def _one_loop_s() -> float:
    begun_at = time.process_time()
    for number in range(_STEPS):
        _Made(number)
    return time.process_time() - begun_at
