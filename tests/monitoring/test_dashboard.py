"""The dashboard is one that Grafana takes, and says of each panel what it shows."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from daemonset.monitoring import dashboard
from nodecache.telemetry.catalogue import CATALOGUE

COLUMNS = 24  # Grafana's
ONE_SCREEN = 32  # rows of 38 pixels: a large screen, without Grafana's head

BOARD: dict[str, Any] = json.loads(dashboard.composed())
PANELS: list[dict[str, Any]] = BOARD["panels"]
IDS = [panel["title"] for panel in PANELS]

each_panel = pytest.mark.parametrize("panel", PANELS, ids=IDS)


def test_grafanas_own_types_know_every_key() -> None:
    read = model.Dashboard.from_json(BOARD)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == BOARD


@each_panel
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["targets"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_panel
def test_a_panels_figures_have_a_unit(panel: dict[str, Any]) -> None:
    if panel["type"] == "table":
        units = {
            setting["value"]
            for override in panel["fieldConfig"]["overrides"]
            for setting in override["properties"]
        }
        assert {"reqps", "percentunit", "s", "bytes"} <= units
    elif panel["type"] != "state-timeline":  # words in place of figures
        assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_a_panels_queries_are_about_what_is_chosen_above(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        names = re.findall(r"\b(?:coredns|nodecache|process)_\w+", target["expr"])
        assert names
        for name in names:
            assert name in CATALOGUE or re.sub(r"_(bucket|count)$", "", name) in CATALOGUE
        if not any(name.startswith("nodecache_webhook_") for name in names):
            chosen = target["expr"].count('{job=~"$job", instance=~"$instance"')
            assert chosen == len(names)


@each_panel
def test_queries_of_one_panel_are_told_apart(panel: dict[str, Any]) -> None:
    refs = [target["refId"] for target in panel["targets"]]
    assert all(refs)
    assert len(set(refs)) == len(refs)


def test_panels_fill_one_screen_and_lie_apart() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert not cells & taken, panel["title"]
        taken |= cells
    rows = max(row for _, row in taken) + 1
    assert rows <= ONE_SCREEN
    assert len(taken) == rows * COLUMNS


def test_panels_have_numbers_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_data_source_job_and_node_are_chosen_by_whoever_looks() -> None:
    variables = {each["name"]: each for each in BOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["job"]["multi"]
    # All jobs are those that show series of ours: "process_..." is of everybody.
    assert "allValue" not in variables["job"]
    assert variables["instance"]["query"]["query"] == (
        'label_values(nodecache_hits_total{job=~"$job"}, instance)'
    )
