"""Owns the compiled helpers: load, floor and upstream, built from the C files beside this one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent
PROGRAMS = SOURCES.parent / ".build" / "bench"
NAMES = ("load", "floor", "upstream")
FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra")


class ToolMissingError(Exception):
    """The machine lacks something; the message names it and says how to get it."""


def build_programs() -> Path:
    """Compiles what is older than its source; returns the folder with the programs.

    Raises:
        ToolMissingError: No compiler, no C headers, or no taskset on this machine.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise ToolMissingError("no C compiler: apt-get install gcc libc6-dev")
    if shutil.which("taskset") is None:
        raise ToolMissingError("no taskset: apt-get install util-linux")
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    header_at = (SOURCES / "common.h").stat().st_mtime
    for name in NAMES:
        source, target = SOURCES / f"{name}.c", PROGRAMS / name
        newest = max(source.stat().st_mtime, header_at)
        if not target.exists() or target.stat().st_mtime < newest:
            _compile(compiler, source, target)
    return PROGRAMS


def _compile(compiler: str, source: Path, target: Path) -> None:
    """Compiles one program, or raises ToolMissingError with the compiler's words."""
    done = subprocess.run(
        [compiler, *FLAGS, "-o", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        hint = "are the C headers there? apt-get install libc6-dev"
        raise ToolMissingError(f"{source.name} does not compile ({hint}):\n{done.stderr}")
