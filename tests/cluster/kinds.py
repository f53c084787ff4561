"""The kinds of objects that the API server knows, and where it has them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cluster.errors import Json


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind, in the version that the server speaks.

    Args:
        api_version: as objects say it, "apps/v1".
        name: "DaemonSet".
        plural: as paths have it, "daemonsets".
        is_namespaced: whether its objects live in namespaces.
        subresources: of each object; "status" is not written by writes to the object itself.
    """

    api_version: str
    name: str
    plural: str
    is_namespaced: bool = True
    subresources: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """ "apps", or nothing for the core's."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """ "v1"."""
        return self.api_version.rpartition("/")[2]

    @property
    def qualified_plural(self) -> str:
        """As messages name it, "daemonsets.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_RBAC = "rbac.authorization.k8s.io/v1"
_ADMISSION = "admissionregistration.k8s.io/v1"

# Without the last three groups, which come with what people install besides.
BUILT_IN = (
    Kind("v1", "Namespace", "namespaces", is_namespaced=False, subresources=("status",)),
    Kind("v1", "Node", "nodes", is_namespaced=False, subresources=("status",)),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Event", "events"),
    Kind("v1", "Pod", "pods", subresources=("status", "log")),
    Kind("v1", "Secret", "secrets"),
    Kind("v1", "Service", "services", subresources=("status",)),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("apps/v1", "DaemonSet", "daemonsets", subresources=("status",)),
    Kind("apps/v1", "Deployment", "deployments", subresources=("status",)),
    Kind("apps/v1", "ReplicaSet", "replicasets", subresources=("status",)),
    Kind("batch/v1", "Job", "jobs", subresources=("status",)),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", subresources=("status",)),
    Kind(_RBAC, "Role", "roles"),
    Kind(_RBAC, "RoleBinding", "rolebindings"),
    Kind(_RBAC, "ClusterRole", "clusterroles", is_namespaced=False),
    Kind(_RBAC, "ClusterRoleBinding", "clusterrolebindings", is_namespaced=False),
    Kind(
        _ADMISSION,
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        is_namespaced=False,
    ),
)
POLICIES = (
    Kind(
        _ADMISSION,
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        is_namespaced=False,
    ),
    Kind(
        _ADMISSION,
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        is_namespaced=False,
    ),
)
CUSTOM = (
    Kind("cert-manager.io/v1", "Certificate", "certificates"),
    Kind("cert-manager.io/v1", "Issuer", "issuers"),
    Kind("cilium.io/v2", "CiliumLocalRedirectPolicy", "ciliumlocalredirectpolicies"),
    Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors"),
    Kind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules"),
    Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors"),
)
ALL = BUILT_IN + POLICIES + CUSTOM


def groups(kinds: tuple[Kind, ...]) -> Json:
    """Returns what /apis says."""
    versions = dict.fromkeys(kind.api_version for kind in kinds if kind.group)
    entries = []
    for api_version in versions:
        group, _, version = api_version.rpartition("/")
        at = {"groupVersion": api_version, "version": version}
        entries.append({"name": group, "versions": [at], "preferredVersion": at})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries}


def resources(kinds: tuple[Kind, ...], api_version: str) -> Json:
    """Returns what /apis/GROUP/VERSION says."""
    entries = []
    for kind in kinds:
        if kind.api_version != api_version:
            continue
        entry = {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": kind.is_namespaced,
            "kind": kind.name,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        }
        parts = [
            {**entry, "name": f"{kind.plural}/{part}", "verbs": ["get", "patch", "update"]}
            for part in kind.subresources
        ]
        entries += [entry, *parts]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version,
        "resources": entries,
    }


def open_api_paths(kinds: tuple[Kind, ...]) -> Json:
    """Returns what /openapi/v3 says: where each group's document is."""
    paths = dict.fromkeys(root(kind.api_version)[1:] for kind in kinds)
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in paths}}


def open_api(kinds: tuple[Kind, ...], path: str) -> Json:
    """Returns of a group's document what clients look for: that writes can be validated here."""
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    paths = {}
    for kind in kinds:
        if root(kind.api_version)[1:] == path:
            which = {"group": kind.group, "version": kind.version, "kind": kind.name}
            verb = {"parameters": [parameter], "x-kubernetes-group-version-kind": which}
            paths[f"/{path}/{kind.plural}/{{name}}"] = {"patch": {**verb, "responses": {}}}
    information = {"title": "Kubernetes", "version": "v1.36.2"}
    return {"openapi": "3.0.0", "info": information, "paths": paths}


def root(api_version: str) -> str:
    """Returns the path below which the version's objects are."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
