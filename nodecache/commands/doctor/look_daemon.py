"""Looks for the daemon: its processes in /proc, and what it says at its window."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from nodecache.commands.doctor.seen import Daemon, Process, State
from nodecache.commands.running import ask_running, find_running
from nodecache.config.flags import parse_flags
from nodecache.config.model import Address
from nodecache.config.node import NodePlan
from nodecache.errors import NotRunningError

_PROC = Path("/proc")
_PATIENCE_S = 1.5
_PROGRAMS = frozenset(("nodecache", "node-cache"))
_LAUNCH_WORDS = 4  # python -m nodecache, and an option of Python's
_HELD = frozenset("tT")
_MOST_OCTETS = 65536


def look_at_daemon(rundir: str) -> Daemon | None:
    """Returns the daemon of this network namespace, None if there is none.

    Args:
        rundir: Where its window is; that of its own flags is tried, too.

    Takes ``_PATIENCE_S`` seconds for each, if it hangs; raises nothing.
    """
    pids = list(_find_pids())
    processes = tuple(map(_look_at, pids))
    words = _words_of(pids[0]) if pids else ()
    found, complaint = None, ""
    for folder in _folders(rundir, pids, words):
        found, text = _ask(folder, processes)
        if found is not None:
            return found
        complaint = complaint or text
    if not processes:
        return None
    environment = _environment_of(pids[0])
    return Daemon("", words, environment, None, processes, complaint or "it has no -rundir")


def inodes_of(daemon: Daemon) -> frozenset[int]:
    """Returns the inodes of the sockets of its processes, as far as they can be seen."""
    found = set()
    for process in daemon.processes:
        with suppress(OSError):
            for descriptor in (_PROC / str(process.pid) / "fd").iterdir():
                with suppress(OSError):
                    kind, _, number = str(descriptor.readlink()).partition(":[")
                    if kind == "socket":
                        found.add(int(number.rstrip("]")))
    return frozenset(found)


def _folders(rundir: str, pids: Sequence[int], words: Sequence[str]) -> Iterator[Path]:
    """Yields where a window may be: as named here, and as the daemon's own files have it."""
    if rundir:
        yield Path(rundir)
    own = parse_flags(words)[0].rundir if pids else ""
    if own:
        yield _PROC / str(pids[0]) / "root" / own.lstrip("/")


def _ask(folder: Path, processes: tuple[Process, ...]) -> tuple[Daemon | None, str]:
    """Returns who answers there, and why nobody does."""
    try:
        running = find_running(folder, _PATIENCE_S)
    except NotRunningError as error:
        return None, str(error)
    try:
        state, complaint = _read_state(ask_running(folder, "/state", _PATIENCE_S)), ""
    except NotRunningError as error:
        state, complaint = None, str(error)
    except (AttributeError, KeyError, TypeError, ValueError):
        state, complaint = None, f"the page /state of {folder} is not understood"
    environment = running.environment
    return Daemon(running.version, running.words, environment, state, processes, complaint), ""


def _read_state(said: Any) -> State:
    """Raises what a page of another version may make it raise."""
    redirect = said["has_redirect"]
    return State(
        mark=bytes.fromhex(said["mark"]),
        plan=NodePlan.from_json(said["plan"]),
        upstreams=tuple(
            (str(zone), Address(str(host), int(port)), str(transport))
            for zone, host, port, transport in said["upstreams"]
        ),
        refusal=str(said["refusal"]),
        is_last_good=bool(said["is_last_good"]),
        has_redirect=None if redirect is None else bool(redirect),
        is_beat_heard=bool(said["is_beat_heard"]),
        details=tuple(map(str, said["details"])),
    )


def _find_pids() -> Iterator[int]:
    """Yields the processes of daemons in our network namespace, the eldest first."""
    own = _network_of("self")
    for pid in sorted(int(path.name) for path in _PROC.iterdir() if path.name.isdigit()):
        words = _words_of(pid)
        if words and words[0].startswith("-") and _network_of(str(pid)) == own:
            yield pid


def _network_of(pid: str) -> str:
    try:
        return str((_PROC / pid / "ns/net").readlink())
    except OSError:
        return ""


def _words_of(pid: int) -> tuple[str, ...]:
    """Returns the words behind the program if that is nodecache, else ()."""
    words = [word.decode("utf-8", "replace") for word in _read(pid, "cmdline").split(b"\0")[:-1]]
    for place, word in enumerate(words[:_LAUNCH_WORDS]):
        if PurePath(word).name in _PROGRAMS:
            return tuple(words[place + 1 :])
    return ()


def _environment_of(pid: int) -> dict[str, str]:
    pairs = (each.partition(b"=") for each in _read(pid, "environ").split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, equals, value in pairs if equals}


def _look_at(pid: int) -> Process:
    status = dict(
        line.split(":\t", 1) for line in _text(pid, "status").splitlines() if ":\t" in line
    )
    limits = [line.split() for line in _text(pid, "limits").splitlines()]
    most = [row[3] for row in limits if row[:3] == ["Max", "open", "files"] and row[3].isdigit()]
    return Process(
        pid,
        is_stopped=status.get("State", "S")[:1] in _HELD or _is_frozen(pid),
        capabilities=int(status.get("CapEff", "0").strip(), 16),
        files=_count_files(pid),
        most_files=int(most[0]) if most else 0,
    )


def _is_frozen(pid: int) -> bool:
    """Whether the freezer of control groups (version 2) holds it."""
    for line in _text(pid, "cgroup").splitlines():
        if line.startswith("0::/"):
            folder = Path("/sys/fs/cgroup") / line.removeprefix("0::/")
            with suppress(OSError):
                return "frozen 1" in (folder / "cgroup.events").read_text()
    return False


def _count_files(pid: int) -> int:
    try:
        return sum(1 for _ in (_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return 0


def _text(pid: int, name: str) -> str:
    return _read(pid, name).decode("utf-8", "replace")


def _read(pid: int, name: str) -> bytes:
    try:
        with (_PROC / str(pid) / name).open("rb") as file:
            return file.read(_MOST_OCTETS)
    except OSError:
        return b""
