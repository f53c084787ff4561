"""The ways of a node to nodecache, with it, and out again, as its pods see them.

Each pod resolves by glibc with the resolv.conf that a kubelet writes for it. A failed look-up is
an error that a program sees; a slow one waited for a time-out of its resolv.conf: a lost query.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon.processes import Child, wait_until
from tests.daemon.servers import program
from tests.kept import Kept
from tests.netlife.kube_proxy import SERVICE
from tests.netlife.test_node_life import Node, bed_of_two, node_of
from tests.netns.children import METRICS
from tests.netns.node import By, NodeBed, figure
from tests.netns.topology import ADDRESSES, CLUSTER, LOCAL

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

_FOLDER = Path(__file__).parent
_RATE, _AHEAD_S, _LAST_S, _MOST_SHOWN = 40, 0.7, 40.0, 60
_MOUNTS = (
    'for each in resolv nsswitch; do mount --bind "$1" /etc/$each.conf; shift; done; exec "$@"'
)
_SEARCH = "search prod.svc.cluster.local svc.cluster.local cluster.local\n"

KUBELET = f"{_SEARCH}nameserver {CLUSTER}\noptions ndots:5\n"
# kubelet --cluster-dns=LOCAL, and with the cluster's own behind it.
KUBELET_LOCAL = f"{_SEARCH}nameserver {LOCAL}\noptions ndots:5\n"
KUBELET_BOTH = f"{_SEARCH}nameserver {LOCAL}\nnameserver {CLUSTER}\noptions ndots:5\n"
# What ACK's webhook, ours, and a manual dnsConfig come to: the kubelet writes them alike.
INJECTED = (
    f"{_SEARCH}nameserver {LOCAL}\nnameserver {CLUSTER}\noptions ndots:3 attempts:2 timeout:1\n"
)
PODS = {
    "as ever": KUBELET,
    "kubelet, local": KUBELET_LOCAL,
    "kubelet, local first": KUBELET_BOTH,
    "dnsConfig": INJECTED,
}
# What ACK's chart has. -rundir is in the container, and goes with it: nothing is handed over.
ACK_FLAGS = (
    *("-localip", LOCAL, "-upstreamsvc", "node-local-upstream", "-setupiptables=true"),
    *("-skipteardown=true", "-forwardonexit=false", "-basecorefile", "/none"),
)
ACK_COREFILE = f""".:53 {{
    errors
    cache {{
        success 9984 30
        denial 9984 5
    }}
    reload
    loop
    bind {LOCAL}
    forward . {SERVICE} {{
        force_tcp
    }}
    prometheus :{METRICS}
    health {LOCAL}:8081
}}
"""


@dataclass(frozen=True, slots=True)
class Met:
    """What one pod has met, as look_ups.py says."""

    asked: int
    failed: list[tuple[float, str, str]]
    slow: list[tuple[float, str, float]]
    longest_s: float

    def line(self, who: str) -> str:
        return (
            f"{who:22} {self.asked:5} look-ups, {len(self.failed)} failed, {len(self.slow)} slow,"
            f" the longest {self.longest_s * 1e3:.0f} ms"
        )


class Pods:
    """Pods of one node that resolve names all the time."""

    def __init__(self, bed: NodeBed, pods: dict[str, str], seconds: float) -> None:
        self._began = time.monotonic() + _AHEAD_S
        self._asking: dict[str, Child] = {}
        self._marks: list[str] = []
        (bed.folder / "nsswitch.conf").write_text("hosts: dns\n")
        for number, (who, resolv_conf) in enumerate(pods.items()):
            path = bed.folder / f"resolv{number}.conf"
            path.write_text(resolv_conf)
            # ip netns exec has made a mount namespace: nothing of this is seen outside.
            within = (program("ip"), "netns", "exec", bed.pods[number % 2])
            mounts = ("sh", "-c", _MOUNTS, "sh", str(path), str(bed.folder / "nsswitch.conf"))
            words = ("--rate", str(_RATE), "--seconds", str(seconds), "--start", str(self._began))
            script = (sys.executable, str(_FOLDER / "look_ups.py"), *words)
            self._asking[who] = Child(
                [*within, *mounts, *script, "--label", f"p{number}"],
                bed.folder / f"pod{number}-{self._began:.3f}",
            )

    def at(self, seconds: float, what: str) -> None:
        """Waits until so long after the beginning, when ``what`` is going to happen."""
        time.sleep(max(0.0, self._began + seconds - time.monotonic()))
        self.mark(what)

    def mark(self, what: str) -> None:
        self._marks.append(f"{time.monotonic() - self._began:7.3f} {what}")

    def finish(self) -> dict[str, Met]:
        """Waits until all have asked their last, and returns what each has met."""
        found = {}
        for who, child in self._asking.items():
            assert child.process.wait(_LAST_S) == 0, child.log()
            found[who] = Met(**json.loads(child.log().splitlines()[-1]))
        return found

    def end(self) -> None:
        """Leaves nobody behind, whatever happened."""
        for child in self._asking.values():
            if child.process.poll() is None:
                child.kill()

    def tell(self, what: str, met: dict[str, Met]) -> str:
        """Prints the figures, and returns them with what was slow or failed."""
        lines = [each.line(who) for who, each in met.items()]
        bad = [f"{who}: {each}" for who, m in met.items() for each in (*m.failed, *m.slow)]
        told = "\n".join([*lines, *self._marks, *bad[:_MOST_SHOWN]])
        figure(f"{what}\n{told}")
        return told


@pytest.fixture(scope="module")
def beds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept[NodeBed]]:
    with Kept(lambda: bed_of_two(tmp_path_factory.mktemp("ways"))) as kept:
        yield kept


@pytest.fixture
def node(beds: Kept[NodeBed], request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node where nothing is installed."""
    bed = beds.get(request)
    with node_of(bed) as node:
        words = ("cleanup", "-localip", ",".join(ADDRESSES), "-rundir", str(bed.rundir))
        bed.run(sys.executable, "-m", "nodecache", *words)
        yield node


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start_stock(node: Node, stack: ExitStack, *words: str) -> Child:
    """Starts a node-cache; returns when it serves."""
    command = [program("ip"), "netns", "exec", node.bed.node, sys.executable]
    number = next(node.bed.numbers)
    log = node.bed.folder / f"stock{number}.log"
    stock = Child([*command, str(_FOLDER / "stock.py"), *words], log)
    stack.callback(stock.stop)
    stock.wait_for_log("serving")
    return stock


