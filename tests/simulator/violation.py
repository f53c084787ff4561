"""What a run raises when something does not hold."""

from __future__ import annotations


class ViolationError(AssertionError):
    """An invariant does not hold.

    Attributes:
        invariant: Which.
        at: When, in seconds from the beginning of the history.
        detail: What was seen.
    """

    def __init__(self, invariant: str, at: float, detail: str) -> None:
        super().__init__(f"{invariant!r} does not hold at {at:.3f} s: {detail}")
        self.invariant = invariant
        self.at = at
        self.detail = detail
