"""The one-shot tool from both sides: what it prints, and what the worker makes of that."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nodecache.config.node import NodePlan
from nodecache.errors import NodeError
from nodecache.host import __main__ as program
from nodecache.host import tool
from nodecache.host.tool import Report, parse_report, run_tool, tool_command
from tests import loops
from tests.daemon.processes import PATIENCE_S, wait_until
from tests.loops import Run

PLAN = NodePlan("no-such-link", ("127.0.0.1",), has_rules=False)
GOOD = Report(ok=True)
FIELDS = {
    "ok": True, "kind": "", "error": "", "notes": ["a"], "removed": [],
    "covered": [], "fallen_back": -1,
}  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str]) -> Report:
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    report = parse_report("check", out.encode())
    assert report is not None
    return report


def plan_with(**fields: object) -> str:
    return json.dumps({**json.loads(PLAN.to_json()), **fields})


@pytest.mark.parametrize(
    "words",
    [
        [], ["check"], ["check", "{}", "more"], ["destroy", PLAN.to_json()], ["check", ""],
        ["check", "[]"], ["check", "{}"], ["check", "[" * 100_000], ["check", '"x"'],
        ["check", plan_with(interface=5)], ["check", plan_with(interface="")],
        ["check", plan_with(interface="a b")], ["check", plan_with(interface="x" * 16)],
        ["check", plan_with(interface="a\0b")],
        ["check", plan_with(addresses="127.0.0.1")], ["check", plan_with(addresses=None)],
        ["check", plan_with(addresses=[7])], ["check", plan_with(addresses=["fe80::1%eth0"])],
        ["check", plan_with(dns_port=0)], ["check", plan_with(dns_port=True)],
        ["check", plan_with(health_port=65536)], ["check", plan_with(backend="ipfw")],
        ["check", plan_with(has_rules="no")], ["check", plan_with(has_interface=1)],
        ["check", plan_with(colour="red")],
    ],
    ids=lambda words: " ".join(words)[-40:],
)  # fmt: skip
def test_wrong_words_are_one_line_and_two(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(words) == 2
    report = printed(capsys)
    assert not report.ok
    assert report.error


def test_check_honours_what_is_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["check", PLAN.to_json()]) == 0
    assert printed(capsys) == GOOD
    text = plan_with(addresses=["192.0.2.1"])
    assert program.main(["check", text]) == 1
    assert printed(capsys).error == "192.0.2.1 is not local"
    text = plan_with(addresses=["192.0.2.1"], has_interface=False)
    assert program.main(["check", text]) == 0
    assert printed(capsys) == GOOD


def test_second_step_is_tried_although_the_first_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(_plan: NodePlan, _result: object) -> None:
        raise NodeError("the lock is held", "iptables_lock")

    def broken(_plan: NodePlan, result: program._Result) -> None:
        result.removed.append("interface x")
        raise RuntimeError("odd\nthing")

    monkeypatch.setitem(program._ACTIONS, "cleanup", (locked, broken))
    assert program.main(["cleanup", PLAN.to_json()]) == 1
    report = printed(capsys)
    assert report.kind == "iptables_lock"
    assert report.removed == ("interface x",)
    assert report.error.startswith("the lock is held; a fault of nodecache, please report it: ")


def test_rules_go_before_the_interface() -> None:
    assert [step.__name__ for step in program._ACTIONS["cleanup"]] == ["_clean_rules", "_remove"]


@pytest.mark.parametrize("action", ["check", "withdraw", "redirect"])
def test_pyroute2_is_not_waited_for_where_it_is_not_needed(action: str) -> None:
    code = (
        "import sys; from nodecache.host import __main__, rules;"
        "rules.withdraw = rules.install = lambda plan, s: rules.RulesReport(None);"
        "assert __main__.main(sys.argv[1:]) == 0;"
        "assert 'pyroute2' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, action, PLAN.to_json()],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_command_runs_from_a_folder_with_hostile_modules(tmp_path: Path) -> None:
    for name in ("json", "nodecache", "ipaddress", "dataclasses"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hostile')\n")
    done = subprocess.run(
        tool_command("check", PLAN),
        cwd=tmp_path, capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert parse_report("check", done.stdout) == GOOD
    assert done.returncode == 0


def test_command_imports_the_nodecache_that_made_it() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from nodecache.host.tool import *;"
        "from nodecache.config.node import NodePlan as P; print(tool_command('check', P('x', ())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(tool.__file__).parents[2])],
        cwd="/", capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert repr(str(Path(tool.__file__).resolve().parents[2])) in done.stdout


def test_report_comes_over_both_loops(run: Run) -> None:
    assert run(run_tool("check", PLAN, PATIENCE_S)) == GOOD
    report = run(run_tool("check", NodePlan("x", ("192.0.2.1",), has_rules=False), PATIENCE_S))
    assert report == Report(ok=False, kind="interface_check", error="192.0.2.1 is not local")


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Lets another program be the tool."""
    monkeypatch.setattr(tool, "tool_command", lambda *_: [sys.executable, "-S", "-c", code])


