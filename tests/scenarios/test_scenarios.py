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
    figures = run(scenario, "nodecache", tmp_path)
    print(f"FIGURE {scenario.name}, nodecache: {figures}")
    for other in scenario.others:
        text = run(scenario, other, tmp_path) if is_installed(other) else "not installed"
        print(f"FIGURE {scenario.name}, {other}: {text}")
    assert figures.violations(scenario.expect) == [], scenario.about
