"""What runs in the namespaces: the daemon as a node runs it, and a pod's stubs under load."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.daemon.processes import PATIENCE_S, Child, wait_until
from tests.daemon.servers import program
from tests.netns.topology import ADDRESSES, LOCAL, UPSTREAM

METRICS = 9253
CACHE_S = 30  # the cluster DNS says 600

_LOAD = Path(__file__).parent / "stub_load.py"


def stock_corefile(*, lameduck_s: int = 0, options: str = "") -> str:
    """Returns a Corefile like the stock manifest's, filled in."""
    lameduck = f"{{\n        lameduck {lameduck_s}s\n    }}" if lameduck_s else ""
    common = f"""    errors
    reload
    loop
    bind {" ".join(ADDRESSES)}
    forward . {UPSTREAM} {{
        force_tcp
    }}
    prometheus :{METRICS}
    {options}
"""
    denial = "    cache {\n        success 9984 30\n        denial 9984 5\n    }\n"
    return (
        f"cluster.local:53 {{\n{denial}{common}    health {LOCAL}:8080 {lameduck}\n}}\n"
        f".:53 {{\n    cache {CACHE_S}\n{common}}}\n"
    )


class NodeDaemon(Child):
    """``nodecache FLAGS`` in the node's namespace: a keeper, and a worker below it."""

    def __init__(self, node: str, flags: Sequence[str], corefile: str, folder: Path) -> None:
        path = folder / "Corefile"
        path.write_text(corefile)
        command = [program("ip"), "netns", "exec", node, sys.executable, "-m", "nodecache"]
        super().__init__(
            [
                *(*command, "-localip", ",".join(ADDRESSES)),
                *("-conf", str(path), "-basecorefile", str(path), *flags),
            ],
            folder / "log",
        )

    def tail(self) -> str:
        """Returns the end of the log."""
        return self.log()[-4000:]

    def worker(self) -> psutil.Process:
        """Returns the process that serves; waits for it."""
        found: list[psutil.Process] = []

        def is_there() -> bool:
            found[:] = [process for process in self.children() if _is_nodecache(process)]
            return bool(found)

        wait_until(is_there, lambda: f"a worker: {self.tail()}")
        return found[0]

    def children(self) -> list[psutil.Process]:
        """Returns what the keeper has started and not reaped."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children()
        return []

    def kill_all(self) -> None:
        """Ends keeper and worker as the kernel would, the keeper first: it must not restart."""
        family = [psutil.Process(self.pid), *self.children()]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(PATIENCE_S)
        wait_until(lambda: not any(map(runs, family)), "an end of keeper and worker")

    def wait_for_end(self, timeout_s: float = PATIENCE_S) -> int:
        """Returns the exit code once it has ended by itself."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {timeout_s:g} s: {self.tail()}") from None


def runs(process: psutil.Process) -> bool:
    """Tells a process from one that is gone or only waits for somebody to take its exit code."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _is_nodecache(process: psutil.Process) -> bool:
    """Tells the forked worker, which has the keeper's command line, from one-shot tools."""
    with contextlib.suppress(psutil.Error):
        command = process.cmdline()
        return "-rundir" in command and "nodecache" in command
    return False


@dataclass(frozen=True, slots=True)
class Report:
    """What one pod's stubs have met; ``udp``, ``fresh`` and ``kept`` as stub_load.py says."""

    udp: dict[str, Any]
    fresh: dict[str, Any]
    kept: dict[str, Any]
    seconds: float
    cpu_share: float

    def total(self, key: str) -> int:
        """Returns the sum of a count over UDP and TCP."""
        return sum(int(kind[key]) for kind in (self.udp, self.fresh, self.kept))

    def rcode(self, number: int) -> int:
        """Returns how many replies had this RCODE."""
        return sum(kind["rcodes"].get(str(number), 0) for kind in (self.udp, self.fresh, self.kept))

    @property
    def longest_ms(self) -> float:
        return max(float(kind["longest_ms"]) for kind in (self.udp, self.fresh, self.kept))


class PodLoad(Child):
    """stub_load.py in a pod; ends with the block, or with ``finish``."""

    def __init__(self, pod: str, folder: Path, *arguments: str) -> None:
        command = [program("ip"), "netns", "exec", pod, sys.executable, str(_LOAD)]
        super().__init__([*command, "--label", pod, *arguments], folder / "log")

    def finish(self) -> Report:
        """Stops asking, waits for the last replies, and returns what came of it all."""
        assert self.stop() == 0, self.log()
        return Report(**json.loads(self.log().splitlines()[-1]))
