"""The table by both carriers, as the chart renders them; and what else their objects must say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from nodecache.webhook.model import MAX_SEARCHES
from tests.deploy.helm import refusal, rendered
from tests.webhook.anything import configs
from tests.webhook.carriers import (
    by_policy,
    by_webhook,
    evaluate,
    is_chosen_for_webhook,
    matches,
    of_kind,
)
from tests.webhook.table import NULLS, ROWS, Object, Row, config

ALL = [*ROWS, *NULLS]


def named(row: Row) -> str:
    return f"row {row.number}: {row.case}"


def test_evaluator_of_cel_has_what_the_policy_needs() -> None:
    data: Object = {"object": {"a": ["x", "y"]}, "request": {}, "variables": {}}
    assert evaluate('object.?b.?c.orValue("none")', data) == "none"
    assert evaluate("object.a.slice(0, 1)", data) == ["x"]
    assert evaluate('object.a.join(" ")', data) == "x y"
    assert evaluate('JSONPatch{op: "add", path: object.a[0]}', data) == {"op": "add", "path": "x"}
    with pytest.raises(AssertionError):
        evaluate("object.nothing", data)


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_evaluator_of_selectors_follows_kubernetes(selector: Object, selected: bool) -> None:
    assert matches(selector, {"a": "1"}) is selected


@pytest.mark.parametrize("row", ALL, ids=named)
def test_row_by_webhook(row: Row) -> None:
    assert by_webhook(row) == row.expected


@pytest.mark.parametrize("row", ALL, ids=named)
def test_row_by_policy(row: Row) -> None:
    assert by_policy(row) == (None if row.policy_skips else row.expected)


@given(configs)
def test_both_carriers_give_any_pod_the_same(own: Object) -> None:
    row = Row(number="", case="", spec={"dnsConfig": own})
    injected = by_webhook(row)
    assert injected is not None
    ours = config()["searches"]
    wanted = len(ours) + len([search for search in own.get("searches", []) if search not in ours])
    is_too_long = len(injected["searches"]) < min(wanted, MAX_SEARCHES)
    assert by_policy(row) == (None if is_too_long else injected)


@pytest.mark.parametrize("row", [row for row in ALL if "S" in row.held], ids=named)
def test_selectors_and_conditions_keep_the_server_from_being_asked(row: Row) -> None:
    assert not is_chosen_for_webhook(row)


def webhook_objects(**webhook: Any) -> list[Object]:
    return rendered({"injection": {"mode": "webhook"}, "webhook": webhook})


def one(kind: str, objects: list[Object], name: str = "nodecache-webhook") -> Object:
    [found] = [
        item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name
    ]
    return found


def kinds(values: Object) -> set[str]:
    return {item["kind"] for item in rendered(values)}


POLICY = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}
WEBHOOK = {"MutatingWebhookConfiguration", "Deployment", "PodDisruptionBudget", "Secret"}


@pytest.mark.parametrize(
    ("values", "there"),
    [
        ({"injection": {"mode": "policy"}}, POLICY),
        ({"injection": {"mode": "webhook"}}, WEBHOOK),
        ({"injection": {"mode": "auto"}}, WEBHOOK),  # offline no API server tells what it has
        ({"injection": {"mode": "off"}}, set()),
        ({"injection": {"mode": False}}, set()),  # what YAML makes of a bare off
        ({"controller": {"enabled": False}}, set()),
        ({"mode": "cilium"}, set()),
        ({"mode": "cilium", "config": {"cilium": {"redirectType": "address"}}}, WEBHOOK),
    ],
)
def test_mode_chooses_the_carrier(values: Object, there: set[str]) -> None:
    assert kinds(values) & (POLICY | WEBHOOK) == there


def test_policy_and_configuration_fail_open_and_are_tried_again() -> None:
    [policy] = of_kind("MutatingAdmissionPolicy", "policy", ROWS[0])
    [configuration] = of_kind("MutatingWebhookConfiguration", "webhook", ROWS[0])
    for spec in (policy["spec"], *configuration["webhooks"]):
        assert spec["failurePolicy"] == "Ignore"
        assert spec["reinvocationPolicy"] == "IfNeeded"
    for entry in configuration["webhooks"]:
        assert entry["sideEffects"] == "None"
        assert entry["timeoutSeconds"] == 2
        assert entry["admissionReviewVersions"] == ["v1"]
        assert entry["clientConfig"]["service"]["path"] == "/inject"


def test_no_upgrade_touches_what_the_webhook_writes() -> None:
    objects = webhook_objects()
    assert not {"data", "stringData"} & one("Secret", objects, "nodecache-webhook-tls").keys()
    for entry in one("MutatingWebhookConfiguration", objects)["webhooks"]:
        assert "caBundle" not in entry["clientConfig"]


def test_webhook_may_change_its_own_two_objects_and_nothing_else() -> None:
    objects = webhook_objects()
    [secrets] = one("Role", objects)["rules"]
    assert secrets == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["nodecache-webhook-tls"],
        "verbs": ["get", "patch"],
    }
    [configurations] = one("ClusterRole", objects)["rules"]
    assert configurations == {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": ["nodecache-webhook"],
        "verbs": ["get", "patch"],
    }


def test_webhooks_pods_need_neither_root_nor_the_cache() -> None:
    pod = one("Deployment", webhook_objects())["spec"]["template"]
    assert pod["metadata"]["labels"]["node-local-dns-injection"] == "disabled"
    spec = pod["spec"]
    assert spec["dnsPolicy"] == "Default"
    assert spec["securityContext"]["runAsNonRoot"] is True
    [container] = spec["containers"]
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_webhooks_pods_run_on_different_nodes_and_one_stays() -> None:
    objects = webhook_objects()
    spec = one("Deployment", objects)["spec"]
    assert spec["replicas"] == 2
    [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == (
        "kubernetes.io/hostname",
        "DoNotSchedule",
    )
    assert one("PodDisruptionBudget", objects)["spec"]["minAvailable"] == 1
    # With one alone, nothing could ever be drained.
    alone = webhook_objects(replicas=1)
    assert "PodDisruptionBudget" not in {item["kind"] for item in alone}


def test_selectors_find_the_webhooks_pods_and_no_others() -> None:
    objects = webhook_objects()
    deployment = one("Deployment", objects)["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    [daemonset] = [item for item in objects if item["kind"] == "DaemonSet"]
    for selector in (
        deployment["selector"]["matchLabels"],
        one("Service", objects)["spec"]["selector"],
        one("PodDisruptionBudget", objects)["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        cache = daemonset["spec"]["template"]["metadata"]["labels"]
        assert not selector.items() <= cache.items()


def test_cert_manager_issues_for_the_names_that_api_servers_use() -> None:
    objects = webhook_objects(certificates="cert-manager")
    certificate = one("Certificate", objects)["spec"]
    assert certificate["dnsNames"] == [
        "nodecache-webhook.kube-system.svc",
        "nodecache-webhook.kube-system.svc.cluster.local",
    ]
    configuration = one("MutatingWebhookConfiguration", objects)
    assert configuration["metadata"]["annotations"] == {
        "cert-manager.io/inject-ca-from": "kube-system/nodecache-webhook"
    }
    # It writes the Secret, and nobody here needs a right to.
    assert not {"Secret", "Role", "ClusterRole"} & {item["kind"] for item in objects}
    assert certificate["secretName"] == "nodecache-webhook-tls"
    spec = one("Deployment", objects)["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["volumes"][0]["secret"]["secretName"] == "nodecache-webhook-tls"


def test_cert_manager_asks_an_issuer_of_yours() -> None:
    issuer = {"kind": "ClusterIssuer", "name": "corp"}
    objects = webhook_objects(certificates="cert-manager", issuerRef=issuer)
    assert one("Certificate", objects)["spec"]["issuerRef"] == issuer
    assert "Issuer" not in {item["kind"] for item in objects}


def test_certificate_of_yours_comes_with_its_ca() -> None:
    objects = webhook_objects(certificates="secret", secretName="mine", caBundle="PEM")
    for entry in one("MutatingWebhookConfiguration", objects)["webhooks"]:
        assert entry["clientConfig"]["caBundle"] == "UEVN"


def test_acks_names_for_the_webhook_are_taken() -> None:
    controller = {"image": "registry.example/nodecache", "imageTag": "9", "replicas": "3"}
    objects = rendered(
        {
            "injection": {"mode": "webhook"},
            "controller": controller,
            "webhook": {"name": "ack-node-local-dns-admission-controller"},
        }
    )
    deployment = one("Deployment", objects, "ack-node-local-dns-admission-controller")["spec"]
    assert deployment["replicas"] == 3
    [container] = deployment["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/nodecache:9"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"mode": "ipvs", "injection": {"mode": "webhook"}}, "config.dnsServer is empty"),
        (
            {"mode": "cilium", "injection": {"mode": "policy"}},
            "injection.mode policy does not go with mode cilium",
        ),
        (
            {"config": {"dnsServer": "10.96.0.10"}, "injection": {"nameservers": "node.local"}},
            'injection.nameservers: "node.local" is no IP address',
        ),
        (
            {
                "config": {"dnsServer": "10.96.0.10"},
                "controller": {"image": "registry.example/node-local-dns-admission-controller"},
            },
            "is ACK's admission controller",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nonsense_is_refused_with_the_next_step(values: Object, sentence: str) -> None:
    assert sentence in refusal(values)


def test_prometheus_operator_finds_the_webhook_by_its_service() -> None:
    values: Object = {"injection": {"mode": "webhook"}, "serviceMonitor": {"enabled": True}}
    objects = rendered(values)
    service = one("Service", objects)
    monitor = one("ServiceMonitor", objects)["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    # And not by annotations, too.
    template = one("Deployment", objects)["spec"]["template"]
    assert "annotations" not in template["metadata"]
