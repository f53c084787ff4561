"""A node under load: two pods and a node process ask it all the time; what they met is counted."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.daemon.processes import Child
from tests.daemon.servers import program
from tests.daemon.stubs import make_query
from tests.netlife.kube_proxy import SERVICE
from tests.netns.children import METRICS, stock_corefile
from tests.netns.node import NodeBed
from tests.netns.topology import ADDRESSES, CLUSTER, CLUSTER6, LOCAL, LOCAL6, UPSTREAM, inside

RATE, SECONDS = 1000, 12
HANGING_PORT = 5399
_HANGING_PAUSE_S = 0.1
_STUBS = Path(__file__).parent / "stubs.py"
_AHEAD_S = 0.7  # what three interpreters take to start
# What is under way at the end has 10 s (glibc's two attempts); a busy machine has as much again.
_LAST_S = 25.0
_SLOT_S = 0.25
# Most resolv.conf of pods name LOCAL, or CLUSTER from before; some name both, some are IPv6.
_KINDS = (
    f"glibc={LOCAL}",
    f"musl={LOCAL}",
    f"glibc={CLUSTER}",
    f"glibc={LOCAL}",
    f"tcp={LOCAL}",
    f"glibc={LOCAL6}",
    f"musl={CLUSTER}",
    f"glibc={LOCAL}",
    f"musl={LOCAL},{CLUSTER}",
    f"glibc={CLUSTER}",
    f"glibc={CLUSTER6}",
    f"musl={LOCAL}",
    f"glibc={LOCAL}",
    f"musl={LOCAL6}",
    f"tcp={CLUSTER}",
    f"glibc={CLUSTER}",
)


def corefile(*, lameduck_s: int = 0, is_hanging: bool = False) -> str:
    """Returns the stock manifest's Corefile, with a zone that nobody answers if wanted."""
    text = stock_corefile(lameduck_s=lameduck_s).replace(
        f"forward . {UPSTREAM}", f"forward . {SERVICE}"
    )
    if is_hanging:
        text += (
            f"hang.test:53 {{\n    bind {' '.join(ADDRESSES)}\n"
            f"    forward . {UPSTREAM}:{HANGING_PORT} {{\n        force_tcp\n    }}\n"
            f"    prometheus :{METRICS}\n}}\n"
        )
    return text


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all stubs together have met.

    Attributes:
        sent: Queries, each counted once however often it was sent.
        lost: When (seconds since the load began), whose, and how a query was lost.
        failed: When and whose look-ups failed after all retries, a line for each query.
        by: Answers with an address, by who made them: "node" or "cluster".
        longest_s: The longest look-up that ended well.
        marks: What was done, and when.
        flows: Entries of connection tracking on the node that the look-ups made.
    """

    sent: int
    lost: list[tuple[float, str, str]]
    failed: list[tuple[float, str]]
    by: Counter[str]
    longest_s: float
    marks: list[tuple[float, str]]
    flows: int

    @property
    def rcodes(self) -> int:
        """How many of the lost got a reply, such as REFUSED, that is no answer."""
        return sum(how.startswith("rcode") for _, _, how in self.lost)

    @property
    def resets(self) -> int:
        """How many of the lost were on a TCP connection that broke."""
        broken = ("ECONNRESET", "ECONNREFUSED", "EOFError", "EPIPE")
        return sum(" tcp " in who and how in broken for _, who, how in self.lost)

    def explain(self) -> str:
        """Returns the losses along the time, and between them what was done."""
        lost = [(at, f"lost: {who}: {how}") for at, who, how in self.lost]
        failed = [(at, f"FAILED: {who}") for at, who in self.failed]
        slots: dict[tuple[int, str], list[float]] = {}
        for at, what in (*lost, *failed):
            slots.setdefault((int(at / _SLOT_S), what), []).append(at)
        lines = [
            (min(times), f"to {max(times):7.3f} s {len(times):4d} {what}")
            for (_, what), times in slots.items()
        ]
        lines += [(at, f"-- {what}") for at, what in self.marks]
        return "\n".join(f"{at:7.3f} {text}" for at, text in sorted(lines))


class Life:
    """The node's life during one load."""

    def __init__(self, bed: NodeBed) -> None:
        self.bed = bed
        self._numbers = count(1)
        self._loads: dict[str, Child] = {}
        self._began = 0.0
        self._marks: list[tuple[float, str]] = []

    def begin(self, seconds: float = SECONDS) -> None:
        """Lets the stubs ask for so long, from now on."""
        self._forget_flows()
        self._marks = []
        self._began = time.monotonic() + _AHEAD_S
        clients = {"pod1": self.bed.pods[0], "pod2": self.bed.pods[1], "node": self.bed.node}
        for number, (who, namespace) in enumerate(clients.items()):
            start = self._began + number / RATE  # in turn, as strangers do, not all at once
            label = f"{who}-{next(self._numbers)}"
            self._loads[who] = Child(
                [
                    *(program("ip"), "netns", "exec", namespace, sys.executable, str(_STUBS)),
                    *("--rate", str(RATE / len(clients)), "--seconds", str(seconds)),
                    *("--start", str(start), "--label", label, *_KINDS),
                ],
                self.bed.folder / f"stubs-{label}",
            )

    def _forget_flows(self) -> None:
        """Leaves those of the daemon to its upstream: it could not go on with them."""
        for address in (CLUSTER, CLUSTER6):
            with suppress(subprocess.CalledProcessError):  # there was none
                self.bed.run("conntrack", "-D", "--orig-dst", address)

    def at(self, seconds: float, what: str) -> None:
        """Waits until so long after the beginning, when ``what`` is going to happen."""
        time.sleep(max(0.0, self._began + seconds - time.monotonic()))
        self.mark(what)

    def mark(self, what: str) -> None:
        """Notes that something has just happened."""
        self._marks.append((time.monotonic() - self._began, what))

    def finish(self) -> Outcome:
        """Waits for the stubs and returns what they met."""
        reports = {}
        for who, load in self._loads.items():
            assert load.process.wait(SECONDS + _LAST_S) == 0, load.log()
            reports[who] = json.loads(load.log().splitlines()[-1])
        self._loads = {}
        return Outcome(
            sum(report["sent"] for report in reports.values()),
            [(at, f"{w} {s}", how) for w, r in reports.items() for at, s, how in r["lost"]],
            [(at, f"{w} {s}") for w, r in reports.items() for at, s in r["failed"]],
            sum((Counter(report["by"]) for report in reports.values()), Counter()),
            max(report["longest_s"] for report in reports.values()),
            self._marks,
            self.bed.connections().count("\n"),
        )

    def end(self) -> None:
        """Leaves no stub behind, whatever happened."""
        for load in self._loads.values():
            if load.process.poll() is None:
                load.kill()
        self._loads = {}


@contextmanager
def hanging_questions(bed: NodeBed) -> Iterator[None]:
    """A pod asks for names of a server that takes every query and answers none."""
    with inside(bed.cluster):
        silent = socket.create_server((UPSTREAM, HANGING_PORT), backlog=1024)
    with inside(bed.pods[0]):
        asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    done = threading.Event()

    def ask() -> None:
        for number in count():
            if done.wait(_HANGING_PAUSE_S):
                return
            with suppress(OSError):
                asker.sendto(make_query(f"n{number}.hang.test").to_wire(), (LOCAL, 53))

    thread = threading.Thread(target=ask)
    with silent, asker:
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
