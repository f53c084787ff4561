"""The stock manifest's template, flags and ConfigMaps, as a node's user has them, unchanged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon.processes import Daemon, faultless, wait_until
from tests.daemon.servers import program, start_knot
from tests.daemon.zone import ORIGIN
from tests.netns.test_pod import (
    CLUSTER_IP,
    LOCAL_IP,
    NETNS_FILES,
    Machine,
    execute,
    ip,
    make_files,
    make_namespaces,
)

pytestmark = [pytest.mark.root, pytest.mark.netns]

CLUSTER_DNS = "10.96.0.53"
STUB_DNS = "10.96.0.54"
SERVICE = "KUBE_DNS_UPSTREAM_SERVICE_HOST"


def template() -> str:
    """What the ConfigMap of the stock manifest holds before any sed."""
    every = (
        "    errors\n    reload\n    loop\n"
        "    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n"
    )
    to_cluster = "    forward . __PILLAR__CLUSTER__DNS__ {\n        force_tcp\n    }\n"
    end = "    prometheus :9253\n"
    denial = "    cache {\n        success 9984 30\n        denial 9984 5\n    }\n"
    blocks = {
        "__PILLAR__DNS__DOMAIN__": denial
        + every
        + to_cluster
        + end
        + "    health __PILLAR__LOCAL__DNS__:8080\n",
        "in-addr.arpa": "    cache 30\n" + every + to_cluster + end,
        "ip6.arpa": "    cache 30\n" + every + to_cluster + end,
        ".": "    cache 30\n" + every + "    forward . __PILLAR__UPSTREAM__SERVERS__\n" + end,
    }
    return "".join(f"{zone}:53 {{\n{body}}}\n" for zone, body in blocks.items())


RECIPES = {
    "iptables": {
        "__PILLAR__LOCAL__DNS__": LOCAL_IP,
        "__PILLAR__DNS__DOMAIN__": "cluster.local",
        "__PILLAR__DNS__SERVER__": CLUSTER_IP,
    },
    "ipvs": {
        "__PILLAR__LOCAL__DNS__": LOCAL_IP,
        "__PILLAR__DNS__DOMAIN__": "cluster.local",
        ",__PILLAR__DNS__SERVER__": "",
        "__PILLAR__DNS__SERVER__": "",
        "__PILLAR__CLUSTER__DNS__": CLUSTER_DNS,
    },
}


def prepared(recipe: str, text: str) -> str:
    """Does what the documentation's sed does."""
    for variable, value in RECIPES[recipe].items():
        text = text.replace(variable, value)
    return text


@dataclass
class Node:
    """The machine, and the folders that its ConfigMaps are mounted in."""

    machine: Machine
    daemon: Daemon
    kube_dns: Path
    corefile: Path

    def publish(self, **keys: str) -> None:
        """Gives the kube-dns ConfigMap these keys, as kubelet does."""
        version = f"..{len(list(self.kube_dns.iterdir()))}"
        (self.kube_dns / version).mkdir(parents=True)
        for key, value in keys.items():
            (self.kube_dns / version / key).write_text(value)
            if not (self.kube_dns / key).is_symlink():
                (self.kube_dns / key).symlink_to(f"..data/{key}")
        (self.kube_dns / "..tmp").symlink_to(version)
        (self.kube_dns / "..tmp").rename(self.kube_dns / "..data")


def start(stack: ExitStack, folder: Path, recipe: str, environ: list[str]) -> Node:
    node, pod = make_namespaces(stack)
    make_files(stack, folder, pod)
    make_files(stack, folder, node)
    for address in (CLUSTER_DNS, STUB_DNS):
        ip("-n", node, "address", "add", f"{address}/32", "dev", "lo")
    (NETNS_FILES / node / "resolv.conf").write_text(
        f"nameserver {LOCAL_IP}\nnameserver {STUB_DNS}\n"
    )
    within = [program("ip"), "netns", "exec", node]
    for address in (CLUSTER_DNS, STUB_DNS):
        (folder / address).mkdir()
        stack.callback(start_knot(folder / address, address, 53, within).stop)
    corefile = folder / "Corefile.base"
    arguments = "__PILLAR__LOCAL__DNS__,__PILLAR__DNS__SERVER__"
    daemon = Daemon(
        folder,
        prepared(recipe, template()),
        host=LOCAL_IP,
        port=53,
        metrics_port=9353,
        flags=[
            *("-localip", prepared(recipe, arguments)),
            *("-conf", str(folder / "Corefile")),
            *("-upstreamsvc", "kube-dns-upstream"),
            *("-kubednscm", str(folder / "kube-dns")),
        ],
        within=[*within, "env", *environ],
    )
    corefile = Path(daemon.command[daemon.command.index("-basecorefile") + 1])
    stack.enter_context(faultless(daemon))
    daemon.wait_until_serving()
    machine = Machine(node, pod, daemon)
    machine.resolv_conf(f"nameserver {LOCAL_IP}\n")
    (folder / "kube-dns").mkdir()
    return Node(machine, daemon, folder / "kube-dns", corefile)


