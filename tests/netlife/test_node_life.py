"""What becomes of a node's look-ups while the daemon lives, leaves, dies and comes back.

Each row of the table is one fault under the same load: 1,000 queries a second, from two pods and
a process on the node, as glibc and musl ask. The table is printed at the end (``-rP`` shows it).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.daemon.processes import PATIENCE_S, Child, wait_until
from tests.daemon.servers import program
from tests.kept import Kept
from tests.netlife.cgroups import group_of
from tests.netlife.kube_proxy import ENDPOINTS, ENDPOINTS6, lead_services
from tests.netlife.life import RATE, Life, Outcome, corefile, hanging_questions
from tests.netns.children import NodeDaemon, runs
from tests.netns.node import By, NodeBed, figure, make_bed
from tests.netns.topology import ADDRESSES, LOCAL, UPSTREAM, UPSTREAM6

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

IDLE_S = 8
FAULT_S = 2.0  # when it happens: something was answered before
_STOCK = Path(__file__).parent / "stock.py"
_MUTEX_RULES = 30_000
_MUTEX_S = 6.0


class Node:
    """The node, its daemon, and the load on it."""

    def __init__(self, bed: NodeBed) -> None:
        self.bed = bed
        self.life = Life(bed)
        self.dying_s = 0.0

    def serve(self, *flags: str, corefile_text: str = "") -> NodeDaemon:
        """Returns a daemon that serves; what was there before is gone."""
        return self.bed.start(*flags, corefile=corefile_text or corefile())

    def succeed(self, *flags: str, corefile_text: str = "") -> NodeDaemon:
        """Starts a daemon without waiting for anything."""
        return self.bed.launch(*flags, corefile=corefile_text or corefile())

    def see_off(self, daemon: NodeDaemon, then: str) -> None:
        """Returns when a daemon that was told to end has ended well."""
        assert daemon.wait_for_end() == 0, daemon.tail()
        self.life.mark(then)

    def processes(self) -> list[psutil.Process]:
        """Returns keeper and worker, the keeper first."""
        return sorted(self.bed.processes(), key=lambda process: process.create_time())

    def kill(self, at_s: float = 0.0, then: str = "") -> None:
        """Ends all of them as the kernel would, at a time of the load."""
        processes = self.processes()
        if then:
            self.life.at(at_s, then)
        began = time.monotonic()
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.wait_for_death(processes, began)

    def wait_for_death(self, processes: Sequence[psutil.Process], began: float) -> None:
        """Waits until their sockets are closed, too; until then they lose what is asked of them."""
        wait_until(lambda: not any(map(runs, processes)), "an end of keeper and worker")
        self.life.mark("all are dead")
        self.dying_s += time.monotonic() - began


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """The rows, printed when all are there."""
    heads = ("sent", 6), ("lost", 5), ("rcode", 5), ("reset", 5), ("failed", 6), ("longest", 8)
    more = ("by node", 8), ("by cluster", 10), ("flows", 6)
    rows = [f"{'fault':42}" + "".join(f" {head:>{width}}" for head, width in (*heads, *more))]
    yield rows
    figure("a node's life\n" + "\n".join(rows))


@contextlib.contextmanager
def bed_of_two(folder: Path) -> Iterator[NodeBed]:
    """The node, two pods, and a cluster's DNS of two servers behind a Service."""
    with ExitStack() as stack:
        bed = make_bed(stack, folder, lead_services, (*ENDPOINTS, *ENDPOINTS6))
        for family, router in (("-4", UPSTREAM), ("-6", UPSTREAM6)):
            bed.run("ip", family, "route", "add", "default", "via", router)
        yield bed


@pytest.fixture(scope="module")
def beds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept[NodeBed]]:
    with Kept(lambda: bed_of_two(tmp_path_factory.mktemp("life"))) as kept:
        yield kept


@pytest.fixture
def bed(beds: Kept[NodeBed], request: pytest.FixtureRequest) -> NodeBed:
    """The bed that all rows share."""
    return beds.get(request)


@contextlib.contextmanager
def node_of(bed: NodeBed) -> Iterator[Node]:
    """A node without a daemon; whatever is started is ended with the block."""
    node = Node(bed)
    try:
        yield node
    finally:
        node.life.end()
        node.kill()


def nothing(node: Node) -> None:
    node.serve()
    node.life.begin()


def killed_and_restarted(node: Node) -> None:
    node.serve()
    node.life.begin()
    node.kill(FAULT_S, "killed")
    node.life.at(FAULT_S + 1, "started")
    node.succeed()


def killed_three_times(node: Node) -> None:
    """Pauses of 4 s; a kubelet that backs off makes them 10 s and more."""
    node.serve()
    node.life.begin(18)
    for number in range(3):
        node.kill(FAULT_S + 5 * number, "killed")
        node.life.at(FAULT_S + 5 * number + 4, "started")
        node.succeed()


def killed_for_good(node: Node) -> None:
    node.serve()
    node.life.begin()
    node.kill(FAULT_S, "killed")


