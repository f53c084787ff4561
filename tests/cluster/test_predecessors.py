"""`helm upgrade` from other charts' releases to this one, as the chart's README says to do it.

Each release is tried as Helm 4 left it and as Helm 3 did; that is upgraded by client-side apply.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster import predecessors
from tests.cluster.api_server import ApiServer
from tests.cluster.errors import Json
from tests.cluster.patching import JSON_PATCH
from tests.cluster.releases import (
    CHART,
    Helm,
    Values,
    kept,
    make_it_helm_3s,
    rewrite_manifest,
    versions,
    write_chart,
)

pytestmark = pytest.mark.skipif(not CHART.is_dir(), reason="the chart is not there")

SPACE = predecessors.NAMESPACE
ACK_RELEASE = "ack-node-local-dns"
ACK_VALUES: Values = {
    "env": {"upstream_ip": predecessors.UPSTREAM_IP, "cluster_domain": "cluster.local"},
    "config": {"dnsServer": "10.96.0.10"},
    "mode": "ipvs",
}


@pytest.fixture(params=["helm 3", "helm 4"])
def is_helm_3s(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "helm 3")


class Move:
    """An old release, and what became of it."""

    def __init__(self, api: ApiServer, helm: Helm, folder: Path) -> None:
        self.api = api
        self.helm = helm
        self.folder = folder
        self.name = ""
        self.before: dict[Any, Json] = {}

    def start(
        self,
        name: str,
        objects: list[Json],
        *,
        is_helm_3s: bool,
        defaults: Values | None = None,
    ) -> None:
        """Installs the old release, of a chart that has these defaults."""
        self.name = name
        self.helm.install(write_chart(self.folder / "old", objects, defaults or {}), name)
        if is_helm_3s:
            make_it_helm_3s(self.api, name, SPACE)
        self.before = kept(self.api)

    def upgrade(self, values: Values) -> dict[Any, Json]:
        """Upgrades it to this chart, and returns what there is then."""
        self.helm.upgrade(CHART, self.name, values)
        return kept(self.api)


@pytest.fixture
def move(api: ApiServer, helm: Helm, tmp_path: Path) -> Move:
    return Move(api, helm, tmp_path)


def uid(manifest: Json) -> str:
    return str(manifest["metadata"]["uid"])


def container_of(daemonset: Json) -> Json:
    [container] = daemonset["spec"]["template"]["spec"]["containers"]
    return dict(container)


def check_daemonset(old: Json, new: Json) -> None:
    """It is the same object, with our pods: these surge, for they declare no ports."""
    assert uid(new) == uid(old)
    assert new["spec"]["selector"] == old["spec"]["selector"]
    assert new["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = new["spec"]["template"]["spec"]
    assert "initContainers" not in pod
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    container = container_of(new)
    assert container["image"].startswith("nodecache")
    assert "ports" not in container
    assert "privileged" not in container["securityContext"]


@pytest.mark.parametrize("controller", [False, True], ids=["plain", "with its controller"])
def test_acks_release_becomes_this_one_in_place(
    move: Move, is_helm_3s: bool, controller: bool
) -> None:
    objects = predecessors.ack(ACK_RELEASE, controller=controller)
    move.start(ACK_RELEASE, objects, is_helm_3s=is_helm_3s)
    after = move.upgrade({**ACK_VALUES, "controller": {"enabled": controller}})
    daemonset = ("DaemonSet", SPACE, "node-local-dns")
    check_daemonset(move.before[daemonset], after[daemonset])
    assert {name for kind, _, name in after if kind == "MutatingWebhookConfiguration"} <= {
        "nodecache-webhook"
    }
    left = [key for key in after if key[2].startswith(f"{ACK_RELEASE}-admission-controller")]
    assert left == []


def test_acks_service_for_the_clusters_dns_stays_for_pods_that_forward_there(
    move: Move, is_helm_3s: bool
) -> None:
    objects = predecessors.ack(ACK_RELEASE, controller=False)
    move.start(ACK_RELEASE, objects, is_helm_3s=is_helm_3s)
    after = move.upgrade(ACK_VALUES)
    upstream = ("Service", SPACE, "node-local-upstream")
    assert uid(after[upstream]) == uid(move.before[upstream])
    assert after[upstream]["spec"]["clusterIP"] == predecessors.UPSTREAM_IP


def test_a_release_whose_record_has_a_version_that_is_gone_is_refused_until_that_is_mended(
    move: Move,
) -> None:
    objects = predecessors.ack(ACK_RELEASE, controller=True)
    move.start(ACK_RELEASE, objects, is_helm_3s=True)
    gone = "admissionregistration.k8s.io/v1beta1"
    rewrite_manifest(move.api, ACK_RELEASE, SPACE, gone.removesuffix("beta1"), gone)
    with pytest.raises(Exception, match="no matches for kind"):
        move.upgrade({**ACK_VALUES, "controller": {"enabled": False}})
    rewrite_manifest(move.api, ACK_RELEASE, SPACE, gone, gone.removesuffix("beta1"))
    move.upgrade({**ACK_VALUES, "controller": {"enabled": False}})


def deliveryhero_values(name: str, release: str) -> Values:
    """What the README adds to the values of the release."""
    return {
        "config": {"dnsServer": "10.96.0.10", "localDns": "169.254.20.25"},
        "fullnameOverride": name,
        "upstreamService": {"name": f"{name}-upstream"},
        "daemonset": {
            "selectorLabels": {
                "app.kubernetes.io/name": "node-local-dns",
                "app.kubernetes.io/instance": release,
            }
        },
    }


@pytest.mark.parametrize(
    ("release", "name"), [("node-local-dns", "node-local-dns"), ("dns", "dns-node-local-dns")]
)
def test_deliveryheros_release_becomes_this_one_in_place(
    move: Move, is_helm_3s: bool, release: str, name: str
) -> None:
    move.start(release, predecessors.deliveryhero(release), is_helm_3s=is_helm_3s)
    after = move.upgrade(deliveryhero_values(name, release))
    daemonset = ("DaemonSet", SPACE, name)
    check_daemonset(move.before[daemonset], after[daemonset])
    upstream = ("Service", SPACE, f"{name}-upstream")
    assert uid(after[upstream]) == uid(move.before[upstream])
    assert {key[2] for key in after if key[0] == "DaemonSet"} == {name}


def test_without_its_selector_deliveryheros_release_is_refused_before_anything_changes(
    move: Move,
) -> None:
    release = "node-local-dns"
    move.start(release, predecessors.deliveryhero(release), is_helm_3s=True)
    before = versions(move.api)
    values = deliveryhero_values(release, release)
    del values["daemonset"]
    with pytest.raises(Exception, match="selectorLabels"):
        move.upgrade(values)
    assert versions(move.api) == before


def test_the_predecessors_image_is_refused(move: Move) -> None:
    release = "node-local-dns"
    move.start(release, predecessors.deliveryhero(release), is_helm_3s=True)
    before = versions(move.api)
    image = {"repository": "registry.k8s.io/dns/k8s-dns-node-cache", "tag": "1.26.7"}
    with pytest.raises(Exception, match="is node-cache"):
        move.upgrade({**deliveryhero_values(release, release), "image": image})
    assert versions(move.api) == before


def test_the_predecessors_defaults_are_no_use_here(move: Move) -> None:
    """Which is why the README says --reset-values: with theirs there are none of ours."""
    release = "node-local-dns"
    objects = predecessors.deliveryhero(release)
    move.start(release, objects, is_helm_3s=True, defaults={"image": {"tag": "1.26.7"}})
    before = versions(move.api)
    values = deliveryhero_values(release, release)
    with pytest.raises(Exception, match="error calling include"):
        move.helm.upgrade(CHART, release, values, reuse_values=True)
    assert versions(move.api) == before
    move.helm.upgrade(CHART, release, values, reset_then_reuse_values=True)


STOCK = ("DaemonSet", SPACE, "node-local-dns")
CLEARING: Values = {"config": {"dnsServer": "10.96.0.10"}, "daemonset": {"clearPorts": True}}


@pytest.fixture
def stock(api: ApiServer) -> Json:
    """Kubernetes' own manifest in the cluster; returns its DaemonSet."""
    made = [api.put(manifest) for manifest in predecessors.stock()]
    return next(manifest for manifest in made if manifest["kind"] == "DaemonSet")


