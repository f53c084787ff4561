"""The words behind a command: the daemon's own flags, and files; and what is to be looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nodecache.config.flag_table import TABLE
from nodecache.config.flags import Flags, parse_flags
from nodecache.errors import Fault, NotRunningError
from nodecache.printing import printable, shown

if TYPE_CHECKING:
    from nodecache.commands.running import RunningDaemon

STAND_IN = "192.0.2.1"  # a documentation address (RFC 5737) for -localip where it is not given

_STANDARD_INPUT = "/dev/stdin"
_STRICT = frozenset(("-strict", "--strict", "-strict=true", "--strict=true"))
# Booleans in the words of another syntax: parse_flags says how to write them.
_TRUTHS = frozenset(("true", "false"))
_WITHOUT_LOCALIP = ("-localip", STAND_IN)
_FLAGS = {name: flag for rows in TABLE.values() for flag in rows for name in flag.names}


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to look at.

    Attributes:
        flags: Their files are those to read.
        label: What the user calls it, "" for what the flags name.
        is_folder: A ConfigMap alone, without a Corefile.
        folder: Where relative imports begin, "" for where the daemon has them begin.
        has_conf: -conf was given, so that they begin where the daemon has them begin.
        environ: The variables that the Corefile may name.
        is_running: These are flags and variables of the daemon that runs.
    """

    flags: Flags
    label: str = ""
    is_folder: bool = False
    folder: str = ""
    has_conf: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    is_running: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What the words behind a command ask for.

    Attributes:
        flags: The daemon's.
        faults: Of the command line.
        targets: At least one, in the order of the words.
        is_strict: ``-strict`` was given.
        has_localip: -localip was given, so that this is a command line to serve with.
        running: The daemon whose flags these are, None if they were given or none runs.
    """

    flags: Flags
    faults: tuple[Fault, ...]
    targets: tuple[Target, ...]
    is_strict: bool = False
    has_localip: bool = False
    running: RunningDaemon | None = None

    @property
    def origin(self) -> str:
        """One line on where the flags come from if nobody gave them, or ""."""
        if self.running is None:
            return ""
        version, pid = printable(self.running.version), self.running.pid
        return f"As nodecache {version} was started, which runs as process {pid}:\n"


def read_request(words: Sequence[str]) -> Request:
    """Returns what ``words`` ask for; raises nothing.

    Who names neither files nor flags means the daemon that runs here, if there is one: its words
    and variables are taken, and this process goes to the folder where its relative paths begin.
    Without -localip an address stands in, and what a daemon would be refused for is left out.
    """
    rundir = _rundir_alone([word for word in words if word not in _STRICT])
    if rundir:
        from nodecache.commands.running import find_running  # noqa: PLC0415 # HTTP, for few

        with suppress(NotRunningError):
            running = find_running(Path(rundir))
            with suppress(OSError):
                os.chdir(running.folder)
            strict = [word for word in words if word in _STRICT]
            return _as_started(_read([*strict, *running.words]), running)
    return _read(words)


def _rundir_alone(words: Sequence[str]) -> str:
    """Returns where a daemon lets itself be looked at, "" if the words name something else."""
    flags, faults = parse_flags([*_WITHOUT_LOCALIP, *words])
    is_alone = not words or (
        _name(words[0]) == "rundir" and len(words) == 1 + ("=" not in words[0])
    )
    return flags.rundir if is_alone and not faults else ""


def _as_started(request: Request, running: RunningDaemon) -> Request:
    targets = tuple(
        replace(target, environ=running.environment, is_running=True) for target in request.targets
    )
    return replace(request, targets=targets, running=running)


def _read(words: Sequence[str]) -> Request:
    flag_words, files = _split([word for word in words if word not in _STRICT])
    has_localip = any(_name(word) == "localip" for word in flag_words if word.startswith("-"))
    flags, faults = parse_flags([*(() if has_localip else _WITHOUT_LOCALIP), *flag_words])
    targets, text = _targets(flags, files)
    if text:
        faults.append(Fault("command line", 0, 0, text))
    is_strict = any(word in _STRICT for word in words)
    return Request(flags, tuple(faults), targets, is_strict, has_localip)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts flags with their values from files; behind ``--`` there are files only."""
    flags: list[str] = []
    files: list[str] = []
    left = list(words[::-1])
    while left:
        word = left.pop()
        if word == "--":
            files += left[::-1]
            break
        if word not in _TRUTHS and (word == "-" or not word.startswith("-")):
            files.append(word)
            continue
        flags.append(word)
        if _takes_next(word) and left and not _is_flag(left[-1]):
            flags.append(left.pop())
    return flags, files


def _name(word: str) -> str:
    bare = word[2:] if word.startswith("--") else word[1:]
    return bare.partition("=")[0]


def _is_flag(word: str) -> bool:
    return word == "--" or (word.startswith("-") and _name(word) in _FLAGS)


def _takes_next(word: str) -> bool:
    flag = _FLAGS.get(_name(word)) if word.startswith("-") else None
    return flag is not None and bool(flag.value) and "=" not in word


def _targets(flags: Flags, files: list[str]) -> tuple[tuple[Target, ...], str]:
    """What to look at, and what is wrong with that, or ""."""
    if not files:
        return (Target(flags, has_conf=bool(flags.conf)),), ""
    folders = [file for file in files if Path(file).is_dir()]
    corefiles = [file for file in files if file not in folders]
    if not corefiles:
        return tuple(
            Target(replace(flags, kubednscm=folder), folder, is_folder=True) for folder in folders
        ), ""
    text = ""
    if len(folders) > 1:
        text = f"{shown(folders[1])} is one folder too many: a Corefile goes with one ConfigMap"
    folder = folders[0] if folders else flags.kubednscm
    return tuple(_corefile(replace(flags, kubednscm=folder), file) for file in corefiles), text


def _corefile(flags: Flags, file: str) -> Target:
    path = _STANDARD_INPUT if file == "-" else file
    folder = str(Path(flags.conf).parent) if flags.conf else "." if file == "-" else ""
    reading = replace(flags, basecorefile=path, conf="")
    return Target(reading, path, folder=folder, has_conf=bool(flags.conf))
