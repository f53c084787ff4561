"""Owns a measured server process: start on one core, its CPU time, its memory, stop by pid.

Figures are of the whole process tree (a parent with a worker counts as one server). Linux only.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
STOP_AFTER_S = 5.0
LOG_TAIL_OCTETS = 600


class ServerFailedError(Exception):
    """The server did not start, did not answer or went away; the message quotes its log."""


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU time of a process tree so far.

    Attributes:
        threads: Nanoseconds on the CPU by thread id, of the threads that live.
        ticks_ns: Nanoseconds by process id, exited threads included, in steps of one tick (10 ms).
    """

    threads: dict[int, int]
    ticks_ns: dict[int, int]

    def total(self) -> int:
        """Returns the nanoseconds that all living threads have used."""
        return sum(self.threads.values())

    def since(self, earlier: CpuReading) -> int:
        """Returns the nanoseconds used since; by ticks if a thread has gone in between."""
        if earlier.threads.keys() <= self.threads.keys():
            return self.total() - earlier.total()
        return sum(ns - earlier.ticks_ns.get(pid, 0) for pid, ns in self.ticks_ns.items())


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process tree in octets: proportional set size and resident set size."""

    pss: int
    rss: int


class ServerProcess:
    """One running server, pinned to one core; standard output and errors go to its log file."""

    def __init__(self, command: list[str], core: int, directory: Path) -> None:
        self._log_path = directory / "log"
        self._log = self._log_path.open("wb")
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def check_alive(self) -> None:
        """Raises ServerFailedError, with the end of the log, if the process has ended."""
        if self._process.poll() is not None:
            raise self.failure(f"ended with exit code {self._process.returncode}")

    def failure(self, reason: str) -> ServerFailedError:
        """Returns the error to raise, with the reason and the end of the log."""
        self._log.flush()
        tail = self._log_path.read_bytes()[-LOG_TAIL_OCTETS:].decode(errors="replace").strip()
        return ServerFailedError(f"{reason}; its log ends: {tail or '(empty)'}")

    def pids(self) -> list[int]:
        """Returns the process and all its descendants."""
        found = [self._process.pid]
        for pid in found:
            for children in (PROC / str(pid) / "task").glob("*/children"):
                found.extend(int(child) for child in _read(children).split())
        return found

    def cpu(self) -> CpuReading:
        """Returns the CPU time of the tree so far."""
        threads: dict[int, int] = {}
        ticks_ns: dict[int, int] = {}
        for pid in self.pids():
            for path in (PROC / str(pid) / "task").glob("*/schedstat"):
                if text := _read(path):
                    threads[int(path.parent.name)] = int(text.split()[0])
            if text := _read(PROC / str(pid) / "stat"):
                user, system = text.rpartition(")")[2].split()[11:13]
                ticks_ns[pid] = (int(user) + int(system)) * TICK_NS
        return CpuReading(threads, ticks_ns)

    def memory(self) -> Memory:
        """Returns the memory of the tree, from smaps_rollup."""
        pss = rss = 0
        for pid in self.pids():
            for line in _read(PROC / str(pid) / "smaps_rollup").splitlines():
                key, *rest = line.split()
                if key == "Pss:":
                    pss += int(rest[0]) * 1024
                elif key == "Rss:":
                    rss += int(rest[0]) * 1024
        return Memory(pss, rss)

    def stop(self) -> None:
        """Ends the process: SIGTERM, and after five seconds SIGKILL."""
        self._process.terminate()
        try:
            self._process.wait(STOP_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _read(path: Path) -> str:
    """Returns a file's text, or nothing if its process has gone."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def core_idle_ns(core: int) -> int:
    """Returns for how long a core has been idle since boot, in steps of one tick."""
    for line in _read(PROC / "stat").splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return (int(ticks[3]) + int(ticks[4])) * TICK_NS
    return 0
