from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.processes import wait_until
from tests.process.keeper.bed import NOERROR, REFUSED, KeeperProcess, query


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert "Traceback" not in log, log


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def free_to_bind(place: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(place)
        except OSError:
            return False
    return True


def test_datagrams_that_wait_for_the_next_worker_are_answered(folder: Path) -> None:
    with KeeperProcess("slow", folder) as bed:
        for count in (1, 2, 3):
            os.kill(int(bed.wait_for("serving", count)[-1]), signal.SIGKILL)
            bed.wait_for_log(f"(?s)(killed by SIGKILL.*){{{count}}}")
            burst = ask_many(bed.place, 100)
            assert len(burst) == 100
            print(f"\n{burst.count(NOERROR)} of 100 answered by the next worker, the rest refused")
        assert bed.log().count("starting it again at once") == 1
        assert "'restarts': 3" in bed.lines("started")[-1]
        assert bed.stop() == 0


def ask_many(place: tuple[str, int], count: int) -> list[int]:
    """Returns the RCODEs of all that was answered, of queries sent once and all together."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5.0)
        for message_id in range(count):
            sock.sendto(query(message_id), place)
        rcodes: list[int] = []
        while len(rcodes) < count:
            try:
                rcodes.append(sock.recv(4096)[3] & 0xF)
            except TimeoutError:
                break
    return rcodes


def test_worker_that_ends_by_itself_ends_the_keeper(folder: Path) -> None:
    with KeeperProcess("plain", folder) as bed:
        bed.wait_for("serving")
        bed.process.terminate()
        assert bed.wait_for_end() == 0
        assert bed.lines("signals") == ["SIGTERM"]
        assert free_to_bind(bed.place)


@pytest.mark.parametrize("code", [1, 2])
def test_worker_that_cannot_start_is_not_started_again(folder: Path, code: int) -> None:
    with KeeperProcess(str(code), folder) as bed:
        assert bed.wait_for_end() == code
        assert len(bed.lines("started")) == 1


def test_wrong_configuration_after_serving_is_reported_and_waited_out(folder: Path) -> None:
    with KeeperProcess("misconfigured", folder) as bed:
        bed.signal_worker(signal.SIGKILL)
        bed.wait_for_log(r"refused its configuration .* trying again every 30 s and at SIGHUP")
        bed.wait_for_rcode(REFUSED)
        started = len(bed.lines("started"))
        (folder / "good").touch()
        bed.process.send_signal(signal.SIGHUP)
        bed.wait_for("serving", 2)
        bed.wait_for_rcode(NOERROR)
        assert started == 2
        assert bed.stop() == 0


def test_term_while_no_worker_runs_ends_the_keeper(folder: Path) -> None:
    with KeeperProcess("misconfigured", folder) as bed:
        bed.signal_worker(signal.SIGKILL)
        bed.wait_for_log("refused its configuration")
        assert bed.stop() == 0


def test_crash_loop_backs_off(folder: Path) -> None:
    with KeeperProcess("fades", folder) as bed:
        bed.signal_worker(signal.SIGKILL)
        started = [float(line.split()[1]) for line in bed.wait_for("started", 6)]
        gaps = [after - before for before, after in itertools.pairwise(started[1:])]
        for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=False):
            assert gap >= least
        assert "exit code 7: starting it again in 0.4 s" in bed.log()


def test_exception_of_a_worker_is_printed_and_is_a_crash(tmp_path: Path) -> None:
    with KeeperProcess("raises", tmp_path) as bed:
        bed.wait_for("serving")
        assert "RuntimeError: a worker's own fault" in bed.log()
        assert "ended with exit code 70" in bed.log()
        assert bed.stop() == 0


def test_every_signal_is_forwarded_and_each_time(folder: Path) -> None:
    with KeeperProcess("stubborn", folder) as bed:
        worker = bed.worker()
        sent = [signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
        for count, number in enumerate(sent, 1):
            bed.process.send_signal(number)
            assert bed.wait_for("signals", count)[-1] == number.name
        assert is_alive(worker)
        bed.process.send_signal(signal.SIGQUIT)
        assert bed.wait_for_end() == 1
        assert "was killed by SIGQUIT before it had ended properly" in bed.log()


def test_worker_that_dies_while_leaving_is_not_started_again(folder: Path) -> None:
    with KeeperProcess("dies", folder) as bed:
        bed.wait_for("serving")
        bed.process.terminate()
        assert bed.wait_for_end() == 1
        assert len(bed.lines("started")) == 1


def test_exit_code_of_a_worker_asked_to_end_is_the_keepers(folder: Path) -> None:
    with KeeperProcess("careless", folder) as bed:
        bed.wait_for("serving")
        bed.process.terminate()
        assert bed.wait_for_end() == 3


def test_worker_that_hangs_is_killed_when_asked_to_end(folder: Path) -> None:
    with KeeperProcess("plain", folder) as bed:
        bed.signal_worker(signal.SIGSTOP)
        bed.process.terminate()
        assert bed.wait_for_end() == 1
        assert re.search("has not answered for .* s: killing it", bed.log())


def test_handed_over_sockets_are_closed_and_nothing_is_touched(folder: Path) -> None:
    with KeeperProcess("plain", folder) as bed:
        worker = bed.worker()
        bed.process.send_signal(signal.SIGUSR2)
        bed.wait_for("handed_over")
        wait_until(lambda: count_of_inet_sockets(bed.pid) == 0, "sockets closed in the keeper")
        assert bed.rcode(1.5) is None
        os.kill(worker, signal.SIGKILL)
        assert bed.wait_for_end() == 1
        assert len(bed.lines("started")) == 1


def test_keeper_that_stays_by_leaves_everything_to_the_successor(folder: Path) -> None:
    with KeeperProcess("replaced", folder) as bed, successor(bed) as answered:
        bed.worker()
        bed.process.send_signal(signal.SIGUSR2)
        bed.wait_for_log("standing by")
        wait_until(lambda: len(answered) > 6, "the keeper's questions")
        assert len(bed.lines("started")) == 1
        bed.process.terminate()
        assert bed.wait_for_end() == 0


def test_keeper_that_was_told_to_end_does_not_stand_by_after_a_hand_over(folder: Path) -> None:
    with KeeperProcess("replaced+patient", folder) as bed:
        bed.worker()
        bed.process.terminate()
        assert bed.wait_for_end() == 0
        assert "standing by" not in bed.log()


def test_keeper_that_stays_by_serves_again_when_the_successor_is_gone(folder: Path) -> None:
    with KeeperProcess("replaced", folder) as bed:
        with successor(bed) as answered:
            bed.worker()
            bed.process.send_signal(signal.SIGUSR2)
            wait_until(lambda: len(answered) > 2, "the keeper's questions")
        bed.wait_for("serving", 2)
        bed.wait_for_rcode(NOERROR)
        assert "the successor answers no more: serving again" in bed.log()
        assert bed.stop() == 0


@contextlib.contextmanager
def successor(bed: KeeperProcess) -> Iterator[list[bytes]]:
    """Another server that answers at the same address meanwhile; yields what it was asked."""
    asked: list[bytes] = []
    is_over = threading.Event()

    def serve() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.05)
            while not is_over.is_set() and sock.getsockname()[1] == 0:
                with contextlib.suppress(OSError):  # until the worker has given it up
                    sock.bind(bed.place)
            while not is_over.is_set():
                with contextlib.suppress(TimeoutError):
                    octets, client = sock.recvfrom(4096)
                    asked.append(octets)
                    sock.sendto(octets[:2] + b"\x81\x84" + octets[4:], client)

    bed.wait_for("serving")
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        is_over.set()
        thread.join()


def count_of_inet_sockets(pid: int) -> int:
    """Returns how many UDP and TCP sockets a process has open."""
    tables = Path("/proc/net/udp").read_text() + Path("/proc/net/tcp").read_text()
    inodes = {row.split()[9] for row in tables.splitlines() if ":" in row.split()[0]}
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link.removeprefix("socket:[").rstrip("]") in inodes for link in links)


def test_orphans_are_reaped(folder: Path) -> None:
    with KeeperProcess("parent", folder) as bed:
        bed.wait_for("serving")
        bed.process.send_signal(signal.SIGUSR2)
        orphan = int(bed.wait_for("orphan")[0])
        wait_until(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan reaped")
        assert bed.stop() == 0


def test_keeper_serves_as_first_process_of_a_namespace(folder: Path) -> None:
    words = ["unshare", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip("this machine lets us make no PID namespace")
    with KeeperProcess("parent", folder, within=words) as bed:
        bed.wait_for("serving")
        bed.wait_for_rcode(NOERROR)
        assert bed.lines("serving") == ["2"]
        keeper = int(Path(f"/proc/{bed.pid}/task/{bed.pid}/children").read_text().split()[0])
        os.kill(keeper, signal.SIGUSR2)
        bed.wait_for("orphan")
        worker = Path(f"/proc/{keeper}/task/{keeper}/children")
        os.kill(int(worker.read_text().split()[0]), signal.SIGKILL)
        bed.wait_for("serving", 2)
        bed.wait_for_rcode(NOERROR)
        wait_until(lambda: len(worker.read_text().split()) == 1, "the orphan reaped")
        os.kill(keeper, signal.SIGTERM)
        assert bed.wait_for_end() == 0
