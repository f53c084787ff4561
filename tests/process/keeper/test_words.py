from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from nodecache import __main__ as program
from nodecache import cli
from nodecache.process.keeper.log import Log, wants_json
from tests.daemon.processes import ROOT

ELSEWHERE = 42


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Gathers the words with which the command line is run without a keeper."""
    calls: list[list[str]] = []

    def run(words: Sequence[str]) -> int:
        calls.append(list(words))
        return ELSEWHERE

    monkeypatch.setattr(cli, "main", run)
    monkeypatch.setattr(program, "_keep", lambda _words: 0)
    return calls


@pytest.mark.parametrize(
    "line",
    [
        "check Corefile",
        "help",
        "nonsense",
        "-help",
        "--h",
        "-localip 10.0.0.1 -version",
        "--plugins=true",
        "-localip 10.0.0.1 -keeper=false",
        "--keeper=F -localip 10.0.0.1",
        "-keeper=0",
        "-keeper -keeper=FALSE",
        "-keeper=perhaps",
        "-help=perhaps",
    ],
)
def test_commands_and_keeperless_flags_run_in_this_process(ran: list[list[str]], line: str) -> None:
    assert program.main(line.split()) == ELSEWHERE
    assert ran == [line.split()]


@pytest.mark.parametrize(
    "line",
    ["", "-localip 10.0.0.1", "-keeper", "-keeper=false -keeper=T", "-help=false", "-unknown"],
)
def test_everything_else_is_kept(ran: list[list[str]], line: str) -> None:
    assert program.main(line.split()) == 0
    assert ran == []


def test_other_platforms_have_no_keeper(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert program.main(["-localip", "10.0.0.1"]) == ELSEWHERE
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("line", "is_json"),
    [
        ("-localip 10.0.0.1", False),
        ("-log-format json", True),
        ("--log-format=json", True),
        ("-log-format=text", False),
        ("-log-format json -log-format text", False),
        ("-log-format", False),
    ],
)
def test_form_of_lines_follows_the_flag(line: str, is_json: bool) -> None:
    assert wants_json(line.split()) == is_json


def written(log: Log, tmp_path: Path, text: str) -> str:
    with (tmp_path / "stderr").open("w") as file, redirect_stderr(file):
        log.error(text)
    return (tmp_path / "stderr").read_text()


def test_lines_look_like_the_workers(tmp_path: Path) -> None:
    assert written(Log(), tmp_path, "a\x1bb\nc") == "[ERROR] a\\x1bb\\nc\n"
    line = json.loads(written(Log(is_json=True), tmp_path, "gone"))
    assert (line["level"], line["message"]) == ("error", "gone")
    assert len(line["time"]) == len("2025-01-01T00:00:00.000Z")


def test_closed_standard_error_is_no_fault() -> None:
    with redirect_stderr(io.StringIO()):
        Log().error("nobody reads this")


@pytest.fixture
def rundir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POD_UID", "our-own")
    return tmp_path


@pytest.mark.parametrize(
    ("serving", "pod_uid", "code", "complaint"),
    [
        ("our-own\n", "our-own", 0, ""),
        ("another", "our-own", 1, "another pod serves: another, and this is our-own\n"),
        ("another", None, 0, ""),
        ("\n", None, 1, "is empty"),
        ("", "our-own", 1, "is empty"),
        (None, "our-own", 1, "no such file"),
        ("\x1b[31m" + "x" * 9000, "our-own", 1, "another pod serves: \\x1b[31mxx"),
    ],
)
def test_probe_says_whether_this_pod_serves(
    rundir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    serving: str | None,
    pod_uid: str | None,
    code: int,
    complaint: str,
) -> None:
    if serving is not None:
        (rundir / "serving").write_text(serving)
    if pod_uid is None:
        monkeypatch.delenv("POD_UID")
    assert program.main(["probe", "-rundir", str(rundir)]) == code
    assert program.main(["probe", f"--rundir={rundir}"]) == code
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 2 * code


@pytest.mark.parametrize("line", ["-rundir", "extra", "-help=x", "-rundir x y"])
def test_probe_refuses_words_that_it_does_not_know(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["probe", *line.split()]) == 2
    assert capsys.readouterr().err.startswith("Usage: nodecache probe")


def test_probe_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["probe", "-help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: nodecache probe")


def modules_after(statement: str) -> set[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); "
    code += f"{statement}; print(*set(sys.modules) - before)"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        check=True, capture_output=True, text=True, env={**os.environ, "POD_UID": ""},
    )  # fmt: skip
    return set(result.stdout.split())


def test_keeper_imports_nothing_third_party_and_little_of_its_own() -> None:
    modules = modules_after("import nodecache.process.keeper.supervise")
    tops = {name.partition(".")[0] for name in modules} - {"nodecache"}
    assert tops <= sys.stdlib_module_names
    assert not tops & {"asyncio", "ctypes", "dataclasses", "logging", "subprocess", "typing"}
    ours = {name for name in modules if name.startswith("nodecache.")}
    assert {name for name in ours if not name.startswith("nodecache.process.keeper")} == {
        "nodecache.process",
        "nodecache.process.channel",
        "nodecache.process.rights",
        "nodecache.host",
        "nodecache.host.beat",
        "nodecache.net",
        "nodecache.net.pktinfo",
        "nodecache.wire",
        "nodecache.wire.const",
        "nodecache.wire.framing",
        "nodecache.wire.numbers",
        "nodecache.wire.records",
    }


def test_probe_imports_next_to_nothing() -> None:
    statement = "from nodecache.__main__ import main; main(['probe', '-rundir', '/proc/none'])"
    assert not modules_after(statement) & {"socket", "json", "enum", "re", "typing"}
