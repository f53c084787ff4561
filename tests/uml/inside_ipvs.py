"""A backend dies behind kube-proxy's IPVS: what a stub with few source ports loses, by each way.

IPVS leads what comes from one client address and port to the backend that it chose once, as long
as it remembers the session. Over UDP it never learns of an end: a busy port stays with a dead
backend. nodecache asks over TCP, notices, and asks again from another port.
"""

from __future__ import annotations

import enum
import json
import re
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon.faulty import ScriptedUpstream
from tests.daemon.processes import Daemon, faultless, wait_until
from tests.daemon.stubs import scrape, total
from tests.netns.children import METRICS
from tests.netns.node import figure
from tests.netns.topology import inside
from tests.uml.few_ports import PORTS, FewPorts, Query
from tests.uml.stage import CLUSTER_IP, LOCAL_IP, run, within

SERVICE = f"{CLUSTER_IP}:53"
STUB, BACKENDS = "10.203.0.2", ("10.204.0.2", "10.204.1.2")
UDP_TIMEOUT_S = 300  # what IPVS has by default
MARK = "0x4000/0x4000"  # kube-proxy's
DIRECT_PORT, THROUGH_PORT = 40_000, 41_000

WARM_QUERIES = 80  # two seconds
LISTED_S = 5.0  # from a backend's death until kube-proxy learns of it
REST_S = 12.0
HEALED_WITHIN_S = 5.0  # the kernel needs a tick

_MODULES = ("ip_vs", "ip_vs_rr", "dummy", "veth", "iptable_nat", "xt_MASQUERADE", "xt_mark")
_SESSION = re.compile(rf"^UDP +(\d+):(\d+) +UDP +{STUB}:(\d+) +\S+ +(\S+):53 *$", re.MULTILINE)


class Removal(enum.Enum):
    """What becomes of the real server for UDP; the one for TCP has its weight set to 0."""

    QUIESCED = "weight 0"  # as kube-proxy did before it knew that UDP sessions do not end
    DELETED = "deleted"  # as it does today


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    skip_without_ipvs()


def skip_without_ipvs() -> None:
    """Skips the tests where the guest's kernel or the host's programs lack something."""
    for module in _MODULES:
        tried = subprocess.run(["modprobe", module], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"no {module} in this kernel: {tried.stderr.strip()}")
    if shutil.which("ipvsadm") is None:
        pytest.skip("ipvsadm is missing; Debian's package is ipvsadm")
    if not Path("/proc/sys/net/ipv4/vs/conntrack").exists():
        pytest.skip("IPVS of this kernel works without connection tracking: no masquerading")


def on_node(*command: str) -> str:
    return run(*within("node"), *command)


