"""Nodes under load, a webhook, and a Prometheus that scrapes them from a namespace of its own."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.daemon.processes import Child
from tests.daemon.servers import make_certificate, program
from tests.monitoring.prometheus import Prometheus
from tests.netns.children import METRICS, NodeDaemon
from tests.netns.node import NodeBed, make_bed
from tests.netns.test_pod import ip
from tests.netns.topology import ADDRESSES, CLUSTER, LOCAL, UPSTREAM, inside, make_namespace

JOB = "node-local-dns"  # as the chart's ServiceMonitor makes it
_PROMETHEUS = "127.0.0.1:9090"
_HOOK = "127.0.0.1:8443"
_HOOK_METRICS = "127.0.0.1:9254"


def corefile(cache_s: int) -> str:
    """Returns one like the chart's: both blocks answer from memory while upstreams fail."""
    common = f"""    errors
    reload
    bind {" ".join(ADDRESSES)}
    forward . {UPSTREAM} {{
        force_tcp
    }}
    prometheus :{METRICS}
"""
    kept = (
        f"success 9984 {cache_s}\n        denial 9984 {cache_s}\n        serve_stale 1h immediate"
    )
    cache = f"    cache {{\n        {kept}\n    }}\n"
    return (
        f"cluster.local:53 {{\n{cache}{common}    health {LOCAL}:8080\n}}\n"
        f".:53 {{\n{cache}{common}}}\n"
    )


@dataclass
class Fleet:
    """Nodes that do not know each other, and who looks at them.

    Attributes:
        monitor: Name of the namespace that reaches them all.
        targets: Job -> address -> the name under which Prometheus knows it.
    """

    beds: list[NodeBed]
    monitor: str
    folder: Path
    stack: ExitStack
    targets: dict[str, dict[str, str]] = field(default_factory=dict)

    def serve(self, number: int, *flags: str, cache_s: int = 30) -> NodeDaemon:
        """Starts the daemon of a node, which Prometheus is to scrape."""
        return self.beds[number].start("-rules", "nftables", *flags, corefile=corefile(cache_s))

    def load(self, number: int, suffix: str, rate: int, pod: int = 0) -> None:
        """Has a pod of a node ask for names that end so."""
        self.beds[number].load(pod, "--server", CLUSTER, "--suffix", suffix, "--rate", str(rate))

    def start_webhook(self, days: int) -> None:
        """Starts a webhook with a certificate that ends in some days."""
        folder = self.folder / "webhook"
        folder.mkdir()
        make_certificate(folder, days)
        words = (sys.executable, "-m", "nodecache", "webhook", "-cluster-dns", CLUSTER)
        files = (
            *("-tls-cert-file", str(folder / "cert.pem")),
            *("-tls-private-key-file", str(folder / "key.pem")),
        )
        listen = (
            *("-listen-address", _HOOK),
            *("-metrics-listen-address", _HOOK_METRICS),
        )
        self._start([*words, *listen, *files], folder / "log")
        self.targets["nodecache-webhook"] = {_HOOK_METRICS: "webhook"}

    def review(self, dns_policy: str) -> None:
        """Asks the webhook about a pod as an API server would; bears with one that is not there."""
        pod = {"metadata": {"name": "web"}, "spec": {"dnsPolicy": dns_policy, "containers": []}}
        kinds = {"kind": "Pod", "resource": "pods"}
        review = {
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "operation": "CREATE", "namespace": "app", "object": pod,
                **{key: {"group": "", "version": "v1", key: what} for key, what in kinds.items()},
            },
        }  # fmt: skip
        request = urllib.request.Request(
            f"https://{_HOOK}/inject", json.dumps(review).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        with inside(self.monitor), contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=5, context=unchecked).close()

    def _start(self, command: list[str], log: Path) -> None:
        within = [program("ip"), "netns", "exec", self.monitor]
        child = Child([*within, *command], log)
        self.stack.callback(child.kill)

    def watch(self, rules: str = "", interval: str = "1s") -> Prometheus:
        """Starts Prometheus; who asks it has to be ``inside`` the namespace of the monitor."""
        within = [program("ip"), "netns", "exec", self.monitor]
        prometheus = Prometheus(
            self.folder / "prometheus", _PROMETHEUS, self.targets, rules, within, interval
        )
        self.stack.callback(prometheus.kill)
        with inside(self.monitor):
            prometheus.wait_until_ready()
        return prometheus


@contextlib.contextmanager
def fleet_in(folder: Path, nodes: int) -> Iterator[Fleet]:
    """Nodes that are gone at the end of the block; skips the test where there can be none."""
    program("prometheus")
    with ExitStack() as stack:
        beds = []
        for number in range(nodes):
            (folder / f"node{number + 1}").mkdir()
            beds.append(make_bed(stack, folder / f"node{number + 1}"))
        monitor = f"nc-monitor{os.getpid()}"
        make_namespace(stack, monitor)
        fleet = Fleet(beds, monitor, folder, stack, {JOB: {}})
        for number, bed in enumerate(beds):
            fleet.targets[JOB][f"{_join(monitor, bed.node, number)}:{METRICS}"] = (
                f"node{number + 1}"
            )
        yield fleet


def _join(monitor: str, node: str, number: int) -> str:
    """Joins a node to the monitor; returns its address there, of TEST-NET-1."""
    device, ours, theirs = f"node{number}", 4 * number + 1, 4 * number + 2
    ip("-n", node, "link", "add", "monitor", "type", "veth", "peer", "name", device,
       "netns", monitor)  # fmt: skip
    for where, link, host in ((monitor, device, ours), (node, "monitor", theirs)):
        ip("-n", where, "address", "add", f"192.0.2.{host}/30", "dev", link)
        ip("-n", where, "link", "set", link, "up")
    return f"192.0.2.{theirs}"
