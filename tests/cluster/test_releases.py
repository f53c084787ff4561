"""Helm's own library installs, upgrades, rolls back and removes the chart, and nothing drifts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster import kinds
from tests.cluster.api_server import ApiServer
from tests.cluster.errors import Json
from tests.cluster.patching import APPLY, MERGE
from tests.cluster.releases import CHART, Helm, Values, kept, make_it_helm_3s, versions
from tests.cluster.store import Writing

pytestmark = pytest.mark.skipif(not CHART.is_dir(), reason="the chart is not there")

NAME = "nodecache"
DAEMONSET = ("DaemonSet", "kube-system", "node-local-dns")
BASE: Values = {"config": {"dnsServer": "10.96.0.10"}}
# What of the chart's objects there is, by what is switched on.
SETTINGS: dict[str, Values] = {
    "default": BASE,
    "webhook": {**BASE, "injection": {"mode": "webhook"}},
    "policy": {**BASE, "injection": {"mode": "policy"}},
    "cilium": {**BASE, "mode": "cilium", "serviceMonitor": {"enabled": True}},
}


@pytest.fixture(params=sorted(SETTINGS))
def values(request: pytest.FixtureRequest) -> Values:
    found: Values = SETTINGS[request.param]
    return found


def test_an_install_leaves_every_object_of_the_release(
    api: ApiServer, helm: Helm, values: Values
) -> None:
    helm.install(CHART, NAME, values)
    assert {_name(manifest) for manifest in helm.manifest(NAME)} == {
        (kind, name) for kind, _, name in kept(api)
    }
    assert DAEMONSET in kept(api)


def _name(manifest: Json) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def test_an_upgrade_with_the_same_values_writes_nothing(
    api: ApiServer, helm: Helm, values: Values
) -> None:
    helm.install(CHART, NAME, values)
    before = versions(api)
    helm.upgrade(CHART, NAME, values)
    assert versions(api) == before


def test_a_controller_that_applies_what_is_there_writes_nothing(
    api: ApiServer, helm: Helm, values: Values
) -> None:
    """As GitOps does it: server-side, as another manager, again and again, and without force."""
    helm.install(CHART, NAME, values)
    controller = Writing(manager="argocd-controller")
    wanted = helm.manifest(NAME)
    specs = {key: _without_metadata(manifest) for key, manifest in kept(api).items()}
    for _ in range(2):
        for manifest in wanted:
            api.store.patch(api.place(manifest), APPLY, manifest, controller)
        assert {key: _without_metadata(each) for key, each in kept(api).items()} == specs
    before = versions(api)
    for manifest in wanted:
        api.store.patch(api.place(manifest), APPLY, manifest, controller)
    assert versions(api) == before


def _without_metadata(manifest: Json) -> Json:
    return {name: value for name, value in manifest.items() if name != "metadata"}


def test_a_value_changes_the_object_that_it_is_of_and_a_rollback_brings_it_back(
    api: ApiServer, helm: Helm
) -> None:
    helm.install(CHART, NAME, BASE)
    before = kept(api)
    old = versions(api)
    helm.upgrade(CHART, NAME, {**BASE, "image": {"tag": "another"}})
    assert {key for key, version in versions(api).items() if version != old[key]} == {DAEMONSET}
    helm.roll_back(NAME, 1)
    after = kept(api)
    assert _without_metadata(after[DAEMONSET])["spec"] == before[DAEMONSET]["spec"]


def test_a_change_by_hand_is_in_conflict_unless_the_values_say_the_same(
    api: ApiServer, helm: Helm
) -> None:
    helm.install(CHART, NAME, BASE)
    edit = {"spec": {"template": {"spec": {"priorityClassName": "by-hand"}}}}
    api.store.patch(_place(api, *DAEMONSET[::2]), MERGE, edit, Writing(manager="kubectl-edit"))
    with pytest.raises(Exception, match="kubectl-edit"):
        helm.upgrade(CHART, NAME, {**BASE, "image": {"tag": "another"}})
    helm.upgrade(CHART, NAME, {**BASE, "priorityClassName": "by-hand"})


def test_an_uninstall_leaves_nothing(api: ApiServer, helm: Helm, values: Values) -> None:
    helm.install(CHART, NAME, values)
    helm.uninstall(NAME)
    assert kept(api) == {}


def test_the_release_s_own_test_runs_a_pod(api: ApiServer, helm: Helm) -> None:
    helm.install(CHART, NAME, BASE)
    helm.test(NAME)
    assert [
        request.name.startswith(NAME) or "node-local-dns" in request.name
        for request in api.requests
        if request.kind is not None and (request.verb, request.kind.name) == ("patch", "Pod")
    ] == [True]


@pytest.mark.parametrize("is_helm_3s", [True, False], ids=["helm 3", "helm 4"])
def test_what_the_webhook_writes_by_itself_survives_upgrades(
    api: ApiServer, helm: Helm, is_helm_3s: bool
) -> None:
    values = SETTINGS["webhook"]
    helm.install(CHART, NAME, values)
    if is_helm_3s:
        make_it_helm_3s(api, NAME, "kube-system")
    webhook = Writing(manager="nodecache")
    secret = _place(api, "Secret", "nodecache-webhook-tls")
    filled = {"data": {"tls.crt": "Q0VSVA==", "tls.key": "S0VZ", "ca.crt": "Q0E="}}
    api.store.patch(secret, MERGE, filled, webhook)
    configuration = _place(api, "MutatingWebhookConfiguration", "nodecache-webhook")
    hooks: Any = api.store.get(configuration)["webhooks"]
    for hook in hooks:
        hook["clientConfig"]["caBundle"] = "Q0E="
    api.store.patch(configuration, MERGE, {"webhooks": hooks}, webhook)
    before = versions(api)
    helm.upgrade(CHART, NAME, values)
    assert versions(api) == before
    helm.upgrade(CHART, NAME, {**values, "webhook": {"replicas": 3}})
    assert api.store.get(secret)["data"] == filled["data"]
    bundles = [
        hook["clientConfig"]["caBundle"] for hook in api.store.get(configuration)["webhooks"]
    ]
    assert bundles == ["Q0E="] * len(hooks)


def _place(api: ApiServer, kind: str, name: str) -> Any:
    found = next(key for key in kept(api) if key[0] == kind and key[2] == name)
    manifest = kept(api)[found]
    return api.place(manifest)


def test_auto_is_the_webhook_until_the_cluster_has_policies(api: ApiServer, helm: Helm) -> None:
    api.kinds = kinds.BUILT_IN
    helm.install(CHART, NAME, BASE)
    assert ("Deployment", "kube-system", "nodecache-webhook") in kept(api)
    api.kinds = kinds.ALL  # Kubernetes was upgraded to 1.36
    with Helm(api, "kube-system") as later:
        later.upgrade(CHART, NAME, BASE)
    there = {kind for kind, _, _ in kept(api)}
    assert "MutatingAdmissionPolicy" in there
    assert not there & {"Deployment", "MutatingWebhookConfiguration", "Secret", "ClusterRole"}


def test_the_address_of_the_clusters_dns_is_looked_up(api: ApiServer, helm: Helm) -> None:
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    spec = {"clusterIP": "10.96.0.99", "clusterIPs": ["10.96.0.99"], "ports": [{"port": 53}]}
    api.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    helm.install(CHART, NAME)
    container = kept(api)[DAEMONSET]["spec"]["template"]["spec"]["containers"][0]
    assert "169.254.20.10,10.96.0.99" in container["args"]


def test_without_such_a_service_nothing_is_installed(api: ApiServer, helm: Helm) -> None:
    with pytest.raises(Exception, match=r"config\.dnsServer is empty"):
        helm.install(CHART, NAME)
    assert kept(api) == {}
