"""Second opinions: when an error is not believed at once because another backend may do better.

Behind a service address one backend may be ill, say SERVFAIL to everything or cut what needs no
cutting, while its siblings are well. A response over a stream tells nothing of which it is; but
on another connection the same question probably meets another backend.
"""

from __future__ import annotations

MOST_OPINIONS = 5  # the first too: if one backend of three is ill, all five are once in 243 times
OPINION_SHARE = 0.01  # of all exchanges, so that names that are really broken cost little
OPINION_BURST = 30.0  # so that all connections to a backend that falls ill are found at once


class Doubts:
    """The budget of second opinions."""

    __slots__ = ("_counted", "_tokens")

    def __init__(self) -> None:
        self._tokens = OPINION_BURST
        self._counted = 0

    def take_token(self, submitted: int) -> bool:
        """Returns whether there may be another opinion, after so many exchanges in all."""
        earned = (submitted - self._counted) * OPINION_SHARE
        self._counted = submitted
        self._tokens = min(self._tokens + earned, OPINION_BURST)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
