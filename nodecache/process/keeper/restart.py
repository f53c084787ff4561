"""When a worker that ended is started again, and how its end is told."""

from __future__ import annotations

import signal

_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0
CONFIGURATION_DELAY_S = 30.0
# A worker that served this long was a good one; the next crash is a first one.
_GOOD_LIFE_S = 60.0


class Restarts:
    """Counts crashes in a row.

    Attributes:
        count: Restarts so far.
        in_vain: Workers in a row that ended before they served.
    """

    def __init__(self) -> None:
        self.count = 0
        self.in_vain = 0
        self._delay_s = 0.0

    def next_delay_s(self, served_at: float | None, now: float) -> float:
        """Returns how long to wait after a crash: nothing at first, then 0.1 s doubling to 5 s.

        Args:
            served_at: When the worker that crashed began to serve, monotonic seconds, or None.
            now: The same clock.
        """
        self.in_vain = 0 if served_at is not None else self.in_vain + 1
        if served_at is not None and now - served_at >= _GOOD_LIFE_S:
            self._delay_s = 0.0
        delay = self._delay_s
        self._delay_s = min(_MAX_DELAY_S, delay * 2 or _FIRST_DELAY_S)
        return delay


def describe_end(code: int, *, was_ours: bool = False) -> str:
    """Returns what happened, for a sentence that begins with "the worker".

    Args:
        code: As ``os.waitstatus_to_exitcode`` gives it.
        was_ours: Whether a signal that ended it was the keeper's.
    """
    if code == 2:
        return "refused its configuration (exit code 2, see the lines above)"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    is_killed = -code == signal.SIGKILL and not was_ours
    hint = ", as the kernel does when memory is short" if is_killed else ""
    return f"was killed by {name}{hint}"
