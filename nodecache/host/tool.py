"""Runs the one-shot tool that changes the node, from the loop that serves: never waits for it.

One run takes 0.1 s and 22 MB for rules and checks, 0.2 s and 35 MB for the interface.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

from nodecache.config.node import NodePlan

_FOLDER = str(Path(__file__).resolve().parents[2])  # where our own package is imported from
# -P: a file such as json.py in the working directory must not be imported instead of Python's.
_STUB = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    " from nodecache.host.__main__ import main; sys.exit(main())"
)

_MOST_OCTETS = 64 * 1024  # of each output; a plan of 100 addresses leads to some 20 KB
_CHUNK_OCTETS = 4096
_END_CHARACTERS = 200  # of what a tool that failed has written last
_BURIAL_S = 1.0
_LOOK_S = 0.005

_KINDS = {
    "interface": "interface_add",
    "remove": "interface_check",
    "recede": "interface_check",
    "check": "interface_check",
}  # all others begin with the rules


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one run of the tool.

    Attributes:
        ok: Everything was done, or found to be right.
        kind: Which errors to count it among, see ``NodeError``; "" if ``ok``.
        error: What is wrong and the next step; "" if ``ok``.
        notes: What else an operator should know, a sentence each.
        removed: What was removed, a phrase each.
        covered: Addresses that the rules lead to the cluster's DNS while nobody says that he
            serves; empty if they do not listen for that.
        fallen_back: Packets for which they did so since they were made; -1 if unknown.
    """

    ok: bool
    kind: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    covered: tuple[str, ...] = ()
    fallen_back: int = -1


def tool_command(action: str, plan: NodePlan) -> list[str]:
    """Returns the command that runs the tool, from any working directory."""
    return [sys.executable, "-P", "-c", _STUB, _FOLDER, action, plan.to_json()]


async def run_tool(action: str, plan: NodePlan, within_s: float) -> Report:
    """Runs the tool; it and the programs that it started are killed after ``within_s`` seconds.

    Raises nothing but asyncio's cancellation, which kills them as well.
    """
    try:
        process = _start(tool_command(action, plan))
    except OSError as error:
        return _failure(action, f"cannot start {sys.executable}: {error.strerror or error}")
    try:
        async with asyncio.timeout(within_s):
            out, err = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await _wait(process)
    except TimeoutError:
        return _failure(action, f"not done within {within_s:g} s, and given up")
    finally:
        await _bury(process)
    return parse_report(action, out) or _failure(action, f"it ended with {code}: {_end_of(err)}")


def parse_report(action: str, output: bytes) -> Report | None:
    """Returns what the tool printed, or None if that is no report; raises nothing."""
    try:
        found: Any = json.loads(output)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {row.name for row in fields(Report)}:
        return None
    is_ok, fallen_back = found.pop("ok"), found.pop("fallen_back")
    lists = {name: found.pop(name) for name in ("notes", "removed", "covered")}
    if not isinstance(is_ok, bool) or type(fallen_back) is not int:
        return None
    if not all(map(_is_texts, (*lists.values(), [*found.values()]))):
        return None
    kind = found.pop("kind") or ("" if is_ok else _kind(action))
    found |= {name: tuple(texts) for name, texts in lists.items()}
    return Report(is_ok, kind, fallen_back=fallen_back, **found)


def _is_texts(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(text, str) for text in found)


def _kind(action: str) -> str:
    return _KINDS.get(action, "iptables")


def _failure(action: str, reason: str) -> Report:
    text = f"the tool for the node failed at {action!r}: {reason}"
    return Report(ok=False, kind=_kind(action), error=text)


def _end_of(octets: bytes) -> str:
    lines = octets.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1][-_END_CHARACTERS:]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    # Keeps the loop for 2 ms, by vfork; uvloop's own way, by fork, for 8 ms and more.
    return subprocess.Popen(  # noqa: S603 # our own command, no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that it can be killed together with its children
    )


async def _read(pipe: IO[bytes] | None) -> bytes:
    """Returns the first octets of an output; the rest is read, so that nobody waits, and lost."""
    assert pipe is not None  # noqa: S101 # both are pipes
    loop = asyncio.get_running_loop()
    kept = bytearray()
    end: asyncio.Future[None] = loop.create_future()

    def read() -> None:
        chunk = os.read(pipe.fileno(), _CHUNK_OCTETS)
        kept.extend(chunk[: _MOST_OCTETS - len(kept)])
        if not chunk:
            loop.remove_reader(pipe)
            end.set_result(None)

    loop.add_reader(pipe, read)
    try:
        await end
    finally:
        loop.remove_reader(pipe)
    return bytes(kept)


async def _wait(process: subprocess.Popen[bytes]) -> int:
    """Returns the exit code. Who has closed its outputs ends soon, so looking again will do."""
    while (code := process.poll()) is None:  # noqa: ASYNC110 # no event on every kernel
        await asyncio.sleep(_LOOK_S)
    return code


async def _bury(process: subprocess.Popen[bytes]) -> None:
    """Kills what still runs; a process that the kernel cannot end now is not waited for."""
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(_wait(process), _BURIAL_S)
