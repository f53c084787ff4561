"""daemonset/nodecache.yaml as users make it theirs: by the stock manifest's two sed recipes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.daemon.processes import PATIENCE_S, ROOT
from tests.daemon.servers import program

MANIFEST = ROOT / "daemonset" / "nodecache.yaml"
LOCAL_IP = "169.254.20.10"
CLUSTER_IP = "10.96.0.10"
UPSTREAM_IP = "10.96.0.20"

_LOCAL = "s/__PILLAR__LOCAL__DNS__/$localdns/g; s/__PILLAR__DNS__DOMAIN__/$domain/g"
# kube-proxy's mode -> the script that Kubernetes' documentation gives to sed, word by word.
RECIPES = {
    "iptables": f"{_LOCAL}; s/__PILLAR__DNS__SERVER__/$kubedns/g",
    "ipvs": f"{_LOCAL}; s/,__PILLAR__DNS__SERVER__//g; s/__PILLAR__CLUSTER__DNS__/$kubedns/g",
}

Json = dict[str, Any]


def filled(recipe: str, folder: Path, manifest: Path = MANIFEST) -> list[Json]:
    """Returns the objects of the manifest after sed has filled in the variables."""
    script = RECIPES[recipe]
    values = {"$localdns": LOCAL_IP, "$domain": "cluster.local", "$kubedns": CLUSTER_IP}
    for variable, value in values.items():
        script = script.replace(variable, value)
    copy = folder / f"{recipe}.yaml"
    copy.write_text(manifest.read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run([program("sed"), "-i", script, str(copy)], check=True, timeout=PATIENCE_S)
    return objects(copy.read_text(encoding="utf-8"))


def objects(text: str) -> list[Json]:
    """Returns the objects of a manifest."""
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))  # in C: hundreds of times a run


def named(found: list[Json], kind: str, name: str) -> Json:
    """Returns the one object of that kind and name."""
    [one] = [item for item in found if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return one


def pod_spec(found: list[Json]) -> Json:
    """Returns what the DaemonSet has each node run."""
    spec: Json = named(found, "DaemonSet", "node-local-dns")["spec"]["template"]["spec"]
    return spec


def container(found: list[Json]) -> Json:
    """Returns the only container of that pod."""
    [one] = pod_spec(found)["containers"]
    only: Json = one
    return only


def corefile(found: list[Json]) -> str:
    """Returns the Corefile in the ConfigMap."""
    text: str = named(found, "ConfigMap", "node-local-dns")["data"]["Corefile"]
    return text
