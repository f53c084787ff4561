"""Owns the client side: runs the C load against a server, and times the first answer."""

from __future__ import annotations

import json
import resource
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.peers import HOST
from bench.process import CpuReading, ServerProcess, core_idle_ns

ZONE = "bench.cluster.local"
START_WITHIN_S = 15.0
FIRST_NAME = "n0"


@dataclass(frozen=True, slots=True)
class Load:
    """One use of the load program.

    Attributes:
        mode: warm, saturate, unique or single; see bench/load.c.
        names: How many different names, 1 to 100,000 (not for unique).
        seconds: Duration; for warm the most it may take.
        sockets: Client sockets, 1 to 64.
        window: Queries in flight on each, 1 to 256.
        passes: How often each name is asked (warm only).
    """

    mode: str
    names: int = 1000
    seconds: float = 3.0
    sockets: int = 4
    window: int = 32
    passes: int = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """What one load measured on one server.

    Attributes:
        queries: Right answers.
        qps: Right answers per second.
        lost: Queries without reply in 200 ms (asked again).
        failed: Replies that were not the answer.
        p50_us: Median latency in microseconds.
        p99_us: 99th percentile in microseconds.
        cpu_us: CPU microseconds of the server for one query.
        utilisation: Share of the time that the server was on its core, 0 to 1.
        disturbed: Core-seconds per second that strangers took on the two cores, 0 to 2.
    """

    queries: int
    qps: float
    lost: int
    failed: int
    p50_us: float
    p99_us: float
    cpu_us: float
    utilisation: float
    disturbed: float


class Generator:
    """Runs loads from one core against servers on another, with the upstream beside it."""

    def __init__(
        self, programs: Path, upstream: ServerProcess, load_core: int, server_core: int
    ) -> None:
        self._program = programs / "load"
        self._upstream = upstream
        self._load_core = load_core
        self._cores = {load_core, server_core}

    def measure(self, server: ServerProcess, port: int, load: Load) -> Sample:
        """Runs one load and returns its figures; raises ServerFailedError without any answer."""
        server.check_alive()
        wall, idle, around, cpu = self._clocks(server)
        result = self._run(server, port, load)
        wall_after, idle_after, around_after, cpu_after = self._clocks(server)
        wall_ns, cpu_ns = wall_after - wall, cpu_after.since(cpu)
        accounted_ns = idle_after - idle + around_after - around + cpu_ns
        return Sample(
            queries=int(result["queries"]),
            qps=result["qps"],
            lost=int(result["lost"]),
            failed=int(result["failed"]),
            p50_us=result["p50_us"],
            p99_us=result["p99_us"],
            cpu_us=cpu_ns / 1e3 / result["queries"],
            utilisation=cpu_ns / 1e9 / result["seconds"],
            disturbed=max(0.0, len(self._cores) - accounted_ns / wall_ns),
        )

    def _clocks(self, server: ServerProcess) -> tuple[int, int, int, CpuReading]:
        """Returns wall time, idle time of the cores, CPU time around the server, and the server's.

        All but the last in nanoseconds; "around" is the upstream, the loads and this process.
        """
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        around_ns = int(sum(usage.ru_utime + usage.ru_stime for usage in own) * 1e9)
        around_ns += self._upstream.cpu().total()
        idle_ns = sum(core_idle_ns(core) for core in self._cores)
        return time.monotonic_ns(), idle_ns, around_ns, server.cpu()

    def _run(self, server: ServerProcess, port: int, load: Load) -> dict[str, float]:
        """Runs the program; returns its JSON without the mode."""
        done = subprocess.run(
            [
                *(str(self._program), load.mode, "--to", f"{HOST}:{port}", "--zone", ZONE),
                *("--count", str(load.names), "--passes", str(load.passes)),
                *("--sockets", str(load.sockets), "--window", str(load.window)),
                *("--seconds", str(load.seconds), "--core", str(self._load_core)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            server.check_alive()
            raise server.failure(
                f"no answer under load ({done.stdout.strip()}{done.stderr.strip()})"
            )
        result: dict[str, float] = json.loads(done.stdout)
        result.pop("mode")
        return result


def compose_query(label: str) -> bytes:
    """Returns an A question for the label under the zone, ID 1, RD set."""
    name = b"".join(bytes((len(part),)) + part.encode() for part in (label, *ZONE.split(".")))
    return struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack("!2H", 1, 1)


def time_first_answer(server: ServerProcess, port: int, started_at: float) -> float:
    """Asks about once a millisecond until an answer with a record comes.

    Args:
        server: Watched while waiting.
        port: Where it will listen.
        started_at: time.monotonic() just before the process was started.

    Returns:
        Milliseconds from start to answer.

    Raises:
        ServerFailedError: The process ended, or 15 seconds passed.
    """
    query = compose_query(FIRST_NAME)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((HOST, port))
        client.settimeout(0.002)
        while time.monotonic() < started_at + START_WITHIN_S:
            try:
                client.send(query)
                reply = client.recv(512)
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                time.sleep(0.001)
                server.check_alive()
                continue
            if len(reply) > len(query) and not reply[3] & 0x0F and reply[7]:
                return (time.monotonic() - started_at) * 1e3
    server.check_alive()
    raise server.failure(f"no answer within {START_WITHIN_S:.0f} s")
