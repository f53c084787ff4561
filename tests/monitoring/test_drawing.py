"""The picture shows all panels of the dashboard, whatever Prometheus answers."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from daemonset.monitoring import dashboard
from daemonset.monitoring.drawing import Line, Panel, page, worded

BOARD: dict[str, Any] = json.loads(dashboard.composed())
MINUTE = 60.0


class Reader(HTMLParser):
    """Collects texts, and refuses a figure that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any("nan" in (value or "") for _, value in attrs), (tag, attrs)


def texts_of(text: str) -> list[str]:
    reader = Reader()
    reader.feed(text)
    return reader.texts


def lines_of(panel: Panel) -> list[list[Line]]:
    """Two nodes, of which one came late, and a value that doubles each minute."""
    late = {"instance": "node2", "version": "<1>"}
    return [
        [
            Line("node1", {"instance": "node1", "version": "1"},
                 [(MINUTE * at, 2.0**at / 100) for at in range(10)]),
            Line("node2", late, [(MINUTE * at, 0.0) for at in range(5, 10)]),
        ]
        for _ in panel["targets"]
    ]  # fmt: skip


def test_every_panel_is_drawn() -> None:
    found = texts_of(page(BOARD, lines_of, 10))
    for panel in BOARD["panels"]:
        assert panel["title"] in found
    assert "no data" not in found
    assert {"node1", "node2", "<1>", "00:04"} <= set(found)


def test_a_panel_without_data_says_so() -> None:
    found = texts_of(page(BOARD, lambda panel: [[] for _ in panel["targets"]], 10))
    assert found.count("no data") >= 8


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.983, "percentunit", "98.3 %"),
        (0.00025, "s", "250 µs"),
        (1.5, "s", "1.5 s"),
        (53 * 2**20, "bytes", "53 MiB"),
        (4210, "reqps", "4.21 K req/s"),
        (0.3, "cps", "0.3 /s"),
        (4, "short", "4"),
        (0, "bytes", "0 B"),
    ],
)
def test_figures_are_short_and_have_their_unit(value: float, unit: str, text: str) -> None:
    assert worded(value, unit) == text
