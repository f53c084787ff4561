from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPILED = ROOT / ".build" / "compiled"
CORE = ("tests/wire", "tests/cache", "tests/engine", "tests/net/test_udp.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler: apt-get install gcc libc6-dev"
)
def test_the_translated_core_passes_the_tests_of_the_core() -> None:
    made = subprocess.run(
        ["make", "compile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    environment = os.environ | {"NODECACHE_FROM": str(COMPILED), "PYTHONPATH": str(COMPILED)}
    proof = "import nodecache.engine.resolver as r; print(r.__file__)"
    # What a compiled object takes is less, so what is accounted for it is no longer about right.
    tests = [*CORE, "--deselect", "tests/cache/test_memory.py", "-p", "no:cacheprovider"]
    for command, expected in (
        ([sys.executable, "-P", "-c", proof], ".so"),
        ([sys.executable, "-P", "-m", "pytest", "-q", *tests], " passed"),
    ):
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
        assert expected in run.stdout
