"""Runs the programs that change the packet filter: no shell, bounded time, bounded output.

It knows nothing of rules. Output is hostile until parsed: what passes the bound is cut, octets
that are not UTF-8 are replaced.
"""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import IO

from nodecache.errors import NodeError

STDOUT_OCTETS = 16 << 20
STDERR_OCTETS = 4 << 10
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"

_CHUNK_OCTETS = 1 << 16
_BURIAL_S = 0.5
_NOT_STARTED = 127
_LOCK_WORDS = ("xtables lock", "lock file", "Can't lock")
_RIGHT_WORDS = ("Permission denied", "Operation not permitted", "must be root")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the monotonic clock, in seconds, after which nothing is waited for."""

    end_at: float

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        """Returns the moment that lies so many seconds ahead."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Returns the seconds that are left, never less than 0."""
        return max(0.0, self.end_at - time.monotonic())


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left behind.

    Attributes:
        name: The program's name, without its folder.
        code: Exit code; 127 if it could not be started, negative if a signal ended it.
        stdout: At most ``STDOUT_OCTETS``, without the lines that nobody wanted.
        stderr: At most ``STDERR_OCTETS``.
        is_late: It was killed because its time was over.
        is_cut: It printed more of what was wanted than the bound allows.
    """

    name: str
    code: int
    stdout: str = ""
    stderr: str = ""
    is_late: bool = False
    is_cut: bool = False

    @property
    def is_good(self) -> bool:
        """Whether it ended by itself and was content."""
        return self.code == 0 and not self.is_late

    def complaint(self) -> str:
        """Returns why it failed in at most 300 characters, in its own words if it had any."""
        reason = "it did not end in time" if self.is_late else f"exit code {self.code}"
        return " ".join(self.stderr.split())[-300:] or reason


def find(name: str) -> str | None:
    """Returns the path of a program, or None if it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")


def run(
    command: Sequence[str],
    deadline: Deadline,
    stdin: str = "",
    keep: Callable[[str], bool] | None = None,
) -> Finished:
    """Runs a program until it ends or the deadline passes, which kills it.

    Args:
        command: Path and arguments, as ``find`` gave the path.
        deadline: When to give up.
        stdin: What the program reads.
        keep: Tells which lines of stdout are wanted; the others use no memory.

    Raises nothing: a program that cannot be started has code 127.
    """
    name = PurePath(command[0]).name
    try:
        process = _start(command, stdin)
    except OSError as error:
        return Finished(name, _NOT_STARTED, stderr=str(error))
    assert process.stdout is not None  # noqa: S101 # for mypy
    assert process.stderr is not None  # noqa: S101 # for mypy
    out, err = _Lines(STDOUT_OCTETS, keep), _Lines(STDERR_OCTETS, None)
    is_ended = _drain({process.stdout: out, process.stderr: err}, deadline)
    code = _wait(process, deadline.remaining_s() if is_ended else 0.0)
    is_late = code is None
    if code is None:
        process.kill()
        code = _wait(process, _BURIAL_S)
    process.stdout.close()
    process.stderr.close()
    code = _NOT_STARTED if code is None else code
    return Finished(name, code, out.text(), err.text(), is_late, out.is_cut)


def fault(finished: Finished, may_lock: bool = False) -> NodeError:
    """Returns the error to raise for a program that failed: what happened and the next step.

    Args:
        finished: What it left behind.
        may_lock: It takes the xtables lock, so that is what it waited for if it is late.
    """
    said = finished.complaint()
    if any(words in said for words in _LOCK_WORDS) or (may_lock and finished.is_late):
        return NodeError(
            f"{finished.name} did not get the xtables lock ({said}): see who holds it with"
            " `fuser -v /run/xtables.lock`, and that this file is mounted from the host",
            "iptables_lock",
        )
    if finished.is_late:
        text = "did not end in time: look for another program that changes rules all the time"
        return NodeError(f"{finished.name} {text}", "iptables")
    if any(words in said for words in _RIGHT_WORDS):
        text = "give the container the capability NET_ADMIN, or say -setupiptables=false"
        return NodeError(
            f"{finished.name} has no right to change rules ({said}): {text}", "iptables"
        )
    text = "choose another backend with -rules, or load the kernel module that it misses"
    return NodeError(f"{finished.name} failed ({said}): {text}", "iptables")


@dataclass(slots=True)
class _Lines:
    """Collects lines up to a bound, in octets."""

    bound: int
    keep: Callable[[str], bool] | None
    kept: list[str] = field(default_factory=list)
    octets: int = 0
    rest: bytes = b""
    is_cut: bool = False

    def feed(self, chunk: bytes) -> None:
        """Takes the next octets; an empty chunk is the end."""
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        if not chunk or len(self.rest) > self.bound:
            lines, self.rest = [*lines, self.rest], b""
        for line in lines:
            self._admit(line)

    def _admit(self, octets: bytes) -> None:
        line = octets.decode(errors="replace")
        if self.keep is not None and not self.keep(line):
            return
        if self.octets + len(octets) + 1 > self.bound:
            self.is_cut = True
            return
        self.octets += len(octets) + 1
        self.kept.append(line)

    def text(self) -> str:
        """Returns what was kept."""
        return "\n".join(self.kept)


def _start(command: Sequence[str], stdin: str) -> subprocess.Popen[bytes]:
    """Starts the program; its input is a file in memory, so that writing never blocks."""
    with os.fdopen(os.memfd_create("stdin"), "w+b") as text:
        text.write(stdin.encode())
        text.seek(0)
        return subprocess.Popen(  # noqa: S603 # fixed names, no shell
            command,
            stdin=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )


def _drain(sinks: dict[IO[bytes], _Lines], deadline: Deadline) -> bool:
    """Reads all pipes to their ends; returns whether the deadline allowed it."""
    with selectors.DefaultSelector() as selector:
        for pipe, lines in sinks.items():
            selector.register(pipe, selectors.EVENT_READ, lines)
        while selector.get_map():
            remaining_s = deadline.remaining_s()
            for key, _ in selector.select(remaining_s):
                chunk = os.read(key.fd, _CHUNK_OCTETS)
                key.data.feed(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
            if not remaining_s:
                return False
    return True


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
