"""Whether one upstream answers: failures in a row, when it may be dialled again.

Knows nothing of connections: who owns them reports here, and asks here before dialling.
"""

from __future__ import annotations

# Between dials that come to nothing. Each query waits for one try, so the failure of that should
# cost it no more; twenty a second cost half a per cent of a core.
PAUSE_S = 0.05
DEAD_AFTER_S = 0.3  # enough for a process that is replaced
EPISODE_ENDS_AFTER_S = 2.0  # several time-outs of a dial: later failures are a new story


class Health:
    """The health of one upstream.

    Attributes:
        fails: Failures in a row, of queries, connections and probes.
        is_down: More failures than ``max_fails`` allows.
        has_trouble: Something failed since the last response. The one thing to look at on the
            path of every response.
        dial_at: No connection is opened before, monotonic seconds.
    """

    __slots__ = (
        "_failed_at",
        "_failing_since",
        "_max_fails",
        "_pauses",
        "dial_at",
        "fails",
        "has_trouble",
        "is_down",
    )

    def __init__(self, max_fails: int) -> None:
        self._max_fails = max_fails
        self._failing_since = 0.0
        self._failed_at = 0.0
        self._pauses = 0
        self.dial_at = 0.0
        self.fails = 0
        self.has_trouble = False
        self.is_down = False

    def __repr__(self) -> str:
        """Returns the verdict, for tests and logs."""
        return f"{'down' if self.is_down else 'up'}, {self.fails} fails"

    @property
    def wants_probes(self) -> bool:
        """Whether to probe: something failed, and failing has consequences."""
        return self.fails > 0 and self._max_fails > 0

    def count_failure(self) -> None:
        """Counts one failure of any kind."""
        self.fails += 1
        self.has_trouble = True
        self.is_down = 0 < self._max_fails < self.fails

    def count_dial_failure(self, dialled_at: float, now: float) -> None:
        """Counts a connection that could not be opened, or died before it answered anything."""
        self.count_failure()
        self.put_off_dials(dialled_at, now)

    def put_off_dials(self, dialled_at: float, now: float) -> None:
        """Lets some time pass until the next connection is opened, for one that came to nothing.

        Connections that were opened together count as one.
        """
        self.has_trouble = True
        if now - self._failed_at > EPISODE_ENDS_AFTER_S:
            self._failing_since = dialled_at
            self._pauses = 0
        self._failed_at = now
        if now >= self.dial_at:
            self._pauses += 1
            self.dial_at = now + PAUSE_S

    def is_dead(self, now: float) -> bool:
        """Whether dialling has failed often and long enough to give up queries that need it."""
        return (
            self._pauses > 1
            and self._failed_at - self._failing_since >= DEAD_AFTER_S
            and now - self._failed_at <= EPISODE_ENDS_AFTER_S
        )

    def recover(self) -> None:
        """Forgets all failures: the upstream answered something."""
        self._failing_since = self._failed_at = self.dial_at = 0.0
        self._pauses = self.fails = 0
        self.has_trouble = self.is_down = False
