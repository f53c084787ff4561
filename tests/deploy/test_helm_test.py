"""What the pod of `helm test` asks, it asks over UDP and TCP, and it tells by its exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.processes import HOST, PATIENCE_S, ROOT, Daemon, faultless, free_port

SCRIPT = (ROOT / "daemonset" / "chart" / "files" / "resolve.py").read_text(encoding="utf-8")


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where one name is answered, and all others do not exist."""
    port, metrics_port = free_port(), free_port()
    text = f"""good.example:{port} {{
    bind {HOST}
    template ANY ANY {{
        rcode NOERROR
    }}
}}
.:{port} {{
    bind {HOST}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
    daemon = Daemon(tmp_path, text, port=port, metrics_port=metrics_port)
    with faultless(daemon):
        daemon.wait_until_serving()
        yield port


def ask(port: int, name: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(port), name, HOST],
        capture_output=True, text=True, timeout=PATIENCE_S * 3, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_answers_over_both_ways_are_good(port: int) -> None:
    assert ask(port, "good.example") == (
        0, [f"{HOST} over UDP: NOERROR", f"{HOST} over TCP: NOERROR"],
    )  # fmt: skip


def test_name_that_does_not_exist_is_told(port: int) -> None:
    code, said = ask(port, "bad.example")
    assert (code, said) == (1, [f"{HOST} over UDP: NXDOMAIN", f"{HOST} over TCP: NXDOMAIN"])


def test_nobody_there_is_told() -> None:
    code, said = ask(free_port(), "good.example")
    assert code == 1
    assert [line.partition(": ")[2].split(":")[0] for line in said] == ["no answer"] * 2
