"""What fails in real time has a second try, which is shown; what has invented time has none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.daemon.processes import ROOT

FAILS_ONCE = """
from pathlib import Path

def test_it(tmp_path):
    been_here = Path(__file__).with_suffix(".been")
    assert been_here.exists(), been_here.write_text("") or "the first try"
"""
HANGS = """
import time
import pytest

@pytest.mark.timeout(1)
def test_it():
    time.sleep(60)
"""
SHARES = """
from contextlib import contextmanager
import pytest
from tests.kept import Kept

@contextmanager
def make():
    beds.append(len(beds))
    yield beds[-1]

beds = []

@pytest.fixture(scope="module")
def kept():
    with Kept(make) as kept:
        yield kept

@pytest.fixture
def bed(kept, request):
    return kept.get(request)

@pytest.mark.parametrize("number", range(3))
def test_it(bed, number):
    assert (number, bed, beds) in [(0, 0, [0]), (1, 1, [0, 1]), (2, 1, [0, 1])]
"""


def run_tests(folder: Path, path: str, text: str) -> str:
    """Runs a file as if it were one of ours; returns what pytest says of it."""
    file = folder / "tests" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("conftest.py", "kept.py", "loops.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = subprocess.run(
        [*command, str(file)], capture_output=True, text=True, cwd=folder, check=False,
        timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_failure_in_real_time_is_tried_again_and_shown(tmp_path: Path) -> None:
    said = run_tests(tmp_path, "daemon/test_a.py", FAILS_ONCE)
    assert "1 passed, 1 rerun" in said
    assert "RERUN tests/daemon/test_a.py::test_it" in said
    assert "AssertionError: the first try" in said


def test_failure_in_invented_time_is_a_failure(tmp_path: Path) -> None:
    said = run_tests(tmp_path, "wire/test_a.py", FAILS_ONCE)
    assert "1 failed" in said
    assert "rerun" not in said


def test_second_try_has_the_same_bound(tmp_path: Path) -> None:
    said = run_tests(tmp_path, "daemon/test_a.py", HANGS)
    assert "1 failed, 1 rerun" in said
    assert said.count("Timeout (>1.0s) from pytest-timeout") >= 2


def test_second_try_has_a_new_bed(tmp_path: Path) -> None:
    said = run_tests(tmp_path, "daemon/test_a.py", SHARES)
    assert "3 passed, 1 rerun" in said
