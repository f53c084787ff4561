"""A node with two pods and a cluster DNS as network namespaces, and the daemon as a node runs it.

``node`` routes between the pods and ``cluster``. A nat table stands in for kube-proxy: whoever asks
the ClusterIP from a pod reaches the cluster DNS, unless nodecache's rules keep the query on the
node. Who answered shows in the TTL: the cluster DNS says 600, nodecache at most 30.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.processes import PATIENCE_S, wait_until
from tests.daemon.servers import program, start_knot
from tests.daemon.stubs import Samples, make_query, total
from tests.daemon.zone import ORIGIN
from tests.netns.children import CACHE_S, METRICS, NodeDaemon, PodLoad, stock_corefile
from tests.netns.topology import (
    ADDRESSES,
    CLUSTER,
    CLUSTER6,
    LOCAL,
    PROXY_TABLE,
    UPSTREAM,
    UPSTREAM6,
    inside,
    make_topology,
    proxy_by_nft,
)

BACKENDS = ("nftables", "iptables-nft")
HOT = f"h0.wild.{ORIGIN}"
HEALTH = f"http://{LOCAL}:8080/health"

_VERDICT = re.compile(r"\b(notrack|accept|return|jump|drop)\b")


class By(enum.Enum):
    """Who answered a query."""

    NODE = "nodecache"
    CLUSTER = "the cluster DNS"
    REFUSAL = "a REFUSED"
    NOBODY = "nobody"


def figure(text: str) -> None:
    """Prints a figure: ``pytest -rP`` shows it."""
    sys.stdout.write(f"FIGURE {text}\n")


@dataclass
class NodeBed:
    """The namespaces, and everything to do in them."""

    node: str
    pods: tuple[str, str]
    cluster: str
    folder: Path
    numbers: Iterator[int]
    stack: ExitStack

    @property
    def rundir(self) -> Path:
        return self.folder / "run"

    def _folder(self, what: str) -> Path:
        folder = self.folder / f"{what}{next(self.numbers)}"
        folder.mkdir()
        return folder

    def launch(self, *flags: str, corefile: str = "") -> NodeDaemon:
        """Starts a daemon; it ends with the test, whatever happens."""
        flags = ("-rundir", str(self.rundir), *flags)
        folder = self._folder("nodecache")
        daemon = NodeDaemon(self.node, flags, corefile or stock_corefile(), folder)
        self.stack.callback(self._end, daemon)
        return daemon

    def start(self, *flags: str, corefile: str = "") -> NodeDaemon:
        """Starts a daemon and returns when pods get its answers from the ClusterIPs, too."""
        daemon = self.launch(*flags, corefile=corefile)
        for server in ADDRESSES:
            self.wait_for(By.NODE, server, daemon)
        self.wait_for_rules(daemon)
        return daemon

    def _end(self, daemon: NodeDaemon) -> None:
        """Holds that nothing of ours escaped into a log, and that no process stays."""
        try:
            if daemon.process.poll() is None:
                daemon.stop()
            assert "Traceback" not in daemon.log(), daemon.tail()
        finally:
            for process in self.processes():
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Returns all keepers and workers of this bed."""
        here = str(self.rundir)
        every = psutil.process_iter(["cmdline"])
        return [process for process in every if here in (process.info["cmdline"] or ())]

    def run(self, *command: str, namespace: str = "") -> str:
        """Runs a program on the node, or elsewhere; returns what it printed."""
        with inside(namespace or self.node):
            done = subprocess.run(
                [program(command[0]), *command[1:]],
                capture_output=True, text=True, timeout=PATIENCE_S, check=True,
            )  # fmt: skip
        return done.stdout

    def addresses(self) -> list[str]:
        """Returns those of our addresses that the node has, sorted, doubles too."""
        links = json.loads(self.run("ip", "-json", "address", "show"))
        infos = [info for link in links for info in link["addr_info"]]
        return sorted(info["local"] for info in infos if info["local"] in ADDRESSES)

    def device_of(self, address: str) -> str:
        """Returns the link that has the address."""
        links = json.loads(self.run("ip", "-json", "address", "show"))
        infos = {info["local"]: link["ifname"] for link in links for info in link["addr_info"]}
        return str(infos[address])

    def rules(self, backend: str) -> list[str]:
        """Returns all packet filter rules but kube-proxy's, without counters, sorted."""
        if backend == "nftables":
            return sorted(_nft_rules(self.run("nft", "--stateless", "list", "ruleset")))
        saved = "".join(self.run(f"{tool}-nft-save") for tool in ("iptables", "ip6tables"))
        return sorted(re.findall(r"^-A .*$", saved, re.MULTILINE))

    def ask(
        self, server: str, name: str = HOT, rdtype: str = "A", *,
        tcp: bool = False, pod: int = 0, timeout_s: float = PATIENCE_S,
    ) -> dns.message.Message:  # fmt: skip
        """Returns the reply that a pod gets."""
        send = dns.query.tcp if tcp else dns.query.udp
        with inside(self.pods[pod]):
            return send(make_query(name, rdtype), server, timeout_s)

    def answerer(self, server: str, timeout_s: float = 0.5) -> By:
        """Returns who answers a pod that asks ``server``."""
        try:
            reply = self.ask(server, timeout_s=timeout_s)
        except (OSError, dns.exception.DNSException):
            return By.NOBODY
        if reply.rcode() == dns.rcode.REFUSED:
            return By.REFUSAL
        if not reply.answer:
            return By.NOBODY
        return By.NODE if reply.answer[0].ttl <= CACHE_S else By.CLUSTER

    def wait_for(
        self, who: By, server: str, daemon: NodeDaemon, timeout_s: float = PATIENCE_S
    ) -> None:
        """Returns when ``who`` answers at ``server``."""
        seen = By.NOBODY

        def is_so() -> bool:
            nonlocal seen
            seen = self.answerer(server)
            return seen is who

        wait_until(
            is_so,
            lambda: f"{who.value} answers at {server}, but {seen.value} does: {daemon.tail()}",
            timeout_s,
        )

    def get(self, url: str, timeout_s: float = 5.0) -> str:
        """Returns a page that the node serves; "" when nobody does."""
        with inside(self.node):
            try:
                with urllib.request.urlopen(url, timeout=timeout_s) as page:
                    text: str = page.read().decode()
            except urllib.error.HTTPError as error:
                return f"{error.code} {error.read().decode()}"
            except OSError:
                return ""
        return text

    def scrape(self) -> Samples:
        """Returns all samples of /metrics; waits for the page."""
        text = ""

        def is_there() -> bool:
            nonlocal text
            text = self.get(f"http://127.0.0.1:{METRICS}/metrics")
            return bool(text)

        wait_until(is_there, "/metrics")
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def wait_for_rules(self, daemon: NodeDaemon) -> None:
        """Returns when the daemon says that the node steers queries to it."""
        wait_until(
            lambda: total(self.scrape(), "nodecache_redirect") == 1,
            lambda: f"nodecache_redirect is 1: {daemon.tail()}",
        )

    def load(self, pod: int, *arguments: str) -> PodLoad:
        """Starts a pod's stubs."""
        load = PodLoad(self.pods[pod], self._folder("load"), *arguments)
        self.stack.callback(load.stop)
        return load

    def clean_up(self) -> None:
        """Runs ``nodecache cleanup``, after which nothing of ours is left."""
        words = (sys.executable, "-m", "nodecache", "cleanup", "-localip", ",".join(ADDRESSES))
        self.run(*words, "-rundir", str(self.rundir))
        assert self.addresses() == []
        assert [rules for backend in BACKENDS for rules in self.rules(backend)] == []

    def connections(self) -> str:
        """Returns the connection tracking entries that name one of our addresses."""
        tracked = "".join(self.run("conntrack", "-L", "-f", family) for family in ("ipv4", "ipv6"))
        ours = [line for line in tracked.splitlines() if any(f"={a} " in line for a in ADDRESSES)]
        return "\n".join(ours)