def stopped(node: Node) -> None:
    node.serve()
    family = node.processes()
    node.life.begin()
    node.life.at(FAULT_S, "SIGSTOP")
    for process in family:
        process.suspend()
    node.life.at(FAULT_S + 5, "SIGCONT")
    for process in node.processes():
        process.resume()


def frozen(node: Node) -> None:
    node.serve()
    with group_of("freezer", node.processes()) as group:
        node.life.begin()
        node.life.at(FAULT_S, "frozen")
        group.freeze(True)
        try:
            node.life.at(FAULT_S + 5, "thawed")
        finally:
            group.freeze(False)


def out_of_memory(node: Node) -> None:
    """Somebody else in the group takes all memory; the daemon's processes are chosen to die."""
    node.serve()
    family = node.processes()
    with group_of("memory", family) as group:
        for process in family:
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        group.limit(64 << 20)
        hog = "import sys; sys.stdin.read(1); hog = []\nwhile True: hog.append(bytes(1 << 20))"
        with subprocess.Popen([sys.executable, "-c", hog], stdin=subprocess.PIPE) as eater:
            try:
                group.take([psutil.Process(eater.pid)])
                node.life.begin()
                node.life.at(FAULT_S, "memory is used up")
                assert eater.stdin is not None
                eater.stdin.write(b"\n")
                eater.stdin.flush()
                node.wait_for_death(family, group.wait_for_kill())
            finally:
                eater.kill()
    node.life.at(FAULT_S + 4, "started")
    node.succeed()


def worker_killed(node: Node) -> None:
    """Three times: the keeper takes longer and longer to start another."""
    daemon = node.serve()
    node.life.begin()
    for number in range(3):
        node.life.at(FAULT_S + 3 * number, "worker killed")
        daemon.worker().kill()


def deleted_with_successor(node: Node) -> None:
    """kubectl delete pod: the DaemonSet starts the next pod at once."""
    daemon = node.serve("-leavewait", "10s")
    node.life.begin()
    node.life.at(FAULT_S, "SIGTERM")
    daemon.process.terminate()
    node.life.at(FAULT_S + 0.5, "successor started")
    node.succeed("-leavewait", "10s")
    node.see_off(daemon, "the old one has gone")


def deleted_without_successor(node: Node) -> None:
    daemon = node.serve("-leavewait", "2s")
    node.life.begin()
    node.life.at(FAULT_S, "SIGTERM")
    daemon.process.terminate()
    node.see_off(daemon, "it has gone")


def rolled_out(node: Node) -> None:
    daemon = node.serve()
    node.life.begin()
    node.life.at(FAULT_S, "successor started")
    node.succeed()
    node.see_off(daemon, "the old one has gone")


def lame_duck_with_successor(node: Node) -> None:
    lame = corefile(lameduck_s=3)
    daemon = node.serve(corefile_text=lame)
    node.life.begin()
    node.life.at(FAULT_S, "SIGTERM")
    daemon.process.terminate()
    node.life.at(FAULT_S + 1, "successor started")
    node.succeed(corefile_text=lame)
    node.see_off(daemon, "the old one has gone")


def hanging_upstream_with_successor(node: Node) -> None:
    hanging = corefile(is_hanging=True)
    daemon = node.serve("-leavewait", "10s", corefile_text=hanging)
    with hanging_questions(node.bed):
        node.life.begin()
        node.life.at(FAULT_S, "SIGTERM")
        daemon.process.terminate()
        node.life.at(FAULT_S + 1, "successor started")
        node.succeed("-leavewait", "10s", corefile_text=hanging)
        node.see_off(daemon, "the old one has gone")


def uninstalled_and_reinstalled(node: Node) -> None:
    daemon = node.serve()
    node.life.begin()
    node.life.at(FAULT_S, "SIGTERM")
    daemon.process.terminate()
    node.see_off(daemon, "it has gone")
    node.life.at(FAULT_S + 3, "installed anew")
    node.succeed()


def restarted_in_place(node: Node) -> None:
    daemon = node.serve()
    node.life.begin()
    node.life.at(FAULT_S, "SIGTERM")
    daemon.process.terminate()
    node.see_off(daemon, "started")
    node.succeed()


def rules_flushed(node: Node) -> None:
    node.serve()
    node.life.begin()
    for number in range(2):
        node.life.at(FAULT_S + 4 * number, "our table is deleted")
        node.bed.run("nft", "delete", "table", "inet", "nodecache")


def _busy_script() -> str:
    hosts = (f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(_MUTEX_RULES))
    return "\n".join(
        [
            "add table ip busy",
            "delete table ip busy",
            "add table ip busy",
            "add chain ip busy busy",
            *(f"add rule ip busy busy ip daddr {host} accept" for host in hosts),
            "",
        ]
    )


def nft_busy(node: Node) -> None:
    """Somebody loads tens of thousands of rules, again and again: the kernel's nft waits for it."""
    node.serve()
    path = node.bed.folder / "busy.nft"
    path.write_text(_busy_script())
    node.life.begin()
    node.life.at(FAULT_S, "nft is busy")
    loads, until = 0, time.monotonic() + _MUTEX_S
    while time.monotonic() < until:
        node.bed.run("nft", "-f", str(path))
        loads += 1
    node.life.mark(f"nft is idle after {loads} loads")
    node.bed.run("nft", "delete", "table", "ip", "busy")