def are_gone(file: Path) -> bool:
    return all(map(is_gone, file.read_text().split()))


def is_gone(pid: str) -> bool:
    try:
        # A zombie that nobody has reaped yet has ended, too.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


HANGING = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    with open({path!r}, "w") as file:
        file.write(f"{{os.getpid()}} {{child}}\\n")
time.sleep(1000)
"""


def test_tool_and_its_children_are_killed_at_the_bound(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, HANGING.format(path=str(tmp_path / "pids")))
    report = run(run_tool("withdraw", PLAN, 2.0))
    assert report.kind == "iptables"
    assert "'withdraw': not done within 2 s" in report.error
    wait_until(lambda: are_gone(tmp_path / "pids"), "an end of all")


def test_cancelling_kills_the_tool(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    pretend(monkeypatch, HANGING.format(path=str(pids)))

    async def cancel() -> None:
        running = asyncio.create_task(run_tool("redirect", PLAN, PATIENCE_S))
        await asyncio.to_thread(
            wait_until, lambda: pids.exists() and pids.read_text().endswith("\n"), "two processes"
        )
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(cancel())
    wait_until(lambda: are_gone(pids), "an end of all")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("raise SystemExit(3)", "it ended with 3: it said nothing"),
        ("print('x' * 10_000_000)", "it ended with 0: it said nothing"),
        ("raise ValueError('broken')", "it ended with 1: ValueError: broken"),
        ("import sys; sys.stderr.write('y' * 10_000_000)", "it ended with 0: " + 200 * "y"),
        ("import os; os.kill(os.getpid(), 9)", "it ended with -9: it said nothing"),
    ],
)
def test_what_is_no_report_is_a_failure(
    code: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, code)
    report = loops.run(run_tool("interface", PLAN, PATIENCE_S))
    assert report.kind == "interface_add"
    assert report.error == f"the tool for the node failed at 'interface': {text}"


def test_program_that_cannot_be_started_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    report = loops.run(run_tool("check", PLAN, PATIENCE_S))
    assert "cannot start /no/such/python" in report.error
    assert report.kind == "interface_check"


@pytest.mark.parametrize(
    "fields",
    [
        {"ok": 1}, {"kind": None}, {"error": 5}, {"notes": "text"}, {"notes": [1]},
        {"removed": {}}, {"more": ""},
        {"covered": [None]}, {"fallen_back": "many"}, {"fallen_back": True},
    ],
)  # fmt: skip
def test_report_of_other_types_is_none(fields: dict[str, object]) -> None:
    assert parse_report("check", json.dumps(FIELDS).encode()) == Report(ok=True, notes=("a",))
    assert parse_report("check", json.dumps({**FIELDS, **fields}).encode()) is None


@pytest.mark.parametrize("output", [b"", b"{", b"\xff", b"[]", b"{}", b"[" * 60_000, b"null"])
def test_output_that_is_no_report_is_none(output: bytes) -> None:
    assert parse_report("check", output) is None
