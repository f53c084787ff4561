"""Every file here: what goes wrong behind the virtual address, and that clients do not notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.resolvers import is_installed
from tests.scenarios.runner import Scenario, load_scenario, run

SCENARIOS = [load_scenario(path) for path in sorted(Path(__file__).parent.glob("*.toml"))]


@pytest.mark.root
@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_clients_do_not_notice(scenario: Scenario, tmp_path: Path) -> None:
    """Some faults are a matter of dice, for which a second try (tests/conftest.py) allows.

    A question that a bad backend got is asked about again on another connection, and behind a
    Service that may lead to the same backend.
    """
    figures = run(scenario, "nodecache", tmp_path)
    print(f"FIGURE {scenario.name}, nodecache: {figures}")
    assert figures.violations(scenario.expect) == [], scenario.about
    for other in scenario.others:
        text = run(scenario, other, tmp_path) if is_installed(other) else "not installed"
        print(f"FIGURE {scenario.name}, {other}: {text}")
