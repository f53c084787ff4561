"""Rules in the kernel, every backend: a pod, a node, and what connection tracking saw of them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nodecache.config.node import Backend, NodePlan
from tests.daemon.processes import PATIENCE_S, Child, wait_until
from tests.netns.test_pod import ip

pytestmark = [pytest.mark.root, pytest.mark.netns]

NODE, POD = (f"nc-rules{os.getpid()}{side}" for side in ("n", "p"))
LOCAL, CLUSTER, LOCAL6 = "169.254.20.10", "10.96.0.10", "fd00:20::10"
ADDRESSES = (LOCAL, CLUSTER, LOCAL6)
BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")
VARIANTS = ("nft", "legacy")
ROOT = Path(__file__).parents[2]

ACT = """
import dataclasses, json, sys
from nodecache.errors import NodeError
from nodecache.host import rules
from nodecache.config.node import NodePlan
plan = NodePlan.from_json(sys.argv[2])
limits = [float(word) for word in sys.argv[3:]]
try:
    result = getattr(rules, sys.argv[1])(plan, *limits)
    if dataclasses.is_dataclass(result):
        result = dataclasses.asdict(result)
        result["backend"] = result["backend"] and result["backend"].value
except NodeError as error:
    result = {"error": str(error), "kind": error.kind}
print(json.dumps(result))
"""

ECHO = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        server = socket.socket(family, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, 53))
        if kind == socket.SOCK_STREAM:
            server.listen()
        selector.register(server, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        server = key.fileobj
        if server.type == socket.SOCK_STREAM:
            connection, _ = server.accept()
            connection.sendall(b"echo")
            connection.close()
        else:
            _, peer = server.recvfrom(512)
            server.sendto(b"echo", peer)
"""

