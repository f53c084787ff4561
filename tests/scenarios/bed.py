"""A node and its cluster DNS as two network namespaces, with a virtual address between them.

The backends are processes of their own in the cluster's namespace, each with an address. In the
node's a nat table leads each new connection to the virtual address to a backend at random, as
kube-proxy does; connection tracking keeps it there.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.daemon.processes import PATIENCE_S, ROOT
from tests.daemon.servers import program
from tests.netns.test_pod import ip
from tests.netns.topology import inside

LOCAL, VIRTUAL = "169.254.20.10", "10.96.0.10"
NODE, CLUSTER_NET = "10.245.0.1", "10.245.0"
FIRST_HOST = 11
DNS_PORT = 53

_serials = itertools.count(1)


class BackendProcess:
    """One backend, and the pipe to its orders."""

    def __init__(self, namespace: str, host: str, ttl_s: int, delay_ms: float) -> None:
        self.host = host
        self.namespace = namespace
        self.last_report: dict[str, Any] = {}
        command = [
            program("ip"), "netns", "exec", namespace, sys.executable, "-m",
            "tests.scenarios.backend", host, str(DNS_PORT),
            "--ttl", str(ttl_s), "--delay-ms", str(delay_ms),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def wait_until_serving(self) -> None:
        """Returns when it listens."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "{}\n"

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def order(self, **order: Any) -> dict[str, Any]:
        """Gives an order; returns the report, the last one there was if the process is gone."""
        if self.is_alive:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            self.last_report = json.loads(self.process.stdout.readline())
        return self.last_report

    def kill(self) -> None:
        """Ends it as a node's kernel would; what it counted until now is kept."""
        if self.is_alive:
            self.order()
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass
class ScenarioBed:
    """The namespaces, and what faults do to them.

    Attributes:
        backends: All there ever were, by number.
        members: Numbers of those behind the virtual address.
    """

    node: str
    cluster: str
    stack: ExitStack
    ttl_s: int = 30
    delay_ms: float = 0.0
    backends: list[BackendProcess] = field(default_factory=list)
    members: list[int] = field(default_factory=list)

    def add(self) -> int:
        """Starts a backend and puts it behind the virtual address."""
        number = self.start()
        self.members.append(number)
        self.balance()
        return number

    def start(self) -> int:
        """Starts a backend; returns its number."""
        number = len(self.backends)
        host = f"{CLUSTER_NET}.{FIRST_HOST + number}"
        ip("-n", self.cluster, "address", "add", f"{host}/24", "dev", "eth0")
        backend = BackendProcess(self.cluster, host, self.ttl_s, self.delay_ms)
        self.stack.callback(backend.kill)
        backend.wait_until_serving()
        self.backends.append(backend)
        return number

    def balance(self) -> None:
        """Leads new connections to the members only."""
        hosts = [self.backends[number].host for number in self.members]
        choice = ", ".join(f"{number} : {host}" for number, host in enumerate(hosts))
        self.nft(
            "add table ip scenario\n"
            "add chain ip scenario proxy { type nat hook output priority -100; }\n"
            "flush chain ip scenario proxy\n"
            f"add rule ip scenario proxy ip daddr {VIRTUAL} meta l4proto {{ tcp, udp }} "
            f"dnat ip to numgen random mod {len(hosts)} map {{ {choice} }}\n"
        )

    def nft(self, text: str) -> None:
        """Changes the packet filter of the node."""
        with inside(self.node):
            subprocess.run([program("nft"), "-f", "-"], input=text, text=True, check=True)

    def drop(self, number: int, *, only_syn: bool) -> None:
        """Lets packets to a backend vanish, both ways, or only those that open a connection."""
        host = self.backends[number].host
        rules = [f"ip daddr {host} {'tcp flags & (syn | ack) == syn ' * only_syn}drop"]
        if not only_syn:
            rules.append(f"ip saddr {host} drop")
        chain = "add chain ip scenario {0} {{ type filter hook {0} priority 0; }}\n"
        hooks = zip(("output", "input"), rules, strict=False)
        self.nft(
            "".join(
                chain.format(hook) + f"add rule ip scenario {hook} {rule}\n" for hook, rule in hooks
            )
        )

    def drop_big_datagrams(self) -> None:
        """Lets UDP above 1,500 octets vanish on its way to the node, whole or in fragments."""
        arriving = "iifname veth0 ip protocol udp"
        self.nft(
            "add chain ip scenario path { type filter hook prerouting priority -450; }\n"
            f"add rule ip scenario path {arriving} meta length > 1500 drop\n"
            f"add rule ip scenario path {arriving} ip frag-off & 0x3fff != 0 drop\n"
        )


def _make_namespaces(stack: ExitStack) -> tuple[str, str]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    program("ip")
    program("nft")
    serial = f"{os.getpid()}-{next(_serials)}"
    node, cluster = f"nc-scen{serial}-node", f"nc-scen{serial}-cluster"
    for name in (node, cluster):
        try:
            ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"ip netns does not work here: {error.stderr.strip()}")
        stack.callback(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")
    ip("-n", node, "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", cluster)
    ip("-n", node, "address", "add", f"{NODE}/24", "dev", "veth0")
    ip("-n", node, "address", "add", f"{LOCAL}/32", "dev", "lo")
    ip("-n", node, "link", "set", "veth0", "up")
    ip("-n", cluster, "link", "set", "eth0", "up")
    ip("-n", node, "route", "add", "default", "via", f"{CLUSTER_NET}.2")
    ip("-n", cluster, "address", "add", f"{CLUSTER_NET}.2/24", "dev", "eth0")
    return node, cluster


@contextmanager
def bed_of(count: int, ttl_s: int, delay_ms: float) -> Iterator[ScenarioBed]:
    """A bed with ``count`` backends; gone at the end of the block."""
    with ExitStack() as stack:
        node, cluster = _make_namespaces(stack)
        bed = ScenarioBed(node, cluster, stack, ttl_s, delay_ms)
        for _ in range(count):
            bed.add()
        yield bed
