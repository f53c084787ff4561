from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodecache.process.rundir import make_rundir, note_gone, note_serving


def test_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    made = make_rundir(str(tmp_path / "run" / "nodecache"))
    assert made is not None
    assert made.stat().st_mode & 0o777 == 0o700
    assert make_rundir(str(made)) == made


def test_folder_that_cannot_be_made_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert make_rundir(str(tmp_path / "file" / "below")) is None
    assert "a restart will begin with an empty cache (see -rundir)" in caplog.text
    assert make_rundir("") is None


@pytest.mark.parametrize("pod_uid", ["a-pod", ""])
def test_who_serves_is_the_pod_or_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pod_uid: str
) -> None:
    monkeypatch.setenv("POD_UID", pod_uid)
    note_serving(tmp_path)
    assert (tmp_path / "serving").read_text() == f"{pod_uid or f'process {os.getpid()}'}\n"
    note_gone(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_noted_where_that_cannot_be(tmp_path: Path) -> None:
    for rundir in (None, tmp_path / "none"):
        note_serving(rundir)
        note_gone(rundir)
    assert list(tmp_path.iterdir()) == []
