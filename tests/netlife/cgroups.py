"""Control groups for a daemon: one that stands still, and one whose memory is used up."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.daemon.processes import wait_until

_ROOT = Path("/sys/fs/cgroup")


class Group:
    """A control group of one controller, as version 1 or 2 of them has it."""

    def __init__(self, controller: str) -> None:
        """Makes it; skips the test where that cannot be done."""
        self.is_v1 = (_ROOT / controller).is_dir()
        name = f"nodecache-life{os.getpid()}"
        self.path = _ROOT / controller / name if self.is_v1 else _ROOT / name
        try:
            self.path.mkdir()
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")

    def take(self, processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            self._write("cgroup.procs", str(process.pid))

    def freeze(self, is_frozen: bool) -> None:
        """Has all of it stand still, or go on."""
        if self.is_v1:
            self._write("freezer.state", "FROZEN" if is_frozen else "THAWED")
        else:
            self._write("cgroup.freeze", str(int(is_frozen)))

    def limit(self, octets: int) -> None:
        """Sets how much memory it may use; skips the test where nobody counts."""
        knob = "memory.limit_in_bytes" if self.is_v1 else "memory.max"
        if not (self.path / knob).exists():
            pytest.skip(f"no {knob}: the memory controller is not for us here")
        self._write(knob, str(octets))
        if (self.path / "memory.swap.max").exists():
            self._write("memory.swap.max", "0")

    def wait_for_kill(self) -> float:
        """Waits until the kernel kills something in it for want of memory.

        Returns:
            The last time, in monotonic seconds, at which it had not.
        """
        events = self.path / ("memory.oom_control" if self.is_v1 else "memory.events")
        not_yet = 0.0

        def has_killed() -> bool:
            nonlocal not_yet
            now = time.monotonic()
            if "oom_kill 0" not in events.read_text().splitlines():
                return True
            not_yet = now
            return False

        wait_until(has_killed, "the kernel kills for want of memory")
        return not_yet

    def _write(self, knob: str, text: str) -> None:
        (self.path / knob).write_text(text)

    def remove(self) -> None:
        """Removes it, once all that was in it has gone or moved on."""
        root = self.path.parent
        for pid in (self.path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(pid)
        deadline = time.monotonic() + 5
        while self.path.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            time.sleep(0.01)


@contextlib.contextmanager
def group_of(controller: str, processes: Sequence[psutil.Process]) -> Iterator[Group]:
    """A control group with these processes; removed at the end."""
    group = Group(controller)
    try:
        group.take(processes)
        yield group
    finally:
        group.remove()