def test_the_stock_manifests_objects_are_adopted_by_client_side_apply(
    api: ApiServer, helm: Helm, stock: Json
) -> None:
    helm.install(CHART, "nodecache", CLEARING, take_ownership=True, server_side_apply=False)
    check_daemonset(stock, kept(api)[STOCK])
    helm.upgrade(CHART, "nodecache", {**CLEARING, "image": {"tag": "next"}})


@pytest.mark.usefixtures("stock")
def test_server_side_apply_adopts_nothing_without_force(helm: Helm) -> None:
    with pytest.raises(Exception, match="conflict"):
        helm.install(CHART, "nodecache", CLEARING, take_ownership=True)


@pytest.mark.usefixtures("stock")
def test_with_force_it_leaves_the_ports_that_another_manager_owns(
    api: ApiServer, helm: Helm
) -> None:
    """A null takes none away; what the chart's notes say does, and Helm leaves it so."""
    helm.install(CHART, "nodecache", CLEARING, take_ownership=True, force_conflicts=True)
    daemonset = kept(api)[STOCK]
    assert container_of(daemonset)["ports"]
    patch = [{"op": "remove", "path": "/spec/template/spec/containers/0/ports"}]
    api.store.patch(api.place(daemonset), JSON_PATCH, patch)
    helm.upgrade(CHART, "nodecache", {**CLEARING, "image": {"tag": "next"}})
    assert "ports" not in container_of(kept(api)[STOCK])


def test_after_the_move_an_upgrade_changes_nothing(move: Move, is_helm_3s: bool) -> None:
    objects = predecessors.ack(ACK_RELEASE, controller=False)
    move.start(ACK_RELEASE, objects, is_helm_3s=is_helm_3s)
    move.upgrade(ACK_VALUES)
    before = versions(move.api)
    move.upgrade(ACK_VALUES)
    assert versions(move.api) == before
