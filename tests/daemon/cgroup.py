"""A bound of memory for a child process: a control group of its own, of either version."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.daemon.processes import wait_until

_MOUNTS = Path("/proc/self/mounts")
_OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """One group with a limit.

    Attributes:
        path: Its folder.
        version: 1 or 2.
    """

    path: Path
    version: int

    @property
    def command(self) -> Sequence[str]:
        """What stands before a command that is to run in the group."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    @property
    def peak_octets(self) -> int:
        """The most that was ever in use, the kernel's part for its sockets included."""
        return int(self._read("memory.max_usage_in_bytes", "memory.peak"))

    @property
    def kills(self) -> int:
        """Processes that the kernel ended for want of memory."""
        lines = self._read("memory.oom_control", "memory.events").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def _read(self, first: str, second: str) -> str:
        return (self.path / (first if self.version == 1 else second)).read_text()


@contextlib.contextmanager
def memory_group(octets: int) -> Iterator[MemoryGroup | str]:
    """Makes a group below our own, and removes it; a string says why that is not possible."""
    group = _make(octets)
    try:
        yield group
    finally:
        if isinstance(group, MemoryGroup):
            wait_until(lambda: _is_removed(group.path), f"{group.path} is empty")


def _make(octets: int) -> MemoryGroup | str:
    reasons = ["no control groups with memory"]
    for place, version in _places():
        path = place / f"nc-memory-{os.getpid()}"
        limit = path / ("memory.limit_in_bytes" if version == 1 else "memory.max")
        try:
            path.mkdir()
            limit.write_text(str(octets))
        except OSError as error:
            reasons.append(f"{limit}: {error.strerror}")
            with contextlib.suppress(OSError):
                path.rmdir()
        else:
            return MemoryGroup(path, version)
    return "; ".join(reasons)


def _places() -> Iterator[tuple[Path, int]]:
    """Yields the folders of the groups that we are in, as far as they can bound memory."""
    own = {}
    for line in _OWN.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.lstrip("/")
    for line in _MOUNTS.read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(",") and "memory" in own:
            yield Path(mount) / own["memory"], 1
        elif kind == "cgroup2" and "" in own:
            yield Path(mount) / own[""], 2


def _is_removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()