def _nft_rules(text: str) -> Iterator[str]:
    table = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("table "):
            table = line.split()[2]
        elif _VERDICT.search(line) and not line.startswith("type ") and table != PROXY_TABLE:
            yield f"{table}: {line}"


def make_bed(
    stack: ExitStack,
    folder: Path,
    proxy: Callable[[], None] = proxy_by_nft,
    servers: Sequence[str] = (UPSTREAM, UPSTREAM6),
) -> NodeBed:
    """Makes the namespaces and starts the cluster DNS; skips the test where it cannot be done."""
    names = make_topology(stack, proxy)
    bed = NodeBed(names.node, names.pods, names.cluster, folder, itertools.count(1), stack)
    for number, host in enumerate(servers):
        _start_cluster_dns(bed, folder / f"knot{number}", host)
    wait_until(
        lambda: all(bed.answerer(server) is By.CLUSTER for server in (CLUSTER, CLUSTER6)),
        "the cluster DNS answers pods",
    )
    return bed


def _start_cluster_dns(bed: NodeBed, folder: Path, host: str) -> None:
    folder.mkdir()
    bits = 64 if ":" in host else 24
    bed.run(
        "ip",
        "address",
        "replace",
        f"{host}/{bits}",
        "dev",
        "eth0",
        *("nodad",) * (bits == 64),
        namespace=bed.cluster,
    )
    within = [program("ip"), "netns", "exec", bed.cluster]
    upstream = start_knot(folder, host, 53, within)
    bed.stack.callback(upstream.stop)
    with inside(bed.cluster):
        upstream.wait_until_serving()


@contextlib.contextmanager
def bed_in(folder: Path, proxy: Callable[[], None] = proxy_by_nft) -> Iterator[NodeBed]:
    """A bed that is gone at the end of the block; ``proxy`` stands in for kube-proxy."""
    with ExitStack() as stack:
        yield make_bed(stack, folder, proxy)
