from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from nodecache.config.model import Address
from nodecache.webhook.flags import (
    TABLE,
    WebhookFlags,
    help_text,
    injection_of,
    parse_webhook_flags,
)
from nodecache.webhook.model import Injection

# What kubelet gives to a pod in kube-system.
POD = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBE_DNS_SERVICE_HOST": "10.96.0.10",
    "POD_NAMESPACE": "kube-system",
}
# The args of the Deployment in ACK's chart.
ACK = [
    *("--include-kube-dns", "--ndots=3", "--attempts=2", "--timeout=1"),
    *("--nameserver", "169.254.20.10", "--cluster-domain", "cluster.local"),
    *("--logtostderr", "-v=4", "2>&1"),
]


def parse(words: Sequence[str], environ: dict[str, str] | None = None) -> WebhookFlags:
    flags, faults = parse_webhook_flags(words, POD if environ is None else environ)
    assert faults == []
    return flags


def faults_of(words: str, environ: dict[str, str] | None = None) -> list[str]:
    _, faults = parse_webhook_flags(words.split(), POD if environ is None else environ)
    return [fault.text for fault in faults]


def test_the_words_of_acks_chart_mean_what_they_meant() -> None:
    flags = parse(ACK)
    assert injection_of(flags) == Injection(("169.254.20.10",), ("10.96.0.10",))
    assert flags.listen.port == 8443
    folder = "/var/run/node-local-dns-admission-controller"
    assert (flags.certificate_file, flags.key_file) == (f"{folder}/tls.crt", f"{folder}/tls.key")


def test_no_words_mean_the_same_in_a_pod_of_kube_system() -> None:
    assert parse([]) == parse(ACK[:1])


def test_each_setting_of_the_injection_has_its_flag() -> None:
    words = (
        "-nameserver 169.254.20.10,fd00::a -cluster-dns 10.96.0.10,fd00::10"
        " -cluster-domain K8S.Corp. -searches node.example,corp.example"
        " -ndots 5 -attempts 3 -timeout 4 -excluded-namespaces arms-prom,kube-system"
    )
    flags = parse(words.split(), {"POD_NAMESPACE": "dns"})
    assert injection_of(flags) == Injection(
        local=("169.254.20.10", "fd00::a"),
        cluster=("10.96.0.10", "fd00::10"),
        domain="k8s.corp",
        searches=("node.example", "corp.example"),
        ndots=5,
        attempts=3,
        timeout=4,
        excluded=frozenset({"arms-prom", "kube-system", "dns"}),
    )


def test_the_namespace_of_the_webhook_is_excluded_beside_the_usual_ones() -> None:
    flags = parse([], {**POD, "POD_NAMESPACE": "dns"})
    assert injection_of(flags).excluded == {"kube-system", "kube-public", "kube-node-lease", "dns"}


def test_the_clusters_dns_comes_from_a_flag_before_the_environment() -> None:
    assert parse(["-cluster-dns=10.0.0.10"]).cluster_dns == ("10.0.0.10",)
    assert parse([]).cluster_dns == ("10.96.0.10",)


@pytest.mark.parametrize("environ", [{}, {"KUBE_DNS_SERVICE_HOST": "kube-dns"}])
def test_without_either_the_fault_says_what_to_write(environ: dict[str, str]) -> None:
    (fault,) = faults_of("", environ)
    assert "add for instance -cluster-dns 10.96.0.10, or -include-kube-dns=false" in fault


def test_the_clusters_dns_may_be_left_out() -> None:
    flags = parse(["-include-kube-dns=false", "-cluster-dns", "10.96.0.10"], {})
    assert injection_of(flags).nameservers == ("169.254.20.10",)


def test_a_secret_needs_a_namespace() -> None:
    words = ["-cluster-dns", "10.96.0.10", "-tls-secret", "nodecache-webhook-tls"]
    assert parse(words).namespace == "kube-system"
    assert parse([*words, "-namespace", "dns"], {}).namespace == "dns"
    (fault,) = faults_of(" ".join(words), {})
    assert fault == "-tls-secret needs -namespace, or POD_NAMESPACE in the environment"


def test_a_pod_has_time_to_leave_and_a_workstation_has_none() -> None:
    assert parse([]).leave_wait_s == 5
    assert parse(["-include-kube-dns=false"], {}).leave_wait_s == 0
    assert parse(["-leavewait", "20s"]).leave_wait_s == 20


def test_the_page_for_metrics_may_be_elsewhere_or_nowhere() -> None:
    assert parse([]).metrics_listen == Address("", 9253)
    assert parse(["-metrics-listen-address", ""]).metrics_listen is None


@pytest.mark.parametrize(
    "words",
    [
        "-nameserver kube-dns",
        "-nameserver fe80::1%eth0",
        "-nameserver 1.1.1.1,2.2.2.2,3.3.3.3,4.4.4.4",
        "-nameserver ,",
        "-cluster-domain a..b",
        "-cluster-domain .",
        "-cluster-domain a\\032b",
        "-searches " + ",".join(f"a{n}.example" for n in range(30)),
        "-ndots 16",
        "-attempts 0",
        "-timeout 1s",
        "-excluded-namespaces Kube_System",
        "-tls-secret " + "a" * 254,
        "-service ../x",
        "-listen-address 8443",
        "-log-format xml",
        "-localip 169.254.20.10",
        "pods",
    ],
)
def test_nonsense_is_one_fault_that_names_its_flag(words: str) -> None:
    (fault,) = faults_of(words)
    assert words.split(maxsplit=1)[0] in fault


def test_all_faults_come_together() -> None:
    assert len(faults_of("-ndots x -attempts y -nameservers z", {})) == 4


def test_a_slip_gets_a_hint() -> None:
    assert faults_of("-nameservers 1.1.1.1") == [
        "unknown flag '-nameservers'; did you mean '-nameserver'?"
    ]


def test_help_needs_nothing_and_names_every_flag() -> None:
    assert parse(["-help"], {}).help
    names = set(re.findall(r"^  -([a-z-]+)", help_text(), re.MULTILINE))
    assert names == {flag.names[0] for rows in TABLE.values() for flag in rows}


def test_defaults_in_help_are_those_in_force() -> None:
    defaults = {flag.field: flag for rows in TABLE.values() for flag in rows}
    for field in ("cluster_domain", "ndots", "attempts", "timeout", "certificate_file", "key_file"):
        flag = defaults[field]
        assert flag.parse(flag.default) == getattr(WebhookFlags(), field)
    for field in ("nameservers", "listen", "metrics_listen", "service", "configuration"):
        flag = defaults[field]
        assert flag.parse(flag.default) == getattr(WebhookFlags(), field)
