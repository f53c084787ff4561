"""Makes a history that fails as short as it can, failing by the same invariant.

Delta debugging: what can be left out is left out, in halves, quarters and so on, then what is
left is made plainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import TypeVar

from tests.simulator.history import Blink, Fault, History, Lookup, Place

Item = TypeVar("Item", Lookup, Fault, Blink)
Thing = TypeVar("Thing")
WINDOWS_S = (10.0, 30.0, 120.0, 600.0)  # before the failure


@dataclass
class Shrinker:
    """Tries shorter histories.

    Attributes:
        fails: Says whether a history fails as wanted.
        most_s: Real seconds to be spent.
        tries: Histories tried so far.
    """

    fails: Callable[[History], bool]
    most_s: float = 60.0
    tries: int = 0
    _ends_at: float = inf

    def shrink(self, history: History, at: float) -> History:
        """Returns the shortest history found; ``at`` is when ``history`` fails."""
        self._ends_at = monotonic() + self.most_s
        history = self._cut_out(history, at)
        before = None
        while before != history and not self._is_late():
            before = history
            history = replace(history, faults=self._least(history.faults, _with_faults(history)))
            history = replace(history, blinks=self._least(history.blinks, _with_blinks(history)))
            history = replace(history, lookups=self._least(history.lookups, _with_lookups(history)))
            history = self._plainer(history)
        return history

    def _is_late(self) -> bool:
        return monotonic() > self._ends_at

    def _fails(self, history: History) -> bool:
        self.tries += 1
        return self.fails(history)

    def _cut_out(self, history: History, at: float) -> History:
        """Leaves out what was after the failure, and long before it."""
        until = min(at + 1.0, history.ends_at)
        for window_s in WINDOWS_S:
            part = _between(history, at - window_s, until)
            if self._fails(part):
                return part
        part = _between(history, 0.0, until)
        return part if self._fails(part) else history

    def _least(
        self, items: tuple[Item, ...], fill: Callable[[tuple[Item, ...]], History]
    ) -> tuple[Item, ...]:
        """Returns as few of ``items`` as needed (Zeller's ddmin)."""
        size = max(1, len(items) // 2)
        while items and not self._is_late():
            for start in range(0, len(items), size):
                rest = items[:start] + items[start + size :]
                if self._fails(fill(rest)):
                    items = rest
                    break
            else:
                if size == 1:
                    break
                size = max(1, size // 2)
        return items

    def _plainer(self, history: History) -> History:
        """Replaces what is special by what is not, one by one."""
        for plainer in _plainer_histories(history):
            if self._is_late():
                break
            if plainer != history and self._fails(plainer):
                return plainer
        return history


def _with_faults(history: History) -> Callable[[tuple[Fault, ...]], History]:
    return lambda faults: replace(history, faults=faults)


def _with_blinks(history: History) -> Callable[[tuple[Blink, ...]], History]:
    return lambda blinks: replace(history, blinks=blinks)


def _with_lookups(history: History) -> Callable[[tuple[Lookup, ...]], History]:
    return lambda lookups: replace(history, lookups=lookups)


def _between(history: History, since: float, until: float) -> History:
    """Returns what was between two moments."""
    return replace(
        history,
        ends_at=until,
        lookups=tuple(each for each in history.lookups if since <= each.at <= until),
        faults=tuple(each for each in history.faults if since <= each.until and each.at <= until),
        blinks=tuple(each for each in history.blinks if since <= each.until and each.at <= until),
    )


def _plainer_histories(history: History) -> Iterator[History]:
    yield replace(history, stale="off", selection="random")
    yield replace(history, seed=0)
    yield from _fewer_places(history)
    for index, place in enumerate(history.places):
        for plainer in _plainer_places(place):
            yield replace(history, places=_with(history.places, index, plainer))
    for index, fault in enumerate(history.faults):
        for changed in (replace(fault, backend=-1), replace(fault, at=0.0)):
            yield replace(history, faults=_with(history.faults, index, changed))
    for index, lookup in enumerate(history.lookups):
        yield replace(history, lookups=_with(history.lookups, index, replace(lookup, stub="once")))


def _with(items: tuple[Thing, ...], index: int, item: Thing) -> tuple[Thing, ...]:
    return (*items[:index], item, *items[index + 1 :])


def _fewer_places(history: History) -> Iterator[History]:
    """Leaves out upstreams that nothing happens to."""
    if len(history.places) == 1 or history.blinks:
        return
    for index in range(len(history.places)):
        places = history.places[:index] + history.places[index + 1 :]
        faults = tuple(
            replace(fault, upstream=fault.upstream - (fault.upstream > index))
            for fault in history.faults
            if fault.upstream != index
        )
        if len(faults) == len(history.faults):
            yield replace(history, places=places, faults=faults)


def _plainer_places(place: Place) -> Iterator[Place]:
    yield Place(place.transport)
    yield replace(place, backends=1)
    yield replace(place, is_ordered=False)
    yield replace(place, most_connections=0)
    yield replace(place, rtt_s=0.001)
    yield replace(place, transport="tcp")
