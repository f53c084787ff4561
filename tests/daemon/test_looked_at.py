"""Commands that look at the daemon that runs, as a user of its pod would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodecache import __version__
from tests.daemon.processes import HOST, ROOT, Daemon, faultless, free_port, wait_until

COREFILE = """.:PORT {
    bind HOST
    cache 30
    forward . {$ASKED}
}
"""


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    port = free_port()
    monkeypatch.setenv("ASKED", "192.0.2.53")
    corefile = COREFILE.replace("PORT", str(port)).replace("HOST", HOST)
    flags = ["-rundir", str(tmp_path / "run"), "-cache-size", "8MiB"]
    daemon = Daemon(tmp_path, corefile, port=port, metrics_port=free_port(), flags=flags)
    monkeypatch.delenv("ASKED")
    with faultless(daemon):
        window = tmp_path / "run" / "window.sock"
        wait_until(window.exists, daemon.log)
        yield daemon


def nodecache(folder: Path, *words: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "nodecache", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_explain_and_check_take_flags_and_variables_of_the_daemon_that_runs(
    daemon: Daemon, tmp_path: Path
) -> None:
    rundir = str(tmp_path / "run")
    started = f"As nodecache {__version__} was started, which runs as process {daemon.pid}:\n"
    code, text = nodecache(tmp_path, "explain", "-rundir", rundir)
    assert code == 0, text
    assert text.startswith(started)
    assert "192.0.2.53" in text
    assert "8 MiB for all server blocks" in text
    assert re.search(rf"own addresses +{HOST}\n", text)
    code, text = nodecache(tmp_path, "check", "-strict", f"-rundir={rundir}")
    assert code == 0, text
    assert text.startswith(started)
    assert "good; 1 server block" in text


def test_where_no_daemon_runs_or_a_file_is_named_nothing_is_taken_from_one(
    daemon: Daemon, tmp_path: Path
) -> None:
    _, text = nodecache(tmp_path, "explain", "-rundir", str(tmp_path / "none"))
    assert "was started" not in text
    corefile = f"Corefile.{daemon.port}"
    _, text = nodecache(tmp_path, "check", "-rundir", str(tmp_path / "run"), corefile)
    assert "was started" not in text
    assert "ASKED" in text


def test_files_of_a_daemon_in_its_pod_cannot_be_read_from_outside_and_that_is_said(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / f"Corefile.{daemon.port}").rename(tmp_path / "elsewhere")
    code, text = nodecache(tmp_path, "explain", "-rundir", str(tmp_path / "run"))
    assert code == 1
    assert "kubectl exec POD -- nodecache" in text
