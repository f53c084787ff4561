"""What the tests in a guest share: a pod, a cluster DNS behind a ClusterIP, and the node's tools.

The node is the guest's own network namespace. Nothing here is for use outside a guest.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodecache.config.node import NodePlan
from tests.daemon.processes import PATIENCE_S, ROOT

LINK = "nodelocaldns"
LOCAL_IP = "169.254.20.10"
CLUSTER_IP = "10.96.0.10"
CLUSTER_IP6 = "fd00::a"
ADDRESSES = (LOCAL_IP, CLUSTER_IP, CLUSTER_IP6)
PLAN = NodePlan(LINK, ADDRESSES)

POD_SIDE, CLUSTER_SIDE = "203", "204"
CLUSTER_DNS, CLUSTER_DNS6 = f"10.{CLUSTER_SIDE}.0.2", f"fd00:{CLUSTER_SIDE}::2"

XTABLES_LOCK = Path("/run/xtables.lock")
IPTABLES = {4: "iptables-legacy", 6: "ip6tables-legacy"}
TABLES = ("raw", "filter")
_BUSY_S = 60.0


def run(*command: str, is_checked: bool = True, timeout_s: float = PATIENCE_S) -> str:
    """Runs a program; returns what it printed. Unless told otherwise, it has to succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT
    )
    assert not is_checked or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Ran:
    """What the node's tool came to.

    Attributes:
        report: The line of JSON that it printed.
        took_s: Seconds from its start to its end.
    """

    report: dict[str, Any]
    took_s: float

    @property
    def said(self) -> str:
        """All its texts."""
        return json.dumps(self.report)


def tool_words(action: str, plan: NodePlan = PLAN) -> list[str]:
    """Returns the command line of the tool."""
    return [sys.executable, "-m", "nodecache.host", action, plan.to_json()]


def tool(action: str, plan: NodePlan = PLAN, prefix: Sequence[str] = ()) -> Ran:
    """Runs the tool; ``prefix`` stands before its command."""
    started_at = time.monotonic()
    done = subprocess.run(
        [*prefix, *tool_words(action, plan)], capture_output=True, text=True,
        timeout=PATIENCE_S, check=False, cwd=ROOT,
    )  # fmt: skip
    took_s = time.monotonic() - started_at
    assert done.stdout.count("\n") == 1, f"{action}: {done.stdout}{done.stderr}"
    assert not done.stderr, done.stderr
    return Ran(json.loads(done.stdout), took_s)


def done(action: str, plan: NodePlan = PLAN) -> Ran:
    """Runs the tool, which has to succeed.

    It bounds its own time, so that a node's stop waits for no iptables; a guest on a busy machine
    may need more for the same work. What ran out of time, and of nothing else, is asked for again.
    """
    give_up_at = time.monotonic() + _BUSY_S
    ran = tool(action, plan)
    while not ran.report["ok"] and "not end in time" in ran.said and time.monotonic() < give_up_at:
        print(f"{action} was out of time after {ran.took_s:.2f} s, and is repeated")
        ran = tool(action, plan)
    assert ran.report["ok"] is True, ran.said
    return ran


def link(name: str = LINK) -> dict[str, Any] | None:
    """Returns what the kernel says of a link and its addresses, None if it is not there."""
    shown = run("ip", "-d", "-j", "address", "show", "dev", name, is_checked=False)
    found: list[dict[str, Any]] = [entry for entry in json.loads(shown or "[]") if entry]
    return found[0] if found else None


def prefixes(name: str = LINK) -> set[tuple[str, int]]:
    """Returns the addresses of a link with the lengths of their prefixes."""
    return {(entry["local"], entry["prefixlen"]) for entry in (link(name) or {})["addr_info"]}


def saved(version: int, table: str) -> list[str]:
    """Returns the rules of a legacy table, as iptables prints them."""
    shown = run(IPTABLES[version], "-w", "-t", table, "-S").splitlines()
    return [line for line in shown if line.startswith("-A ")]


Counts = dict[tuple[int, str], int]
NO_RULES: Counts = dict.fromkeys([(version, table) for version in IPTABLES for table in TABLES], 0)


def rule_counts(prefix: Sequence[str] = ()) -> Counts:
    """Returns the count of rules by family and table; ``prefix`` stands before the commands."""
    counts, table = dict(NO_RULES), ""
    for version, program in IPTABLES.items():
        for line in run(*prefix, f"{program}-save").splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith("-A ") and table in TABLES:
                counts[version, table] += 1
    return counts