ASK = """
import socket, sys
address, patience = sys.argv[1], float(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
for name, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
    with socket.socket(family, kind) as client:
        client.settimeout(patience)
        try:
            client.connect((address, 53))
            if name == "udp":
                client.send(b"query")
            print(name, client.recv(512).decode())
        except OSError:
            print(name, "silence")
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A node and its pod, with their own xtables lock."""

    lock: Path

    def run(self, *command: str, where: str = NODE, stdin: str = "") -> str:
        """Runs a program in a namespace, which has to succeed; returns what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", where, *command],
            capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False, input=stdin,
            cwd=ROOT, env={**os.environ, "XTABLES_LOCKFILE": str(self.lock)},
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def act(self, action: str, backend: str = "auto", *limits: float, **fields: Any) -> Any:
        """Calls a function of nodecache.host.rules in the node; returns its result."""
        plan = NodePlan(
            "nodelocaldns", **{"addresses": ADDRESSES, **fields}, backend=Backend(backend)
        )
        words = [action, plan.to_json(), *(str(limit) for limit in limits)]
        return json.loads(self.run(sys.executable, "-c", ACT, *words))

    def install(self, backend: str, **fields: Any) -> Any:
        report = self.act("install", backend, PATIENCE_S, **fields)
        assert "error" not in report, report
        return report

    def stands(self, backend: str, **fields: Any) -> bool:
        result = self.act("stands", backend, **fields)
        assert isinstance(result, bool)
        return result

    def rules(self) -> list[str]:
        """Returns all that the packet filters of the node hold, without counters, sorted."""
        printed = self.run("nft", "--stateless", "list", "ruleset")
        for family in ("iptables", "ip6tables"):
            printed += self.run(f"{family}-nft-save") + self.run(f"{family}-legacy-save")
        lines = printed.splitlines()
        return sorted(line.partition(" [")[0] for line in lines if not line.startswith("#"))

    def ours(self) -> list[str]:
        return [line for line in self.rules() if "nodecache" in line.lower()]

    def ask(self, address: str, patience_s: float = PATIENCE_S, where: str = POD) -> list[str]:
        printed = self.run(sys.executable, "-c", ASK, address, str(patience_s), where=where)
        return printed.splitlines()

    def tracked(self, address: str, client: str = "") -> list[str]:
        """The entries of connection tracking that name an address, of one client or of all."""
        family = "ipv6" if ":" in address else "ipv4"
        printed = self.run("conntrack", "-L", "-f", family)
        lines = [line for line in printed.splitlines() if f"dst={address} " in line]
        return [line for line in lines if f"src={client}" in line]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for name in ("ip", "nft", "conntrack", "iptables-nft", "iptables-legacy"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    with ExitStack() as stack:
        for name in (NODE, POD):
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"ip netns does not work here: {error.stderr.strip()}")
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", NODE, "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", POD)
        for name, device, end in ((NODE, "veth0", 1), (POD, "eth0", 2)):
            ip("-n", name, "address", "add", f"10.204.0.{end}/24", "dev", device)
            ip("-n", name, "address", "add", f"fd00:204::{end}/64", "dev", device, "nodad")
            ip("-n", name, "link", "set", device, "up")
        ip("-n", POD, "route", "add", "default", "via", "10.204.0.1")
        ip("-n", POD, "-6", "route", "add", "default", "via", "fd00:204::1")
        for address in ADDRESSES:
            ip("-n", NODE, "address", "add", address, "dev", "lo")
        yield Node(tmp_path / "xtables.lock")


@pytest.fixture
def echo(node: Node, tmp_path: Path) -> Iterator[Child]:
    """Somebody who answers on port 53 of all addresses."""
    command = ["ip", "netns", "exec", NODE, sys.executable, "-c", ECHO, *ADDRESSES]
    child = Child(command, tmp_path / "echo")
    try:
        wait_until(lambda: "ready" in child.log(), child.log)
        yield child
    finally:
        child.stop()


def require(node: Node, backend: str) -> None:
    """Skips a test whose backend this kernel does not have."""
    probe = {
        "nftables": ["nft", "list", "tables"],
        "iptables-nft": ["iptables-nft-save", "-t", "raw"],
        "iptables-legacy": ["iptables-legacy-save", "-t", "raw"],
    }[backend]
    try:
        node.run(*probe)
    except AssertionError as error:
        pytest.skip(f"this kernel has no {backend}: {error}")


def watch(node: Node) -> None:
    """Makes connection tracking look at every packet, as kube-proxy's rules do."""
    chains = "".join(
        f"chain {hook} {{ type filter hook {hook} priority 0; ct state invalid counter; }}\n"
        for hook in ("prerouting", "output")
    )
    node.run("nft", "-f", "-", stdin=f"table inet watcher {{\n{chains}}}\n")


def known_rules(address: str, table: str) -> list[str]:
    """node-cache's rules as the arguments that it gives iptables, without chain command."""
    skip = ["-j", "NOTRACK", "-m", "comment", "--comment", '"NodeLocal DNS Cache: skip conntrack"']
    allow = [
        *("-j", "ACCEPT", "-m", "comment", "--comment"),
        '"NodeLocal DNS Cache: allow DNS traffic"',
    ]
    to, of = ("-d", address, "--dport"), ("-s", address, "--sport")
    rows = {
        "raw": [
            *(("PREROUTING", transport, to, "53") for transport in ("tcp", "udp")),
            *(("OUTPUT", transport, of, "53") for transport in ("tcp", "udp")),
            *(("OUTPUT", transport, to, "53") for transport in ("tcp", "udp")),
            ("OUTPUT", "tcp", to, "8080"),
            ("OUTPUT", "tcp", of, "8080"),
        ],
        "filter": [
            *(("INPUT", transport, to, "53") for transport in ("tcp", "udp")),
            *(("OUTPUT", transport, of, "53") for transport in ("tcp", "udp")),
        ],
    }[table]
    return [
        " ".join([chain, "-p", transport, *match, port, *(skip if table == "raw" else allow)])
        for chain, transport, match, port in rows
    ]


