"""An upstream that hangs, and a flood of names that only it could know, in little memory.

For two minutes instead of some seconds: NODECACHE_FLOOD_SECONDS=120.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.cgroup import MemoryGroup, memory_group
from tests.daemon.faulty import ScriptedUpstream
from tests.daemon.processes import HOST, PATIENCE_S, ROOT, Daemon, faultless, free_port
from tests.daemon.stubs import Samples, ask, make_query, scrape, total
from tests.slowness import slowness

MIB = 1 << 20
MEMORY_OCTETS = 96 * MIB
IS_LONG = "NODECACHE_FLOOD_SECONDS" in os.environ
SECONDS = float(os.environ.get("NODECACHE_FLOOD_SECONDS", "10"))
RATE = 20_000
CLIENTS = 32
# All that is in flight, and what failed, is there by then: queries end after 4.5 s.
SETTLED_S = 6.0
HOT = [f"hot{n}.ttl-3600.test" for n in range(50)]
REFUSED = 5

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(int(SECONDS) + 110)]


@contextmanager
def hung_upstream() -> Iterator[int]:
    """A port whose TCP connections the kernel takes and nobody serves, and the same for UDP."""
    port = free_port()
    with (
        socket.create_server((HOST, port), backlog=4096),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind((HOST, port))
        yield port


@contextmanager
def bounded_memory() -> Iterator[tuple[Sequence[str], MemoryGroup | None]]:
    """Yields what bounds the memory of a command, and the control group if there is one."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a control group")
    with memory_group(MEMORY_OCTETS) as group:
        if isinstance(group, MemoryGroup):
            yield group.command, group
        elif (prlimit := shutil.which("prlimit")) is None:
            pytest.skip(f"neither a control group ({group}) nor prlimit to bound memory")
        else:
            print(f"no control group ({group}): RLIMIT_DATA instead, without the kernel's part")
            yield [prlimit, f"--data={MEMORY_OCTETS}"], None


@contextmanager
def flooded_daemon(folder: Path, options: str, within: Sequence[str]) -> Iterator[Daemon]:
    """A daemon whose names below ttl-3600.test are answered, and all others hang."""
    port, metrics_port = free_port(), free_port()
    with ScriptedUpstream() as known, hung_upstream() as hung:
        text = (
            f"ttl-3600.test:{port} {{\n bind {HOST}\n cache 3600\n"
            f" forward . {known.host}:{known.port}\n}}\n"
            f".:{port} {{\n bind {HOST}\n errors\n cache 300\n forward . {HOST}:{hung} {{\n"
            f"  {options}\n }}\n prometheus {HOST}:{metrics_port}\n}}\n"
        )
        daemon = Daemon(folder, text, port=port, metrics_port=metrics_port, within=within)
        with faultless(daemon):
            daemon.wait_until_serving()
            for name in HOT * 2:
                ask(daemon, name)
            yield daemon


def rss_octets(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def hit_times_ms(daemon: Daemon, until: float) -> list[float]:
    """Asks for what is known, one query after the other, until then; a lost one counts 1 s."""
    times: list[float] = []
    queries = [make_query(name).to_wire() for name in HOT]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((daemon.host, daemon.port))
        sock.settimeout(1.0)
        while time.monotonic() < until:
            query = queries[len(times) % len(queries)]
            began = time.monotonic()
            sock.send(query)
            try:
                reply = sock.recv(4096)
                while reply[:2] != query[:2]:
                    reply = sock.recv(4096)
                assert reply[3] & 15 == 0
            except TimeoutError:
                pass
            times.append((time.monotonic() - began) * 1000)
            time.sleep(0.002)
    return times


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[int(len(times) * share)]


def start_flood(daemon: Daemon, clients: int = CLIENTS) -> subprocess.Popen[str]:
    arguments = [daemon.host, str(daemon.port), str(RATE), str(SECONDS), str(clients)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.daemon.flood", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def shed(samples: Samples) -> float:
    return total(samples, "nodecache_shed_total")


@pytest.mark.parametrize("options", ["force_tcp", "prefer_udp"])
def test_memory_stays_flat_and_hits_fast_while_an_upstream_hangs(
    tmp_path: Path, options: str
) -> None:
    with bounded_memory() as (within, group), flooded_daemon(tmp_path, options, within) as daemon:
        before = hit_times_ms(daemon, time.monotonic() + 1)
        at_rest = rss_octets(daemon)
        with start_flood(daemon) as flood:
            began = time.monotonic()
            during = hit_times_ms(daemon, began + SETTLED_S)
            pending = total(scrape(daemon), "nodecache_pending_exchanges")
            settled = rss_octets(daemon)
            during += hit_times_ms(daemon, began + SECONDS)
            output, _ = flood.communicate(timeout=PATIENCE_S)
        at_end = rss_octets(daemon)
        samples, sent = scrape(daemon), json.loads(output)
        peak = group.peak_octets if group is not None else at_end
        print(
            f"\n{options}: {sent}, hits p50/p99 {percentile(before, 0.5):.2f}/"
            f"{percentile(before, 0.99):.2f} ms before, {percentile(during, 0.5):.2f}/"
            f"{percentile(during, 0.99):.2f} ms during ({len(during)}); RSS"
            f" {at_rest / MIB:.1f} MiB at rest, {settled / MIB:.1f} after {SETTLED_S:g} s,"
            f" {at_end / MIB:.1f} at the end, group's peak {peak / MIB:.1f};"
            f" {pending:.0f} in flight, {shed(samples):.0f} refused"
        )
        assert daemon.process.poll() is None, daemon.log()
        assert group is None or group.kills == 0
        assert at_end - settled < 8 * MIB
        assert at_end < MEMORY_OCTETS
        assert 0 < pending <= 10_000
        assert sent["rcodes"][str(REFUSED)] <= shed(samples)
        assert sent["rcodes"][str(REFUSED)] > sent["sent"] / 10
        assert percentile(during, 0.5) < 100 * slowness()
        if IS_LONG:  # who asks for that has given it the two cores that it needs
            assert percentile(during, 0.99) < 100


def test_one_client_cannot_take_all_that_may_be_in_flight(tmp_path: Path) -> None:
    with flooded_daemon(tmp_path, "force_tcp", ()) as daemon:
        with start_flood(daemon, clients=1) as flood:
            began = time.monotonic()
            while time.monotonic() < began + SETTLED_S:
                time.sleep(0.2)
            pending = total(scrape(daemon), "nodecache_pending_exchanges")
            # Who may ask waits for the upstream; who may not is told REFUSED at once.
            asks = [_is_let_in(daemon, n) for n in range(20)]
            flood.communicate(timeout=PATIENCE_S + SECONDS)
        samples = scrape(daemon)
        refused = total(samples, "nodecache_shed_client_share_total")
        print(f"\n{pending:.0f} in flight, {refused:.0f} refused for their client's share")
        assert all(asks)
        assert pending <= 500 + 200 + len(asks)
        assert refused > 0


def _is_let_in(daemon: Daemon, number: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((daemon.host, daemon.port))
        sock.settimeout(0.1)
        sock.send(make_query(f"calm{number}.test").to_wire())
        try:
            return sock.recv(512)[3] & 15 != REFUSED
        except TimeoutError:
            return True