def make_namespaces(stack: ExitStack) -> None:
    """Makes ``node``, and ``stub`` and two backends, each with a veth pair to the node."""
    ends = {"stub": STUB, **{f"backend{number}": host for number, host in enumerate(BACKENDS)}}
    for name in ("node", *ends):
        run("ip", "netns", "add", name)
        stack.callback(run, "ip", "netns", "del", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
    for name, host in ends.items():
        gateway = host.removesuffix("2") + "1"
        run("ip", "-n", "node", "link", "add", name, "type", "veth", "peer", "eth0", "netns", name)
        for where, device, address in (("node", name, gateway), (name, "eth0", host)):
            run("ip", "-n", where, "address", "add", f"{address}/24", "dev", device)
            run("ip", "-n", where, "link", "set", device, "up")
        run("ip", "-n", name, "route", "add", "default", "via", gateway)
    for device, address in (("nodelocaldns", LOCAL_IP), ("kube-ipvs0", CLUSTER_IP)):
        run("ip", "-n", "node", "link", "add", device, "type", "dummy")
        run("ip", "-n", "node", "address", "add", f"{address}/32", "dev", device)
        run("ip", "-n", "node", "link", "set", device, "up")


def serve_by_ipvs(expire_nodest_conn: int) -> None:
    """Makes the virtual service as kube-proxy does: masquerading, for the node and its pods."""
    knobs = {
        "ip_forward": 1,
        "vs/conntrack": 1,
        "vs/expire_nodest_conn": expire_nodest_conn,
        "vs/expire_quiescent_template": 1,
    }
    with inside("node"):
        for knob, value in knobs.items():
            Path("/proc/sys/net/ipv4", knob).write_text(str(value))
    on_node("ipvsadm", "--set", "0", "0", str(UDP_TIMEOUT_S))
    for transport in ("-t", "-u"):
        on_node("ipvsadm", "-A", transport, SERVICE, "-s", "rr")
        for backend in BACKENDS:
            on_node("ipvsadm", "-a", transport, SERVICE, "-r", f"{backend}:53", "-m", "-w", "1")
    # The node's own queries to an address of its own would go out from that address.
    nat = ("iptables-legacy", "-w", "-t", "nat", "-A")
    on_node(*nat, "OUTPUT", "-d", CLUSTER_IP, "-j", "MARK", "--set-xmark", MARK)
    on_node(*nat, "POSTROUTING", "-m", "mark", "--mark", MARK, "-j", "MASQUERADE")


def start_backends(stack: ExitStack) -> list[ScriptedUpstream]:
    backends = []
    for number, host in enumerate(BACKENDS):
        with inside(f"backend{number}"):
            backends.append(stack.enter_context(ScriptedUpstream(host=host, port=53)))
    return backends


def start_nodecache(stack: ExitStack, folder: Path) -> Daemon:
    corefile = f"""
.:53 {{
    errors
    cache 30
    bind {LOCAL_IP}
    forward . {CLUSTER_IP} {{
        force_tcp
    }}
    prometheus {LOCAL_IP}:{METRICS}
}}
"""
    node = within("node")
    daemon = Daemon(folder, corefile, host=LOCAL_IP, port=53, metrics_port=METRICS, within=node)
    stack.enter_context(faultless(daemon))
    daemon.wait_until_serving()
    return daemon


def asked_last_over_tcp(backends: list[ScriptedUpstream]) -> str:
    """Returns the backend to which nodecache sent its latest query."""
    latest = {
        max((asked.at for asked in backend.asked[:] if asked.transport == "tcp"), default=0.0): (
            backend.host
        )
        for backend in backends
    }
    assert max(latest) > 0
    return latest[max(latest)]


def asked_twice(daemon: Daemon) -> int:
    """Returns how many queries nodecache has sent again because no answer came."""
    with inside("node"):
        return int(total(scrape(daemon), "nodecache_hedged_total"))


def sessions(backend: str) -> dict[int, int]:
    """Returns the stub's ports that IPVS leads to a backend over UDP, and for how many seconds."""
    return {
        int(port): int(minutes) * 60 + int(seconds)
        for minutes, seconds, port, host in _SESSION.findall(on_node("ipvsadm", "-Lnc"))
        if host == backend
    }


def connections(backend: str) -> int:
    """Returns how many connections nodecache has to a backend."""
    listed = on_node("ipvsadm", "-Lnc").splitlines()
    return sum(f" {backend}:53" in line and " ESTABLISHED " in line for line in listed)


def die(backend: str) -> None:
    """Takes a backend off the network as a dead machine goes: no RST, no ICMP error, nothing."""
    name = f"backend{BACKENDS.index(backend)}"
    # Neighbours of a dead machine would soon report it; real ones are behind a router.
    [link] = json.loads(run("ip", "-n", name, "-json", "link", "show", "dev", "eth0"))
    known = ("lladdr", link["address"], "dev", name, "nud", "permanent")
    run("ip", "-n", "node", "neighbour", "replace", backend, *known)
    run("ip", "-n", name, "link", "set", "eth0", "down")


def remove(backend: str, removal: Removal) -> None:
    """Removes a real server as kube-proxy does."""
    on_node("ipvsadm", "-e", "-t", SERVICE, "-r", f"{backend}:53", "-m", "-w", "0")
    if removal is Removal.QUIESCED:
        on_node("ipvsadm", "-e", "-u", SERVICE, "-r", f"{backend}:53", "-m", "-w", "0")
    else:
        on_node("ipvsadm", "-d", "-u", SERVICE, "-r", f"{backend}:53")


@dataclass(frozen=True, slots=True)
class Course:
    """What happened.

    Attributes:
        direct, through: All queries to the virtual IP, and all to nodecache.
        died_at, removed_at: Monotonic seconds, when it was done.
        stuck: The ports that IPVS led to the backend that died.
        left_s: For how long IPVS would still have led a port there in the end; 0 for no port.
        hedged: Queries that nodecache asked again elsewhere since the backend died.
    """

    direct: list[Query]
    through: list[Query]
    died_at: float
    removed_at: float
    stuck: set[int]
    left_s: int
    hedged: int

    @property
    def bad(self) -> list[Query]:
        """What the stub lost that asked the virtual IP itself."""
        return [query for query in self.direct if not query.is_good]

    def show(self, case: str) -> None:
        """Prints what both stubs got."""
        figure(f"ipvs {case}: nodecache hedged {self.hedged} queries")
        for way, queries in (("direct", self.direct), ("through nodecache", self.through)):
            lost = sum(query.outcome == "lost" for query in queries)
            servfail = sum(query.outcome == "SERVFAIL" for query in queries)
            longest_s = max((query.took_s for query in queries if query.is_good), default=0.0)
            figure(
                f"ipvs {case}, {way}: {len(queries)} queries, {lost} lost, {servfail} SERVFAIL,"
                f" longest answer {longest_s * 1000:.0f} ms"
            )


def lose_a_backend(folder: Path, expire_nodest_conn: int, removal: Removal) -> Course:
    """Lets a backend die while one stub asks the virtual IP and its twin asks nodecache."""
    with ExitStack() as stack:
        make_namespaces(stack)
        serve_by_ipvs(expire_nodest_conn)
        backends = start_backends(stack)
        daemon = start_nodecache(stack, folder)
        with inside("stub"):
            direct = stack.enter_context(FewPorts(CLUSTER_IP, "direct", DIRECT_PORT))
            through = stack.enter_context(FewPorts(LOCAL_IP, "through", THROUGH_PORT))
        stubs = (direct, through)
        wait_until(
            lambda: all(
                len(stub.answered()) == PORTS and len(stub.queries) >= WARM_QUERIES
                for stub in stubs
            ),
            lambda: f"answers to all ports: {[stub.errors for stub in stubs]} {daemon.log()}",
        )
        dying = asked_last_over_tcp(backends)
        assert connections(dying) > 0
        stuck, hedged_before = set(sessions(dying)), asked_twice(daemon)
        die(dying)
        died_at = time.monotonic()
        time.sleep(LISTED_S)
        remove(dying, removal)
        removed_at = time.monotonic()
        time.sleep(REST_S)
        for stub in stubs:
            stub.stop()
        left_s = max(sessions(dying).values(), default=0)
        hedged = asked_twice(daemon) - hedged_before
        assert connections(dying) == 0
        queries = direct.finish(), through.finish()
        assert not direct.errors + through.errors
    return Course(*queries, died_at, removed_at, stuck, left_s, hedged)


def hold_that_nodecache_loses_nothing(course: Course) -> None:
    assert [query for query in course.through if not query.is_good] == []


@pytest.mark.parametrize(
    ("expire", "removal"),
    [(0, Removal.QUIESCED), (0, Removal.DELETED), (1, Removal.QUIESCED)],
    ids=["0-quiesced", "0-deleted", "1-quiesced"],
)
def test_busy_ports_stay_with_the_dead_backend_and_nodecache_loses_nothing(
    tmp_path: Path, expire: int, removal: Removal
) -> None:
    course = lose_a_backend(tmp_path, expire, removal)
    case = f"expire_nodest_conn={expire}, real server {removal.value}"
    course.show(case)
    after = [query for query in course.direct if query.sent_at > course.died_at]
    from_stuck = [query for query in after if query.port in course.stuck]
    failed_s = max(query.sent_at for query in from_stuck) - course.died_at
    figure(
        f"ipvs {case}, direct: {len(course.stuck)} of {PORTS} ports lost all their"
        f" {len(from_stuck)} queries for {failed_s:.1f} s, to the end; IPVS would lead them to the"
        f" dead backend for {course.left_s} s more"
    )
    assert course.stuck
    assert {query.outcome for query in from_stuck} == {"lost"}
    assert {query.port for query in course.bad} == course.stuck
    assert course.left_s > UDP_TIMEOUT_S / 2
    hold_that_nodecache_loses_nothing(course)


def test_deletion_frees_busy_ports_where_the_kernel_expires_them(tmp_path: Path) -> None:
    course = lose_a_backend(tmp_path, 1, Removal.DELETED)
    case = f"expire_nodest_conn=1, real server {Removal.DELETED.value}"
    course.show(case)
    late = [query for query in course.bad if query.sent_at > course.removed_at]
    figure(
        f"ipvs {case}, direct: heals; {len(course.stuck)} of {PORTS} ports lost"
        f" {len(course.bad) - len(late)} queries in the {LISTED_S:.0f} s until the deletion,"
        f" {len(late)} after it"
    )
    assert {query.port for query in course.bad} == course.stuck
    assert all(query.sent_at < course.removed_at + HEALED_WITHIN_S for query in late)
    assert course.left_s == 0
    hold_that_nodecache_loses_nothing(course)
