"""What it costs a hit that somebody looks by ``nodecache top``, and how true its counts are.

    python -m bench.micro.top [ROUNDS]

Two daemons of the same sources take turns under a load that fills a core; one of them is looked at
every two seconds. Before that both are measured unseen, which shows what the machine's noise is
worth. The load asks for 300 names alike often, so their true counts are known.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.build import build_programs
from bench.generator import Generator, Load, time_first_answer
from bench.peers import COREFILES, HOST, UPSTREAM_HOST, Site, command_like_node_cache
from bench.process import ServerProcess
from bench.run import free_port
from nodecache.commands.running import ask_running

NAMES = 300
SECONDS = 2.0
LOAD = Load("saturate", names=NAMES, seconds=SECONDS)


class Contender:
    """A daemon under load."""

    def __init__(self, folder: Path, upstream_port: int, core: int) -> None:
        folder.mkdir()
        self.rundir = folder / "run"
        self.port, *http_ports = (free_port(HOST) for _ in range(5))
        site = Site(folder, self.port, tuple(http_ports), upstream_port, NAMES)
        program = [sys.executable, "-m", "nodecache", "-rundir", str(self.rundir)]
        command = command_like_node_cache(program, site, COREFILES["plain"])
        self.process = ServerProcess(command, core, folder)

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Has somebody look every two seconds."""
        is_over = threading.Event()

        def look() -> None:
            while not is_over.is_set():
                ask_running(self.rundir, "/top")
                is_over.wait(2.0)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def main() -> None:
    """Prints CPU microseconds a hit, unseen and looked at, round by round, and the ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    programs = build_programs()
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "upstream").mkdir()
        port = free_port(UPSTREAM_HOST)
        command = [str(programs / "upstream"), f"{UPSTREAM_HOST}:{port}", "cluster.local"]
        upstream = ServerProcess(command, cores[-1], folder / "upstream")
        stack.callback(upstream.stop)
        generator = Generator(programs, upstream, cores[-1], cores[0])
        unseen, seen = (Contender(folder / name, port, cores[0]) for name in ("unseen", "seen"))
        for contender in (unseen, seen):
            stack.callback(contender.process.stop)
            time_first_answer(contender.process, contender.port, time.monotonic())
            generator.measure(contender.process, contender.port, Load("warm", names=NAMES))
        _compare(generator, unseen, seen, rounds, "nobody looks at either")
        with seen.looked_at():
            generator.measure(seen.process, seen.port, LOAD)  # finds its rate of sampling
            _compare(generator, unseen, seen, rounds, "somebody looks at the second")
        _check_counts(generator, seen)


def _compare(
    generator: Generator, one: Contender, other: Contender, rounds: int, title: str
) -> None:
    ratios = []
    for number in range(rounds):
        pair = (one, other) if number % 2 else (other, one)
        us = {each: generator.measure(each.process, each.port, LOAD).cpu_us for each in pair}
        ratios.append(us[other] / us[one])
        print(f"  {title}: {us[one]:.3f} and {us[other]:.3f} us a hit, ratio {ratios[-1]:.3f}")
    print(f"{title}: ratio {statistics.median(ratios):.3f} (median of {rounds})")


def _check_counts(generator: Generator, seen: Contender) -> None:
    """Compares what is said of a load with what the load counted itself."""
    before = ask_running(seen.rundir, "/top")
    sample = generator.measure(seen.process, seen.port, LOAD)
    after = ask_running(seen.rundir, "/top")
    if after["seconds"] > before["seconds"]:  # no window ended meanwhile
        counted = after["queries"] - before["queries"]
        print(f"queries: {sample.queries:,} answered, {counted:,} counted")
    share = sum(name["queries"] for name in after["names"]) / len(after["names"])
    off = [abs(name["queries"] - share) / share for name in after["names"]]
    sampled = sum(count for _, count in after["clients"])
    print(
        f"every {after['every']}th looked at: all together {sampled / after['queries']:.3f} of the"
        f" true count; a name is {statistics.median(off):.1%} off in the middle, of {NAMES} alike"
    )


if __name__ == "__main__":
    main()
