"""Owns the order of events: start all servers, measure them in turn, several rounds, and report.

In each round every server is started and warmed; then each step visits all servers one after the
other, so that figures to be compared are taken seconds apart. The order rotates by round. Servers
that are not being measured sleep.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.build import ToolMissingError, build_programs
from bench.generator import Generator, Load, Sample, time_first_answer
from bench.peers import COREFILES, HOST, UPSTREAM_HOST, Peer, Site, known_peers
from bench.process import Memory, ServerFailedError, ServerProcess
from bench.report import Figures, print_report, write_json

STEPS = ("hits", "single", "misses", "memory")
MEMORY_NAMES = 10_000
# Room in the peers' caches for all unique names of a round: none of them is slowed by eviction.
MISSES_PER_SECOND = 100_000
# When strangers take more than this share of a core, batches get smaller and every server looks
# worse by more than that share (misses twice as dear at 0.3): the sample is taken again.
DISTURBED = 0.10
TRIES = 3
REPEATS_S = 90.0  # for all repetitions of a run together


@dataclass(slots=True)
class Bench:
    """One whole run: what to measure, with which means, and what was found so far."""

    options: argparse.Namespace
    programs: Path
    directory: Path
    server_core: int
    load_core: int
    upstream_port: int
    figures: dict[str, Figures]
    starts: int = 0
    repeats_s: float = REPEATS_S

    def may_repeat(self, sample: Sample, tries: int) -> bool:
        """Returns whether a disturbed sample is to be taken again, and takes note of the time."""
        if sample.disturbed <= DISTURBED or tries >= TRIES or self.repeats_s <= 0:
            return False
        self.repeats_s -= self.options.seconds
        return True

    def loads(self) -> dict[str, Load]:
        """Returns the load of each measured step, without the skipped ones."""
        seconds = self.options.seconds
        loads = {
            "hits": Load("saturate", seconds=seconds),
            "single": Load("single", seconds=seconds, sockets=1, window=1),
            "misses": Load("unique", seconds=seconds, window=8),
        }
        return {step: load for step, load in loads.items() if step not in self.options.skip}


@dataclass(frozen=True, slots=True)
class Running:
    """A started server and where it listens."""

    peer: Peer
    process: ServerProcess
    port: int
    start_ms: float


def say(text: str) -> None:
    """Prints a progress line."""
    print(text, file=sys.stderr, flush=True)


def free_port(host: str) -> int:
    """Returns a port that is free for UDP and TCP at the moment."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind((host, 0))
            port: int = udp.getsockname()[1]
            try:
                tcp.bind((host, port))
            except OSError:
                continue
            return port


@contextmanager
def generator_and_upstream(bench: Bench) -> Iterator[Generator]:
    """Runs the upstream on the load's core, and gives the generator that works beside it."""
    directory = bench.directory / "upstream"
    directory.mkdir()
    address = f"{UPSTREAM_HOST}:{bench.upstream_port}"
    command = [str(bench.programs / "upstream"), address, "cluster.local"]
    process = ServerProcess(command, bench.load_core, directory)
    try:
        yield Generator(bench.programs, process, bench.load_core, bench.server_core)
    finally:
        process.stop()


@contextmanager
def running(bench: Bench, peer: Peer, names: int) -> Iterator[Running]:
    """Starts one server with room for `names` in its cache, waits for its first answer, stops it.

    Raises:
        ServerFailedError: It did not answer.
    """
    bench.starts += 1
    directory = bench.directory / f"{bench.starts}-{peer.name}"
    directory.mkdir()
    port, *http_ports = (free_port(HOST) for _ in range(5))
    site = Site(directory, port, tuple(http_ports), bench.upstream_port, names)
    command = peer.command(site)
    started_at = time.monotonic()
    process = ServerProcess(command, bench.server_core, directory)
    try:
        start_ms = time_first_answer(process, port, started_at)
        yield Running(peer, process, port, start_ms)
    finally:
        process.stop()


def drop(bench: Bench, peer: Peer, reason: Exception) -> None:
    """Takes a server out of the rest of the run, and says why."""
    say(f"  {peer.name}: left out: {reason}")
    bench.figures[peer.name].left_out = str(reason).splitlines()[-1]


def taking_part(bench: Bench, peers: list[Peer]) -> list[Peer]:
    """Returns the servers that have not been left out."""
    return [peer for peer in peers if not bench.figures[peer.name].left_out]


def run_round(bench: Bench, generator: Generator, peers: list[Peer]) -> None:
    """Starts all servers, runs every step on each in turn, stops them."""
    names = int(MISSES_PER_SECOND * bench.options.seconds) + MEMORY_NAMES
    with ExitStack() as stack:
        servers: list[Running] = []
        for peer in peers:
            try:
                server = stack.enter_context(running(bench, peer, names))
                generator.measure(server.process, server.port, Load("warm", seconds=10))
                generator.measure(server.process, server.port, Load("saturate", seconds=0.2))
            except ServerFailedError as error:
                drop(bench, peer, error)
                continue
            bench.figures[peer.name].start_ms.append(server.start_ms)
            servers.append(server)
        for step, load in bench.loads().items():
            for server in servers:
                measure_step(bench, generator, server, step, load)


