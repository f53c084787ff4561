"""How long a hit waits at worst while something else is done: `python -m bench.stalls`.

A real daemon holds many names. A client asks for some of them, one query at a time, 3,000 a second,
while the configuration changes, /metrics is read, the cache is written, and all names expire. What
the machine does in between looks like a stall, too: each thing is done several times, and the
least of the worst round trips counts. A stall of ours comes each time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

from bench.build import build_programs
from bench.generator import Generator, Load, compose_query, time_first_answer
from bench.peers import COMPILED, HOST, UPSTREAM_HOST
from bench.process import ServerFailedError, ServerProcess
from bench.run import free_port

RATE = 3000
HOT_NAMES = 300
SETTLED_S = 2.5  # a changed file is in force within 2 s
EXPIRING_S = 20
HOST_CORE, LOAD_CORE = 0, max(os.sched_getaffinity(0))

COREFILE = """\
.:{port} {{
    bind {host}
    errors
    cache {{
        success 1000000 {cap_s}
    }}
    forward . {upstream_host}:{upstream_port} {{
        force_tcp{option}
    }}
    prometheus {host}:{metrics_port}
}}
{more}"""


class Subject:
    """The daemon that is measured.

    Attributes:
        server: Its processes.
        port: Where it answers.
    """

    def __init__(self, directory: Path, upstream_port: int, *, is_compiled: bool) -> None:
        self.port, self._metrics_port, other = (free_port(HOST) for _ in range(3))
        self._upstream_port = upstream_port
        self._path = directory / "Corefile"
        self._path.parent.mkdir(exist_ok=True)
        self.write()
        environ = [f"PYTHONPATH={COMPILED}"] if is_compiled else ["-u", "PYTHONDONTWRITEBYTECODE"]
        command = ["env", *environ, sys.executable, *(["-P"] if is_compiled else []), "-m"]
        command += ["nodecache", "-localip", HOST, "-setupinterface=false"]
        command += ["-setupiptables=false", "-conf", str(self._path), "-keeper=false"]
        command += ["-basecorefile", str(self._path), "-rundir", str(directory / "run")]
        command += ["-cache-size", "1GiB", "-metrics-listen-address", f"{HOST}:{other}"]
        self.server = ServerProcess(command, HOST_CORE, directory)

    def write(self, cap_s: int = 3000, option: str = "", more: str = "") -> None:
        """Changes the configuration; the daemon sees it for itself."""
        text = COREFILE.format(
            host=HOST,
            port=self.port,
            cap_s=cap_s,
            option=option,
            upstream_host=UPSTREAM_HOST,
            upstream_port=self._upstream_port,
            metrics_port=self._metrics_port,
            more=more.format(host=HOST, port=self.port, upstream_host=UPSTREAM_HOST),
        )
        draft = self._path.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self._path)

    def scrape(self) -> None:
        """Reads /metrics."""
        with urllib.request.urlopen(f"http://{HOST}:{self._metrics_port}/metrics") as page:
            page.read()


class Stub:
    """Asks for hot names, one at a time, and notes the longest round trip."""

    def __init__(self, port: int) -> None:
        self._queries = [compose_query(f"n{n}") for n in range(HOT_NAMES)]
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.settimeout(5)
        self._sock.connect((HOST, port))

    def worst_ms(self, seconds: float) -> float:
        """Returns the longest round trip of ``seconds``, in milliseconds."""
        worst, count, began = 0.0, 0, time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            self._sock.send(self._queries[count % HOT_NAMES])
            self._sock.recv(4096)
            after = time.perf_counter()
            worst = max(worst, after - now)
            count += 1
            time.sleep(max(0.0, began + count / RATE - after))
        return worst * 1e3


def things(subject: Subject) -> Iterator[tuple[str, float, Callable[[int], object]]]:
    """Yields what is done, how long it may take, and how to do it for the n-th time."""
    yield "nothing", 2.0, lambda _: None
    yield "scrape", 1.0, lambda _: subject.scrape()
    yield "TTL cap changed", SETTLED_S, lambda n: subject.write(2900 - n)
    zone = "other{}.test:{{port}} {{{{\n bind {{host}}\n forward . {{upstream_host}}\n}}}}\n"
    yield "new zone", SETTLED_S, lambda n: subject.write(2900, more=zone.format(n))
    yield "new forward", SETTLED_S, lambda n: subject.write(2900, f"\n        except x{n}.test")


def report(name: str, worst: list[float]) -> None:
    """Prints one line."""
    each = " ".join(f"{ms:.1f}" for ms in worst)
    print(f"  {name:<18} {min(worst):7.1f} ms   ({each})", flush=True)


def fill(generator: Generator, subject: Subject, names: int) -> None:
    """Has the daemon keep ``names`` names."""
    generator.measure(subject.server, subject.port, Load("warm", names, 120.0, passes=1))


def measure(generator: Generator, subject: Subject, names: int, tries: int) -> None:
    """Prints a line for each thing that is done beside a client."""
    time_first_answer(subject.server, subject.port, time.monotonic())
    fill(generator, subject, names)
    stub = Stub(subject.port)
    for name, seconds, act in things(subject):
        worst = []
        for turn in range(tries):
            if name == "new forward" and turn:
                fill(generator, subject, names)
            stub.worst_ms(0.5)
            thread = Thread(target=act, args=(turn,))
            thread.start()
            worst.append(stub.worst_ms(seconds))
            thread.join()
        report(name, worst)
    worst = []
    for turn in range(tries):
        subject.write(EXPIRING_S - turn)
        stub.worst_ms(SETTLED_S)
        fill(generator, subject, names)
        worst.append(stub.worst_ms(EXPIRING_S))
    report("all expire", worst)
    fill(generator, subject, names)
    for pid in subject.server.pids()[-1:]:
        os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(OSError):
        report("kept at the end", [stub.worst_ms(1.0)])


def main() -> int:
    """Prints the worst round trips, plain and compiled; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.stalls", description=__doc__)
    parser.add_argument("--names", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--tries", type=int, default=3)
    arguments = parser.parse_args()
    programs = build_programs()
    with tempfile.TemporaryDirectory(prefix="stalls") as folder:
        upstream_port = free_port(UPSTREAM_HOST)
        command = [str(programs / "upstream"), f"{UPSTREAM_HOST}:{upstream_port}", "cluster.local"]
        (Path(folder) / "upstream").mkdir()
        upstream = ServerProcess(command, LOAD_CORE, Path(folder) / "upstream")
        generator = Generator(programs, upstream, LOAD_CORE, HOST_CORE)
        try:
            for is_compiled in [False, True] if COMPILED.exists() else [False]:
                for names in arguments.names:
                    print(f"{'compiled' if is_compiled else 'plain'}, {names} names", flush=True)
                    directory = Path(folder) / f"{is_compiled}{names}"
                    subject = Subject(directory, upstream_port, is_compiled=is_compiled)
                    try:
                        measure(generator, subject, names, arguments.tries)
                    finally:
                        subject.server.stop()
        except ServerFailedError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            upstream.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
