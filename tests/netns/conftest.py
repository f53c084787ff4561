from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.node import BACKENDS, NodeBed, bed_in


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[NodeBed]:
    """A node with two pods and a cluster DNS."""
    with bed_in(tmp_path) as bed:
        yield bed


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Who keeps the rules, as ``-rules`` names it."""
    name: str = request.param
    return name
