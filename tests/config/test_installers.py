"""Shapes that charts, installers and clouds write, each of which node-cache takes: no fault here.

The shapes are those of the manifest of Kubernetes, Kubespray, KubeOne, kOps, Rancher, Gardener,
Deckhouse, of helm charts with a switch for each option, and of the clouds' own node caches.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodecache.config.flags import Flags
from nodecache.config.model import Config

FLAGS = Flags(
    localip=("169.254.20.10", "10.96.0.10"),
    basecorefile="/etc/coredns/Corefile.base",
    conf="/etc/Corefile",
    upstreamsvc="kube-dns-upstream",
)
ENVIRON = {"KUBE_DNS_UPSTREAM_SERVICE_HOST": "10.96.7.7"}

# Name -> lines of one server block beside ``bind`` and ``forward``, and how many warnings.
LINES = {
    "empty braces": ("cache 30 {\n}\nerrors {\n}", 0),
    "switches leave blanks": (
        "cache  {\nsuccess 9984  \ndenial 9984  5 \nprefetch 3  1m  20% \n}",
        0,
    ),
    "values with comments": (
        "cache {\nsuccess 39936 30 5 # entries, most, least\ndenial 9984 5 5 # x\n}",
        0,
    ),
    "a name that is no format": ("log . combined {\nclass denial error\n}", 0),
    "log of errors": ("log {\nclass error\n}", 0),
    "quoted duration": ('hosts {\n10.0.0.1 a.example\nttl 60\nreload "30s"\nfallthrough\n}', 0),
    "hosts file of an add-on": ("hosts /etc/coredns/hosts {\nfallthrough\n}", 1),
    "rewrite without answer": ("rewrite name www.a.example www.a.svc.cluster.local", 0),
    "rewrite in braces": (
        (
            "rewrite stop {\nname regex (.*)\\.a\\.example {1}.b.example\n"
            "answer name (.*)\\.b\\.example {1}.a.example\n}"
        ),
        0,
    ),
    "no IPv6": ("template IN AAAA . {\nrcode NOERROR\n}", 0),
    "no HINFO": ("template ANY HINFO . {\nrcode NOTIMP\n}", 0),
    "long search lists": (
        (
            'template ANY ANY cloud.example {\nmatch "^(?:[^.]+\\.){4,}cloud\\.example\\.$"\n'
            "rcode NXDOMAIN\nfallthrough\n}"
        ),
        0,
    ),
    "patterns of errors": (
        (
            'errors {\nconsolidate 10s ".* i/o timeout$"\n'
            'consolidate 5m ".* no next plugin found$" warning\n}'
        ),
        0,
    ),
    "stale": ("cache 3600 {\nsuccess 9984\ndenial 9984\nserve_stale 3600s verify\n}", 0),
    "metrics of one address": ("prometheus {$MY_HOST_IP}:9253", 1),
    "health everywhere": ("health", 0),
    "health of all local addresses": ("health __PILLAR__LOCAL__DNS__:8080", 0),
    "overrides": ("import custom/*.override", 1),
    "no denials by capacity": ("cache {\nsuccess 9984 30\ndenial 0\n}", 1),
    "metadata for the log": ("metadata\nlog", 1),
}
FORWARDS = {
    "one expire too many": ("forward . 10.0.0.1 {\nexpire 10s\nexpire 5s\n}", 1),
    "both protocols": ("forward . __PILLAR__CLUSTER__DNS__ {\nforce_tcp\nprefer_udp\n}", 0),
    "encrypted": (
        "forward . tls://1.1.1.1 tls://1.0.0.1 {\ntls\ntls_servername dns.example\n}",
        0,
    ),
    "excepted": ("forward . /etc/resolv.conf {\nexcept cluster.local 10.0.0.0/8\n}", 0),
    "two ways": ("forward a.example 10.0.0.1\nforward . 10.0.0.2 {\npolicy sequential\n}", 0),
}
# Name -> a whole Corefile, the zones that it serves, and how many warnings.
WHOLE = {
    "closing braces indented": (". {\n    errors\n    }\na.example {\n    errors\n    }\n", 2, 0),
    "external zones with a port": ("a.example:53 b.example:1053 {\n    errors\n}\n", 2, 0),
    "an external zone over HTTPS": (
        "a.example {\n    errors\n}\nhttps://b.example:4453 {\n    cache 0\n}\n", 1, 1,
    ),
    "the last brace lost": (
        "a.example {\n    errors\n    forward . 10.0.0.1 {\n        force_tcp\n    }\n", 1, 1,
    ),
    "servers imported": (". {\n    errors\n}\nimport custom/*.server\n", 1, 1),
    "snippets": ("(common) {\n    errors\n    cache 30\n}\n. {\n    import common\n}\n", 1, 0),
    "a block for checks": ("health.example {\n    bind 127.0.0.1\n    whoami\n}\n", 1, 0),
}  # fmt: skip


@pytest.fixture
def read(configure: Callable[..., Config]) -> Callable[[str], Config]:
    """The text of the template -> what it comes to; any fault fails the test."""

    def read_text(text: str) -> Config:
        files = {FLAGS.basecorefile: text, "/etc/resolv.conf": "nameserver 10.0.0.9\n"}
        return configure("", files, ENVIRON, FLAGS)

    return read_text


@pytest.mark.parametrize("name", [*LINES, *FORWARDS])
def test_lines_of_installers_are_taken(name: str, read: Callable[[str], Config]) -> None:
    lines, warnings = {**LINES, **FORWARDS}[name]
    forward = "" if name in FORWARDS else "forward . __PILLAR__UPSTREAM__SERVERS__\n"
    bind = "bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__"
    config = read(f". {{\nreload\nloop\n{bind}\n{lines}\n{forward}}}\n")
    (block,) = config.blocks
    assert block.bind == FLAGS.localip
    assert all(policy.upstreams for policy in block.forwards)
    assert len(config.warnings) == warnings, config.warnings


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_of_installers_are_taken(name: str, read: Callable[[str], Config]) -> None:
    text, zones, warnings = WHOLE[name]
    config = read(text)
    assert sum(len(block.zones) for block in config.blocks) == zones
    assert len(config.warnings) == warnings, config.warnings
