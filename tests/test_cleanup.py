"""``nodecache cleanup``: what it asks the tool for, what it says, and what it leaves alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodecache.cli import main
from nodecache.commands import cleanup
from nodecache.config.node import Backend, NodePlan
from nodecache.host import listeners
from nodecache.host.tool import Report
from nodecache.process.handover import SOCKET_FILE, open_handover_socket
from nodecache.process.rundir import make_rundir, note_serving
from nodecache.process.warm_start import FILE_NAME as CACHE_FILE
from nodecache.serving.last_good import FILE_NAME as LAST_GOOD_FILE
from tests.daemon.processes import HOST, free_port
from tests.daemon.servers import program
from tests.netns.topology import inside

ARGS = ["-localip", "169.254.20.10,10.96.0.10,fe80::1%eth0"]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[NodePlan]:
    """The plans that the tool was run with; it finds nothing."""
    return pretend(monkeypatch, Report(ok=True))


def pretend(monkeypatch: pytest.MonkeyPatch, report: Report) -> list[NodePlan]:
    plans: list[NodePlan] = []

    async def run_tool(action: str, plan: NodePlan, _within_s: float) -> Report:
        assert action == "cleanup"
        plans.append(plan)
        return report

    monkeypatch.setattr(cleanup, "run_tool", run_tool)
    # This machine may have a DNS server of its own.
    monkeypatch.setattr(cleanup, "who_serves", lambda _plan: [])
    return plans


def test_flags_of_a_daemon_set_name_what_goes(plans: list[NodePlan], tmp_path: Path) -> None:
    words = [
        *ARGS, "-conf", "/etc/Corefile", "-upstreamsvc", "kube-dns-upstream", "-skipteardown",
        "-setupinterface=false", "-setupiptables=false", "-interfacename", "dns0", "-p", "5353",
        "-health-port", "8099", "-rules", "iptables-nft", "-rundir", str(tmp_path / "none"),
    ]  # fmt: skip
    assert main(["cleanup", *words]) == 0
    assert plans == [
        NodePlan("dns0", ("169.254.20.10", "10.96.0.10"), 5353, 8099, Backend.IPTABLES_NFT)
    ]


def test_each_removed_thing_has_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(ok=True, removed=("table x", "interface \x1b"), notes=("by the way",))
    pretend(monkeypatch, report)
    rundir = tmp_path / "run"
    rundir.mkdir()
    for name in ("cache", "serving", "cache.a1b2", "configuration", ".configuration.new"):
        (rundir / name).touch()
    assert main(["cleanup", *ARGS, "-rundir", str(rundir)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "removed: table x",
        "removed: interface \\x1b",
        f"removed: file {rundir}/.configuration.new",
        f"removed: file {rundir}/cache",
        f"removed: file {rundir}/cache.a1b2",
        f"removed: file {rundir}/configuration",
        f"removed: file {rundir}/serving",
        f"removed: folder {rundir}",
        "by the way",
    ]
    assert not rundir.exists()


def test_nothing_to_remove_is_said(
    plans: list[NodePlan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cleanup", *ARGS, "-rundir="]) == 0
    assert capsys.readouterr() == ("nothing to remove\n", "")
    assert len(plans) == 1


def test_rundir_that_is_not_there_is_said(
    plans: list[NodePlan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A debug pod has files of its own."""
    assert main(["cleanup", *ARGS, "-rundir", str(tmp_path / "none")]) == 0
    assert f"{tmp_path}/none is not here; a debug pod" in capsys.readouterr().out
    assert len(plans) == 1


