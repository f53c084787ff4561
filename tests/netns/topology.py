"""The network namespaces of a node, its pods and a cluster DNS, with a stand-in for kube-proxy."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon.servers import program
from tests.netns.test_pod import ip

LOCAL, LOCAL6 = "169.254.20.10", "fd00::a"
CLUSTER, CLUSTER6 = "10.96.0.10", "fd00:96::10"
ADDRESSES = (LOCAL, CLUSTER, LOCAL6, CLUSTER6)
UPSTREAM, UPSTREAM6 = "10.244.0.53", "fd00:244::53"
PROXY_TABLE = "kube_proxy"

_TOOLS = {"nft": "nftables", "conntrack": "conntrack", "iptables-nft-save": "iptables"}
_CLONE_NEWNET = 0x40000000
_serials = itertools.count(1)
_PROXY_RULES = f"""
table inet {PROXY_TABLE} {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr {CLUSTER} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {UPSTREAM}
        ip6 daddr {CLUSTER6} meta l4proto {{ tcp, udp }} th dport 53 dnat ip6 to {UPSTREAM6}
    }}
    chain output {{
        type nat hook output priority -100;
        ip daddr {CLUSTER} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {UPSTREAM}
        ip6 daddr {CLUSTER6} meta l4proto {{ tcp, udp }} th dport 53 dnat ip6 to {UPSTREAM6}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Topology:
    """Names of namespaces."""

    node: str
    pods: tuple[str, str]
    cluster: str


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Lets this thread make its sockets, and start its children, in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as own, _netns(namespace).open() as other:
        if libc.setns(other.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        try:
            yield
        finally:
            assert libc.setns(own.fileno(), _CLONE_NEWNET) == 0


def _netns(namespace: str) -> Path:
    return Path("/run/netns") / namespace


def proxy_by_nft() -> None:
    """Leads the ClusterIPs to the cluster DNS, in the namespace that this is called in."""
    subprocess.run([program("nft"), "-f", "-"], input=_PROXY_RULES, text=True, check=True)


def make_topology(stack: ExitStack, proxy: Callable[[], None] = proxy_by_nft) -> Topology:
    """Makes the namespaces; skips the test where that cannot be done.

    Pods and cluster are joined to the node, which routes between them. Who asks a ClusterIP from
    a pod reaches the cluster DNS, by what ``proxy`` does to the node.
    """
    _skip_without_tools()
    serial = f"{os.getpid()}-{next(_serials)}"
    names = [f"nc-life{serial}-{what}" for what in ("node", "pod1", "pod2", "cluster")]
    for name in names:
        make_namespace(stack, name)
    node, one, two, cluster = names
    with inside(node):
        for knob in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", knob).write_text("1")
        proxy()
    for number, name in enumerate((cluster, one, two)):
        _join(node, name, number)
    return Topology(node, (one, two), cluster)


def _skip_without_tools() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    program("ip")
    for tool, package in _TOOLS.items():
        if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            pytest.skip(f"{tool} is missing; Debian's package is {package}")


def make_namespace(stack: ExitStack, name: str) -> None:
    """Makes a namespace that is gone with the stack; skips the test where it cannot be done."""
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"ip netns does not work here: {error.stderr.strip()}")
    stack.callback(ip, "netns", "del", name)
    ip("-n", name, "link", "set", "lo", "up")
    with inside(name):
        for knob in ("all", "default"):  # a second without IPv6 otherwise
            Path(f"/proc/sys/net/ipv6/conf/{knob}/accept_dad").write_text("0")


def _join(node: str, name: str, number: int) -> None:
    """Joins a namespace to the node; its addresses end in .53, the node's in .1."""
    device, net, net6 = (
        f"veth{number}",
        f"10.244.{number}",
        "fd00:244:" + f"{number}:" * bool(number),
    )
    ip("-n", node, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
    for where, link, host in ((node, device, "1"), (name, "eth0", "53")):
        ip("-n", where, "address", "add", f"{net}.{host}/24", "dev", link)
        ip("-n", where, "-6", "address", "add", f"{net6}:{host}/64", "dev", link, "nodad")
        ip("-n", where, "link", "set", link, "up")
    ip("-n", name, "route", "add", "default", "via", f"{net}.1")
    ip("-n", name, "-6", "route", "add", "default", "via", f"{net6}:1")
