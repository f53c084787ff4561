"""What once went wrong holds, each in a history of its own."""

from __future__ import annotations

import pytest

from tests.simulator.directed import HISTORIES
from tests.simulator.run import run


@pytest.mark.parametrize("fact", HISTORIES)
def test_fact(fact: str) -> None:
    outcome = run(HISTORIES[fact])
    assert outcome.violation is None, fact
    assert outcome.queries >= len(HISTORIES[fact].lookups)
