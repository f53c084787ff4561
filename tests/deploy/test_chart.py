"""What the chart makes of its values, each of them, and what it refuses."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import kubernetes_validate
import pytest
from kubernetes_validate.utils import all_versions, major_minor

import nodecache
from daemonset.values import merged
from nodecache.config.flags import parse_flags
from tests.daemon.processes import PATIENCE_S, ROOT
from tests.deploy.helm import (
    CHART,
    CLUSTER_DNS,
    asking_pod,
    documented,
    helm_python,
    nested,
    notes,
    refusal,
    rendered,
    templates,
)
from tests.deploy.manifest import Json, container, corefile, named, pod_spec

_MINORS = list(dict.fromkeys(map(major_minor, all_versions())))[-3:]
# Kinds of others, of which Kubernetes' schemas know nothing.
_FOREIGN = {"CiliumLocalRedirectPolicy", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
# Their tests are beside what they are about.
_ELSEWHERE = ("injection", "webhook", "controller", "prometheusRule", "dashboard")

_DAEMON = "DaemonSet/node-local-dns"
_POD = f"{_DAEMON}/spec/template/spec"
_CONTAINER = f"{_POD}/containers/0"
_COREFILE = "ConfigMap/node-local-dns/data/Corefile"
_UPSTREAM = "Service/kube-dns-upstream"
_METRICS = "Service/node-local-dns"
_MONITOR = "ServiceMonitor/node-local-dns"
_POD_MONITOR = "PodMonitor/node-local-dns"
_POLICY = "CiliumLocalRedirectPolicy/node-local-dns"


@dataclass(frozen=True, slots=True)
class Case:
    """One value, and what is seen of it.

    Attributes:
        path: Of the value.
        value: As given.
        place: KIND/NAME/FIELD/... of what shows it.
        seen: Equals what is there; of a text or list, or of a map, a part.
        given: Further values that it takes.
    """

    path: str
    value: object
    place: str
    seen: object
    given: Json = field(default_factory=dict)


_MONITORED: Json = {"serviceMonitor": {"enabled": True}}
_CILIUM: Json = {"mode": "cilium"}
_PREFETCHED: Json = {"config": {"prefetch": {"enabled": True}}}
_POD_MONITORED: Json = {**_CILIUM, "podmonitor": {"enabled": True}}
_LOCAL_ONLY = "169.254.20.10"

CASES = [
    Case("mode", "ipvs", f"{_CONTAINER}/args", _LOCAL_ONLY),
    Case("mode", "ipvs", _COREFILE, "    bind 169.254.20.10\n"),
    Case("mode", "cilium", f"{_CONTAINER}/args", "-setupinterface=false"),
    Case("image.repository", "r.example/x", f"{_CONTAINER}/image", "r.example/x:"),
    Case("image.tag", "9.9", f"{_CONTAINER}/image", "nodecache:9.9"),
    Case("image.digest", "sha256:ab", f"{_CONTAINER}/image", "nodecache@sha256:ab"),
    Case("image.pullPolicy", "Always", f"{_CONTAINER}/imagePullPolicy", "Always"),
    Case("imagePullSecrets", [{"name": "s"}], f"{_POD}/imagePullSecrets", [{"name": "s"}]),
    Case("nameOverride", "other", "DaemonSet/other/metadata/name", "other"),
    Case("fullnameOverride", "mine", "DaemonSet/mine/metadata/name", "mine", {"nameOverride": "x"}),
    Case("namespaceOverride", "dns", f"{_DAEMON}/metadata/namespace", "dns"),
    Case("commonLabels", {"team": "a"}, f"{_DAEMON}/metadata/labels", {"team": "a"}),
    Case("helmLabels", False, f"{_METRICS}/metadata/labels", {"k8s-app": "node-local-dns"}),
    Case("config.dnsDomain", "k8s.example.", _COREFILE, "k8s.example:53 {"),
    Case("config.dnsDomain", "k8s.example", f"{_CONTAINER}/args", "k8s.example"),
    Case("config.dnsServer", "10.0.0.10,fd00::a", _COREFILE, " 169.254.20.10 10.0.0.10 fd00::a\n"),
    Case("config.dnsServer", ["fd00::a"], f"{_CONTAINER}/args", "169.254.20.10,fd00::a"),
    Case("config.localDns", "fd00::10", _COREFILE, "    health [fd00::10]:8080\n"),
    Case("config.localDns", ["fd00::10"], f"{_CONTAINER}/livenessProbe/httpGet/host", "fd00::10"),
    Case(
        "config.localDns", "169.254.20.10, fd00::10", f"{_CONTAINER}/args",
        "169.254.20.10,fd00::10,10.96.0.10",
    ),
    Case("config.localDnsIp", "169.254.20.11", _COREFILE, "bind 169.254.20.11 10.96.0.10"),
    Case(
        "config.clusterDNSService", "dns", f"{_POLICY}/spec/redirectFrontend/serviceMatcher",
        {"serviceName": "dns"}, _CILIUM,
    ),
    Case("config.clusterDNSNamespace", "dns", f"{_DAEMON}/metadata/namespace", "dns"),
    Case("config.upstreamServiceSelector", {"a": "b"}, f"{_UPSTREAM}/spec/selector", {"a": "b"}),
    Case("config.customUpstreamsvc", "mine", f"{_CONTAINER}/args", "mine"),
    Case("config.bindIp", False, _COREFILE, "    bind 0.0.0.0\n"),
    Case("config.commProtocol", "prefer_udp", _COREFILE, "        prefer_udp\n"),
    Case("config.enableLogging", True, _COREFILE, "    errors\n    log\n"),
    Case("config.noIPv6Lookups", True, _COREFILE, "template IN AAAA {\n        rcode NOERROR\n"),
    Case("config.cacheTTL", 7, _COREFILE, "    cache 7 {\n"),
    Case("config.prefetch.enabled", True, _COREFILE, "        prefetch 3 30s 20%\n"),
    Case("config.prefetch.amount", 9, _COREFILE, "prefetch 9 30s 20%", _PREFETCHED),
    Case("config.prefetch.duration", "2m", _COREFILE, "prefetch 3 2m 20%", _PREFETCHED),
    Case("config.prefetch.percentage", "5%", _COREFILE, "prefetch 3 30s 5%", _PREFETCHED),
    Case("config.serveStale.cluster", "3m", _COREFILE, "        serve_stale 3m verify\n"),
    Case("config.serveStale.elsewhere", "2h", _COREFILE, "        serve_stale 2h verify\n"),
    Case("config.healthPort", 8081, _COREFILE, "    health 169.254.20.10:8081\n"),
    Case("config.healthPort", 8081, f"{_CONTAINER}/args", "8081"),
    Case("config.healthPort", 8081, f"{_CONTAINER}/livenessProbe/httpGet/port", 8081),
    Case("config.readyPort", 8182, _COREFILE, "    ready 169.254.20.10:8182\n"),
    Case("config.readyPort", 8182, f"{_CONTAINER}/readinessProbe/httpGet/port", 8182),
    Case("config.setupInterface", False, f"{_CONTAINER}/args", "-setupinterface=false"),
    Case("config.setupIptables", False, f"{_CONTAINER}/args", "-setupiptables=false"),
    Case("config.setupIptables", False, f"{_CONTAINER}/args", _LOCAL_ONLY),
    Case("config.rules", "iptables-nft", f"{_CONTAINER}/args", "iptables-nft"),
    Case("config.skipTeardown", True, f"{_CONTAINER}/args", "-skipteardown=true"),
    Case(
        "config.extraServerBlocks", "{{ .Release.Name }}.corp:53 {\n    errors\n}\n", _COREFILE,
        "}\nexample.corp:53 {\n    errors\n}\n",
    ),
    Case("config.customConfig", "{{ .Release.Name }}:53 {\n}", _COREFILE, "example:53 {\n}\n"),
    Case("config.port.number", 5300, _COREFILE, "cluster.local:5300 {"),
    Case("config.port.number", 5300, f"{_CONTAINER}/args", "5300"),
    Case("config.port.tcp", "x", f"{_CONTAINER}/ports/1/name", "x", _CILIUM),
    Case("config.port.udp", "x", f"{_CONTAINER}/ports/0/name", "x", _CILIUM),
    Case("config.upstreamServers", "192.0.2.1", _COREFILE, "    forward . 192.0.2.1\n"),
    Case(
        "config.upstreamForwardConfig", ["policy random"], _COREFILE,
        "    forward . __PILLAR__UPSTREAM__SERVERS__ {\n        policy random\n    }\n",
    ),
    Case("config.upstreamForwardConfig", {"a": "prefer_udp"}, _COREFILE, "        prefer_udp\n"),
    Case(
        "config.cilium.redirectType", "address",
        f"{_POLICY}/spec/redirectFrontend/addressMatcher/ip", "169.254.20.10", _CILIUM,
    ),
    Case(
        "config.cilium.clusterDNSService", "coredns",
        f"{_POLICY}/spec/redirectFrontend/serviceMatcher/serviceName", "coredns", _CILIUM,
    ),
    Case(
        "config.cilium.clusterDNSNamespace", "dns",
        "CiliumLocalRedirectPolicy/node-local-dns/metadata/namespace", "dns", _CILIUM,
    ),
    Case(
        "config.cilium.udp.enabled", False, f"{_POLICY}/spec/redirectBackend/toPorts/0/name",
        "dns-tcp", _CILIUM,
    ),
    Case(
        "config.cilium.tcp.enabled", False, f"{_POLICY}/spec/redirectBackend/toPorts",
        [{"port": "53", "name": "dns", "protocol": "UDP"}], _CILIUM,
    ),
    Case("upstreamService.name", "up", "Service/up/spec/selector", {"k8s-app": "kube-dns"}),
    Case("upstreamService.name", "up", f"{_CONTAINER}/args", "up"),
    Case("upstreamService.clusterIP", "10.96.0.11", f"{_UPSTREAM}/spec/clusterIP", "10.96.0.11"),
    Case("serviceAccount.create", False, f"{_POD}/serviceAccountName", "default"),
    Case("serviceAccount.name", "sa", "ServiceAccount/sa/metadata/name", "sa"),
    Case(
        "serviceAccount.annotations", {"a": "b"},
        "ServiceAccount/node-local-dns/metadata/annotations", {"a": "b"},
    ),
    Case("service.name", "m", "Service/m/spec/clusterIP", "None"),
    Case("service.annotations", {"a": "b"}, f"{_METRICS}/metadata/annotations", {"a": "b"}),
    Case("daemonset.selectorLabels", {"a": "b"}, f"{_DAEMON}/spec/selector/matchLabels/a", "b"),
    Case("daemonset.selectorLabels", {"a": "b"}, f"{_METRICS}/spec/selector", {"a": "b"}),
    Case(
        "daemonset.declarePorts", True, f"{_CONTAINER}/ports/2/containerPort", 9253,
        {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}}},
    ),
    Case("daemonset.clearPorts", True, f"{_CONTAINER}/ports", None),
    Case("daemonsetAnnotations", {"a": "b"}, f"{_DAEMON}/metadata/annotations", {"a": "b"}),
    Case("daemonsetLabels", {"a": "b"}, f"{_DAEMON}/metadata/labels", {"a": "b"}),
    Case(
        "podAnnotations", {"a": "b"}, f"{_DAEMON}/spec/template/metadata/annotations", {"a": "b"},
    ),
    Case("podLabels", {"a": "b"}, f"{_DAEMON}/spec/template/metadata/labels", {"a": "b"}),
    Case(
        "configMapAnnotations", {"a": "b"}, "ConfigMap/node-local-dns/metadata/annotations",
        {"a": "b"},
    ),
    Case("configMapLabels", {"a": "b"}, "ConfigMap/node-local-dns/metadata/labels", {"a": "b"}),
    Case("updateStrategy.type", "OnDelete", f"{_DAEMON}/spec/updateStrategy", {"type": "OnDelete"}),
    Case(
        "updateStrategy.rollingUpdate.maxSurge", "20%",
        f"{_DAEMON}/spec/updateStrategy/rollingUpdate", {"maxSurge": "20%", "maxUnavailable": 0},
    ),
    Case(
        "updateStrategy.rollingUpdate.maxUnavailable", "10%",
        f"{_DAEMON}/spec/updateStrategy/rollingUpdate", {"maxUnavailable": "10%"},
    ),
    Case("minReadySeconds", 9, f"{_DAEMON}/spec/minReadySeconds", 9),
    Case("terminationGracePeriodSeconds", 30, f"{_POD}/terminationGracePeriodSeconds", 30),
    Case("priorityClassName", "high", f"{_POD}/priorityClassName", "high"),
    Case("nodeSelector", {"a": "b"}, f"{_POD}/nodeSelector", {"a": "b"}),
    Case("affinity", {"podAffinity": {}}, f"{_POD}/affinity", {"podAffinity": {}}),
    Case("tolerations", [{"key": "a"}], f"{_POD}/tolerations", [{"key": "a"}]),
    Case("resources", {"limits": {"cpu": "1"}}, f"{_CONTAINER}/resources/limits/cpu", "1"),
    Case(
        "resizePolicy", [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
        f"{_CONTAINER}/resizePolicy/0/resourceName", "cpu",
    ),
    Case(
        "podSecurityContext", {"seLinuxOptions": {"type": "spc_t"}}, f"{_POD}/securityContext",
        {"seLinuxOptions": {"type": "spc_t"}, "seccompProfile": {"type": "RuntimeDefault"}},
    ),
    Case(
        "securityContext", {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
        f"{_CONTAINER}/securityContext/capabilities/add",
        ["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW"],
    ),
    Case(
        "securityContext", {"privileged": True}, f"{_CONTAINER}/securityContext",
        {"privileged": True, "readOnlyRootFilesystem": True},
    ),
    Case(
        "startupProbe", {"failureThreshold": 9}, f"{_CONTAINER}/startupProbe",
        {"failureThreshold": 9, "exec": {"command": ["nodecache", "probe"]}},
    ),
    Case(
        "livenessProbe", {"httpGet": {"path": "/x"}}, f"{_CONTAINER}/livenessProbe/httpGet",
        {"path": "/x", "port": 8080, "host": "169.254.20.10"},
    ),
    Case("readinessProbe", {"periodSeconds": 9}, f"{_CONTAINER}/readinessProbe/periodSeconds", 9),
    Case("initContainers", [{"name": "a"}], f"{_POD}/initContainers", [{"name": "a"}]),
    Case("lifecycle", {"preStop": {}}, f"{_CONTAINER}/lifecycle", {"preStop": {}}),
    Case("extraArgs", ["-quiet"], f"{_CONTAINER}/args", "-quiet"),
    Case("extraEnv", [{"name": "A", "value": "b"}], f"{_CONTAINER}/env/1/name", "A"),
    Case("extraVolumes", [{"name": "a"}], f"{_POD}/volumes/4", {"name": "a"}),
    Case("extraVolumeMounts", [{"name": "a"}], f"{_CONTAINER}/volumeMounts/4", {"name": "a"}),
    Case("metrics.port", 9153, _COREFILE, "    prometheus :9153\n"),
    Case("metrics.port", 9153, f"{_METRICS}/spec/ports/0/targetPort", 9153),
    Case(
        "metrics.port", 9153, f"{_DAEMON}/spec/template/metadata/annotations",
        {"prometheus.io/port": "9153"},
    ),
    Case(
        "metrics.prometheusScrape", "false", f"{_METRICS}/metadata", {"name": "node-local-dns"},
    ),
    Case(
        "prometheusScraping.enabled", False, f"{_DAEMON}/spec/template/metadata",
        {"labels": {"k8s-app": "node-local-dns"}},
    ),
    Case("serviceMonitor.enabled", True, f"{_MONITOR}/spec/endpoints/0/port", "metrics"),
    Case("serviceMonitor.labels", {"a": "b"}, f"{_MONITOR}/metadata/labels/a", "b", _MONITORED),
    Case("serviceMonitor.path", "/x", f"{_MONITOR}/spec/endpoints/0/path", "/x", _MONITORED),
    Case(
        "serviceMonitor.honorLabels", True, f"{_MONITOR}/spec/endpoints/0/honorLabels", True,
        _MONITORED,
    ),
    Case(
        "serviceMonitor.interval", "9s", f"{_MONITOR}/spec/endpoints/0/interval", "9s", _MONITORED,
    ),
    Case(
        "serviceMonitor.scrapeTimeout", "9s", f"{_MONITOR}/spec/endpoints/0/scrapeTimeout", "9s",
        _MONITORED,
    ),
    Case(
        "serviceMonitor.relabelings", [{"action": "keep"}],
        f"{_MONITOR}/spec/endpoints/0/relabelings", [{"action": "keep"}], _MONITORED,
    ),
    Case(
        "serviceMonitor.metricRelabelings", [{"action": "keep"}],
        f"{_MONITOR}/spec/endpoints/0/metricRelabelings", [{"action": "keep"}], _MONITORED,
    ),
    Case(
        "serviceMonitor.namePrefix", "kps", "ServiceMonitor/kps-node-local-dns/metadata/namespace",
        "kube-system", _MONITORED,
    ),
    Case(
        "serviceMonitor.prometheusNamespace", "eyes", f"{_MONITOR}/metadata/namespace", "eyes",
        _MONITORED,
    ),
    Case(
        "podmonitor.enabled", True, f"{_POD_MONITOR}/spec/podMetricsEndpoints/0/port", "metrics",
        _CILIUM,
    ),
    Case(
        "podmonitor.promOperatorSelector", {"a": "b"}, f"{_POD_MONITOR}/metadata/labels",
        {"a": "b"}, _POD_MONITORED,
    ),
    Case(
        "podmonitor.annotations", {"a": "b"}, f"{_POD_MONITOR}/metadata/annotations", {"a": "b"},
        _POD_MONITORED,
    ),
    Case(
        "podmonitor.metricRelabelings", [{"action": "keep"}],
        f"{_POD_MONITOR}/spec/podMetricsEndpoints/0/metricRelabelings", [{"action": "keep"}],
        _POD_MONITORED,
    ),
    Case(
        "networkPolicy.namespaces", ["shop"], "NetworkPolicy/node-local-dns/spec/egress/0/to",
        [{"ipBlock": {"cidr": "169.254.20.10/32"}}, {"ipBlock": {"cidr": "10.96.0.10/32"}}],
    ),
    Case(
        "networkPolicy.podSelector", {"matchLabels": {"a": "b"}},
        "NetworkPolicy/node-local-dns/spec/podSelector", {"matchLabels": {"a": "b"}},
        {"networkPolicy": {"namespaces": ["shop"]}},
    ),
    Case(
        "env.upstream_ip", "10.96.0.11", "Service/node-local-upstream/spec/clusterIP", "10.96.0.11",
    ),
    Case("env.upstream_ip", "10.96.0.11", f"{_CONTAINER}/args", "node-local-upstream"),
    Case("env.cluster_domain", "k8s.example", _COREFILE, "k8s.example:53 {"),
    Case("env.enable_log", True, _COREFILE, "    errors\n    log\n"),
    Case("nodelocaldns.image.repository", "r.example/x", f"{_CONTAINER}/image", "r.example/x:"),
    Case("nodelocaldns.image.tag", "9.9", f"{_CONTAINER}/image", "nodecache:9.9"),
]  # fmt: skip

# What is only said in the notes: value -> a part of what they say.
NOTED: dict[str, tuple[object, str]] = {
    "nodelocaldns.init_image": ({"repository": "busybox"}, "Ignored: nodelocaldns.init_image."),
    "useHostNetwork": (False, "Ignored: useHostNetwork."),
    "hooks": ({"preDelete": {}}, "Ignored: hooks."),
}
_IN_THE_TEST_POD = {"test.name"}


def look_up(found: list[Json], place: str) -> object:
    kind, name, *fields = place.split("/")
    here: object = named(found, kind, name)
    for key in fields:
        if isinstance(here, list):
            here = here[int(key)]
        else:
            assert isinstance(here, dict), f"nothing at {key}"
            here = here[key]
    return here


def shows(there: object, seen: object) -> bool:
    """Whether what is there is what is to be seen, or has it as a part."""
    if isinstance(there, dict) and isinstance(seen, dict):
        return all(key in there and there[key] == value for key, value in seen.items())
    if isinstance(there, str | list) and isinstance(seen, str):
        return seen in there
    return there == seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.path}={case.value}")
def test_value_is_seen_where_it_belongs_and_not_without_it(case: Case) -> None:
    found = rendered(merged(case.given, nested(case.path, case.value)))
    assert shows(look_up(found, case.place), case.seen)
    for item in found:
        assert_valid(item, _MINORS[-1], strict=case.path not in _SKETCHED)
    if case.path not in _SEEN_ANYWAY:
        try:
            before = look_up(rendered(case.given), case.place)
        except (ValueError, KeyError, IndexError, AssertionError):
            return  # there is no such place without it
        assert not shows(before, case.seen)


# Values of which the table gives less than an API server wants of them.
_SKETCHED = {
    "initContainers", "extraVolumeMounts", "extraVolumes", "lifecycle", "affinity", "tolerations",
}  # fmt: skip
# What is taken away cannot be missed in a part.
_SEEN_ANYWAY = {
    "helmLabels", "metrics.prometheusScrape", "prometheusScraping.enabled",
    "updateStrategy.rollingUpdate.maxUnavailable", "config.cilium.tcp.enabled",
    "serviceMonitor.namePrefix", "upstreamService.name",
}  # fmt: skip


def assert_valid(item: Json, version: str, *, strict: bool = True) -> None:
    if item["kind"] not in _FOREIGN and strict:
        assert validated(json.dumps(item), version) == version


@functools.cache
def validated(item: str, version: str) -> str:
    """Most objects are the same from case to case, and a schema takes its time."""
    took: str = kubernetes_validate.validate(json.loads(item), version, strict=True)
    return took


@pytest.mark.parametrize("path", NOTED)
def test_value_that_is_ignored_is_said_to_be(path: str) -> None:
    value, said = NOTED[path]
    assert said in notes(nested(path, value))
    assert "Ignored" not in notes({})
    assert rendered(nested(path, value)) == rendered({})


def test_every_value_has_its_case() -> None:
    paths = {".".join(value.path) for value in documented() if value.path[0] not in _ELSEWHERE}
    assert paths == {case.path for case in CASES} | NOTED.keys() | _IN_THE_TEST_POD


# What users of both charts wrote into their values, with all objects that there are.
WHOLES: dict[str, Json] = {
    "nothing": {},
    "ipvs": {"mode": "ipvs"},
    "cilium": {**_POD_MONITORED, "networkPolicy": {"namespaces": ["shop"]}},
    "both families": {
        "config": {"localDns": ["169.254.20.10", "fd00::10"], "dnsServer": "10.96.0.10,fd00:1::a"},
        "networkPolicy": {"namespaces": ["shop", "till"]},
        "serviceMonitor": {"enabled": True},
    },
    "ACK": {
        "env": {"upstream_ip": "10.96.0.11", "cluster_domain": "k8s.example", "enable_log": True},
        "nodelocaldns": {"image": {"repository": "r/x", "tag": "1"}, "init_image": {"tag": "1"}},
    },
    "deliveryhero": {
        "config": {
            "dnsDomain": "cluster.local", "dnsServer": "172.20.0.10", "localDns": "169.254.20.25",
            "commProtocol": "prefer_udp", "cacheTTL": 60, "noIPv6Lookups": True, "bindIp": True,
            "prefetch": {"enabled": True}, "upstreamForwardConfig": ["policy random"],
            "extraServerBlocks": "corp.example:53 {\n    errors\n    forward . 192.0.2.1\n}",
        },
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "resources": {"limits": {"memory": "128Mi"}},
        "hooks": {"preDelete": {"enabled": True}},
        "daemonset": {
            "selectorLabels": {
                "app.kubernetes.io/name": "node-local-dns", "app.kubernetes.io/instance": "example",
            },
        },
    },
    "lablabs": {
        "config": {"localDnsIp": "169.254.20.11", "setupIptables": False},
        "useHostNetwork": True, "securityContext": {"privileged": True},
        "metrics": {"prometheusScrape": "true", "port": 9253},
    },
}  # fmt: skip


@pytest.mark.parametrize("version", _MINORS)
@pytest.mark.parametrize("name", WHOLES)
def test_api_servers_of_the_last_three_minor_versions_take_it(name: str, version: str) -> None:
    for item in [*rendered(WHOLES[name]), asking_pod(WHOLES[name])]:
        assert_valid(item, version)


@pytest.mark.parametrize("name", WHOLES)
def test_daemon_takes_arguments_and_corefile(name: str, tmp_path: Path) -> None:
    found = rendered(WHOLES[name])
    flags, faults = parse_flags(container(found)["args"])
    assert faults == []
    variable = f"{flags.upstreamsvc.upper().replace('-', '_')}_SERVICE_HOST"
    file = tmp_path / "Corefile"
    file.write_text(corefile(found), encoding="utf-8")
    words = [sys.executable, "-m", "nodecache", "check", "-strict", *container(found)["args"]]
    done = subprocess.run(
        [*words, str(file)],
        env={variable: "10.96.0.20", "PATH": ""},
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize("name", WHOLES)
def test_nothing_is_rendered_that_an_api_server_leaves_out(name: str) -> None:
    """A null or an empty map that is not there when read again is drift, for ever."""
    assert [item["kind"] for item in rendered(WHOLES[name]) if list(nulls(item))] == []


def nulls(value: object, path: str = "") -> list[str]:
    if value is None:
        return [path]
    pairs = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in [*pairs, *items] for found in nulls(inner, f"{path}/{key}")]


def test_namespace_of_the_release_does_not_matter() -> None:
    spaces = {item["metadata"].get("namespace", "kube-system") for item in rendered({})}
    assert spaces == {"kube-system"}


def test_pods_on_ciliums_network_get_no_rights_and_no_node() -> None:
    found = rendered({"mode": "cilium"})
    spec = pod_spec(found)
    assert "hostNetwork" not in spec
    assert container(found)["securityContext"]["capabilities"]["add"] == ["NET_BIND_SERVICE"]
    assert [volume for volume in spec["volumes"] if "hostPath" in volume] == []
    assert "host" not in container(found)["livenessProbe"]["httpGet"]


def test_kube_proxys_iptables_and_nftables_modes_are_one() -> None:
    assert rendered({"mode": "nftables"}) == rendered({"mode": "iptables"})


def test_selector_is_the_one_that_ack_and_kubernetes_use() -> None:
    spec = named(rendered({}), "DaemonSet", "node-local-dns")["spec"]
    assert spec["selector"]["matchLabels"] == {"k8s-app": "node-local-dns"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bogus": 1}, "additional properties 'bogus' not allowed"),
        ({"config": {"zones": {}}}, "at '/config': additional properties 'zones' not allowed"),
        ({"mode": "bogus"}, "value must be one of 'iptables', 'nftables', 'ipvs', 'cilium'"),
        ({"config": {"healthPort": "x"}}, "at '/config/healthPort': got string, want integer"),
        ({"config": {"healthPort": 0}}, "at '/config/healthPort': minimum: got 0, want 1"),
        ({"config": {"commProtocol": "tcp"}}, "value must be one of 'force_tcp', 'prefer_udp'"),
        ({}, "config.dnsServer is empty, and Service kube-system/kube-dns was not found"),
        ({"config": {"dnsServer": "10.96.0.300"}}, 'config.dnsServer: "10.96.0.300" is no IP'),
        ({"config": {"localDns": "10.96.0.0/12"}}, 'config.localDns: "10.96.0.0/12" is no IP'),
        ({"config": {"localDns": ""}}, "config.localDns is empty: give an address that nobody"),
        (
            {"config": {"localDns": "10.96.0.10", "dnsServer": "10.96.0.10"}},
            "config.localDns 10.96.0.10 is the cluster DNS' own address",
        ),
        (
            {"env": {"upstream_ip": "10.96.0.10"}, "config": {"dnsServer": "10.96.0.10"}},
            "env.upstream_ip (upstreamService.clusterIP) is the cluster DNS' own address",
        ),
        ({"mode": "ipvs", "env": {"cluster_domain": "a b"}}, 'config.dnsDomain "a b" is no domain'),
        (
            {"mode": "ipvs", "image": {"repository": "registry.k8s.io/dns/k8s-dns-node-cache"}},
            "is node-cache, which lacks what this chart's probes and flags ask for",
        ),
        ({"mode": "ipvs", "daemonset": {"declarePorts": True}}, "the next pod would wait for"),
        ({"mode": "ipvs", "podmonitor": {"enabled": True}}, "podmonitor.enabled finds nothing"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(values: Json, said: str) -> None:
    assert said in refusal(values)


def test_nothing_stale_is_served_where_that_is_switched_off() -> None:
    text = corefile(rendered({"config": {"serveStale": {"cluster": "", "elsewhere": ""}}}))
    assert "stale" not in text
    assert "    cache 30\n" in text


@pytest.mark.parametrize("mode", ["ipvs", "cilium"])
def test_modes_that_serve_no_cluster_address_need_none(mode: str) -> None:
    values = {"mode": mode, "injection": {"mode": "off"}}
    assert "10.96" not in corefile(rendered(values, looked_up=False))


def test_notes_say_what_to_do_next_in_each_mode() -> None:
    assert "pods need no change. It answers at 10.96.0.10" in notes({"mode": "nftables"})
    assert "nobody asks it yet. Pods have to name 169.254.20.10" in notes({"mode": "ipvs"})
    assert "localRedirectPolicy=true" in notes({"mode": "cilium"})
    assert "NAMESPACE node-local-dns-injection=enabled" in notes({"mode": "ipvs"})
    assert "Injection is by policy: all new pods" in notes(
        {"injection": {"mode": "policy", "scope": "all"}}
    )
    gap = nested("updateStrategy.rollingUpdate.maxUnavailable", 1)
    assert "updateStrategy has no surge" in notes(gap)


def test_helm_test_asks_at_every_address_the_name_given() -> None:
    [one] = asking_pod({})["spec"]["containers"]
    assert one["args"] == [
        "53",
        "kubernetes.default.svc.cluster.local",
        "169.254.20.10",
        "10.96.0.10",
    ]
    [one] = asking_pod({"test": {"name": "a.example"}, "mode": "cilium"})["spec"]["containers"]
    assert one["args"] == ["53", "a.example"]
    assert one["command"][2].strip() == (CHART / "files" / "resolve.py").read_text().strip()


@pytest.mark.parametrize("name", WHOLES)
def test_chart_is_linted_without_a_complaint(name: str) -> None:
    report = helm_python.lint(CHART, merged(CLUSTER_DNS, WHOLES[name]), strict=True)
    # 1 is information: that there is no icon.
    assert [found for found in report["messages"] if found["severity"] > 1] == []
    assert report["errors"] == []


def test_chart_and_image_have_nodecaches_version() -> None:
    metadata = helm_python.Chart.load(CHART).metadata
    assert metadata["version"] == metadata["appVersion"] == nodecache.__version__
    assert container(rendered({}))["image"] == f"nodecache:{nodecache.__version__}"


def test_every_template_is_rendered_by_some_case() -> None:
    whole = WHOLES["both families"] | WHOLES["cilium"]
    texts = [templates(whole), templates(WHOLES["both families"])]
    own = [
        name
        for name in texts[0]
        if not name.startswith(("injection/", "monitoring/p", "monitoring/d"))
    ]
    assert [name for name in own if not any(text[name].strip() for text in texts)] == []
