from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from nodecache.keeper.watch import INTERVAL_OF_SILENCE_S, INTERVAL_S, QUIET_S, Watch

NOW = 1000.0
PROBE = bytes([0, 0, 0x78, *bytes(9)]) + b"a mark"


class Worker:
    """A UDP socket that answers as a test says."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(5.0)
        self.place: tuple[str, int] = self.sock.getsockname()

    def answer(self, reply: Callable[[bytes], bytes] = lambda probe: probe) -> None:
        """Answers one probe, QR set."""
        probe, keeper = self.sock.recvfrom(512)
        assert probe[2:] == PROBE[2:]
        self.sock.sendto(reply(probe[:2] + bytes([probe[2] | 0x80]) + probe[3:]), keeper)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    with worker.sock:
        yield worker


@pytest.fixture
def other() -> Iterator[Worker]:
    worker = Worker()
    with worker.sock:
        yield worker


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


def read(watch: Watch, now: float) -> None:
    for sock in watch.socks():
        watch.read(sock, now)


def test_answered_probes_make_good_rounds(watch: Watch, worker: Worker) -> None:
    watch.begin(PROBE, [worker.place], NOW)
    for round_number in range(4):
        now = NOW + round_number * INTERVAL_S
        watch.step(now)
        assert watch.good_rounds == round_number
        worker.answer()
        read(watch, now)
        assert watch.unanswered_since is None
    assert watch.longest_silence(now + 1) == (1, f"127.0.0.1:{worker.place[1]}")


def test_silence_is_judged_by_the_first_probe_without_an_answer(
    watch: Watch, worker: Worker
) -> None:
    watch.begin(PROBE, [worker.place], NOW)
    watch.step(NOW)
    assert not watch.is_silent(NOW + 0.49)
    assert watch.is_silent(NOW + 0.5)
    watch.step(NOW + 0.5)
    assert watch.quiet_until == NOW + 0.5 + QUIET_S
    assert watch.next_at() == NOW + 0.5 + INTERVAL_OF_SILENCE_S
    worker.answer()  # the first probe, late
    read(watch, NOW + 0.6)
    assert not watch.is_silent(NOW + 0.6)


@pytest.mark.parametrize(
    "reply",
    [
        lambda reply: b"",
        lambda reply: reply[:11],
        lambda reply: bytes([reply[0] ^ 1]) + reply[1:],
        lambda reply: reply[:2] + b"\0" + reply[3:],
    ],
    ids=["empty", "short", "another ID", "query"],
)
def test_what_is_no_answer_does_not_count(
    watch: Watch, worker: Worker, reply: Callable[[bytes], bytes]
) -> None:
    watch.begin(PROBE, [worker.place], NOW)
    watch.step(NOW)
    worker.answer(reply)
    read(watch, NOW)
    assert watch.unanswered_since == NOW


def test_answer_from_elsewhere_does_not_count(watch: Watch, worker: Worker, other: Worker) -> None:
    watch.begin(PROBE, [worker.place], NOW)
    watch.step(NOW)
    probe, keeper = worker.sock.recvfrom(512)
    other.sock.sendto(probe[:2] + b"\x80" + probe[3:], keeper)
    read(watch, NOW)
    assert watch.unanswered_since == NOW


def test_one_address_that_answers_is_enough(watch: Watch, worker: Worker, other: Worker) -> None:
    watch.begin(PROBE, [worker.place, other.place], NOW)
    for now in (NOW, NOW + 0.5, NOW + 1, NOW + 1.5, NOW + 2):
        watch.step(now)
        worker.answer()
        read(watch, now)
    assert not watch.is_silent(NOW + 2)
    assert watch.good_rounds == 4
    assert watch.longest_silence(NOW + 2) == (0, f"127.0.0.1:{worker.place[1]}")


def test_silence_of_the_former_worker_is_not_the_new_ones(watch: Watch, worker: Worker) -> None:
    watch.begin(PROBE, [worker.place], NOW)
    watch.stop()
    assert watch.longest_silence(NOW + 60)[0] == 60
    watch.begin(PROBE, [worker.place], NOW + 60)
    assert watch.longest_silence(NOW + 60)[0] == 0
    assert not watch.is_silent(NOW + 60)


def test_sleep_of_the_keeper_is_not_the_workers_silence(watch: Watch, worker: Worker) -> None:
    watch.begin(PROBE, [worker.place], NOW)
    watch.step(NOW)
    watch.forgive(NOW + 30)
    assert not watch.is_silent(NOW + 30)
    assert watch.longest_silence(NOW + 30)[0] < 0.1


def test_what_is_no_address_is_left_out(watch: Watch) -> None:
    watch.begin(PROBE, [("no address", 53), ("", 0xFFFF), ("\N{SNOWMAN}", 53)], NOW)
    watch.step(NOW)
    assert watch.longest_silence(NOW + 1) == (1, ":65535")


def test_without_addresses_nothing_is_asked(watch: Watch) -> None:
    watch.begin(PROBE, [], NOW)
    watch.step(NOW)
    assert watch.next_at() is None
    assert watch.longest_silence(NOW + 9) == (0, "")
