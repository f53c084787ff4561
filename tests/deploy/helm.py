"""The chart as Helm's own library renders it."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from daemonset.values import Value, merged, read
from tests.daemon.processes import ROOT
from tests.deploy.manifest import Json, objects

helm_python = pytest.importorskip(
    "helm_python", reason="helm-python-sdk has no wheel for this machine", exc_type=ImportError
)

CHART = ROOT / "daemonset" / "chart"
CLUSTER_DNS: Json = {"config": {"dnsServer": "10.96.0.10"}}
_TEST_POD = "tests/resolve.yaml"


def templates(values: Json, *, looked_up: bool = True) -> dict[str, str]:
    """Returns what each template gives, by its path below templates/.

    Args:
        values: As users give them.
        looked_up: Beside them goes the cluster DNS' address, which offline nobody can look up.

    Raises:
        helm_python.HelmError: Schema or templates refuse them.
    """
    given = merged(CLUSTER_DNS, values) if looked_up else values
    rendered = _chart().render(given, name="example", namespace="kube-system")
    return {name.partition("/templates/")[2]: text for name, text in rendered.items()}


def rendered(values: Json, *, looked_up: bool = True) -> list[Json]:
    """Returns the objects that an installation with these values makes."""
    texts = templates(values, looked_up=looked_up)
    applied = (text for name, text in sorted(texts.items()) if name not in ("NOTES.txt", _TEST_POD))
    return [item for text in applied for item in objects(text) if item]


def notes(values: Json) -> str:
    """Returns what Helm prints after an installation."""
    return templates(values)["NOTES.txt"]


def asking_pod(values: Json) -> Json:
    """Returns the pod of `helm test`."""
    [pod] = objects(templates(values)[_TEST_POD])
    return pod


def refusal(values: Json, *, looked_up: bool = False) -> str:
    """Returns what Helm says of values that are refused."""
    with pytest.raises(helm_python.HelmError) as caught:
        templates(values, looked_up=looked_up)
    return str(caught.value)


def nested(path: str, value: object) -> Json:
    """Returns the values in which that path has that value."""
    inner = value
    for key in reversed(path.split(".")):
        inner = {key: inner}
    assert isinstance(inner, dict)
    return inner


def documented() -> list[Value]:
    """Returns all values of values.yaml."""
    return read((CHART / "values.yaml").read_text(encoding="utf-8"))


@functools.cache
def _chart() -> Any:
    return helm_python.Chart.load(CHART)
