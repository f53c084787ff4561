"""`make` says what a machine lacks, and sets up once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TARGETS = (
    "help", "run", "test", "check", "format", "docs", "manifests", "compile", "bench", "simulate",
    "clean",
)  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and a pyproject.toml, and nothing else."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A make that runs these tests must not pass its own options on.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write_python(folder: Path, script: str) -> str:
    """Returns the path of a stand-in for Python."""
    path = folder / "python-of-the-test"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_help_lists_all_targets(checkout: Path) -> None:
    lines = make(checkout).stdout.splitlines()
    assert [line.split()[1] for line in lines] == list(TARGETS)


def test_old_python_is_named_as_the_reason(checkout: Path) -> None:
    python = write_python(checkout, "exit 1")
    result = make(checkout, "run", f"PYTHON={python}")
    assert result.returncode != 0
    assert f"needs Python 3.11 or newer; found none of these: {python}" in result.stderr
    assert not (checkout / ".venv").exists()


def test_missing_venv_module_is_named_with_its_debian_package(checkout: Path) -> None:
    script = f'if [ "$2" = venv ]; then echo no ensurepip; exit 1; fi; exec {sys.executable} "$@"'
    result = make(checkout, "run", f"PYTHON={write_python(checkout, script)}")
    assert result.returncode != 0
    assert "no ensurepip" in result.stderr
    assert "apt-get install python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()


def test_set_up_happens_again_only_when_dependencies_change(checkout: Path) -> None:
    stamp = checkout / ".venv" / ".run-stamp"
    stamp.parent.mkdir()
    stamp.touch()
    assert make(checkout, "--question", ".venv/.run-stamp").returncode == 0
    newer = stamp.stat().st_mtime + 10
    os.utime(checkout / "pyproject.toml", (newer, newer))
    assert make(checkout, "--question", ".venv/.run-stamp").returncode == 1


def test_run_hands_over_port_and_upstream(checkout: Path) -> None:
    result = make(checkout, "--dry-run", "run", "PORT=5454", "UPSTREAM=10.96.0.10")
    assert "nodecache.demo run --port '5454' --upstream '10.96.0.10'" in result.stdout
