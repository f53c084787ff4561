"""Nothing wrong is kept, and nothing wrong is said."""

from __future__ import annotations

from math import ceil

from tests.simulator.stubs import Query
from tests.simulator.zone import (
    NXDOMAIN,
    Reply,
    Saying,
    Sense,
    Zone,
    first_label,
    records_for,
)

STALE_TTL_S = 5
STALE_FOR_S = 3600.0
ROUNDING_S = 1e-6


class Truth:
    """Traces each record of a reply to the response that it came with."""

    def __init__(self, zone: Zone, serves_stale: bool) -> None:
        self._zone = zone
        self._serves_stale = serves_stale

    def untruth(self, query: Query, octets: bytes, reply: Reply, now: float) -> str:
        """Returns what is wrong with a reply, or nothing."""
        if (
            octets[:2] != query.octets[:2]
            or octets[12 : 12 + len(query.question)] != query.question
        ):
            return "ID or question of another query"
        if reply.rcode not in (0, NXDOMAIN):
            return ""
        if not reply.is_truncated and (shape := self._misshape(query, reply)):
            return shape
        for number in sorted(reply.numbers):
            if found := self._misquote(query, reply, self._zone.said.get(number), now):
                return found
        return ""

    def _misshape(self, query: Query, reply: Reply) -> str:
        expected = records_for(query.question)
        is_denied = first_label(query.question).startswith("none")
        if (reply.rcode == NXDOMAIN) != is_denied:
            return f"RCODE {reply.rcode}"
        if reply.answers != expected:
            return f"{reply.answers} of {expected} records"
        return "" if reply.numbers else "no records"

    def _misquote(self, query: Query, reply: Reply, saying: Saying | None, now: float) -> str:
        """Returns what is wrong with records that ``saying`` had."""
        if saying is None or saying.sense is not Sense.TRUE or saying.arrived_at > now:
            return f"records that nobody said: {saying}"
        is_for_all = saying.rcode == NXDOMAIN and saying.question[:-4] == query.question[:-4]
        if saying.question != query.question and not is_for_all:
            return f"the answer to {saying.question!r}"
        left_s = saying.arrived_at + saying.ttl_s - now
        most_s = ceil(max(0.0, left_s) - ROUNDING_S)
        if self._serves_stale and -STALE_FOR_S < left_s <= 0:
            most_s = STALE_TTL_S
        elif left_s < -ROUNDING_S:
            return f"records {-left_s:.3f} s after the end of their TTL"
        return f"TTL {reply.longest_ttl_s} of {most_s} s" if reply.longest_ttl_s > most_s else ""