def resolve(node: Node, stack: ExitStack, pods: dict[str, str], seconds: float) -> Pods:
    """Starts pods that resolve for so long; they end with the test."""
    asking = Pods(node.bed, pods, seconds)
    stack.callback(asking.end)
    return asking


def asked_of(node: Node, servers: Sequence[str]) -> list[By]:
    return [node.bed.answerer(server, 5) for server in servers]


def test_pods_notice_nothing_on_the_whole_way(node: Node, stack: ExitStack) -> None:
    """Beside a NodeLocal DNSCache that goes later, upgraded, and uninstalled."""
    stock = start_stock(node, stack, *ADDRESSES)
    pods = resolve(node, stack, PODS, 14)
    pods.at(1, "nodecache is started beside node-cache")
    first = node.serve()
    pods.at(4, "node-cache is deleted, with interface and rules")
    stock.stop()
    pods.mark("node-cache has gone")
    wait_until(lambda: len(node.bed.addresses()) == len(ADDRESSES), first.tail)
    pods.at(7, "the next nodecache is started beside this one")
    second = node.succeed()
    node.see_off(first, "")
    pods.at(10, "nodecache is deleted")
    second.process.terminate()
    node.see_off(second, "")
    assert asked_of(node, ADDRESSES) == [By.CLUSTER] * 4
    met = pods.finish()
    told = pods.tell("beside node-cache, alone, upgraded, uninstalled", met)
    assert min(each.asked for each in met.values()) > 14 * _RATE / 4, told
    assert not any(each.failed for each in met.values()), told
    assert sum(len(each.slow) for each in met.values()) <= 10, told


