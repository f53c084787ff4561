"""What SECURITY.md says of rights is what the manifests give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text()
MANIFESTS = sorted((ROOT / "daemonset").glob("nodecache*.yaml"))
WEBHOOK = ROOT / "daemonset" / "chart" / "templates" / "injection"

Json = dict[str, Any]


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> dict[str, str]:
    """Returns the first two columns of a section's table."""
    found = re.findall(r"^\| (.*?) \| (.*?) \|", section(title), re.MULTILINE)
    return dict(found[1:])


def pod_of(manifest: Path) -> Json:
    """Returns the specification of the DaemonSet's pods."""
    for found in yaml.safe_load_all(manifest.read_text()):
        if found["kind"] == "DaemonSet":
            pod: Json = found["spec"]["template"]["spec"]
            return pod
    raise AssertionError(manifest)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_the_daemon_has_the_rights_of_the_page_and_no_others(manifest: Path) -> None:
    is_on_pods_network = "cilium" in manifest.name
    pod = pod_of(manifest)
    (container,) = pod["containers"]
    rights = container["securityContext"]
    listed = rows("Rights of the daemon")
    given = [name for name, why in listed.items() if "not in the manifest" not in why]
    if is_on_pods_network:
        given.remove("NET_ADMIN")
    assert rights["capabilities"] == {"drop": ["ALL"], "add": given}
    assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    of_node = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert of_node == (set() if is_on_pods_network else {"/run/nodecache", "/run/xtables.lock"})
    assert all(f"`{path}`" in section("Rights of the daemon") for path in of_node)


def test_the_webhook_has_the_rights_of_the_page() -> None:
    text = (WEBHOOK / "webhook-certificates.yaml").read_text()
    verbs = re.findall(r"resourceNames: .*\n +verbs: \[(.*)\]", text)
    assert verbs == list(rows("Rights of the webhook").values())
    assert text.count("verbs:") == len(verbs)
    pods = (WEBHOOK / "webhook-deployment.yaml").read_text()
    assert "runAsUser: 65532\n" in pods
    assert "as user 65532" in section("Rights of the webhook")
    for line in ("readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false", "drop: [ALL]"):
        assert line in pods
