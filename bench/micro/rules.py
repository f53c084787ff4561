"""What the packet filter rules cost a packet: a pod and a node, joined by a veth.

    python -m bench.micro.rules        # as root; it makes network namespaces of its own

On one processor a packet is delivered before the call that sent it returns, so the processor's time
for that call is the packet's whole way. A query from the pod and its reply are timed together; all
rulesets take turns. Compared is with what a node has without us, kube-proxy's translation and thus
connection tracking. A query to another port shows what everybody else pays.

Verdict (Linux 6.18 in a slow virtual machine, us a packet more than kube-proxy alone): served 0.46,
without looking for sockets 0.42, tracked 0.79; 0.1.0's rules 0.20; another port 0.22.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nodecache.config.node import NodePlan
from nodecache.host import beat
from nodecache.host.table import compose

LOCAL, CLUSTER = "169.254.20.10", "10.96.0.10"
NODE, POD = "10.205.0.1", "10.205.0.2"
PLAN = NodePlan("x", (LOCAL, CLUSTER), cluster_dns=(CLUSTER,))
TURNS = 60
PACKETS = 1500
BURST = 50

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

# What the others on a node have: a look at each new flow, and translations that need tracking.
PROXY = f"""
table ip kube-proxy {{
  chain prerouting {{
    type nat hook prerouting priority -100;
    ip daddr {CLUSTER} udp dport 53 dnat to {POD}
  }}
}}
"""
# As 0.1.0 had it (its named sets were these, and cost the same).
PLAIN = compose(replace(PLAN, fails_over=False))


@dataclass(frozen=True, slots=True)
class Contender:
    """A ruleset, the port that is asked, and whether somebody has to beat."""

    name: str
    rules: str
    port: int = 53
    has_beat: bool = False


CONTENDERS = (
    Contender("no rules at all", ""),
    Contender("kube-proxy alone, tracked", PROXY),
    Contender("0.1.0: never tracked", PROXY + PLAIN),
    Contender("served, untracked", PROXY + compose(PLAN), has_beat=True),
    Contender("served, without sockets", PROXY + compose(PLAN, False), has_beat=True),
    Contender("served, tracked", PROXY + compose(replace(PLAN, is_tracked=True)), has_beat=True),
    Contender("another port, kube-proxy alone", PROXY, 5300),
    Contender("another port, our rules", PROXY + compose(PLAN), 5300),
)
PROXY_ALONE = {53: CONTENDERS[1], 5300: CONTENDERS[-2]}


def main() -> None:
    """Measures and prints."""
    if os.geteuid() != 0:
        sys.exit("rules are made by root")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with pod() as pid:
        node_end = open_sockets(pid)
        found: dict[str, list[float]] = {contender.name: [] for contender in CONTENDERS}
        for _ in range(TURNS):
            for contender in random.sample(CONTENDERS, len(CONTENDERS)):
                found[contender.name].append(measure(contender, *node_end))
    print(f"{'us':32} query and reply: median   best   a packet more than kube-proxy alone")
    for contender in CONTENDERS:
        times = found[contender.name]
        floor = statistics.median(found[PROXY_ALONE[contender.port].name])
        more = (statistics.median(times) - floor) / 2
        print(f"{contender.name:48} {statistics.median(times):7.2f} {min(times):6.2f} {more:+8.2f}")


def measure(
    contender: Contender, servers: dict[int, socket.socket], client: socket.socket
) -> float:
    """Returns the microseconds that a query and its reply take under some rules."""
    load("flush ruleset\n" + contender.rules)
    server = servers[contender.port]
    spent_s = 0.0
    for _ in range(PACKETS // BURST):
        if contender.has_beat:
            assert beat.say_serving(servers[53], LOCAL)
        began = time.thread_time()
        for _ in range(BURST):
            client.sendto(b"query", (LOCAL, contender.port))
        spent_s += time.thread_time() - began
        for _ in range(BURST):
            server.recv(100)
        peer = client.getsockname()
        began = time.thread_time()
        for _ in range(BURST):
            server.sendto(b"reply", (POD, peer[1]))
        spent_s += time.thread_time() - began
        for _ in range(BURST):
            client.recv(100)
    return spent_s / PACKETS * 1e6


@contextmanager
def pod() -> Iterator[int]:
    """Goes to a namespace of its own, and makes another, by whose process it is known."""
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no namespace")
    sleeper = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
    try:
        own, other = (Path(f"/proc/{pid}/ns/net") for pid in ("self", sleeper.pid))
        while own.readlink() == other.readlink():
            time.sleep(0.01)
        yield sleeper.pid
    finally:
        sleeper.send_signal(signal.SIGTERM)
        sleeper.wait()


def open_sockets(pid: int) -> tuple[dict[int, socket.socket], socket.socket]:
    """Joins node and pod; returns who answers in the node, by port, and who asks in the pod."""
    inside = ["nsenter", "-t", str(pid), "-n"]
    for words in (
        f"ip link add veth0 type veth peer name eth0 netns {pid}",
        "ip link set lo up",
        f"ip address add {NODE}/24 dev veth0",
        f"ip address add {LOCAL}/32 dev lo",
        f"ip address add {CLUSTER}/32 dev lo",
        "ip link set veth0 up",
    ):
        subprocess.run(words.split(), check=True)
    for words in (
        f"ip address add {POD}/24 dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {NODE}",
    ):
        subprocess.run([*inside, *words.split()], check=True)
    servers = {}
    for port in {contender.port for contender in CONTENDERS}:
        servers[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        servers[port].bind((LOCAL, port))
    with Path("/proc/self/ns/net").open() as own, Path(f"/proc/{pid}/ns/net").open() as other:
        _LIBC.setns(other.fileno(), _CLONE_NEWNET)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.bind((POD, 0))
        _LIBC.setns(own.fileno(), _CLONE_NEWNET)
    return servers, client


def load(rules: str) -> None:
    """Replaces all rules of the namespace."""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


if __name__ == "__main__":
    main()