def leave_behind(node: Node, variant: str, copies: int) -> int:
    """Puts node-cache's rules there, as often as asked for; returns how many there are now."""
    count = 0
    for family, own in (("iptables", (LOCAL, CLUSTER)), ("ip6tables", (LOCAL6,))):
        script = ""
        for table in ("raw", "filter"):
            rules = [rule for address in own for rule in known_rules(address, table)] * copies
            count += len(rules)
            script += "\n".join([f"*{table}", *(f"-I {rule}" for rule in rules), "COMMIT", ""])
        node.run(f"{family}-{variant}-restore", "--noflush", stdin=script)
    return count


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_install_changes_nothing(node: Node, backend: str) -> None:
    require(node, backend)
    assert not node.stands(backend)
    assert node.install(backend)["backend"] == backend
    first = node.rules()
    assert node.stands(backend)
    assert node.stands("auto")
    assert node.install(backend)["removed"] == []
    assert node.rules() == first
    other = {"addresses": (LOCAL,), "dns_port": 5353}
    assert not node.stands(backend, **other)
    node.install(backend, **other)
    assert node.stands(backend, **other)
    node.install(backend)
    assert node.rules() == first


@pytest.mark.parametrize("backend", BACKENDS)
def test_withdraw_leaves_nothing_of_ours_and_all_of_others(node: Node, backend: str) -> None:
    require(node, backend)
    if backend == "nftables":
        node.run("nft", "-f", "-", stdin="table inet others { chain c { tcp dport 53 drop; }; }\n")
    else:
        for table, chain in (("raw", "OUTPUT"), ("filter", "INPUT"), ("filter", "OUTPUT")):
            node.run(backend, "-t", table, "-A", chain, "-d", "192.0.2.1", "-j", "DROP")
    foreign = [line for line in node.rules() if "192.0.2.1" in line or "tcp dport 53" in line]
    assert foreign
    node.install(backend)
    if backend != "nftables":
        rules = node.run(f"{backend}-save", "-t", "filter").splitlines()
        assert next(line for line in rules if "-A INPUT" in line).endswith("-j NODECACHE-IN")
    assert set(foreign) <= set(node.rules())
    report = node.act("withdraw", backend, PATIENCE_S)
    assert report["backend"] is None
    assert report["removed"]
    assert node.ours() == []
    assert set(foreign) <= set(node.rules())
    assert not node.stands(backend)
    assert node.act("withdraw", backend, PATIENCE_S)["removed"] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_flush_by_others_is_seen_and_repaired(node: Node, backend: str) -> None:
    require(node, backend)
    node.install(backend)
    first = node.rules()
    flushes = [["nft", "flush", "ruleset"]]
    if backend != "nftables":
        six = backend.replace("ip", "ip6", 1)
        flushes = [
            [program, "-t", table, "-F", *chain]
            for program in (backend, six)
            for table, chain in (("raw", []), ("filter", ["OUTPUT"]), ("raw", ["NODECACHE-PRE"]))
        ]
    for flush in flushes:
        node.run(*flush)
        assert not node.stands(backend), flush
        node.install(backend)
        assert node.stands(backend)
        assert node.rules() == first


@pytest.mark.parametrize("variant", VARIANTS)
def test_jump_that_stands_twice_is_repaired(node: Node, variant: str) -> None:
    backend = f"iptables-{variant}"
    require(node, backend)
    node.install(backend)
    first = node.rules()
    node.run(backend, "-t", "raw", "-A", "OUTPUT", "-j", "NODECACHE-OUT")
    assert not node.stands(backend)
    node.install(backend)
    assert node.rules() == first


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_rules_of_node_cache_are_removed_with_all_duplicates(
    node: Node, backend: str, variant: str
) -> None:
    require(node, backend)
    require(node, f"iptables-{variant}")
    count = leave_behind(node, variant, 100)
    assert count == 3 * 12 * 100  # three addresses
    other = f"iptables-{variant}"
    node.run(other, "-t", "raw", "-A", "OUTPUT", "-d", "169.254.20.11", "-j", "NOTRACK")
    began = time.monotonic()
    report = node.install(backend)
    print(f"{count} rules of node-cache removed in {time.monotonic() - began:.2f} s")
    found = [int(text.split()[0]) for text in report["removed"] if "of node-cache" in text]
    assert sum(found) == count
    assert not [line for line in node.rules() if "NodeLocal DNS Cache" in line]
    assert [line for line in node.rules() if "169.254.20.11" in line]
    assert node.stands(backend)


