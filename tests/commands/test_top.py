"""``nodecache top``: what it makes of what a daemon says, and against a daemon that runs."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodecache.cli import main
from nodecache.commands.top.report import lay_out
from nodecache.commands.top.searches import Search, find_searches
from tests.daemon.processes import HOST, ROOT, Daemon, faultless, free_port, wait_until
from tests.daemon.stubs import ask

DOMAIN = "cluster.local."


def name(text: str, queries: int, **more: float) -> dict[str, Any]:
    said = {"name": text, "type": "A", "queries": queries, "error": 0, "hits": 0, "nxdomains": 0}
    return {**said, "exchanges": 0, "seconds": 0.0, "failures": 0, **more}


SAID: dict[str, Any] = {
    "is_new": False,
    "seconds": 10.0,
    "every": 4,
    "queries": 4000,
    "cluster_domain": DOMAIN,
    "tiers": {"packet": 2000, "message": 1000, "miss": 1000, "nxdomain": 600},
    "names": [
        name("api.example.com.", 200, seconds=4.0, exchanges=20),
        name("api.example.com.default.svc.cluster.local.", 900, nxdomains=900, hits=900),
        name("db.default.svc.cluster.local.", 500, hits=450),
    ],
    "clients": [["10.0.0.7", 3000], ["10.0.0.8", 1000]],
    "slow": [
        {
            "name": "far.example.", "type": "AAAA", "times": 3, "seconds": 4.5,
            "longest": 2.0, "gave_up": 2, "answered_by": "",
        }
    ],
    "upstreams": [
        {
            "address": "10.96.0.10:53", "transport": "tcp", "rtt": 0.0012, "failures": 0,
            "connections": {"idle": 2, "busy": 1, "draining": 0}, "waiting": 0, "is_down": False,
        }
    ],
}  # fmt: skip


def page(sort: str = "queries", cells: int = 100, lines: int | None = None) -> list[str]:
    return lay_out(SAID, sort, cells, lines)


def test_the_head_says_rate_sampling_and_who_answered() -> None:
    assert page()[:2] == [
        "400 queries/s over 10 s, 1 of 4 queries looked at",
        "50.0 % ready packets, 25.0 % messages, 25.0 % misses, 15.0 % NXDOMAIN",
    ]


@pytest.mark.parametrize(
    ("sort", "first"),
    [("queries", "api.example.com.default"), ("cost", "api.example.com. "), ("denied", "api.exam")],
)
def test_names_come_in_the_order_that_is_asked_for(sort: str, first: str) -> None:
    lines = page(sort)
    title = next(n for n, line in enumerate(lines) if line.startswith("NAME"))
    assert lines[title + 1].startswith(first)


def test_tables_tell_suffixes_clients_slow_names_and_upstreams() -> None:
    text = "\n".join(page())
    for part in (
        "default.svc.cluster.local.",
        "10.0.0.7",
        "75.0 %",
        "far.example.",
        "2.0 s",
        "nobody",
        "10.96.0.10:53",
        "1.2 ms",
        "2 idle, 1 busy",
    ):
        assert part in text


@pytest.mark.parametrize(("cells", "lines"), [(40, 12), (80, 24), (200, 60), (1, 1)])
def test_a_page_fits_into_its_terminal(cells: int, lines: int) -> None:
    found = page(cells=cells, lines=lines)
    assert len(found) <= lines
    assert all(len(line) <= max(cells, 40) for line in found)


def test_names_cannot_act_on_the_terminal() -> None:
    said = {**SAID, "names": [name("\x1b[2J.example.", 1)]}
    assert "\x1b" not in "\n".join(lay_out(said, "queries", 100))


@pytest.mark.parametrize(
    ("denied", "asked", "meant"),
    [
        ("a.example.default.svc.cluster.local.", (), "a.example."),
        ("a.example.default.svc.cluster.local.", ("a.example.",), "a.example."),
        ("a.example.svc.cluster.local.", ("a.example.",), "a.example."),
        ("a.example.cluster.local.", (), "a.example."),
        ("db.cluster.local.", (), ""),  # a Service without its namespace, or a mistake
        ("db.svc.cluster.local.", (), ""),
        ("db.default.svc.cluster.local.", (), ""),  # a Service that is not there
        ("db.default.svc.cluster.local.", ("db.",), "db."),
        ("a.example.", (), ""),
        ("cluster.local.", (), ""),
    ],
)
def test_a_denied_name_tells_what_was_meant(
    denied: str, asked: tuple[str, ...], meant: str
) -> None:
    found = find_searches(dict.fromkeys(asked, 5), {denied: 15}, DOMAIN)
    assert found == ([Search(meant, 5 if asked else 0, 15)] if meant else [])


def test_of_five_questions_the_search_list_asks_three_in_vain() -> None:
    ends = ("default.svc.cluster.local.", "svc.cluster.local.", "cluster.local.")
    denied = {f"api.example.com.{end}": 20 for end in ends}
    (found,) = find_searches({"api.example.com.": 20, **denied}, denied, DOMAIN)
    assert (found.name, found.in_vain, found.share) == ("api.example.com.", 60, 0.75)


@pytest.mark.parametrize(
    "words",
    [["-sort", "size"], ["-interval", "0"], ["-interval", "x"], ["once"], ["-rundir"], ["-n=1"]],
)
def test_words_that_are_not_understood_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", *words]) == 2
    assert "see nodecache top -help" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "-help"]) == 0
    assert "kubectl -n kube-system exec -it POD -- nodecache top" in capsys.readouterr().out


def test_without_a_daemon_the_next_step_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "-once", "-rundir", str(tmp_path)]) == 1
    assert "name its -rundir" in capsys.readouterr().err


# Against a daemon.

COREFILE = """.:PORT {
    bind HOST
    cache 30
    template IN A example {
        answer "{{ .Name }} 30 IN A 192.0.2.1"
    }
    template IN A cluster.local {
        rcode NXDOMAIN
        authority "cluster.local. 30 IN SOA a. b. 1 2 3 4 30"
    }
    forward . 127.0.0.1:9
}
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    port = free_port()
    corefile = COREFILE.replace("PORT", str(port)).replace("HOST", HOST)
    flags = ["-rundir", str(tmp_path / "run")]
    daemon = Daemon(tmp_path, corefile, port=port, metrics_port=free_port(), flags=flags)
    with faultless(daemon):
        wait_until((tmp_path / "run" / "window.sock").exists, daemon.log)
        yield daemon


