"""What the chart leaves out where the API server does not know it yet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster import requests
from tests.cluster.api_server import ApiServer
from tests.cluster.kinds import BUILT_IN
from tests.cluster.releases import CHART, Helm

VALUES = {
    "image": {"repository": "registry.example/nodecache"},
    "config": {"dnsServer": "10.96.0.10"},
    "injection": {"mode": "webhook"},
}


def installed(release: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Returns what an installation makes in kube-system or for the cluster, by kind."""
    monkeypatch.setattr(requests, "RELEASE", release)
    with ApiServer(BUILT_IN) as api, Helm(api, "kube-system") as helm:
        helm.install(CHART, "cache", VALUES)
        return {item["kind"]: item for item in helm.manifest("cache")}


@pytest.mark.parametrize(
    ("release", "conditions", "spread"),
    [("1.26", False, "ScheduleAnyway"), ("1.27", False, "DoNotSchedule"),
     ("1.28", True, "DoNotSchedule")],
)  # fmt: skip
def test_webhook_asks_for_no_field_that_the_cluster_lacks(
    release: str, conditions: bool, spread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = installed(release, monkeypatch)
    for entry in objects["MutatingWebhookConfiguration"]["webhooks"]:
        assert ("matchConditions" in entry) is conditions
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    [constraint] = pod["topologySpreadConstraints"]
    assert constraint["whenUnsatisfiable"] == spread
    assert ("matchLabelKeys" in constraint) is (spread == "DoNotSchedule")