def test_in_place_of_node_cache_only_pods_that_name_the_local_address_wait(
    node: Node, stack: ExitStack
) -> None:
    """node-cache ends first, as where only the image line was changed."""
    stock = start_stock(node, stack, *ADDRESSES)
    pods = resolve(node, stack, PODS, 8)
    pods.at(2, "node-cache is deleted, with interface and rules")
    stock.stop()
    pods.mark("node-cache has gone")
    node.serve()
    pods.mark("nodecache serves")
    met = pods.finish()
    told = pods.tell("in place of node-cache, which ended first", met)
    assert not any(each.failed for each in met.values()), told
    assert len(met["as ever"].slow) <= 5, told


def test_pods_notice_nothing_of_the_way_back_to_node_cache(node: Node, stack: ExitStack) -> None:
    """Our rules stay when nodecache is uninstalled; they go once node-cache serves."""
    daemon = node.serve("-leavewait", "1s")
    pods = resolve(node, stack, PODS, 10)
    pods.at(2, "nodecache is deleted")
    daemon.process.terminate()
    node.see_off(daemon, "it has gone")
    start_stock(node, stack, *ADDRESSES)
    pods.mark("node-cache serves")
    assert asked_of(node, (CLUSTER, LOCAL)) == [By.NODE, By.CLUSTER]
    pods.at(6, "our table is removed")
    node.bed.run("nft", "delete", "table", "inet", "nodecache")
    assert asked_of(node, ADDRESSES) == [By.NODE] * 4
    met = pods.finish()
    told = pods.tell("back to node-cache", met)
    assert not any(each.failed for each in met.values()), told
    assert sum(len(each.slow) for each in met.values()) <= 10, told


def test_image_of_acks_chart_is_replaced_upgraded_and_put_back(
    node: Node, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pod ends before the next one starts, and what ACK's chart says stays unchanged."""
    monkeypatch.setenv("KUBE_DNS_SERVICE_HOST", CLUSTER)
    with_init_container = "echo 6160 > /proc/sys/net/ipv4/icmp_ratemask"
    node.bed.run("sh", "-c", with_init_container)
    stock = start_stock(node, stack, "--skipteardown", LOCAL)
    pods = resolve(node, stack, {"as ever": KUBELET, "dnsConfig": INJECTED}, 14)
    pods.at(2, "the image is changed")
    stock.stop()
    pods.mark("node-cache has gone")
    for number in range(2):
        daemon = node.succeed(*ACK_FLAGS, "-leavewait", "1s", corefile_text=ACK_COREFILE)
        node.bed.wait_for(By.NODE, LOCAL, daemon)
        pods.mark("nodecache serves")
        assert asked_of(node, [CLUSTER]) == [By.CLUSTER]
        wait_until(lambda: node.bed.get(f"http://{LOCAL}:8081/health") == "OK", daemon.tail)
        pods.at(5 + 3 * number, "it is deleted")
        daemon.process.terminate()
        node.see_off(daemon, "it has gone")
        assert asked_of(node, (LOCAL, CLUSTER)) == [By.CLUSTER] * 2
    start_stock(node, stack, "--skipteardown", LOCAL)
    pods.mark("node-cache serves")
    assert asked_of(node, (LOCAL, CLUSTER)) == [By.CLUSTER] * 2
    node.bed.run("nft", "delete", "table", "inet", "nodecache")
    assert asked_of(node, (LOCAL, CLUSTER)) == [By.NODE, By.CLUSTER]
    met = pods.finish()
    told = pods.tell("ACK's chart: another image, its upgrade, and back", met)
    assert not any(each.failed for each in met.values()), told
    assert sum(len(each.slow) for each in met.values()) <= 10, told


def test_pod_that_is_deleted_as_it_starts_leaves_no_rules_of_node_cache(
    node: Node, stack: ExitStack
) -> None:
    """They keep queries from being tracked, and so would lead them to nobody."""
    start_stock(node, stack, "--skipteardown", *ADDRESSES).stop()
    daemon = node.succeed()
    node.bed.wait_for(By.NODE, LOCAL, daemon)
    daemon.process.terminate()
    node.see_off(daemon, "")
    assert asked_of(node, ADDRESSES) == [By.CLUSTER] * 4
