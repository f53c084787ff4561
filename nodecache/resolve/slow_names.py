"""Names whose answers take long to come from upstream: a bounded sketch, and a count by zone.

Only what took SLOW_S or longer, or came to nothing, gets here: the others pay for a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nodecache.resolve.block import Pending
from nodecache.resolve.waiter import Waiter
from nodecache.sketches import SpaceSaving

SLOW_S = 0.25  # hits take a thousandth of it, and an upstream in the cluster a hundredth
_PLACES = 128


@dataclass(slots=True)
class SlowName:
    """What became of one question since it is in the sketch.

    Attributes:
        times: How often it was slow.
        total_s: Seconds that its exchanges took.
        longest_s: The longest of them.
        gave_up: Stubs that were told SERVFAIL, or had asked again before the answer was there.
        answered_by: Address of the upstream that answered last, "" for none.
    """

    times: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0
    gave_up: int = 0
    answered_by: str = ""


class SlowNames:
    """The questions that cost most time.

    Attributes:
        by_zone: Zones of a server block -> exchanges that were slow.
    """

    def __init__(self, by_zone: dict[str, int]) -> None:
        """Begins; counts go into ``by_zone``, which whoever shows series has, too."""
        self.by_zone = by_zone
        self._seconds: SpaceSaving[bytes] = SpaceSaving(_PLACES)
        self._names: dict[bytes, SlowName] = {}

    def note(self, pending: Pending, took_s: float, *, has_failed: bool) -> None:
        """Takes note of an exchange that was slow or came to nothing."""
        zones = pending.state.block.zones_label
        self.by_zone[zones] = self.by_zone.get(zones, 0) + 1
        question = pending.question
        lost = self._seconds.add(question, took_s)
        if lost is not None:
            del self._names[lost]
        name = self._names.setdefault(question, SlowName())
        name.times += 1
        name.total_s += took_s
        name.longest_s = max(name.longest_s, took_s)
        name.gave_up += _given_up(pending.waiters, has_failed=has_failed)
        name.answered_by = pending.answered_by or name.answered_by

    def slowest(self, count: int) -> list[tuple[bytes, SlowName]]:
        """Returns questions in wire format, those first that took most seconds in all."""
        return [(key, self._names[key]) for key, _ in self._seconds.heaviest(count)]


def _given_up(waiters: Iterable[Waiter], *, has_failed: bool) -> int:
    """Returns how many stubs did not get an answer, or not before they asked again."""
    clients = [waiter.client for waiter in waiters]
    once = len(set(clients))
    return once if has_failed else len(clients) - once
