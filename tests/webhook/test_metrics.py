from __future__ import annotations

import ast
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from nodecache.telemetry.catalogue import GROUPS, REFUSALS
from nodecache.webhook import server
from nodecache.webhook.identity import ServerIdentity
from nodecache.webhook.metrics import Metrics
from nodecache.webhook.model import Reason, Refusal
from nodecache.webhook.pages import State
from nodecache.webhook.room import Room
from nodecache.webhook.service import show_gauges

FOLDER = Path(server.__file__).parent
REFUSING = ("connection", "conversation", "pages", "server")


def families(counts: Metrics) -> dict[str, set[str]]:
    """Returns name of each family -> reasons of its series."""
    found = text_string_to_metric_families(counts.render().decode())
    return {f.name: {s.labels.get("reason", "") for s in f.samples} for f in found}


def test_each_reason_is_there_before_the_first_one() -> None:
    found = families(Metrics())
    assert found["nodecache_webhook_decisions"] == {*Reason, *Refusal}
    assert found["nodecache_webhook_refused"] == set(REFUSALS)


def test_each_series_of_the_catalogue_is_shown_and_no_other() -> None:
    counts = Metrics()
    show_gauges(counts, State(ServerIdentity()), Room())
    shown = {name for name in families(counts) if name.startswith("nodecache_webhook_")}
    assert shown == {row.name.removesuffix("_total") for row in GROUPS["The webhook"]}


def test_each_refusal_that_the_code_notes_has_its_line() -> None:
    noted = set()
    for name in REFUSING:
        for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
            if isinstance(node, ast.Call):
                noted |= noted_by(node)
    assert noted == set(REFUSALS)


def noted_by(call: ast.Call) -> set[str]:
    function = ast.unparse(call.func)
    values = [word.value for word in call.keywords if word.arg == "fault"]
    if function.endswith(("._note", "_refuse")):
        values.append(call.args[-1])
    found = [value.value for value in values if isinstance(value, ast.Constant)]
    return {value for value in found if isinstance(value, str)}
