"""Helm, by its own library, against an API server."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from tests.cluster.errors import Json
from tests.cluster.kinds import Kind
from tests.cluster.ownership import managers_of, with_managers
from tests.cluster.store import Place

if TYPE_CHECKING:
    from tests.cluster.api_server import ApiServer

Key = tuple[str, str, str]
Values = dict[str, Any]

CHART = Path(__file__).parents[2] / "daemonset" / "chart"
_WAIT_S = 30


class Helm:
    """Helm's library, bound to a server and a namespace while entered.

    Args:
        api: the server.
        namespace: of releases.
    """

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self._library = pytest.importorskip(
            "helm_python", reason="helm-python-sdk is not installed"
        )
        self._config = self._library.Config(
            kubeconfig_content=api.kubeconfig(), namespace=namespace
        )

    def __enter__(self) -> Self:
        """Is ready at once; connects with the first action."""
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the library's memory back."""
        self._config.close()

    def install(self, chart: Path, name: str, values: Values | None = None, **flags: bool) -> None:
        """As `helm install`; flags by the names of Helm's own, with underscores."""
        self._run("helm_install", chart, name, values, flags)

    def upgrade(self, chart: Path, name: str, values: Values | None = None, **flags: bool) -> None:
        """As `helm upgrade`, likewise."""
        self._run("helm_upgrade", chart, name, values, flags)

    def _run(
        self, action: str, chart: Path, name: str, values: Values | None, flags: dict[str, bool]
    ) -> None:
        """Asks the C library, which takes more flags than its Python has names for."""
        native = self._library._native
        handles = (self._config._raw(), native.HANDLE(0), native.HANDLE(0))
        options = json.dumps({"timeout_seconds": _WAIT_S, **flags})
        native.call_string(action, *handles, str(chart), name, json.dumps(values or {}), options)

    def roll_back(self, name: str, revision: int) -> None:
        """As `helm rollback`."""
        self._config.rollback(name, version=revision, timeout=_WAIT_S)

    def test(self, name: str) -> None:
        """As `helm test`."""
        self._config.test(name, timeout=_WAIT_S)

    def uninstall(self, name: str) -> None:
        """As `helm uninstall`."""
        self._config.uninstall(name, timeout=_WAIT_S)

    def manifest(self, name: str) -> list[Json]:
        """Returns the objects that a release's record has."""
        text = self._config.status(name)["manifest"]
        return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def write_chart(folder: Path, objects: list[Json], values: Values) -> Path:
    """Writes a chart of these very objects, with defaults that none of them needs."""
    (folder / "templates").mkdir(parents=True)
    metadata = {"apiVersion": "v2", "name": "predecessor", "version": "1.0.0"}
    (folder / "values.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (folder / "Chart.yaml").write_text(yaml.safe_dump(metadata), encoding="utf-8")
    (folder / "templates" / "all.yaml").write_text(yaml.safe_dump_all(objects), encoding="utf-8")
    return folder


def kept(api: ApiServer) -> dict[Key, Json]:
    """Returns (kind, namespace, name) -> object of all but namespaces and Helm's own records."""
    return {
        key: manifest
        for key, manifest in api.store.everything().items()
        if key[0] != "Namespace" and not key[2].startswith("sh.helm.release.")
    }


def versions(api: ApiServer) -> dict[Key, str]:
    """Returns the version of each object: what a write without a change leaves alone."""
    return {key: manifest["metadata"]["resourceVersion"] for key, manifest in kept(api).items()}


def make_it_helm_3s(api: ApiServer, name: str, namespace: str) -> None:
    """Changes a release into one that Helm 3 made: by client-side apply, which it does not say."""
    place = _record(api, name, namespace)
    record = api.store.get(place)
    release = _read(record)
    release.pop("apply_method", None)
    api.store.update(place, {**record, "data": {"release": _written(release)}})
    for key, manifest in kept(api).items():
        managers = managers_of(manifest)
        for manager in managers:
            manager.name, manager.operation = "helm", "Update"
        kind = next(kind for kind in api.kinds if kind.name == key[0])
        where = Place(kind, key[1], key[2])
        api.store.overwrite(where, with_managers(manifest, managers))


def rewrite_manifest(api: ApiServer, name: str, namespace: str, was: str, becomes: str) -> None:
    """Changes the text of the objects that a release's record has."""
    place = _record(api, name, namespace)
    record = api.store.get(place)
    release = _read(record)
    assert was in release["manifest"]
    release["manifest"] = release["manifest"].replace(was, becomes)
    api.store.update(place, {**record, "data": {"release": _written(release)}})


def _record(api: ApiServer, name: str, namespace: str) -> Place:
    kind: Kind = api.kind("v1", "Secret")
    return Place(kind, namespace, f"sh.helm.release.v1.{name}.v1")


def _read(record: Json) -> Json:
    release: Json = json.loads(
        gzip.decompress(base64.b64decode(base64.b64decode(record["data"]["release"])))
    )
    return release


def _written(release: Any) -> str:
    packed = base64.b64encode(gzip.compress(json.dumps(release).encode()))
    return base64.b64encode(packed).decode()
