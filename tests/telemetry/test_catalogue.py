"""The table of series is whole: each row is read, and the code counts nothing that lacks a row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from nodecache.counters import HEALTH_BOUNDS_S
from nodecache.net.stream import Overdue
from nodecache.telemetry.catalogue import (
    CATALOGUE,
    DROP_REASONS,
    EVENTS,
    GROUPS,
    Exposure,
    Kind,
    Part,
    Series,
    parts_of,
)
from nodecache.telemetry.readings import HISTOGRAMS, NUMBERS
from nodecache.wire.query import Silence

T = TypeVar("T", bound=ast.AST)

PACKAGE = Path(__file__).parent.parent.parent / "nodecache"
ROWS = list(CATALOGUE.values())


def literals_given_to(*functions: str) -> set[str]:
    """Returns the literal first arguments of all calls of functions with these names."""
    return {
        call.args[0].value
        for call in nodes(ast.Call)
        if getattr(call.func, "attr", getattr(call.func, "id", "")) in functions
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def nodes(kind: type[T]) -> Iterator[T]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kind):
                yield node


def faults_noted() -> set[str]:
    """Returns the reasons that a stream connection keeps until it is closed."""
    return {
        node.value.value
        for node in nodes(ast.Assign)
        if ast.unparse(node.targets[0]) == "self._fault"
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.value.value
    }


def gauges_set() -> set[str]:
    """Returns the names of all gauges that the code puts into the counters."""
    return {
        node.slice.value
        for node in nodes(ast.Subscript)
        if isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value).endswith("gauges")
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }


def test_every_row_is_read_and_nothing_else() -> None:
    # The library reads the process, and webhook/metrics.py keeps its own.
    ours = [row for row in ROWS if row.part not in {Part.PROCESS, Part.WEBHOOK}]
    assert NUMBERS.keys() == {row.name for row in ours if row.kind is not Kind.HISTOGRAM}
    assert HISTOGRAMS.keys() == {row.name for row in ours if row.kind is Kind.HISTOGRAM}


def test_no_name_stands_twice() -> None:
    assert len(CATALOGUE) == sum(len(rows) for rows in GROUPS.values())


@pytest.mark.parametrize("row", ROWS, ids=CATALOGUE)
def test_row_keeps_to_the_conventions(row: Series) -> None:
    assert row.name.endswith("_total") == (row.kind is Kind.COUNTER)
    assert bool(row.bounds) == (row.kind is Kind.HISTOGRAM)
    assert len(set(row.labels)) == len(row.labels)
    assert row.text.endswith(".")


def test_health_is_timed_in_coredns_buckets() -> None:
    bounds = CATALOGUE["coredns_health_request_duration_seconds"].bounds
    assert bounds == HEALTH_BOUNDS_S == (0.00025, 0.0025, 0.025, 0.25, 2.5)


def test_every_event_that_the_code_counts_has_its_row() -> None:
    assert literals_given_to("count_event") == EVENTS.keys()


def test_every_gauge_that_the_code_sets_has_its_row() -> None:
    names = gauges_set()
    assert names
    assert {f"nodecache_{name}" for name in names} <= CATALOGUE.keys()


def test_every_reason_for_silence_exists_before_the_first_one() -> None:
    counted = literals_given_to("count_drop", "abort", "_drop", "_evict")
    counted |= faults_noted() | {silence.value for silence in Silence}
    counted |= {overdue.value for overdue in Overdue} - {Overdue.IDLE.value}
    assert counted == DROP_REASONS.keys()


@pytest.mark.parametrize(
    ("exposure", "legacy", "parts"),
    [
        (Exposure.SETUP, True, {Part.SETUP}),
        (Exposure.SERVING, False, {Part.SERVING, Part.PROCESS}),
        (Exposure.SERVING, True, {Part.SERVING, Part.PROCESS, Part.LEGACY}),
        (Exposure.ALL, True, set(Part) - {Part.WEBHOOK}),
    ],
)
def test_page_shows_its_parts(exposure: Exposure, legacy: bool, parts: set[Part]) -> None:
    assert parts_of(exposure, legacy=legacy) == parts
