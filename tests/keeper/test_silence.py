from __future__ import annotations

import os
import random
import signal
import socket
import time
from pathlib import Path

from tests.daemon.processes import wait_until
from tests.keeper.bed import NOERROR, REFUSED, Bed, query


def test_queries_are_refused_when_no_worker_comes_back(tmp_path: Path) -> None:
    with Bed("hangs", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        began = time.monotonic()
        assert bed.rcode() == REFUSED
        waited_s = time.monotonic() - began
        print(f"\nfirst REFUSED {waited_s * 1000:.0f} ms after the worker's end")
        assert waited_s >= 0.4
        assert bed.rcode() == REFUSED
        assert bed.rcode_over_tcp() == REFUSED
        bed.wait_for("withdrawn")
        print(f"withdrawn {time.monotonic() - began:.2f} s after the worker's end")
        assert bed.log().count("queries are refused") == 1


def test_crash_loop_is_refused_for_as_one_silence(tmp_path: Path) -> None:
    with Bed("fades", tmp_path) as bed:
        bed.signal_worker(signal.SIGKILL)
        bed.wait_for("started", 6)
        assert bed.rcode() == REFUSED
        bed.wait_for("withdrawn")
        (tmp_path / "good").touch()
        bed.wait_for("restored")
        assert bed.rcode() == NOERROR
        assert bed.log().count("queries are refused") == 1
        assert bed.log().count("is withdrawn") == 1
        assert "'withdrawn': 1" in bed.lines("started")[-1]
        assert bed.stop() == 0


def test_stopped_worker_is_refused_for_until_it_goes_on(tmp_path: Path) -> None:
    with Bed("plain", tmp_path) as bed:
        worker = bed.worker()
        assert bed.rcode() == NOERROR
        os.kill(worker, signal.SIGSTOP)
        began = time.monotonic()
        assert bed.rcode() == REFUSED
        print(f"\nfirst REFUSED {(time.monotonic() - began) * 1000:.0f} ms after SIGSTOP")
        bed.wait_for("withdrawn")
        print(f"withdrawn {time.monotonic() - began:.2f} s after SIGSTOP")
        assert bed.rcode_over_tcp() == REFUSED
        slowest_s = max(timed_refusal(bed) for _ in range(30))
        print(f"slowest of 30 refusals one after the other: {slowest_s * 1000:.0f} ms")
        assert not bed.lines("restored")
        os.kill(worker, signal.SIGCONT)
        began = time.monotonic()
        bed.wait_for_rcode(NOERROR)
        print(f"answers {(time.monotonic() - began) * 1000:.0f} ms after SIGCONT")
        bed.wait_for("restored")
        assert bed.lines("withdrawn") == bed.lines("restored") == ["done"]
        assert bed.worker() == worker
        assert bed.stop() == 0


def timed_refusal(bed: Bed) -> float:
    began = time.monotonic()
    assert bed.rcode() == REFUSED
    return time.monotonic() - began


def test_redirect_that_cannot_be_withdrawn_is_tried_again_and_told_once(tmp_path: Path) -> None:
    with Bed("clumsy", tmp_path) as bed:
        worker = bed.worker()
        os.kill(worker, signal.SIGSTOP)
        bed.wait_for("withdrawn", 2)
        assert bed.log().count("could not be withdrawn: exit code 3: no luck") == 1
        os.kill(worker, signal.SIGCONT)
        assert bed.stop() == 0


def test_hostile_datagrams_are_refused_or_dropped(tmp_path: Path) -> None:
    octets = random.Random(5)
    with Bed("hangs", tmp_path) as bed:
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
    with Bed("hangs", tmp_path) as bed:
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
    with Bed("hangs", tmp_path, within=words) as bed:
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


def test_queries_that_come_by_the_redirect_wait_instead_of_being_refused(tmp_path: Path) -> None:
    # Their stub's next server would be us again.
    with Bed("two-faced", tmp_path) as bed:
        bed.signal_worker(signal.SIGSTOP)
        bed.wait_for_rcode(REFUSED)
        local, bed.place = bed.place, (bed.place[0], bed.place[1] + 1)
        assert bed.rcode(0.5) is None
        bed.place = local
        assert bed.rcode() == REFUSED
        bed.signal_worker(signal.SIGCONT)
        bed.wait_for_rcode(NOERROR)
        assert bed.stop() == 0


def test_worker_that_never_serves_is_given_up(tmp_path: Path) -> None:
    with Bed("hopeless", tmp_path) as bed:
        assert bed.wait_for_end() == 7
        assert len(bed.lines("started")) == 5
        assert "before it served, as those before" in bed.log()