def test_without_localip_rules_and_interface_still_go(
    plans: list[NodePlan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cleanup", "-rundir="]) == 0
    assert plans == [NodePlan("nodelocaldns", ())]
    assert "-localip was not given" in capsys.readouterr().out


def test_files_of_others_stay(plans: list[NodePlan], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cached").touch()
    (tmp_path / "serving").symlink_to("cached")
    (tmp_path / "cache.tar.gz").touch()
    assert main(["cleanup", *ARGS, "-rundir", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"cache", "cached", "serving", "cache.tar.gz"}
    assert len(plans) == 1


@pytest.mark.parametrize("kind", ["link", "file"])
def test_rundir_that_is_no_folder_is_not_followed(
    kind: str, plans: list[NodePlan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "cache").touch()
    if kind == "link":
        (tmp_path / "run").symlink_to("theirs")
    else:
        (tmp_path / "run").touch()
    assert main(["cleanup", *ARGS, "-rundir", str(tmp_path / "run")]) == 1
    assert "is no folder but a link or a file" in capsys.readouterr().err
    assert (tmp_path / "theirs" / "cache").exists()
    assert len(plans) == 1


def test_all_that_a_daemon_leaves_in_rundir_goes(plans: list[NodePlan], tmp_path: Path) -> None:
    """The names are those of who writes them."""
    rundir = make_rundir(str(tmp_path / "run"))
    assert rundir is not None
    note_serving(rundir)
    open_handover_socket(rundir).close()
    for name in (CACHE_FILE, LAST_GOOD_FILE):
        (rundir / name).touch()
    assert main(["cleanup", *ARGS, "-rundir", str(rundir)]) == 0
    assert not rundir.exists()
    assert len(plans) == 1


def test_error_of_the_tool_is_shown_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, Report(ok=False, kind="iptables_lock", error="the lock is held"))
    (tmp_path / "cache").touch()
    assert main(["cleanup", *ARGS, "-rundir", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err == "nodecache: the lock is held\n"
    assert "nothing to remove" not in out
    assert not (tmp_path / "cache").exists()


def test_folder_that_cannot_be_emptied_is_an_error(
    plans: list[NodePlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: str, dir_fd: int) -> None:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "cache").touch()
    monkeypatch.setattr(os, "unlink", refuse)
    assert main(["cleanup", *ARGS, "-rundir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"nodecache: {tmp_path}: permission denied\n"
    assert len(plans) == 1


@pytest.fixture
def rundir(tmp_path: Path) -> Iterator[Path]:
    """Where a daemon waits for its successor."""
    with open_handover_socket(tmp_path / "r"):
        yield tmp_path / "r"


def test_daemon_that_serves_is_not_undone(
    plans: list[NodePlan], rundir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cleanup", *ARGS, "-rundir", str(rundir)]) == 1
    assert plans == []
    assert (rundir / SOCKET_FILE).exists()
    err = capsys.readouterr().err
    assert str(rundir / SOCKET_FILE) in err
    assert "nodecache cleanup now" in err


def test_now_means_now(plans: list[NodePlan], rundir: Path) -> None:
    assert main(["cleanup", "now", *ARGS, "-rundir", str(rundir)]) == 0
    assert len(plans) == 1
    assert not rundir.exists()


def test_daemon_with_many_callers_is_not_undone(plans: list[NodePlan], rundir: Path) -> None:
    callers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(20)]
    try:
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(str(rundir / SOCKET_FILE))
        assert main(["cleanup", *ARGS, "-rundir", str(rundir)]) == 1
    finally:
        for caller in callers:
            caller.close()
    assert plans == []


def test_socket_that_nobody_holds_is_removed(plans: list[NodePlan], tmp_path: Path) -> None:
    open_handover_socket(tmp_path).close()
    assert main(["cleanup", *ARGS, "-rundir", str(tmp_path)]) == 0
    assert not (tmp_path / SOCKET_FILE).exists()
    assert len(plans) == 1


def serve(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket that serves; the caller closes it."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


@pytest.mark.parametrize(
    ("kind", "name"), [(socket.SOCK_DGRAM, "udp"), (socket.SOCK_STREAM, "tcp")]
)
@pytest.mark.parametrize("host", [HOST, "0.0.0.0"], ids=["one address", "all"])
def test_who_has_the_port_is_not_undone(
    plans: list[NodePlan],
    host: str,
    kind: socket.SocketKind,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cleanup, "who_serves", listeners.who_serves)
    port = free_port()
    words = ["-localip", HOST, "-dns.port", str(port), "-rundir="]
    with serve(host, port, kind):
        assert main(["cleanup", *words]) == 1
        err = capsys.readouterr().err
        assert f"somebody serves at {name} {host}:{port}: end it first" in err
        assert main(["cleanup", *words[:1], "127.0.0.1", *words[2:]]) == int(host == "0.0.0.0")
        assert main(["cleanup", "now", *words]) == 0
    assert main(["cleanup", *words]) == 0
    assert len(plans) == 2 + (host != "0.0.0.0")


def test_where_sockets_cannot_be_seen_nothing_is_removed(
    plans: list[NodePlan], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cleanup, "who_serves", listeners.who_serves)
    monkeypatch.setattr(listeners, "_NET", Path("/proc/none"))
    assert main(["cleanup", *ARGS, "-rundir="]) == 1
    assert "somebody may serve here" in capsys.readouterr().err
    assert plans == []


@pytest.mark.parametrize(
    "words", [["-localip", "x"], ["-colour"], ["later"], ["-rundir=", "now"], ["Corefile"]]
)
def test_faulty_flags_remove_nothing(
    words: list[str], plans: list[NodePlan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cleanup", *words]) == 2
    assert plans == []
    assert capsys.readouterr().err.startswith("command line: ")


@pytest.mark.parametrize("words", [["cleanup", "-help"], ["help", "cleanup"]])
def test_help_removes_nothing(
    words: list[str], plans: list[NodePlan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == cleanup.HELP
    assert plans == []
    assert all(len(line) <= 100 for line in cleanup.HELP.splitlines())


@pytest.mark.root
@pytest.mark.netns
def test_node_is_as_before(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    name = f"nc-cleanup{os.getpid()}"
    ip, nft = program("ip"), program("nft")
    if subprocess.run([ip, "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("ip netns does not work here")
    within = [ip, "netns", "exec", name]

    def run(*command: str) -> str:
        done = subprocess.run(
            [*within, *command], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    try:
        run(ip, "link", "add", "nodelocaldns", "type", "bridge")
        run(nft, "add", "table", "ip", "kube-proxy")
        before = [run(ip, "-o", "-4", "address"), run(nft, "list", "ruleset")]
        plan = NodePlan("nodelocaldns", ("169.254.20.10", "10.96.0.10"))
        for action in ("interface", "redirect"):
            assert '"ok": true' in run(
                sys.executable, "-m", "nodecache.host", action, plan.to_json()
            )
        assert "169.254.20.10" in run(ip, "-o", "-4", "address")
        assert "inet nodecache" in run(nft, "list", "ruleset")
        words = [*ARGS, "-rundir", str(tmp_path)]
        # A debug pod has the node's network, and its own files and processes.
        debug_pod = [program("unshare"), "--mount", "--pid", "--fork", "--mount-proc"]
        cleanup_there = [
            *debug_pod,
            sys.executable,
            "-m",
            "nodecache",
            "cleanup",
            *ARGS,
            "-rundir=",
        ]
        with inside(name), serve("169.254.20.10", 53, socket.SOCK_DGRAM):
            refused = run(*cleanup_there)
            assert "somebody serves at udp 169.254.20.10:53: end it first" in refused
            assert "somebody serves" in run(*cleanup_there[:-3], "-rundir=")
        assert "169.254.20.10" in run(ip, "-o", "-4", "address")
        assert "inet nodecache" in run(nft, "list", "ruleset")
        removed = run(sys.executable, "-m", "nodecache", "cleanup", *words)
        assert "removed: address 169.254.20.10 of nodelocaldns\n" in removed
        assert [run(ip, "-o", "-4", "address"), run(nft, "list", "ruleset")] == before
        again = run(sys.executable, "-m", "nodecache", "cleanup", *words)
        assert again.endswith("nothing to remove\n")
    finally:
        subprocess.run([ip, "netns", "del", name], check=True)
