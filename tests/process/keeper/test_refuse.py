from __future__ import annotations

import os
import random
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.daemon.processes import wait_until
from tests.process.keeper.bed import NOERROR, REFUSED, KeeperProcess, query


def test_queries_are_refused_when_no_worker_comes_back(tmp_path: Path) -> None:
    with KeeperProcess("hangs", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        began = time.monotonic()
        assert bed.rcode() == REFUSED
        waited_s = time.monotonic() - began
        print(f"\nfirst REFUSED {waited_s * 1000:.0f} ms after the worker's end")
        assert waited_s >= 0.4
        assert bed.rcode() == REFUSED
        assert bed.rcode_over_tcp() == REFUSED
        assert bed.log().count("queries are refused at once meanwhile") == 1


def test_crash_loop_is_refused_for_as_one_silence(tmp_path: Path) -> None:
    with KeeperProcess("fades", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        bed.wait_for("started", 6)
        assert bed.rcode() == REFUSED
        (tmp_path / "good").touch()
        bed.wait_for_rcode(NOERROR)
        assert bed.log().count("queries are refused at once meanwhile") == 1
        assert bed.stop() == 0


def test_stopped_worker_is_refused_for_until_it_goes_on(tmp_path: Path) -> None:
    with KeeperProcess("plain", tmp_path) as bed:
        worker = bed.worker()
        assert bed.rcode() == NOERROR
        os.kill(worker, signal.SIGSTOP)
        began = time.monotonic()
        assert bed.rcode() == REFUSED
        print(f"\nfirst REFUSED {(time.monotonic() - began) * 1000:.0f} ms after SIGSTOP")
        assert bed.rcode_over_tcp() == REFUSED
        slowest_s = max(timed_refusal(bed) for _ in range(30))
        print(f"slowest of 30 refusals one after the other: {slowest_s * 1000:.0f} ms")
        os.kill(worker, signal.SIGCONT)
        began = time.monotonic()
        bed.wait_for_rcode(NOERROR)
        print(f"answers {(time.monotonic() - began) * 1000:.0f} ms after SIGCONT")
        assert bed.worker() == worker
        assert bed.stop() == 0


def timed_refusal(bed: KeeperProcess) -> float:
    began = time.monotonic()
    assert bed.rcode() == REFUSED
    return time.monotonic() - began


def test_hostile_datagrams_are_refused_or_dropped(tmp_path: Path) -> None:
    octets = random.Random(5)
    with KeeperProcess("hangs", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        assert bed.rcode() == REFUSED
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for length in (0, 1, 11, 12, 13, 512, 4096, 4097, 65000):
                sock.sendto(octets.randbytes(length), bed.place)
            for cut in range(len(query())):
                sock.sendto(query()[:cut], bed.place)
        assert bed.rcode() == REFUSED
        assert "Traceback" not in bed.log()


def test_clients_that_hold_connections_are_cut_off(tmp_path: Path) -> None:
    with KeeperProcess("hangs", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        assert bed.rcode() == REFUSED
        idle = [socket.create_connection(bed.place, 20) for _ in range(80)]
        idle[0].sendall(b"\xff\xff too long")
        assert bed.rcode_over_tcp() == REFUSED
        for sock in idle:
            assert read_to_end(sock) == b""
            sock.close()


def read_to_end(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except ConnectionResetError:
        return b""


def test_no_descriptor_left_does_not_make_the_keeper_spin(tmp_path: Path) -> None:
    words = ["sh", "-c", 'ulimit -n 16; exec "$@"', "sh"]
    with KeeperProcess("hangs", tmp_path, within=words) as bed:
        bed.signal_worker(signal.SIGKILL)
        assert bed.rcode() == REFUSED
        before_s = cpu_s(bed.pid)
        idle = [socket.create_connection(bed.place, 20) for _ in range(20)]
        assert bed.rcode() == REFUSED
        for sock in idle:
            read_to_end(sock)
            sock.close()
        used_s = cpu_s(bed.pid) - before_s
        print(f"\nkeeper's CPU time meanwhile: {used_s:.2f} s")
        assert used_s < 1.0
        wait_until(lambda: bed.rcode(1.0) == REFUSED, "refusals afterwards")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_queries_wait_where_nobody_is_to_be_refused(tmp_path: Path) -> None:
    with KeeperProcess("two-faced", tmp_path) as bed:
        bed.signal_worker(signal.SIGSTOP)
        bed.wait_for_rcode(REFUSED)
        named, bed.place = bed.place, (bed.place[0], bed.place[1] + 1)
        assert bed.rcode(0.5) is None
        bed.place = named
        assert bed.rcode() == REFUSED
        bed.signal_worker(signal.SIGCONT)
        bed.wait_for_rcode(NOERROR)
        assert bed.stop() == 0


def goodbye(bed: KeeperProcess) -> str:
    return f"{bed.place[1]} {bed.place[0]}"


def test_goodbye_of_a_silent_worker_is_said_once_and_its_queries_wait(tmp_path: Path) -> None:
    with KeeperProcess("plain+covered", tmp_path) as bed:
        bed.signal_worker(signal.SIGSTOP)
        assert bed.wait_for("goodbyes") == [goodbye(bed)]
        assert bed.rcode(0.7) is None
        assert "the worker is silent: queries go to the cluster's DNS meanwhile" in bed.log()
        bed.signal_worker(signal.SIGCONT)
        bed.wait_for_log("the worker answers again; 0 queries were refused")
        bed.wait_for_rcode(NOERROR)
        assert bed.lines("goodbyes") == [goodbye(bed)]
        assert bed.stop() == 0


@pytest.mark.parametrize(("kind", "number"), [("plain", signal.SIGSTOP), ("hangs", signal.SIGKILL)])
def test_queries_that_came_before_the_goodbye_are_refused_so_that_stubs_ask_again(
    tmp_path: Path, kind: str, number: int
) -> None:
    with KeeperProcess(f"{kind}+covered+mortal", tmp_path) as bed:
        bed.signal_worker(number)
        with socket.create_connection(bed.place, 20) as waiting:
            waiting.sendall(len(query()).to_bytes(2, "big") + query())
            assert bed.rcode() == REFUSED
            assert waiting.recv(512)[5] & 0xF == REFUSED
        assert bed.lines("goodbyes") == [goodbye(bed)]


def test_goodbye_of_a_dead_worker_is_said_before_another_is_started(tmp_path: Path) -> None:
    with KeeperProcess("hangs+covered", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        bed.wait_for("started", 2)
        assert bed.lines("goodbyes") == [goodbye(bed)]


def test_goodbye_is_not_said_where_queries_are_refused(tmp_path: Path) -> None:
    with KeeperProcess("hangs", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        bed.wait_for_rcode(REFUSED)
        assert bed.lines("goodbyes") == []


def test_worker_that_leaves_or_hands_over_says_goodbye_itself(tmp_path: Path) -> None:
    for number, kind in ((signal.SIGTERM, "plain"), (signal.SIGUSR2, "replaced")):
        folder = tmp_path / kind
        folder.mkdir()
        with KeeperProcess(f"{kind}+covered", folder) as bed:
            bed.wait_for("serving")
            bed.process.send_signal(number)
            if kind == "replaced":
                bed.wait_for_log("standing by")
                bed.process.terminate()
            assert bed.wait_for_end() == 0
            assert bed.lines("goodbyes") == []


def test_stuck_worker_is_killed_and_another_one_serves(tmp_path: Path) -> None:
    with KeeperProcess("plain+mortal", tmp_path) as bed:
        stuck = bed.worker()
        bed.wait_for("asked")
        os.kill(stuck, signal.SIGSTOP)
        began = time.monotonic()
        bed.wait_for("serving", 2)
        print(f"\nanother worker serves {time.monotonic() - began:.2f} s after SIGSTOP")
        assert time.monotonic() - began >= 0.9
        assert bed.worker() != stuck
        bed.wait_for_rcode(NOERROR)
        assert re.search("has not answered for 1.. s: killing it", bed.log())
        assert "was killed by SIGKILL: starting it again at once" in bed.log()
        assert "'restarts': 1" in bed.lines("started")[-1]
        assert bed.stop() == 0


def test_worker_that_takes_long_to_start_is_not_stuck(tmp_path: Path) -> None:
    with KeeperProcess("slower+mortal", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        bed.wait_for("serving", 2)
        bed.wait_for_rcode(NOERROR)
        assert len(bed.lines("started")) == 2
        assert "killing it" not in bed.log()
        assert bed.stop() == 0


def test_worker_is_not_stuck_because_the_keeper_stood_still_too(tmp_path: Path) -> None:
    with KeeperProcess("plain+mortal", tmp_path) as bed:
        worker = bed.worker()
        bed.wait_for("asked")
        for _ in range(2):
            for pid in (worker, bed.pid):
                os.kill(pid, signal.SIGSTOP)
            time.sleep(2.0)
            for pid in (bed.pid, worker):
                os.kill(pid, signal.SIGCONT)
            bed.wait_for_rcode(NOERROR)
            time.sleep(1.2)  # longer than a worker may be silent
        assert bed.lines("serving") == [str(worker)]
        assert "killing it" not in bed.log()
        assert bed.stop() == 0


def test_worker_that_never_serves_is_given_up(tmp_path: Path) -> None:
    with KeeperProcess("hopeless", tmp_path) as bed:
        assert bed.wait_for_end() == 7
        assert len(bed.lines("started")) == 5
        assert "before it served, as those before" in bed.log()
