"""What people are told of a history that failed."""

from __future__ import annotations

from collections.abc import Collection

from tests.simulator.history import History
from tests.simulator.run import run
from tests.simulator.shrink import Shrinker
from tests.simulator.violation import ViolationError


def explain(
    history: History, violation: ViolationError, ignored: Collection[str] = (), most_s: float = 60.0
) -> str:
    """Returns the shortest history that fails alike, as Python, and how it fails."""

    def fails(shorter: History) -> bool:
        found = run(shorter, ignored).violation
        return found is not None and found.invariant == violation.invariant

    shrinker = Shrinker(fails, most_s)
    shortest = shrinker.shrink(history, violation.at)
    outcome = run(shortest, ignored)
    return (
        f"{shortest.source()}\nis the shortest of {shrinker.tries} histories that were tried: "
        f"{outcome.violation}"
    )
