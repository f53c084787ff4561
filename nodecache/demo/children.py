"""Child processes of the demo: starts them, notices when one ends, and ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import dataclass, field

END_S = 5.0


class ChildError(Exception):
    """A child process did not start or ended by itself; the message says which and how."""


@dataclass
class Children:
    """The child processes; ``ended`` holds one waiting task for each."""

    processes: dict[str, Process] = field(default_factory=dict)
    ended: dict[str, asyncio.Task[int]] = field(default_factory=dict)

    async def start(self, name: str, command: Sequence[str], stdout: int | None = None) -> Process:
        """Starts a child in a session of its own, so that Ctrl-C reaches only us."""
        process = await asyncio.create_subprocess_exec(
            *command, stdout=stdout, start_new_session=True
        )
        self.processes[name] = process
        self.ended[name] = asyncio.create_task(process.wait())
        return process

    async def rest(self, seconds: float) -> None:
        """Waits; raises ChildError as soon as a child ends."""
        await asyncio.wait(self.ended.values(), timeout=seconds, return_when="FIRST_COMPLETED")
        self.check()

    def check(self) -> None:
        """Raises ChildError if a child has ended."""
        for name, task in self.ended.items():
            if task.done():
                raise ChildError(f"{name} ended by itself, {describe_exit(task.result())}")

    async def end(self) -> None:
        """Ends all, the last one started first."""
        for name, process in reversed(self.processes.items()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(asyncio.shield(self.ended[name]), END_S)
            except TimeoutError:
                process.kill()
                await self.ended[name]


def describe_exit(code: int) -> str:
    """Returns how a process ended."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