@pytest.fixture(params=sorted(RECIPES))
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with ExitStack() as stack:
        yield start(stack, tmp_path, request.param, [f"{SERVICE}={CLUSTER_DNS}"])


def test_stock_template_serves_cluster_and_other_names(node: Node) -> None:
    machine = node.machine
    assert machine.addresses("web.prod.svc.cluster.local") == ["10.96.1.2"]
    assert machine.addresses(f"plain.{ORIGIN}") == ["192.0.2.1"]
    written = (node.kube_dns.parent / "Corefile").read_text()
    assert "__PILLAR__" not in written
    assert f"forward . {CLUSTER_DNS}" in written
    assert "forward . /etc/resolv.conf" in written


def test_probes_and_scrapes_find_their_ports(node: Node) -> None:
    fetch = [
        sys.executable,
        "-c",
        "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())",
    ]
    inside = node.machine.node
    health = f"http://{LOCAL_IP}:8080/health"
    wait_until(lambda: execute(inside, *fetch, health).strip() == "OK", node.daemon.log)
    node.machine.addresses("web.prod.svc.cluster.local")
    page = execute(inside, *fetch, f"http://{LOCAL_IP}:9253/metrics")
    assert 'coredns_cache_requests_total{server="dns://169.254.20.10:53"' in page
    assert "coredns_nodecache_setup_errors_total" not in page
    setup = execute(inside, *fetch, f"http://{LOCAL_IP}:9353/metrics")
    assert "coredns_nodecache_setup_errors_total" in setup


FETCH_HEALTH = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1]).read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


def test_health_says_which_address_does_not_answer(tmp_path: Path) -> None:
    with ExitStack() as stack:
        node = start(stack, tmp_path, "iptables", [f"{SERVICE}={CLUSTER_DNS}"])
        inside = node.machine.node

        def health() -> str:
            url = f"http://{LOCAL_IP}:8080/health"
            return execute(inside, sys.executable, "-c", FETCH_HEALTH, url).strip()

        wait_until(lambda: health() == "OK", health)
        ip("-n", inside, "address", "del", f"{CLUSTER_IP}/32", "dev", "lo")
        wait_until(lambda: health().startswith(f"503 {CLUSTER_IP}:53 over "), health)
        assert node.machine.addresses("web.prod.svc.cluster.local") == ["10.96.1.2"]
        ip("-n", inside, "address", "add", f"{CLUSTER_IP}/32", "dev", "lo")
        wait_until(lambda: health() == "OK", health)


def test_stub_domain_of_the_configmap_is_served_within_seconds(node: Node) -> None:
    node.publish(stubDomains=f'{{"{ORIGIN}": ["{STUB_DNS}"]}}')
    wait_until(lambda: "configuration loaded" in node.daemon.log(), node.daemon.log)
    assert node.machine.addresses(f"plain.{ORIGIN}") == ["192.0.2.1"]
    assert f"{ORIGIN}. -> udp://{STUB_DNS}:53" in node.daemon.log()
    node.publish(stubDomains="{broken", upstreamNameservers=f'["{STUB_DNS}"]')
    wait_until(lambda: "the running one goes on" in node.daemon.log(), node.daemon.log)
    assert node.machine.addresses(f"dual.{ORIGIN}", "ahostsv4") == ["192.0.2.2"]


def test_service_that_the_environment_lacks_is_found_by_asking(tmp_path: Path) -> None:
    with ExitStack() as stack:
        node = start(stack, tmp_path, "iptables", [f"KUBE_DNS_SERVICE_HOST={CLUSTER_DNS}"])
        assert SERVICE in node.daemon.log()
        assert "<nil>" not in (tmp_path / "Corefile").read_text()
        assert node.machine.addresses(f"plain.{ORIGIN}") == ["192.0.2.1"]
        wait_until(
            lambda: node.machine.addresses("web.prod.svc.cluster.local") == ["10.96.1.2"],
            node.daemon.log,
        )
        assert f"forward . {CLUSTER_DNS}" in (tmp_path / "Corefile").read_text()
