"""A guest with a kernel of its own: User-Mode Linux on the host's files.

Tests that need a real dummy device, legacy iptables or IPVS lie in files named ``inside_*.py``.
They are ordinary tests for pytest, which runs inside the guest: one boot for each file. What
they found is shown by ``test_inside.py``, one test here for each test there.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import pytest

from tests.daemon.processes import ROOT

HERE = Path(__file__).parent
MODULES = Path("/usr/lib/uml/modules")
BOOT_S = 60.0
_PROGRAMS = {"linux.uml": "user-mode-linux", "modprobe": "kmod", "busybox": "busybox-static"}
_MEMORY = "1G"  # the host gives what the guest has touched, no more
_CONSOLE_CHARACTERS = 4000


class BootError(Exception):
    """The guest does not come to its first process here; the message shows its console."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command in the guest came to.

    Attributes:
        code: Exit code, None when it had not ended at the bound.
        output: What it wrote on both outputs.
        console: What the guest's kernel wrote.
        boot_s, total_s: Until the command began, and until the guest was gone.
    """

    code: int | None
    output: str
    console: str
    boot_s: float
    total_s: float


def missing() -> str:
    """Returns why there can be no guest here, or ""."""
    if os.geteuid() != 0:
        return "User-Mode Linux with the host's files needs root"
    for name, package in _PROGRAMS.items():
        if shutil.which(name) is None:
            return f"{name} is missing; Debian's package is {package}"
    return "" if MODULES.is_dir() else f"{MODULES} is missing"


def run_inside(command: Sequence[str], scratch: Path, within_s: float) -> Outcome:
    """Boots a guest and runs one command in it, in the project's folder.

    Args:
        command: Program and arguments.
        scratch: Empty folder that guest and host share under the same path, without blanks.
            Whatever else the guest writes is gone with it.
        within_s: Seconds for all; then the guest is ended.

    Raises:
        BootError: The guest did not boot.
    """
    shutil.copy(HERE / "init.sh", scratch / "init")
    (scratch / "init").chmod(0o755)
    (scratch / "command").write_text(f"cd {shlex.quote(str(ROOT))} && {shlex.join(command)}\n")
    started_at = time.monotonic()
    guest = subprocess.Popen(
        [
            "linux.uml", f"mem={_MEMORY}", "rootfstype=hostfs", "rootflags=/", "ro",
            f"init={scratch}/init", f"SCRATCH={scratch}", f"uml_dir={scratch}/uml",
            "con=null", "con0=null,fd:1", "quiet",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # the guest's processes are ours, too, and end with it
    )  # fmt: skip
    console = _drain(guest, within_s)
    total_s = time.monotonic() - started_at
    if not (scratch / "booted").exists():
        raise BootError(f"no guest after {total_s:.0f} s: {console[-_CONSOLE_CHARACTERS:]}")
    boot_s = total_s - (time.time_ns() / 1e9 - (scratch / "booted").stat().st_mtime)
    code = _text(scratch / "code").strip()
    return Outcome(int(code) if code else None, _text(scratch / "output"), console, boot_s, total_s)


def _drain(guest: subprocess.Popen[bytes], within_s: float) -> str:
    """Reads the console until the guest is gone, which is seen to; returns the text."""
    try:
        written, _ = guest.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        os.killpg(guest.pid, signal.SIGKILL)
        written, _ = guest.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
    return written.decode(errors="replace")


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def names_in(path: Path) -> list[str]:
    """Returns the names of a file's tests, in order."""
    return [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


class Findings:
    """What the tests of one file found in their guest."""

    def __init__(self, outcome: Outcome, results: str) -> None:
        self.outcome = outcome
        self._cases = list(ElementTree.fromstring(results).iter("testcase")) if results else []

    def show(self, name: str) -> None:
        """Fails, skips or passes as the test of that name did; prints what it printed."""
        cases = [case for case in self._cases if (case.get("name") or "").split("[")[0] == name]
        if not cases:
            pytest.fail(
                f"{name} did not run (exit code {self.outcome.code}):\n"
                f"{self.outcome.output}\n{self.outcome.console[-_CONSOLE_CHARACTERS:]}"
            )
        for case in cases:
            print(case.get("name"), f"{float(case.get('time') or 0):.2f} s in the guest")
            print(case.findtext("system-out") or "")
            for kind in ("failure", "error"):
                if (found := case.find(kind)) is not None:
                    pytest.fail(f"in the guest:\n{found.text}", pytrace=False)
            if (found := case.find("skipped")) is not None:
                pytest.skip(f"in the guest: {found.get('message')}")


def find_out(path: Path, within_s: float, name: str = "") -> Findings:
    """Runs the tests of one file, or the one of that name, in a guest of their own.

    What fails is not tried again in there: that is for a new guest.

    Raises:
        BootError: The guest did not boot.
    """
    with TemporaryDirectory(prefix="nodecache-uml-") as folder:
        results = Path(folder) / "results.xml"
        command = [
            sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider",
            "-o", "junit_logging=system-out", f"--junit-xml={results}", "--force-reruns=0",
            "--basetemp=/run/pytest", f"--timeout={within_s - BOOT_S:.0f}",
            f"{path}::{name}" if name else str(path),
        ]  # fmt: skip
        outcome = run_inside(command, Path(folder), within_s)
        return Findings(outcome, _text(results))
