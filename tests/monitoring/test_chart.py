"""The chart brings dashboard and alerts as its values say, and refuses what they cannot mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemonset.monitoring import dashboard
from daemonset.monitoring.alerts import ALERTS, RUNBOOKS
from tests.deploy.helm import refusal, templates
from tests.monitoring.prometheus import promtool

_ALERTS = "monitoring/prometheusrule.yaml"
_DASHBOARD = "monitoring/dashboard.yaml"


def test_neither_is_there_unless_somebody_wants_it() -> None:
    rendered = templates({})
    assert not rendered[_ALERTS].strip()
    assert not rendered[_DASHBOARD].strip()


def test_the_dashboard_is_where_grafanas_sidecar_finds_it() -> None:
    values = {
        "enabled": True, "namespace": "grafana", "label": "dashboards",
        "annotations": {"grafana_folder": "DNS"},
    }  # fmt: skip
    item = yaml.safe_load(templates({"dashboard": values})[_DASHBOARD])
    metadata = item["metadata"]
    assert (metadata["namespace"], metadata["labels"]["dashboards"]) == ("grafana", "1")
    assert metadata["annotations"] == {"grafana_folder": "DNS"}
    assert json.loads(item["data"]["nodecache.json"]) == json.loads(dashboard.composed())


def _rules(**section: object) -> dict[str, dict[str, Any]]:
    """Returns alert -> rule, as the chart renders them."""
    text = templates({"prometheusRule": {"enabled": True, **section}})[_ALERTS]
    groups = yaml.safe_load(text)["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_the_chart_renders_every_alert_as_it_is() -> None:
    assert _rules() == {alert.name: alert.rule() for alert in ALERTS}


def test_the_chart_changes_what_its_values_name_and_no_more() -> None:
    rules = _rules(
        selector='cluster="a", job=~"dns|cache"',
        runbooks="https://wiki.test/",
        rules={
            "NodecacheSlow": {"threshold": 0.25, "for": "1h", "severity": "critical"},
            "NodecachePanics": {"enabled": False},
        },
    )
    assert "NodecachePanics" not in rules
    assert len(rules) == len(ALERTS) - 1
    slow = rules["NodecacheSlow"]
    assert slow["expr"].endswith(" > 0.25")
    assert (slow["for"], slow["labels"]["severity"]) == ("1h", "critical")
    assert slow["annotations"]["runbook_url"] == f"https://wiki.test/{RUNBOOKS}#nodecacheslow"
    assert rules["NodecacheDown"]["expr"] == 'up{cluster="a", job=~"dns|cache"} == 0'


def test_prometheus_takes_what_the_chart_changed(tmp_path: Path) -> None:
    changed = {alert.name: {"threshold": 3} for alert in ALERTS if alert.bound}
    rules = list(_rules(rules=changed, selector='job="x"').values())
    assert all("node-local-dns" not in rule["expr"] or "kube_pod" in rule["expr"] for rule in rules)
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "changed", "rules": rules}]})
    )
    promtool("check", "rules", tmp_path / "rules.yaml")


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"NodecacheSlwo": {}}, "names an alert NodecacheSlwo that is not there"),
        ({"NodecacheSlow": {"treshold": 1}}, "NodecacheSlow has treshold, which is not there"),
        ({"NodecacheDown": {"threshold": 1}}, "this alert compares with no figure"),
        ({"NodecacheSlow": {"threshold": "half"}}, "threshold: half is no figure"),
    ],
)
def test_the_chart_refuses_nonsense_with_a_sentence(rules: dict[str, Any], sentence: str) -> None:
    said = refusal({"prometheusRule": {"enabled": True, "rules": rules}}, looked_up=True)
    assert sentence in said
