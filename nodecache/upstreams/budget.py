"""Questions that are asked more than once, kept to a share of all: hedges, second opinions."""

from __future__ import annotations


class Budget:
    """A token for each ``1 / share`` exchanges, and a burst of them at the beginning."""

    __slots__ = ("_burst", "_counted", "_share", "_tokens")

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = self._tokens = burst
        self._counted = 0

    def take(self, submitted: int) -> bool:
        """Returns whether one more may be asked, after so many exchanges in all."""
        earned = (submitted - self._counted) * self._share
        self._counted = submitted
        self._tokens = min(self._tokens + earned, self._burst)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
