"""The manifest is what API server and daemon take, and says one thing throughout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions, major_minor

import nodecache
from nodecache.config.flags import parse_flags
from tests.daemon.processes import PATIENCE_S, ROOT
from tests.deploy.manifest import (
    CLUSTER_IP,
    LOCAL_IP,
    MANIFEST,
    RECIPES,
    UPSTREAM_IP,
    Json,
    container,
    corefile,
    filled,
    named,
    objects,
    pod_spec,
)

INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
_MINORS = list(dict.fromkeys(map(major_minor, all_versions())))


@pytest.fixture(params=sorted(RECIPES))
def recipe(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def found(recipe: str, tmp_path: Path) -> list[Json]:
    return filled(recipe, tmp_path)


@pytest.mark.parametrize("version", _MINORS[-3:])
def test_api_servers_of_the_last_three_minor_versions_take_it(
    found: list[Json], version: str
) -> None:
    assert len(found) == 5
    for item in found:
        assert kubernetes_validate.validate(item, version, strict=True) == version


def test_schemas_refuse_what_is_misspelt(tmp_path: Path) -> None:
    found = filled("iptables", tmp_path)
    container(found)["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            named(found, "DaemonSet", "node-local-dns"), _MINORS[-1], strict=True
        )


def test_sed_leaves_only_what_the_daemon_fills_in(found: list[Json], recipe: str) -> None:
    left = set(re.findall(r"__PILLAR__\w+?__(?=\W)", yaml.safe_dump_all(found)))
    by_daemon = {"__PILLAR__UPSTREAM__SERVERS__"} | {
        "iptables": {"__PILLAR__CLUSTER__DNS__"},
        "ipvs": {"__PILLAR__DNS__SERVER__"},
    }[recipe]
    assert left == by_daemon
    assert [item for item in found if "__PILLAR__" in corefile_free(item)] == []


def corefile_free(item: Json) -> str:
    """All of an object but a Corefile."""
    return yaml.safe_dump({key: value for key, value in item.items() if key != "data"})


def test_daemon_takes_arguments_and_corefile(
    found: list[Json], recipe: str, tmp_path: Path
) -> None:
    words = container(found)["args"]
    flags, faults = parse_flags(words)
    assert faults == []
    assert flags.localip == ((LOCAL_IP, CLUSTER_IP) if recipe == "iptables" else (LOCAL_IP,))
    file = tmp_path / "Corefile"
    file.write_text(corefile(found), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "nodecache", "check", "-strict", *words, str(file)],
        env={**os.environ, "KUBE_DNS_UPSTREAM_SERVICE_HOST": UPSTREAM_IP},
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "good; 4 server blocks" in done.stdout


def test_selectors_find_the_pods(found: list[Json]) -> None:
    spec = named(found, "DaemonSet", "node-local-dns")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    # Selectors cannot be changed later: this one is node-cache's.
    assert labels == spec["selector"]["matchLabels"] == {"k8s-app": "node-local-dns"}
    assert named(found, "Service", "node-local-dns")["spec"]["selector"] == labels
    assert named(found, "Service", "kube-dns-upstream")["spec"]["selector"] == {
        "k8s-app": "kube-dns"
    }
    assert pod_spec(found)["serviceAccountName"] == "node-local-dns"
    assert {item["metadata"]["namespace"] for item in found} == {"kube-system"}


def test_ports_are_the_same_everywhere_and_declared_nowhere(found: list[Json]) -> None:
    text = corefile(found)
    one = container(found)
    flags, _ = parse_flags(one["args"])
    assert flags.metrics_listen is None
    assert text.count("prometheus :9253\n") == 4
    [port] = named(found, "Service", "node-local-dns")["spec"]["ports"]
    annotations = [
        named(found, "DaemonSet", "node-local-dns")["spec"]["template"]["metadata"]["annotations"],
        named(found, "Service", "node-local-dns")["metadata"]["annotations"],
    ]
    for given in annotations:
        assert given == {"prometheus.io/port": "9253", "prometheus.io/scrape": "true"}
    assert (port["port"], port["targetPort"]) == (9253, 9253)
    for probe, directive, path in (
        ("livenessProbe", "health", "/health"),
        ("readinessProbe", "ready", "/ready"),
    ):
        asked = one[probe]["httpGet"]
        assert f"    {directive} {asked['host']}:{asked['port']}\n" in text
        assert (asked["host"], asked["path"]) == (LOCAL_IP, path)
    assert flags.health_port == one["livenessProbe"]["httpGet"]["port"]


def test_ports_are_written_as_null(found: list[Json]) -> None:
    """Left out, "kubectl apply" would keep those of node-cache, and a surge would never begin."""
    one = container(found)
    assert "ports" in one
    assert one["ports"] is None


def test_volumes_are_those_that_the_daemon_uses(found: list[Json]) -> None:
    one = container(found)
    flags, _ = parse_flags(one["args"])
    sources = {volume["name"]: volume for volume in pod_spec(found)["volumes"]}
    places = {mount["mountPath"]: sources[mount["name"]] for mount in one["volumeMounts"]}
    assert len(places) == len(sources)
    assert places[flags.rundir]["hostPath"] == {
        "path": flags.rundir,
        "type": "DirectoryOrCreate",
    }
    assert places["/run/xtables.lock"]["hostPath"]["type"] == "FileOrCreate"
    base = Path(flags.basecorefile)
    config = named(found, "ConfigMap", "node-local-dns")
    assert places[str(base.parent)]["configMap"] == {
        "name": config["metadata"]["name"],
        "items": [{"key": "Corefile", "path": base.name}],
    }
    assert places["/etc/kube-dns"]["configMap"] == {"name": "kube-dns", "optional": True}


def test_pod_has_no_rights_but_those_it_needs(found: list[Json]) -> None:
    spec = pod_spec(found)
    assert container(found)["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE"]},
    }
    assert spec["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["automountServiceAccountToken"] is False
    assert named(found, "ServiceAccount", "node-local-dns")["automountServiceAccountToken"] is False


def test_upgrade_starts_the_next_pod_beside_the_present_one(found: list[Json]) -> None:
    spec = named(found, "DaemonSet", "node-local-dns")["spec"]
    assert spec["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert spec["minReadySeconds"] > 0
    one = container(found)
    assert one["startupProbe"]["exec"]["command"] == ["nodecache", "probe"]
    own = {"apiVersion": "v1", "fieldPath": "metadata.uid"}
    assert one["env"] == [{"name": "POD_UID", "valueFrom": {"fieldRef": own}}]


def test_pod_that_hangs_is_ended_soon_and_one_that_fails_says_why(found: list[Json]) -> None:
    one = container(found)
    grace_s = one["livenessProbe"]["terminationGracePeriodSeconds"]
    assert grace_s < pod_spec(found)["terminationGracePeriodSeconds"]
    assert one["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_image_is_that_of_this_version() -> None:
    assert container(objects(MANIFEST.read_text()))["image"] == f"nodecache:{nodecache.__version__}"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_instructions_have_both_recipes(name: str) -> None:
    assert f'sed -i "{RECIPES[name]}" nodecache.yaml' in INSTALL


def test_objects_in_the_instructions_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", INSTALL, re.DOTALL)
    found = [item for block in blocks for item in objects(block)]
    kinds = {item["kind"] for item in found}
    assert {"Pod", "NetworkPolicy", "ServiceMonitor", "KubeletConfiguration"} <= kinds
    for item in found:
        if item["kind"] not in {"ServiceMonitor", "KubeletConfiguration"}:  # not the API server's
            assert kubernetes_validate.validate(item, _MINORS[-1], strict=True) == _MINORS[-1]
