"""What other charts of the same cache leave in a cluster, as far as an upgrade meets it.

Names, labels, selectors and kinds of the charts of ACK (Alibaba Cloud) and of deliveryhero, with
the least of everything else that Kubernetes takes.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.errors import Json

NAMESPACE = "kube-system"
UPSTREAM_IP = "10.96.100.10"
_PORTS = [
    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
    {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
    {"name": "metrics", "containerPort": 9253, "protocol": "TCP"},
]


def _object(api_version: str, kind: str, name: str, labels: Json, **fields: Any) -> Json:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def _daemonset(name: str, labels: Json, selector: Json, pod_labels: Json, **more: Any) -> Json:
    container: Json = {
        "name": "node-cache",
        "image": "node-cache:old",
        "args": ["-localip", "169.254.20.10"],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "timeoutSeconds": 5},
        "volumeMounts": [{"name": "xtables-lock", "mountPath": "/run/xtables.lock"}],
        **more.pop("container"),
    }
    lock = {"path": "/run/xtables.lock", "type": "FileOrCreate"}
    pod = {
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "serviceAccountName": name,
        "containers": [container],
        "volumes": [{"name": "xtables-lock", "hostPath": lock}],
        **more,
    }
    return _object(
        "apps/v1",
        "DaemonSet",
        name,
        labels,
        spec={
            "selector": {"matchLabels": selector},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {"metadata": {"labels": pod_labels}, "spec": pod},
        },
    )


def _dns_service(name: str, labels: Json, **spec: Any) -> Json:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    return _object(
        "v1",
        "Service",
        name,
        labels,
        spec={"ports": ports, "selector": {"k8s-app": "kube-dns"}, **spec},
    )


def ack(release: str, *, controller: bool) -> list[Json]:
    """Returns the objects of ACK's chart, with its admission controller or without."""
    own = {"k8s-app": "node-local-dns"}
    init = {
        "name": "init-sysctl",
        "image": "busybox:old",
        "securityContext": {"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}},
    }
    objects = [
        _object("v1", "ServiceAccount", "node-local-dns", {}),
        _dns_service("node-local-upstream", {"k8s-app": "kube-dns"}, clusterIP=UPSTREAM_IP),
        _object("v1", "ConfigMap", "node-local-dns", {}, data={"Corefile": ".:53 {\n}\n"}),
        _daemonset(
            "node-local-dns",
            own,
            own,
            own,
            container={"securityContext": {"privileged": True}},
            initContainers=[init],
            nodeSelector={"beta.kubernetes.io/os": "linux"},
        ),
    ]
    return objects + (_ack_controller(f"{release}-admission-controller") if controller else [])


def _ack_controller(name: str) -> list[Json]:
    own = {"app": name}
    service = {"name": name, "namespace": NAMESPACE, "path": "/inject"}
    group = "rbac.authorization.k8s.io"
    role = _object(f"{group}/v1", "ClusterRole", f"{name}-role", {})
    binding = _object(
        f"{group}/v1",
        "ClusterRoleBinding",
        f"{name}-role-binding",
        {},
        roleRef={"apiGroup": group, "kind": "ClusterRole", "name": f"{name}-role"},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    )
    configuration = _object(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        name,
        own,
        webhooks=[
            {
                "name": f"{name}.k8s.io",
                "clientConfig": {"service": service, "caBundle": "T0xE"},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Ignore",
            }
        ],
    )
    for manifest in (role, binding, configuration):
        del manifest["metadata"]["namespace"]
    pod = {
        "serviceAccountName": name,
        "containers": [{"name": "webhook", "image": "admission-controller:old"}],
    }
    return [
        role,
        binding,
        configuration,
        _object("v1", "ServiceAccount", name, {}),
        _object("v1", "Secret", f"{name}-cert", own, data={"tls.crt": "T0xE", "tls.key": "T0xE"}),
        _object(
            "v1",
            "Service",
            name,
            own,
            spec={
                "type": "NodePort",
                "selector": own,
                "ports": [{"port": 443, "targetPort": 8443}],
            },
        ),
        _object(
            "apps/v1",
            "Deployment",
            name,
            own,
            spec={
                "replicas": 2,
                "selector": {"matchLabels": own},
                "template": {"metadata": {"labels": own}, "spec": pod},
            },
        ),
    ]


def stock() -> list[Json]:
    """Returns the objects of Kubernetes' own manifest, which are no release's."""
    name = "node-local-dns"
    own = {"k8s-app": name}
    metrics = {"clusterIP": "None", "ports": [{"name": "metrics", "port": 9253}], "selector": own}
    return [
        _object("v1", "ServiceAccount", name, {}),
        _dns_service("kube-dns-upstream", {"k8s-app": "kube-dns"}),
        _object("v1", "Service", name, own, spec=metrics),
        _object("v1", "ConfigMap", name, {}, data={"Corefile": ".:53 {\n}\n"}),
        _daemonset(name, own, own, own, container={"ports": _PORTS}),
    ]


def deliveryhero(release: str) -> list[Json]:
    """Returns the objects of deliveryhero's chart."""
    name = release if "node-local-dns" in release else f"{release}-node-local-dns"
    own = {"app.kubernetes.io/name": "node-local-dns", "app.kubernetes.io/instance": release}
    labels = {
        **own,
        "app.kubernetes.io/managed-by": "Helm",
        "helm.sh/chart": "node-local-dns-2.0.0",
    }
    metrics = {
        "clusterIP": "None",
        "ports": [{"name": "metrics", "port": 9253, "targetPort": 9253}],
        "selector": {"k8s-app": name},
    }
    return [
        _object("v1", "ServiceAccount", name, labels),
        _dns_service(f"{name}-upstream", labels),
        _object("v1", "Service", name, labels, spec=metrics),
        _object("v1", "Service", f"{name}-prometheus", labels, spec=metrics),
        _object("v1", "ConfigMap", name, labels, data={"Corefile": ".:53 {\n}\n"}),
        _daemonset(name, labels, own, labels, container={"ports": _PORTS}),
    ]
