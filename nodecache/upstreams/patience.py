"""How long an answer of one upstream may take, and when it is later than usual."""

from __future__ import annotations

LEAST_PATIENCE_S = 0.05  # below it a hiccup of the scheduler would look like a lost query
MOST_PATIENCE_S = 0.25  # a stub resolver may give up after 1 s, and a retry needs its time
RTTS_OF_PATIENCE = 4
# Where answers take long, each question asked too early doubles the load: then wait for half as
# long again as usual, and for as long as RFC 6298 section 2.1 does while nothing is known.
SLOW_RTTS_OF_PATIENCE = 1.5
UNKNOWN_PATIENCE_S = 1.1
LONGEST_PATIENCE_S = 1.7  # what was slow until now may be quick again
MOST_RTT_S = 3.0  # counted of one answer: a single name that takes forever is no habit


class Patience:
    """With one upstream, over one transport.

    Attributes:
        usual_s: How long an answer may take before the query is asked again elsewhere.
        srtt_s: How long answers take, smoothed; 0 while nothing is known.
        answered_at: When it last answered anything, monotonic seconds; 0 for never.
        is_scouted: While nothing is known of it, one question was asked twice.
    """

    __slots__ = ("answered_at", "is_scouted", "srtt_s", "usual_s")

    def __init__(self) -> None:
        self.usual_s = UNKNOWN_PATIENCE_S
        self.srtt_s = 0.0
        self.answered_at = 0.0
        self.is_scouted = False

    def observe(self, rtt_s: float, now: float) -> None:
        """Takes one answer's time into account (RFC 6298's smoothing, gain 1/8)."""
        self.answered_at = now
        if rtt_s > MOST_RTT_S:
            rtt_s = MOST_RTT_S
        srtt = self.srtt_s
        self.srtt_s = srtt = srtt + (rtt_s - srtt) * 0.125 if srtt else rtt_s
        if srtt <= LEAST_PATIENCE_S / RTTS_OF_PATIENCE:
            self.usual_s = LEAST_PATIENCE_S
        else:
            quick_s = min(srtt * RTTS_OF_PATIENCE, MOST_PATIENCE_S)
            slow_s = min(srtt * SLOW_RTTS_OF_PATIENCE, LONGEST_PATIENCE_S)
            self.usual_s = max(quick_s, slow_s)

    def late_at(self, since: float, attempts: int = 1) -> float:
        """Returns from when on an answer is later than usual, monotonic seconds.

        Each of ``attempts``, the first of them at ``since``, gets twice the time of the one
        before (RFC 6298 section 5.5). So one that needs 1 s for everything is asked once, and one
        that needs 3 s twice at most.
        """
        return since + self.usual_s * (2.0**attempts - 1)

    def may_be_late_at(self, since: float) -> float:
        """Returns the same of a first attempt that may be on a connection that is dead.

        While nothing is known of the upstream, that is not as late as usual, but at once.
        """
        return self.late_at(since) if self.answered_at else since + MOST_PATIENCE_S
