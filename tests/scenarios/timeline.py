"""What goes wrong in a scenario, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.scenarios.backend import FAULTS
from tests.scenarios.bed import ScenarioBed

# What the bed does to a backend; FAULTS are what a backend does itself, when told.
OF_THE_BED = ("kill", "black_hole", "drop_syn", "slow", "add", "replace", "vanish")


@dataclass(frozen=True, slots=True)
class Fault:
    """One event.

    Attributes:
        at: Seconds since the timeline began.
        do: One of OF_THE_BED or of the backend's FAULTS.
        backend: Its number, all for -1.
        value: Milliseconds for "slow"; for "replace" and "vanish" the seconds that the virtual
            address goes on leading to the one that is gone.
    """

    at: float
    do: str
    backend: int = -1
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.do not in (*OF_THE_BED, *FAULTS):
            raise ValueError(f"there is no fault {self.do!r}")


class Timeline:
    """Carries out the faults of a scenario when their time has come, counted from ``began``."""

    def __init__(self, bed: ScenarioBed, faults: tuple[Fault, ...]) -> None:
        self._bed = bed
        self._left = sorted(faults, key=lambda fault: fault.at)
        self.began = time.monotonic()
        self._special: dict[str, Callable[[Fault], None]] = {
            "kill": lambda fault: bed.backends[fault.backend].kill(),
            "black_hole": lambda fault: bed.drop(fault.backend, only_syn=False),
            "drop_syn": lambda fault: bed.drop(fault.backend, only_syn=True),
            "slow": lambda fault: self._order(fault, delay_ms=fault.value),
            "add": lambda fault: self._add(),
            "replace": self._replace,
            "vanish": self._vanish,
        }

    def run(self, seconds: float) -> None:
        """Returns after so many seconds since it was made."""
        end = self.began + seconds
        while self._left and self.began + self._left[0].at <= end:
            fault = self._left.pop(0)
            time.sleep(max(0.0, self.began + fault.at - time.monotonic()))
            self._act(fault)
        time.sleep(max(0.0, end - time.monotonic()))

    def _act(self, fault: Fault) -> None:
        act = self._special.get(fault.do)
        if act is None:
            self._order(fault, fault=fault.do)
        else:
            act(fault)

    def _order(self, event: Fault, **order: Any) -> None:
        every = range(len(self._bed.backends)) if event.backend < 0 else (event.backend,)
        for number in every:
            self._bed.backends[number].order(**order)

    def _add(self) -> None:
        self._bed.add()

    def _replace(self, fault: Fault) -> None:
        """Kills a backend; ``value`` seconds later another one has its place.

        So long the virtual address still leads to the dead one, as while kube-proxy does not
        know yet.
        """
        bed = self._bed
        number = bed.start()
        bed.backends[fault.backend].kill()
        time.sleep(fault.value)
        bed.members = [number if n == fault.backend else n for n in bed.members]
        bed.balance()

    def _vanish(self, fault: Fault) -> None:
        """The same, but the backend goes with its network: nobody hears that it is gone."""
        self._bed.drop(fault.backend, only_syn=False)
        self._replace(fault)