def look(tmp_path: Path) -> dict[str, Any]:
    words = ["top", "-once", "-json", "-interval", "0.5", "-rundir", str(tmp_path / "run")]
    ran = subprocess.run(
        [sys.executable, "-m", "nodecache", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_what_is_asked_while_somebody_looks_is_counted_exactly_on_a_quiet_node(
    daemon: Daemon, tmp_path: Path, transport: str
) -> None:
    look(tmp_path)  # from here on it watches
    for _ in range(7):
        ask(daemon, "one.example.", tcp=transport == "tcp")
    for _ in range(3):
        ask(daemon, "one.example.default.svc.cluster.local.", tcp=transport == "tcp")
    said = look(tmp_path)
    assert (said["queries"], said["every"]) == (10, 1)
    found = {each["name"]: each for each in said["names"]}
    assert found["one.example."]["queries"] == 7
    assert found["one.example."]["hits"] == 6
    denied = found["one.example.default.svc.cluster.local."]
    assert (denied["queries"], denied["nxdomains"]) == (3, 3)
    assert said["tiers"]["packet"] + said["tiers"]["message"] == 8
    assert said["tiers"]["miss"] == 2
    assert [count for _, count in said["clients"]] == [10]


def test_names_that_nobody_answers_are_slow_names_that_stubs_gave_up_on(
    daemon: Daemon, tmp_path: Path
) -> None:
    ask(daemon, "dead.test.")
    said = look(tmp_path)
    (slow,) = [each for each in said["slow"] if each["name"] == "dead.test."]
    assert (slow["times"], slow["gave_up"], slow["answered_by"]) == (1, 1, "")
    (upstream,) = said["upstreams"]
    assert upstream["address"] == "127.0.0.1:9"
    assert upstream["failures"] > 0


def test_on_a_terminal_it_draws_until_q_and_gives_the_screen_back(
    daemon: Daemon, tmp_path: Path
) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        words = ["-m", "nodecache", "top", "-interval", "0.5", "-rundir", str(tmp_path / "run")]
        os.execv(sys.executable, [sys.executable, *words])
    try:
        drawn = _read(terminal, b"no queries")
        assert b"\x1b[?1049h" in drawn
        os.write(terminal, b"q")
        assert b"\x1b[?1049l" in _read(terminal, b"\x1b[?1049l")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(terminal)


def _read(terminal: int, until: bytes) -> bytes:
    read, deadline = b"", time.monotonic() + 30
    while until not in read and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            read += os.read(terminal, 65536)
    assert until in read
    return read
