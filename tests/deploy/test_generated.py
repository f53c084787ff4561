"""What follows from the chart is current, and what `make manifests` makes of it is right."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions, major_minor

import nodecache
from daemonset import values
from tests.daemon.processes import PATIENCE_S
from tests.deploy.helm import CHART, documented, helm_python, rendered
from tests.deploy.manifest import Json, filled, named, objects

assert helm_python  # without it there is nothing to compare
from daemonset import generate  # noqa: E402 # imports Helm's library, which not every machine has

_LATEST = major_minor(all_versions()[-1])
_FILES = generate.files()
_MANIFESTS = [path for path in _FILES if path.parent == generate.FOLDER]


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_file_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == _FILES[path], "run `make manifests`"


def test_every_mode_has_its_manifest() -> None:
    assert {path.name for path in _MANIFESTS} >= {
        "nodecache.yaml", "nodecache-ipvs.yaml", "nodecache-cilium.yaml",
        "injection-policy.yaml", "injection-webhook.yaml",
    }  # fmt: skip
    variants = {path.name for path in generate.VARIANTS.iterdir()} - {"common.yaml"}
    assert {path.name for path in _MANIFESTS} == variants


def test_chart_and_manifest_make_the_same_objects_of_the_same_values() -> None:
    own: Json = {
        "helmLabels": False,
        "daemonset": {"clearPorts": True},
        "injection": {"mode": "off"},
        "config": {
            "dnsDomain": "__PILLAR__DNS__DOMAIN__",
            "dnsServer": "__PILLAR__DNS__SERVER__",
            "localDns": "__PILLAR__LOCAL__DNS__",
        },
    }
    manifest = objects((generate.FOLDER / "nodecache.yaml").read_text(encoding="utf-8"))
    assert {key(item): item for item in manifest} == {key(item): item for item in rendered(own)}


def key(item: Json) -> tuple[str, str]:
    return (item["kind"], item["metadata"]["name"])


def test_manifests_keep_the_comments() -> None:
    text = (generate.FOLDER / "nodecache.yaml").read_text(encoding="utf-8")
    assert text.startswith("# nodecache in place of NodeLocal DNSCache: same names")
    assert "# wait for them for ever. null, so that" in text
    assert [line for line in text.splitlines() if line != line.rstrip() or not line] == []


def test_kustomize_takes_the_manifest_with_an_image_of_yours() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(generate.FOLDER)],
        capture_output=True, text=True, timeout=PATIENCE_S * 2, check=True,
    )  # fmt: skip
    built = {key(item): item for item in objects(done.stdout)}
    plain = (generate.FOLDER / "nodecache.yaml").read_text(encoding="utf-8")
    assert built == {key(item): item for item in objects(plain)}


def test_schema_and_page_have_the_keys_of_the_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    page = (CHART / "values.md").read_text(encoding="utf-8")
    for value in documented():
        here = schema
        for name in value.path:
            assert here["additionalProperties"] is False
            here = here["properties"][name]
        assert f"| `{'.'.join(value.path)}` | " in page


def test_defaults_are_what_their_schema_wants() -> None:
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema({})


def test_comment_gives_bounds_choices_and_further_types() -> None:
    found = values.read(
        "# A port. [1 to 65535]\nport: 5\n"
        '# A mode,\n# on two lines. [one of "", b]\nmode: ""\n'
        "# One or more. [string or list]\nnames: []\n"
        "section:\n  # Inside.\n  enabled: true\n"
        "# Anything.\nfree:\n  a: {b: c}\n"
    )
    assert [(value.path, value.text, value.schema) for value in found] == [
        (("port",), "A port.", {"type": "integer", "minimum": 1, "maximum": 65535}),
        (("mode",), "A mode, on two lines.", {"enum": ["", "b"]}),
        (("names",), "One or more.", {"type": ["string", "array"]}),
        (("section", "enabled"), "Inside.", {"type": "boolean"}),
        (("free",), "Anything.", {"type": "object"}),
    ]


def test_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"values.yaml: a.b has no comment: say what it is for"):
        values.read("a:\n  # Said.\n  c: 1\n\n  b: 2\n")


def test_file_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no keys"):
        values.read("")


def test_release_moves_chart_image_and_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodecache.__version__", "7.8.9")
    text = generate.files()[CHART / "Chart.yaml"]
    assert "\nversion: 7.8.9\n" in text
    assert '\nappVersion: "7.8.9"\n' in text


def test_cache_is_named_as_in_kubernetes_own_manifest() -> None:
    for path in _MANIFESTS:
        found = objects(path.read_text(encoding="utf-8"))
        if path.name.startswith("nodecache"):
            daemon = named(found, "DaemonSet", "node-local-dns")
            assert daemon["metadata"]["namespace"] == "kube-system"
            assert named(found, "Service", "kube-dns-upstream")


@pytest.mark.parametrize("path", _MANIFESTS, ids=lambda path: path.name)
def test_first_recipe_fills_each_manifest_in(path: Path, tmp_path: Path) -> None:
    found = filled("iptables", tmp_path, path)
    assert found
    for item in found:
        if item["kind"] != "CiliumLocalRedirectPolicy":
            assert kubernetes_validate.validate(item, _LATEST, strict=True) == _LATEST
    left = set(re.findall(r"__PILLAR__\w+?__(?=\W)", yaml.safe_dump_all(found)))
    assert left <= {"__PILLAR__UPSTREAM__SERVERS__", "__PILLAR__CLUSTER__DNS__"}


def test_either_recipe_fills_the_manifest_for_ipvs_in(tmp_path: Path) -> None:
    path = generate.FOLDER / "nodecache-ipvs.yaml"
    assert filled("ipvs", tmp_path, path)[3] == filled("iptables", tmp_path, path)[3]


@pytest.mark.parametrize("path", _MANIFESTS, ids=lambda path: path.name)
def test_image_is_where_the_instructions_replace_it(path: Path) -> None:
    images = re.findall(r"image: .*", path.read_text(encoding="utf-8"))
    assert set(images) <= {f"image: nodecache:{nodecache.__version__}"}
    assert len(images) == (path.name != "injection-policy.yaml")