def taken_over_from_stock(node: Node) -> None:
    command = [program("ip"), "netns", "exec", node.bed.node, sys.executable, str(_STOCK)]
    stock = Child([*command, *ADDRESSES], node.bed.folder / "stock.log")
    with stock:
        stock.wait_for_log("serving")
        node.life.begin()
        node.life.at(FAULT_S, "nodecache started")
        node.succeed()
        node.life.at(FAULT_S + 4, "SIGTERM for node-cache")
        stock.stop()
        node.life.mark("node-cache has gone")


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, how many queries it may cost, and who answers in the end.

    ``lost`` is None where any number may be lost as long as no look-up fails. ``resets`` may be
    lost besides, over TCP: a connection that is open when the kernel begins to lead to somebody
    else breaks, and the stub asks again (RFC 7766 section 6.2.4).
    """

    happen: Callable[[Node], None]
    lost: int | None
    by: By = By.NODE
    resets: int = 0


ROWS = {
    "nothing": Row(nothing, 0),
    "killed, restarted after 1 s": Row(killed_and_restarted, 10),
    "killed three times, 4 s apart": Row(killed_three_times, 30),
    "killed for good": Row(killed_for_good, 10, By.CLUSTER),
    "SIGSTOP for 5 s": Row(stopped, None),
    "frozen for 5 s": Row(frozen, None),
    "OOM kill": Row(out_of_memory, 10),
    "worker killed three times": Row(worker_killed, 30),
    "SIGTERM, a successor at once": Row(deleted_with_successor, 0),
    "SIGTERM, no successor": Row(deleted_without_successor, 0, By.CLUSTER, resets=6),
    "rollout by hand-over": Row(rolled_out, 0),
    "lameduck, a successor meanwhile": Row(lame_duck_with_successor, 0),
    "SIGTERM, hanging upstream, a successor": Row(hanging_upstream_with_successor, 0),
    "uninstalled, installed 3 s later": Row(uninstalled_and_reinstalled, 0, resets=6),
    "restarted in place": Row(restarted_in_place, 0, resets=6),
    "rules flushed by another tool": Row(rules_flushed, None),
    "nft busy for 6 s": Row(nft_busy, 0),
    "take-over from node-cache": Row(taken_over_from_stock, 10),
}


def _line(name: str, outcome: Outcome) -> str:
    return (
        f"{name:42} {outcome.sent:6} {len(outcome.lost):5} {outcome.rcodes:5}"
        f" {outcome.resets:5}"
        f" {len(outcome.failed):6} {outcome.longest_s * 1e3:5.0f} ms"
        f" {outcome.by['node']:8} {outcome.by['cluster']:10} {outcome.flows:6}"
    )


@pytest.mark.parametrize("name", ROWS)
def test_look_ups_survive(bed: NodeBed, table: list[str], name: str) -> None:
    """The machine is shared: stubs, servers and the node compete for two cores, and a server whose
    queue overflows loses what no daemon can save. So a second try is allowed (tests/conftest.py),
    and the table has both.
    """
    row = ROWS[name]
    with node_of(bed) as node:
        row.happen(node)
        outcome = node.life.finish()
        table.append(_line(name, outcome))
        figure(f"{_line(name, outcome)}\n{outcome.explain()}")
        assert outcome.sent >= 12_000 - 6
        assert [bed.answerer(server, PATIENCE_S) for server in ADDRESSES] == [row.by] * 4
        most = outcome.sent if row.lost is None else max(row.lost, node.dying_s * RATE)
        is_good = len(outcome.lost) - min(outcome.resets, row.resets) <= most
        assert is_good, outcome.explain()
        assert not outcome.failed, outcome.explain()


def _cpu_ms(process: psutil.Process) -> float:
    """Returns what a process has used, in ms; finer than clock ticks."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e6


def _idle_cpu(node: Node, *flags: str) -> str:
    """Returns how long a daemon takes to answer, and what it uses while nobody asks."""
    began = time.monotonic()
    daemon = node.succeed(*flags)
    wait_until(lambda: node.bed.answerer(LOCAL, 0.05) is By.NODE, daemon.tail)
    answered_s = time.monotonic() - began
    node.bed.wait_for_rules(daemon)
    time.sleep(1)  # the start is over
    keeper, worker = psutil.Process(daemon.pid), daemon.worker()
    before = [_cpu_ms(process) for process in (keeper, worker)]
    time.sleep(IDLE_S)
    used = [_cpu_ms(process) - was for process, was in zip((keeper, worker), before, strict=True)]
    node.kill()
    return (
        f"first answer after {answered_s * 1e3:.0f} ms; in {IDLE_S} idle s the keeper uses"
        f" {used[0]:.1f} ms, the worker {used[1]:.1f} ms"
    )


def test_cost_of_beats_is_shown(bed: NodeBed) -> None:
    with node_of(bed) as node:
        figure(f"without beats: {_idle_cpu(node, '-fallback', 'off')}")
        figure(f"with beats: {_idle_cpu(node)}")