def flush() -> None:
    """Empties raw and filter of both families, and takes the link away."""
    empty = "".join(f"*{table}\nCOMMIT\n" for table in TABLES)
    for program in IPTABLES.values():
        subprocess.run([f"{program}-restore", "-w"], input=empty, text=True, check=True)
    run("ip", "link", "del", LINK, is_checked=False)


@contextmanager
def held_lock() -> Iterator[None]:
    """Holds the xtables lock as long as the block runs, as a stuck iptables would."""
    with XTABLES_LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_ECHO = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], 53))
    print("bound", flush=True)
    while True:
        _, peer = sock.recvfrom(512)
        sock.sendto(sys.argv[2].encode(), peer)
"""
_ASK = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.settimeout(2)
    sock.connect((sys.argv[1], 53))
    for _ in range(3):
        try:
            sock.send(b"who?")
            print(sock.recv(512).decode())
            break
        except OSError:
            pass
    else:
        print("nobody")
"""


def within(namespace: str) -> list[str]:
    """Returns the words that stand before a command to run it in a namespace."""
    return ["ip", "netns", "exec", namespace]


def who_answers(address: str) -> str:
    """Asks port 53 of an address from the pod, and returns who says to have answered."""
    return run(*within("pod"), sys.executable, "-c", _ASK, address).strip()


def start_echo(stack: ExitStack, address: str, says: str, prefix: Sequence[str] = ()) -> None:
    """Starts what answers any datagram to port 53 with a word; the stack ends it."""
    echo = subprocess.Popen(
        [*prefix, sys.executable, "-c", _ECHO, address, says],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    stack.callback(echo.wait, PATIENCE_S)
    stack.callback(echo.kill)
    assert echo.stdout is not None
    stack.callback(echo.stdout.close)
    assert echo.stdout.readline() == "bound\n"


def make_namespaces(stack: ExitStack) -> None:
    """Makes ``pod`` and ``cluster``, each with a veth pair to the node, which forwards."""
    for name, side in (("pod", POD_SIDE), ("cluster", CLUSTER_SIDE)):
        run("ip", "netns", "add", name)
        stack.callback(run, "ip", "netns", "del", name)
        run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "eth0", "netns", name)
        for prefix, device, host in (
            (["ip"], f"to-{name}", "1"),
            (["ip", "-n", name], "eth0", "2"),
        ):
            run(*prefix, "address", "add", f"10.{side}.0.{host}/24", "dev", device)
            run(*prefix, "address", "add", f"fd00:{side}::{host}/64", "dev", device, "nodad")
            run(*prefix, "link", "set", device, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "route", "add", "default", "via", f"10.{side}.0.1")
        run("ip", "-n", name, "-6", "route", "add", "default", "via", f"fd00:{side}::1")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


@dataclass(slots=True)
class KubeProxy:
    """The rules by which kube-proxy leads a ClusterIP to the cluster DNS."""

    stack: ExitStack
    rules: list[tuple[str, list[str]]] = field(default_factory=list)

    def lead(self, address: str, port: int = 53) -> None:
        """Leads port 53 of an address to ``port`` of the cluster DNS."""
        program = IPTABLES[6 if ":" in address else 4]
        target = f"[{CLUSTER_DNS6}]:{port}" if ":" in address else f"{CLUSTER_DNS}:{port}"
        for chain in ("PREROUTING", "OUTPUT"):
            for transport in ("udp", "tcp"):
                rule = [
                    chain, "-d", address, "-p", transport, "--dport", "53",
                    "-j", "DNAT", "--to-destination", target,
                ]  # fmt: skip
                run(program, "-w", "-t", "nat", "-A", *rule)
                self.stack.callback(run, program, "-w", "-t", "nat", "-D", *rule)


def flows_to(*addresses: str) -> list[str]:
    """Returns what connection tracking knows of port 53 of these addresses, on node and pod."""
    found = []
    for prefix in ([], within("pod")):
        for family in ("ipv4", "ipv6"):
            listed = run(*prefix, "conntrack", "-L", "-f", family, is_checked=False)
            found += [
                line
                for line in listed.splitlines()
                if "port=53 " in line and any(f"dst={address} " in line for address in addresses)
            ]
    return found