def measure_step(
    bench: Bench, generator: Generator, server: Running, step: str, load: Load
) -> None:
    """Runs one step on one server and keeps its sample, the quietest of up to three."""
    name = server.peer.name
    if bench.figures[name].left_out or (step == "misses" and not server.peer.forwards_by):
        return
    samples: list[Sample] = []
    while not samples or bench.may_repeat(samples[-1], len(samples)):
        try:
            samples.append(generator.measure(server.process, server.port, load))
        except ServerFailedError as error:
            drop(bench, server.peer, error)
            return
        say(f"  {step:<7} {name:<14} {describe(samples[-1])}")
    quietest = min(samples, key=lambda sample: sample.disturbed)
    bench.figures[name].samples.setdefault(step, []).append(quietest)


def describe(sample: Sample) -> str:
    """Returns a sample as one line of progress, with remarks on what was not as it should be."""
    text = (
        f"{sample.qps:>9,.0f}/s  {sample.cpu_us:6.2f} us CPU  p50 {sample.p50_us:7.1f} us"
        f"  core {sample.utilisation:.0%}"
    )
    if sample.lost or sample.failed:
        text += f"  lost {sample.lost}, failed {sample.failed}"
    if sample.disturbed > DISTURBED:
        text += f"  disturbed: strangers took {sample.disturbed:.0%} of a core"
    return text


def measure_memory(bench: Bench, generator: Generator, peer: Peer) -> None:
    """Starts the server with a cache for 10,000 names, fills it, and reads its memory."""
    load = Load("warm", names=MEMORY_NAMES, passes=2, seconds=20)
    try:
        with running(bench, peer, MEMORY_NAMES) as server:
            generator.measure(server.process, server.port, load)
            time.sleep(0.5)
            memory: Memory = server.process.memory()
    except ServerFailedError as error:
        drop(bench, peer, error)
        return
    bench.figures[peer.name].memory = memory
    say(f"  memory  {peer.name:<14} {memory.pss / 1e6:.1f} MB proportional")


def run_all(bench: Bench, peers: list[Peer]) -> None:
    """Runs all rounds and the memory step."""
    with generator_and_upstream(bench) as generator:
        for number in range(bench.options.rounds):
            order = taking_part(bench, peers)
            turn = number % max(1, len(order))
            say(f"round {number + 1} of {bench.options.rounds}")
            run_round(bench, generator, order[turn:] + order[:turn])
        if "memory" not in bench.options.skip:
            say(f"memory with {MEMORY_NAMES} names cached")
            for peer in taking_part(bench, peers):
                measure_memory(bench, generator, peer)


def _positive(text: str) -> int:
    """Returns a whole number from 1, or raises argparse's error."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def parse_options() -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures nodecache beside other DNS servers; bench/README.md explains.",
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds to take medians of")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--only", default="", metavar="SERVER[,...]", help="servers to measure")
    parser.add_argument(
        "--skip", action="append", default=[], choices=STEPS, help="a step to leave out"
    )
    parser.add_argument(
        "--config",
        default="plain",
        choices=COREFILES,
        help="Corefile of nodecache and node-cache: one small block, or the stock manifest's four",
    )
    parser.add_argument("--node-cache", metavar="BINARY", help="a node-cache to compare with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser.parse_args()


def choose_peers(options: argparse.Namespace, programs: Path) -> list[Peer]:
    """Returns the servers to measure; says which are not there."""
    peers = known_peers(programs, options.node_cache, options.config)
    wanted = set(filter(None, options.only.split(",")))
    if unknown := wanted - {peer.name for peer in peers}:
        names = ", ".join(peer.name for peer in peers)
        sys.exit(f"--only {','.join(sorted(unknown))}: known servers are {names}")
    peers = [peer for peer in peers if not wanted or peer.name in wanted]
    for peer in peers:
        if peer.missing:
            print(f"{peer.name}: left out: {peer.missing}")
    return [peer for peer in peers if not peer.missing]


def main() -> int:
    """Runs the benchmark; returns 0, or 1 when a tool it needs is missing."""
    options = parse_options()
    try:
        programs = build_programs()
    except ToolMissingError as error:
        print(error, file=sys.stderr)
        return 1
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        print("one core only: servers and load share it, the rates mean little")
    server_core, load_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {load_core})
    peers = choose_peers(options, programs)
    with tempfile.TemporaryDirectory(prefix="nodecache-bench-") as directory:
        bench = Bench(
            options,
            programs,
            Path(directory),
            server_core,
            load_core,
            upstream_port=free_port(UPSTREAM_HOST),
            figures={peer.name: Figures(peer.name, peer.forwards_by) for peer in peers},
        )
        run_all(bench, peers)
    print_report(list(bench.figures.values()))
    if options.json:
        write_json(list(bench.figures.values()), options.json)
    return 0
