"""The table of docs/webhook.md: which pods are injected, row by row, and who holds each.

"S" is held by the selectors and conditions of the rendered objects, "W" by the server itself, which
looks again at all that a request shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodecache.webhook.model import LABEL, Injection, Reason

Object = dict[str, Any]

LOCAL = "169.254.20.10"
CLUSTER = "10.96.0.10"
BASE = Injection((LOCAL,), (CLUSTER,))

ENABLED = {LABEL: "enabled"}
DISABLED = {LABEL: "disabled"}
PLAIN: Mapping[str, str] = {}

FULL = [f"s{number}.example" for number in range(32)]
# Of 199 characters each: nine have room behind ours.
LONG = [f"{number:010}." + f"{'a' * 60}." * 3 + "abcde" for number in range(12)]


def config(
    *searches: str,
    nameservers: tuple[str, ...] = (LOCAL, CLUSTER),
    options: tuple[tuple[str, str | None], ...] = (),
    namespace: str = "app",
    extra: tuple[str, ...] = (),
) -> Object:
    """Returns the dnsConfig of an injected pod with these of its own behind or before ours."""
    ours = [("ndots", "3"), ("attempts", "2"), ("timeout", "1")]
    named = {name for name, _ in options}
    return {
        "nameservers": list(nameservers),
        "searches": [
            f"{namespace}.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            *extra,
            *searches,
        ],
        "options": [
            {"name": name} if value is None else {"name": name, "value": value}
            for name, value in (*options, *(option for option in ours if option[0] not in named))
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case.

    Attributes:
        number: The row's.
        case: In words.
        reason: What the server decides on the pod, whether or not selectors let it come so far.
        held: Who holds it: S, W, or both.
        expected: The pod's new dnsConfig; None for a pod that is left alone.
        policy_skips: The policy leaves it alone, for it can tell nobody what it left out.
        warns: Whether somebody is told of what was left out.
    """

    number: str
    case: str
    reason: Reason = Reason.INJECTED
    held: str = "W"
    expected: Object | None = None
    policy_skips: bool = False
    warns: bool = False
    spec: Object = field(default_factory=dict)
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    metadata: Object = field(default_factory=lambda: {"name": "pod", "namespace": "app"})
    namespace: str = "app"
    namespace_labels: Mapping[str, str] = field(default_factory=lambda: dict(ENABLED))
    scope: str = "labelled"
    injection: Injection = BASE
    request: Object = field(default_factory=dict)

    def pod(self) -> Object:
        """Returns the object as the API server sends it."""
        metadata = dict(self.metadata)
        if self.labels is not None:
            metadata["labels"] = dict(self.labels)
        if self.annotations is not None:
            metadata["annotations"] = dict(self.annotations)
        defaults = {"dnsPolicy": "ClusterFirst", "containers": [{"name": "c", "image": "i"}]}
        spec = {**defaults, **self.spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def review_request(self) -> Object:
        """Returns the request of an AdmissionReview."""
        return {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": self.namespace,
            "operation": "CREATE",
            "dryRun": False,
            "object": self.pod(),
            "oldObject": None,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
            **self.request,
        }


def left_alone(number: str, case: str, reason: Reason, held: str = "SW", **more: Any) -> Row:
    return Row(number=number, case=case, reason=reason, held=held, **more)


def injected(number: str, case: str, expected: Object | None = None, **more: Any) -> Row:
    return Row(number=number, case=case, expected=expected or config(), **more)


def not_chosen(number: str, case: str, **more: Any) -> Row:
    """A pod that the server would inject: only selectors see the labels of its namespace."""
    return Row(number=number, case=case, held="S", **more)


_MIRROR = {"kubernetes.io/config.mirror": "8d5c"}
_NDOTS_1: Object = {"options": [{"name": "ndots", "value": "1"}]}

ROWS = [
    injected("1", "ClusterFirst, labelled namespace"),
    not_chosen("2", "namespace without label", namespace_labels=PLAIN),
    not_chosen("3", "label of another case", namespace_labels={LABEL: "Enabled"}),
    left_alone("4", "kube-system", Reason.EXCLUDED_NAMESPACE, namespace="kube-system"),
    left_alone("5", "kube-public", Reason.EXCLUDED_NAMESPACE, namespace="kube-public"),
    not_chosen("6a", "namespace on ECI", namespace_labels={**ENABLED, "eci": "true"}),
    not_chosen(
        "6b",
        "namespace on ECI, by its long name",
        namespace_labels={**ENABLED, "alibabacloud.com/eci": "true"},
    ),
    not_chosen(
        "7",
        "namespace on virtual nodes",
        namespace_labels={**ENABLED, "virtual-node-affinity-injection": "enabled"},
    ),
    left_alone("8", "pod opted out", Reason.OPTED_OUT, labels=DISABLED),
    injected("9", "pod opted in, labelled namespace", labels=ENABLED),
    injected("10", "pod opted in, namespace without label", labels=ENABLED, namespace_labels=PLAIN),
    not_chosen(
        "10b", "pod opted in, namespace opted out", labels=ENABLED, namespace_labels=DISABLED
    ),
    left_alone(
        "10c",
        "pod opted in, in kube-system",
        Reason.EXCLUDED_NAMESPACE,
        labels=ENABLED,
        namespace="kube-system",
        namespace_labels=PLAIN,
    ),
    left_alone("11", "pod on ECI", Reason.SERVERLESS, labels={"eci": "true"}),
    left_alone("11b", "opted in on ECI", Reason.SERVERLESS, labels={**ENABLED, "eci": "true"}),
    left_alone("12", "by its long name", Reason.SERVERLESS, labels={"alibabacloud.com/eci": "1"}),
    injected(
        "13",
        "on the node's network, ClusterFirstWithHostNet",
        spec={"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
    ),
    left_alone(
        "14",
        "on the node's network, ClusterFirst",
        Reason.OTHER_DNS_POLICY,
        spec={"hostNetwork": True},
    ),
    left_alone(
        "15",
        "on the node's network, no policy",
        Reason.OTHER_DNS_POLICY,
        spec={"hostNetwork": True, "dnsPolicy": None},
    ),
    left_alone(
        "16",
        "on the node's network, Default",
        Reason.OTHER_DNS_POLICY,
        spec={"hostNetwork": True, "dnsPolicy": "Default"},
    ),
    left_alone(
        "17",
        "ClusterFirstWithHostNet elsewhere",
        Reason.OTHER_DNS_POLICY,
        spec={"dnsPolicy": "ClusterFirstWithHostNet"},
    ),
    left_alone("18", "Default", Reason.OTHER_DNS_POLICY, spec={"dnsPolicy": "Default"}),
    left_alone(
        "19",
        "None, its own dnsConfig",
        Reason.OTHER_DNS_POLICY,
        spec={"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}},
    ),
    left_alone(
        "20",
        "injected before",
        Reason.OTHER_DNS_POLICY,
        spec={"dnsPolicy": "None", "dnsConfig": config()},
    ),
    injected(
        "21",
        "an option of its own against ours",
        config(options=(("ndots", "1"),)),
        spec={"dnsConfig": _NDOTS_1},
    ),
    injected(
        "22",
        "an option without value",
        config(options=(("single-request-reopen", None),)),
        spec={"dnsConfig": {"options": [{"name": "single-request-reopen"}]}},
    ),
    injected(
        "23",
        "search domains of its own",
        config("corp.example"),
        spec={"dnsConfig": {"searches": ["corp.example", "svc.cluster.local"]}},
    ),
    injected(
        "24",
        "a nameserver of its own",
        config(nameservers=(LOCAL, CLUSTER, "192.0.2.53")),
        spec={"dnsConfig": {"nameservers": ["192.0.2.53"]}},
    ),
    injected(
        "25",
        "three nameservers of its own",
        config(nameservers=(LOCAL, CLUSTER, "192.0.2.1")),
        spec={"dnsConfig": {"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]}},
        warns=True,
    ),
    injected("26", "lists ours already", spec={"dnsConfig": {"nameservers": [LOCAL]}}),
    injected("27", "an empty dnsConfig", spec={"dnsConfig": {}}),
    injected(
        "28",
        "32 search domains of its own",
        config(*FULL[:29]),
        spec={"dnsConfig": {"searches": FULL}},
        warns=True,
    ),
    injected(
        "29",
        "search domains of more than 2,048 characters",
        config(*LONG[:9]),
        policy_skips=True,
        spec={"dnsConfig": {"searches": LONG}},
        warns=True,
    ),
    left_alone("30", "Windows", Reason.WINDOWS, spec={"os": {"name": "windows"}}),
    left_alone(
        "31",
        "Windows nodes",
        Reason.WINDOWS,
        spec={"nodeSelector": {"kubernetes.io/os": "windows"}},
    ),
    left_alone(
        "32a",
        "virtual nodes",
        Reason.SERVERLESS,
        spec={"nodeSelector": {"type": "virtual-kubelet"}},
    ),
    left_alone(
        "32b",
        "a virtual node",
        Reason.SERVERLESS,
        spec={"nodeName": "virtual-kubelet-cn-hangzhou-k"},
    ),
    left_alone("33", "mirror of a static pod", Reason.MIRROR_POD, annotations=_MIRROR),
    injected("34", "made by a controller", metadata={"generateName": "web-7d4b9-"}),
    injected("35", "dry run", request={"dryRun": True}),
    injected("36", "no namespace in the object", metadata={"name": "pod"}),
    injected("37a", "labels and annotations empty", labels={}, annotations={}),
    left_alone("38a", "UPDATE", Reason.NOT_A_NEW_POD, request={"operation": "UPDATE"}),
    left_alone("38b", "DELETE", Reason.NOT_A_NEW_POD, request={"operation": "DELETE"}),
    left_alone(
        "38c", "a subresource", Reason.NOT_A_NEW_POD, request={"subResource": "ephemeralcontainers"}
    ),
    left_alone(
        "39",
        "another kind",
        Reason.NOT_A_NEW_POD,
        request={
            "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        },
    ),
    injected("40", "scope all, no label", scope="all", namespace_labels=PLAIN),
    injected("40b", "scope all, pod opted in", scope="all", labels=ENABLED, namespace_labels=PLAIN),
    not_chosen("41", "scope all, namespace opted out", scope="all", namespace_labels=DISABLED),
    left_alone("41b", "scope all, pod opted out", Reason.OPTED_OUT, scope="all", labels=DISABLED),
    left_alone(
        "41c",
        "scope all, kube-system",
        Reason.EXCLUDED_NAMESPACE,
        scope="all",
        namespace="kube-system",
        namespace_labels=PLAIN,
    ),
    injected(
        "42",
        "two families",
        config(nameservers=(LOCAL, CLUSTER, "fd00::a")),
        injection=Injection((LOCAL, "fd00::a"), (CLUSTER,)),
    ),
    injected(
        "43",
        "without the cluster's DNS",
        config(nameservers=(LOCAL,)),
        injection=Injection((LOCAL,)),
    ),
    injected(
        "44",
        "further search domains of ours",
        config("corp.example", extra=("node.example",)),
        injection=Injection((LOCAL,), (CLUSTER,), searches=("node.example", "cluster.local")),
        spec={"dnsConfig": {"searches": ["corp.example", "node.example"]}},
    ),
]

# null for what is absent: the API server's own objects have none of it, but a client may send some,
# and the server reads it as the API server would.
NULLS = [
    injected(
        "27b",
        "lists that are null",
        spec={"dnsConfig": {"nameservers": None, "searches": None, "options": None}},
    ),
    injected("37b", "null all over", spec={"hostNetwork": None, "os": None, "nodeSelector": None}),
]