@pytest.mark.parametrize("variant", VARIANTS)
def test_withdraw_leaves_node_cache_alone_and_cleanup_does_not(node: Node, variant: str) -> None:
    require(node, f"iptables-{variant}")
    count = leave_behind(node, variant, 1)
    before = node.rules()
    assert node.act("withdraw", "auto", PATIENCE_S)["removed"] == []
    assert node.rules() == before
    report = node.act("cleanup", "auto", PATIENCE_S)
    assert sum(int(text.split()[0]) for text in report["removed"]) == count
    assert not [line for line in node.rules() if "NodeLocal DNS Cache" in line]


@pytest.mark.parametrize("old", BACKENDS)
@pytest.mark.parametrize("new", BACKENDS)
def test_rules_of_another_backend_go(node: Node, old: str, new: str) -> None:
    require(node, old)
    require(node, new)
    node.install(old)
    report = node.install(new)
    assert node.stands(new)
    if old != new:
        assert report["removed"]
        assert not node.stands(old)


def test_withdraw_ends_in_time_with_the_lock_held(node: Node) -> None:
    require(node, "iptables-legacy")
    node.install("iptables-legacy")
    with node.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        report = node.act("withdraw", "auto", 2.0)
        took_s = time.monotonic() - began
        print(f"withdraw gave up after {took_s:.2f} s")
        assert took_s < 3
        assert report["kind"] == "iptables_lock"
        assert node.stands("iptables-legacy")
    assert node.act("withdraw", "auto", PATIENCE_S)["removed"]
    assert node.ours() == []


@pytest.mark.parametrize("backend", ["nftables", "iptables-nft"])
def test_held_lock_is_nothing_to_the_others(node: Node, backend: str) -> None:
    require(node, backend)
    with node.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        node.install(backend)
        assert node.stands(backend)
        assert node.act("withdraw", "auto", 2.0)["removed"]
        assert node.ours() == []


def test_held_lock_fails_an_install_with_its_name(node: Node) -> None:
    require(node, "iptables-legacy")
    with node.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert node.act("install", "iptables-legacy", 1.0)["kind"] == "iptables_lock"


