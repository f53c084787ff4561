"""What a history says of a moment: what was wrong then, and who should have been able to answer."""

from __future__ import annotations

from tests.simulator.faults import serves
from tests.simulator.history import Blink, Fault, History


class Weather:
    """The faults of one history, by the clock's time."""

    def __init__(self, history: History, start: float) -> None:
        self._history = history
        self._start = start
        self._troubles: list[Fault | Blink] = [*history.faults, *history.blinks]

    def is_calm(self, since: float, until: float) -> bool:
        """Whether nothing was wrong between the two."""
        since, until = since - self._start, until - self._start
        return not any(each.at <= until and each.until > since for each in self._troubles)

    def during(self, since: float, until: float) -> list[Fault]:
        """Returns the faults that there were for some time between the two."""
        since, until = since - self._start, until - self._start
        return [each for each in self._history.faults if each.at <= until and each.until > since]

    def blinked(self, since: float, until: float) -> bool:
        """Whether there was a reload between the two."""
        since, until = since - self._start, until - self._start
        return any(
            since <= when <= until
            for blink in self._history.blinks
            for when in (blink.at, blink.until)
        )

    def asked(self, since: float, until: float) -> set[int]:
        """Returns the upstreams that ``resolv.conf`` has named all the time between the two."""
        since, until = since - self._start, until - self._start
        chosen = set(range(len(self._history.places)))
        for blink in self._history.blinks:
            if blink.at <= until and blink.until > since:
                chosen &= set(blink.upstreams)
        return chosen

    def well(self, label: str, since: float, until: float) -> list[bool]:
        """Returns for each upstream that was asked whether it must have been good for a name.

        Of one with several faults at a time nothing is claimed.
        """
        faults = self.during(since, until)
        return [
            self._is_well(label, [each for each in faults if each.upstream == index], index)
            for index in sorted(self.asked(since, until))
        ]

    def _is_well(self, label: str, faults: list[Fault], index: int) -> bool:
        place = self._history.places[index]
        return len(faults) <= 1 and all(serves(fault, label, place) for fault in faults)
