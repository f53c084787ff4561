"""Start and end of the daemon: ports that are taken, Corefiles that are wrong, signals."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import dns.message
import psutil
import pytest

from tests.daemon.conftest import StartDaemon, corefile
from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import (
    HOST,
    PATIENCE_S,
    ROOT,
    Daemon,
    daemon_command,
    faultless,
    free_port,
    wait_until,
)
from tests.daemon.stubs import (
    addresses,
    ask,
    framed,
    make_query,
    read_message,
    scrape,
    tcp_socket,
    total,
    udp_socket,
)

COUNT = 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_queries_under_way_are_answered_when_it_is_told_to_end(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, number: signal.Signals
) -> None:
    daemon = daemon_for(scripted)
    names = [f"end{n}.wait-700.test" for n in range(COUNT)]
    with udp_socket(daemon) as udp, tcp_socket(daemon) as tcp:
        for name in names[: COUNT // 2]:
            udp.send(make_query(name).to_wire())
        tcp.sendall(framed(make_query(name).to_wire() for name in names[COUNT // 2 :]))
        wait_until(lambda: {asked.name for asked in scripted.asked} >= set(names), "all asked")
        daemon.process.send_signal(number)
        replies = [dns.message.from_wire(udp.recv(65535)) for _ in range(COUNT // 2)]
        replies += [dns.message.from_wire(read_message(tcp)) for _ in range(COUNT // 2)]
    answers = {reply.question[0].name.to_text().rstrip("."): reply for reply in replies}
    assert {name: addresses(answers[name]) for name in names} == {
        name: [right_address(name)] for name in names
    }
    assert daemon.process.wait(PATIENCE_S) == 0


def test_datagrams_that_wait_in_the_socket_are_answered_before_the_end(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    ask(daemon, "warm.test")
    ask(daemon, "warm.test")
    with udp_socket(daemon) as sock:
        daemon.process.send_signal(signal.SIGSTOP)
        for _ in range(COUNT):
            sock.send(make_query("warm.test").to_wire())
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGCONT)
        sock.settimeout(3)
        replies = [dns.message.from_wire(sock.recv(65535)) for _ in range(COUNT)]
    assert all(addresses(reply) == [right_address("warm.test")] for reply in replies)


def test_misses_that_wait_in_the_socket_are_asked_for_before_the_end(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    names = {f"queued{n}.wait-300.test" for n in range(COUNT)}
    with udp_socket(daemon) as sock:
        daemon.process.send_signal(signal.SIGSTOP)
        for name in names:
            sock.send(make_query(name).to_wire())
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGCONT)
        sock.settimeout(3)
        replies = [dns.message.from_wire(sock.recv(65535)) for _ in names]
    assert {reply.question[0].name.to_text().rstrip(".") for reply in replies} == names
    assert all(len(addresses(reply)) == 1 for reply in replies)
    assert daemon.process.wait(PATIENCE_S) == 0


def test_a_pidfile_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text("1\n")
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, port))
        text = corefile(port, free_port(), "127.0.0.53", "300", "")
        done = run_to_its_end(tmp_path, text, "-pidfile", str(pidfile))
    assert done.returncode == 1
    assert pidfile.read_text() == "1\n"


def test_it_ends_at_once_when_nothing_is_under_way(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    ask(daemon, "one.test")
    with tcp_socket(daemon):
        assert daemon.stop() == 0


def test_it_ends_within_its_grace_though_the_upstream_is_silent(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    with udp_socket(daemon) as sock:
        sock.send(make_query("x.wait-60000.test").to_wire())
        wait_until(lambda: scripted.asked, "the query is under way")
        assert daemon.stop() == 0


@pytest.mark.slow
def test_a_taken_metrics_port_is_logged_and_dns_is_served(
    tmp_path: Path, scripted: ScriptedUpstream
) -> None:
    port, metrics_port = free_port(), free_port()
    target = f"{scripted.host}:{scripted.port}"
    text = corefile(port, metrics_port, target, "300", "force_tcp")
    with ExitStack() as stack:
        taken = stack.enter_context(socket.create_server((HOST, metrics_port)))
        daemon = Daemon(tmp_path, text, port=port, metrics_port=metrics_port)
        stack.enter_context(faultless(daemon))
        daemon.wait_for_log(rf"\[ERROR\] cannot serve HTTP on {HOST}:{metrics_port}: .*stop it")
        assert addresses(ask(daemon, "served.test")) == [right_address("served.test")]
        taken.close()
        assert total(scrape(daemon), "coredns_dns_requests_total") == 1  # it tries again


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_a_taken_dns_port_ends_it_with_the_reason(tmp_path: Path, kind: socket.SocketKind) -> None:
    port, metrics_port = free_port(), free_port()
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((HOST, port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        done = run_to_its_end(tmp_path, corefile(port, metrics_port, "127.0.0.53", "300", ""))
    assert done.returncode == 1
    assert f"{HOST}:{port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_an_address_that_no_interface_has_ends_it_with_the_reason(tmp_path: Path) -> None:
    text = corefile(5305, free_port(), "127.0.0.53", "300", "").replace(HOST, "192.0.2.200", 1)
    done = run_to_its_end(tmp_path, text)
    assert done.returncode == 1
    assert "192.0.2.200:5305" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_faults_of_a_broken_corefile_are_told_in_one_go(tmp_path: Path) -> None:
    text = f"""\
.:{free_port()} {{
    bind {HOST}
    cache 99999999
    forward . not_an_address {{
        force_tpc
    }}
    promethius :9253
    health localhost:notaport
}}
"""
    done = run_to_its_end(tmp_path, text)
    assert done.returncode == 2
    for line in (3, 4, 5, 7, 8):
        assert f"Corefile:{line}:" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_corefile_that_is_missing_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        daemon_command(tmp_path / "nowhere", HOST, free_port()),
        capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Traceback" not in done.stderr


def test_it_answers_soon_and_stays_small(tmp_path: Path, scripted: ScriptedUpstream) -> None:
    port, metrics_port = free_port(), free_port()
    target = f"{scripted.host}:{scripted.port}"
    text = corefile(port, metrics_port, target, "300", "force_tcp")
    begun_at = time.monotonic()
    daemon = Daemon(tmp_path, text, port=port, metrics_port=metrics_port)
    with faultless(daemon), udp_socket(daemon) as sock:
        sock.settimeout(0.005)
        query = make_query("first.test")
        reply = b""
        while not reply:
            assert time.monotonic() < begun_at + PATIENCE_S, daemon.log()
            try:
                sock.send(query.to_wire())
                reply = sock.recv(65535)
            except OSError:
                time.sleep(0.002)
        seconds = time.monotonic() - begun_at
        assert addresses(dns.message.from_wire(reply)) == [right_address("first.test")]
        memory = psutil.Process(daemon.pid).memory_full_info()
    print(
        f"FIGURE first answer after {seconds * 1000:.0f} ms,"
        f" proportional memory {memory.pss / 2**20:.1f} MiB"
    )


def run_to_its_end(folder: Path, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs a daemon that cannot serve, and returns what it said."""
    path = folder / "Corefile"
    path.write_text(text)
    command = [*daemon_command(path, HOST, free_port()), *flags]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT, check=False
    )