@pytest.mark.parametrize(
    "setup",
    [
        ["true"],
        ["nft", "add", "table", "ip", "kube-proxy"],
        ["iptables-nft", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT"],
        ["iptables-legacy", "-t", "nat", "-N", "KUBE-SERVICES"],
    ],
)
def test_nftables_is_chosen_whatever_kubernetes_uses(node: Node, setup: list[str]) -> None:
    require(node, "nftables")
    node.run(*setup)
    report = node.install("auto")
    assert report["backend"] == "nftables"
    assert "rules kept by nftables: " in report["notes"][0]


def test_family_without_an_address_gets_nothing(node: Node) -> None:
    require(node, "iptables-nft")
    node.install("iptables-nft")
    assert any("NODECACHE" in line for line in node.run("ip6tables-nft-save").splitlines())
    node.install("iptables-nft", addresses=(LOCAL,))
    assert not any("NODECACHE" in line for line in node.run("ip6tables-nft-save").splitlines())
    assert node.stands("iptables-nft", addresses=(LOCAL,))


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("backend", BACKENDS)
def test_dns_with_pods_and_host_is_not_tracked(node: Node, backend: str) -> None:
    require(node, backend)
    watch(node)
    for address in ADDRESSES:
        assert node.ask(address) == ["udp echo", "tcp echo"]
        assert len(node.tracked(address)) == 2
    node.run("conntrack", "-F")
    node.install(backend, fails_over=False)  # nobody beats
    for address in ADDRESSES:
        assert node.ask(address) == ["udp echo", "tcp echo"]
        assert node.ask(address, where=NODE) == ["udp echo", "tcp echo"]
        assert node.tracked(address) == []
    node.act("withdraw", backend, PATIENCE_S)
    assert node.ask(LOCAL) == ["udp echo", "tcp echo"]
    # The node's own connection from before may still say its last words, which are tracked now.
    assert len(node.tracked(LOCAL, "10.204.0.2 ")) == 2


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("backend", BACKENDS)
def test_cluster_address_is_ours_only_while_the_rules_stand(node: Node, backend: str) -> None:
    """kube-proxy sends the cluster DNS address elsewhere, here to where nobody answers."""
    require(node, backend)
    chain = "type nat hook prerouting priority dstnat; "
    for family, own, gone in (("ip", CLUSTER, "10.204.0.99"), ("ip6", LOCAL6, "fd00:204::99")):
        rule = "".join(
            f"{family} daddr {own} {transport} dport 53 dnat to {gone}; "
            for transport in ("udp", "tcp")
        )
        table = f"table {family} services {{ chain services {{ {chain}{rule}}}; }}\n"
        node.run("nft", "-f", "-", stdin=table)
    for act, wanted in (("install", "echo"), ("withdraw", "silence"), ("install", "echo")):
        node.act(act, backend, PATIENCE_S, fails_over=False)  # nobody beats
        for address in (CLUSTER, LOCAL6):
            patience_s = PATIENCE_S if wanted == "echo" else 1
            assert node.ask(address, patience_s) == [f"udp {wanted}", f"tcp {wanted}"], act


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("variant", VARIANTS)
def test_filter_that_drops_untracked_packets_lets_dns_pass(node: Node, variant: str) -> None:
    backend = f"iptables-{variant}"
    require(node, backend)
    untracked = ("-m", "conntrack", "--ctstate", "UNTRACKED", "-j", "DROP")
    for program in (backend, backend.replace("ip", "ip6", 1)):
        for chain in ("INPUT", "OUTPUT"):
            for transport in ("tcp", "udp"):
                node.run(program, "-A", chain, "-p", transport, *untracked)
    for keeper in ("nftables", backend, "nftables"):
        node.install(keeper)
        assert node.stands(keeper)
        for address in ADDRESSES:
            assert node.ask(address) == ["udp echo", "tcp echo"]


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("variant", VARIANTS)
def test_firewall_of_the_node_lets_dns_pass_whoever_keeps_the_rules(
    node: Node, variant: str
) -> None:
    """As ufw has it: nothing comes in but what is asked for."""
    backend = f"iptables-{variant}"
    require(node, backend)
    programs = (backend, backend.replace("ip", "ip6", 1))

    def saved() -> list[str]:
        return [line for line in node.rules() if line.startswith("-A ")]

    for program in programs:
        for rule in ("-i lo -j ACCEPT", "-m conntrack --ctstate ESTABLISHED -j ACCEPT"):
            node.run(program, "-A", "INPUT", *rule.split())
        node.run(program, "-A", "INPUT", "-p", "ipv6-icmp", "-j", "ACCEPT")
        node.run(program, "-P", "INPUT", "DROP")
    assert node.ask(LOCAL, 1) == ["udp silence", "tcp silence"]
    before = saved()
    node.install("nftables")
    for address in ADDRESSES:
        assert node.ask(address) == ["udp echo", "tcp echo"]
    standing = saved()
    assert node.stands("nftables")
    assert node.install("nftables")["removed"] == []
    assert saved() == standing
    for program in programs:
        node.run(program, "-D", "INPUT", "1")  # our jump, which stands first
    assert not node.stands("nftables")
    node.install("nftables")
    assert saved() == standing
    node.act("cleanup", "nftables", PATIENCE_S)
    assert saved() == before


def test_node_without_a_firewall_of_iptables_gets_no_rule_of_iptables(node: Node) -> None:
    node.install("nftables")
    assert not any("NODECACHE" in line for line in node.rules())


@pytest.mark.parametrize("backend", BACKENDS)
def test_rules_do_nothing_once_the_address_is_gone(node: Node, backend: str) -> None:
    """Packets to an address that is not ours are forwarded, here back to the pod, and tracked."""
    require(node, backend)
    watch(node)
    node.install(backend)
    node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for address, via in ((CLUSTER, "10.204.0.2"), (LOCAL6, "fd00:204::2")):
        ip("-n", NODE, "address", "del", address, "dev", "lo")
        ip("-n", NODE, "route", "add", address, "via", via)
        node.ask(address, 0.3)
        assert len(node.tracked(address)) == 2, address
    assert node.stands(backend)
