"""What each value of the chart's sections injection, webhook and controller does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate.utils import all_versions, major_minor

from daemonset.values import merged
from tests.deploy.helm import documented, nested, refusal, rendered
from tests.deploy.manifest import Json

_LATEST = list(dict.fromkeys(map(major_minor, all_versions())))[-3:]
_WEBHOOK: Json = {"injection": {"mode": "webhook"}}
_POLICY: Json = {"injection": {"mode": "policy"}}
# Schemas of Kubernetes know nothing of them; the policy is there from 1.36 on.
_FOREIGN = {"Certificate", "Issuer"}
_FROM_1_36 = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}


def first(objects: list[Json], kind: str) -> Json:
    return next(item for item in objects if item["kind"] == kind)


def pod(objects: list[Json]) -> Json:
    spec: Json = first(objects, "Deployment")["spec"]["template"]
    return spec


def args(objects: list[Json]) -> str:
    return " ".join(pod(objects)["spec"]["containers"][0]["args"])


def entries(objects: list[Json]) -> list[Json]:
    found: list[Json] = first(objects, "MutatingWebhookConfiguration")["webhooks"]
    return found


def variables(objects: list[Json]) -> dict[str, str]:
    spec = first(objects, "MutatingAdmissionPolicy")["spec"]
    return {variable["name"]: variable["expression"] for variable in spec["variables"]}


def excluded(selector: Json) -> list[str]:
    [names] = [
        expression["values"]
        for expression in selector["namespaceSelector"]["matchExpressions"]
        if expression["key"] == "kubernetes.io/metadata.name"
    ]
    found: list[str] = names
    return found


Seen = Callable[[list[Json]], object]
Case = tuple[str, object, Json, Seen, object]

# Value, what it is set to, beside what; what to look at, and what is seen there.
CASES: list[Case] = [
    ("injection.mode", "policy", {}, lambda all_: first(all_, "MutatingAdmissionPolicy")["kind"],
     "MutatingAdmissionPolicy"),
    ("injection.scope", "all", _WEBHOOK, lambda all_: len(entries(all_)), 1),
    ("injection.excludedNamespaces", ["arms-prom"], _WEBHOOK,
     lambda all_: [sorted(excluded(entry)) for entry in entries(all_)],
     [["arms-prom", "kube-system"]] * 2),
    ("injection.excludedNamespaces", ["arms-prom"], _WEBHOOK,
     lambda all_: "-excluded-namespaces arms-prom,kube-system" in args(all_), True),
    ("injection.nameservers", "169.254.20.11,fd00::b", _POLICY,
     lambda all_: variables(all_)["ourNameservers"], '["169.254.20.11","10.96.0.10","fd00::b"]'),
    ("injection.nameservers", ["169.254.20.11", "fd00::b"], _WEBHOOK,
     lambda all_: "-nameserver 169.254.20.11,fd00::b " in args(all_), True),
    ("injection.includeClusterDns", False, _POLICY,
     lambda all_: variables(all_)["ourNameservers"], '["169.254.20.10"]'),
    ("injection.includeClusterDns", False, _WEBHOOK,
     lambda all_: " -include-kube-dns=false " in args(all_), True),
    ("injection.clusterDns", "10.0.0.10", _POLICY,
     lambda all_: variables(all_)["ourNameservers"], '["169.254.20.10","10.0.0.10"]'),
    ("injection.clusterDns", "10.0.0.10", _WEBHOOK,
     lambda all_: " -cluster-dns 10.0.0.10 " in args(all_), True),
    ("injection.searches", ["a.example", "b.example"], _POLICY,
     lambda all_: '["a.example","b.example"]' in variables(all_)["ourSearches"], True),
    ("injection.searches", ["a.example", "b.example"], _WEBHOOK,
     lambda all_: " -searches a.example,b.example " in args(all_), True),
    ("injection.ndots", 2, _POLICY, lambda all_: variables(all_)["ourOptions"],
     '{"ndots": "2", "attempts": "2", "timeout": "1"}'),
    ("injection.ndots", 2, _WEBHOOK, lambda all_: " -ndots 2 " in args(all_), True),
    ("injection.attempts", 3, _POLICY, lambda all_: variables(all_)["ourOptions"],
     '{"ndots": "3", "attempts": "3", "timeout": "1"}'),
    ("injection.attempts", 3, _WEBHOOK, lambda all_: " -attempts 3 " in args(all_), True),
    ("injection.timeout", 2, _POLICY, lambda all_: variables(all_)["ourOptions"],
     '{"ndots": "3", "attempts": "2", "timeout": "2"}'),
    ("injection.timeout", 2, _WEBHOOK, lambda all_: " -timeout 2 " in args(all_), True),
    ("webhook.name", "hook", _WEBHOOK,
     lambda all_: {entry["clientConfig"]["service"]["name"] for entry in entries(all_)}, {"hook"}),
    ("webhook.name", "hook", _WEBHOOK,
     lambda all_: "-service hook -webhook-configuration hook" in args(all_), True),
    ("webhook.replicas", 3, _WEBHOOK,
     lambda all_: first(all_, "Deployment")["spec"]["replicas"], 3),
    ("webhook.image", "registry.example/n:1", _WEBHOOK,
     lambda all_: pod(all_)["spec"]["containers"][0]["image"], "registry.example/n:1"),
    ("webhook.certificates", "cert-manager", _WEBHOOK,
     lambda all_: [item["kind"] for item in all_ if item["kind"] in _FOREIGN],
     ["Issuer", "Certificate", "Issuer", "Certificate"]),
    ("webhook.secretName", "kept", _WEBHOOK,
     lambda all_: (first(all_, "Secret")["metadata"]["name"], "-tls-secret kept" in args(all_)),
     ("kept", True)),
    ("webhook.caBundle", "PEM", {**_WEBHOOK, "webhook": {"certificates": "secret"}},
     lambda all_: entries(all_)[0]["clientConfig"]["caBundle"], "UEVN"),
    ("webhook.issuerRef", {"kind": "ClusterIssuer", "name": "corp"},
     {**_WEBHOOK, "webhook": {"certificates": "cert-manager"}},
     lambda all_: first(all_, "Certificate")["spec"]["issuerRef"]["name"], "corp"),
    ("webhook.timeoutSeconds", 5, _WEBHOOK,
     lambda all_: {entry["timeoutSeconds"] for entry in entries(all_)}, {5}),
    ("webhook.priorityClassName", "high", _WEBHOOK,
     lambda all_: pod(all_)["spec"]["priorityClassName"], "high"),
    ("webhook.resources", {"limits": {"memory": "200Mi"}}, _WEBHOOK,
     lambda all_: pod(all_)["spec"]["containers"][0]["resources"]["limits"], {"memory": "200Mi"}),
    ("webhook.nodeSelector", {"pool": "system"}, _WEBHOOK,
     lambda all_: pod(all_)["spec"]["nodeSelector"]["pool"], "system"),
    ("webhook.affinity", {"podAffinity": {}}, _WEBHOOK,
     lambda all_: pod(all_)["spec"]["affinity"], {"podAffinity": {}}),
    ("webhook.tolerations", [{"operator": "Exists"}], _WEBHOOK,
     lambda all_: pod(all_)["spec"]["tolerations"], [{"operator": "Exists"}]),
    ("webhook.podAnnotations", {"a": "b"}, _WEBHOOK,
     lambda all_: pod(all_)["metadata"]["annotations"],
     {"a": "b", "prometheus.io/port": "9253", "prometheus.io/scrape": "true"}),
    ("webhook.podLabels", {"a": "b"}, _WEBHOOK,
     lambda all_: pod(all_)["metadata"]["labels"]["a"], "b"),
    ("webhook.extraArgs", ["-log-format", "json"], _WEBHOOK,
     lambda all_: args(all_).endswith(" -log-format json"), True),
    ("controller.enabled", False, _WEBHOOK,
     lambda all_: "Deployment" in {item["kind"] for item in all_}, False),
    ("controller.image", "registry.example/n", _WEBHOOK,
     lambda all_: pod(all_)["spec"]["containers"][0]["image"].partition(":")[0],
     "registry.example/n"),
    ("controller.imageTag", "7", {**_WEBHOOK, "controller": {"image": "n"}},
     lambda all_: pod(all_)["spec"]["containers"][0]["image"], "n:7"),
    ("controller.replicas", 4, _WEBHOOK,
     lambda all_: first(all_, "Deployment")["spec"]["replicas"], 4),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "beside", "look", "seen"),
    CASES,
    ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)],
)
def test_value_does_what_it_says(
    path: str, value: object, beside: Json, look: Seen, seen: object
) -> None:
    assert look(rendered(merged(beside, nested(path, value)))) == seen


def test_every_value_has_its_case() -> None:
    sections = ("injection", "webhook", "controller")
    paths = {".".join(value.path) for value in documented() if value.path[0] in sections}
    assert paths == {case[0] for case in CASES}


@pytest.mark.parametrize("version", _LATEST)
@pytest.mark.parametrize(
    "values",
    [
        _POLICY,
        _WEBHOOK,
        {**_WEBHOOK, "webhook": {"certificates": "cert-manager"}},
        {**_WEBHOOK, "webhook": {"certificates": "secret", "caBundle": "PEM"}},
        {"injection": {"mode": "policy", "scope": "all"}},
    ],
    ids=str,
)
def test_objects_follow_kubernetes_schemas(values: Json, version: str) -> None:
    for item in rendered(values):
        is_known = item["kind"] not in _FROM_1_36 or version >= "1.36"
        if item["kind"] not in _FOREIGN and is_known:
            assert kubernetes_validate.validate(item, version, strict=True) == version


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("injection.mode", "on"),
        ("injection.scope", "some"),
        ("injection.ndots", 16),
        ("injection.attempts", 0),
        ("injection.timeout", 31),
        ("injection.nameserver", "169.254.20.10"),
        ("webhook.replicas", 0),
        ("webhook.timeoutSeconds", 31),
        ("webhook.certificates", "helm"),
    ],
)
def test_schema_refuses(path: str, value: Any) -> None:
    assert path.rpartition(".")[2] in refusal(nested(path, value))
