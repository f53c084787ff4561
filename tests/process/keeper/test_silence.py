from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from nodecache.process.keeper.silence import INTERVAL_OF_SILENCE_S, INTERVAL_S, QUIET_S, Silence

NOW = 1000.0
QUESTION = bytes([0, 0, 0x78, *bytes(9)]) + b"a mark"


class Child:
    """A UDP socket that answers as a test says."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(5.0)
        self.place: tuple[str, int] = self.sock.getsockname()

    def answer(self, reply: Callable[[bytes], bytes] = lambda question: question) -> None:
        """Answers one question, QR set."""
        question, keeper = self.sock.recvfrom(512)
        assert question[2:] == QUESTION[2:]
        self.sock.sendto(reply(question[:2] + bytes([question[2] | 0x80]) + question[3:]), keeper)


@pytest.fixture
def worker() -> Iterator[Child]:
    worker = Child()
    with worker.sock:
        yield worker


@pytest.fixture
def other() -> Iterator[Child]:
    worker = Child()
    with worker.sock:
        yield worker


@pytest.fixture
def silence() -> Iterator[Silence]:
    silence = Silence()
    yield silence
    silence.close()


def read(silence: Silence) -> None:
    for sock in silence.socks():
        silence.read(sock)


def test_answered_questions_make_no_silence(silence: Silence, worker: Child) -> None:
    silence.begin(QUESTION, [worker.place], 3, NOW)
    for round_number in range(4):
        now = NOW + round_number * INTERVAL_S
        silence.step(now)
        assert silence.silence_s(now + 0.1) == pytest.approx(0.1)
        worker.answer()
        read(silence)
        assert silence.unanswered_since is None


@pytest.mark.parametrize(
    ("host", "asked", "source"),
    [
        ("127.0.0.9", "127.0.0.9", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0", "127.0.0.1"),
        ("::1", "::", "::1"),
    ],
)
def test_questions_come_from_the_loopback_address(
    silence: Silence, host: str, asked: str, source: str
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5.0)
        sock.bind((host, 0))
        silence.begin(QUESTION, [(asked, sock.getsockname()[1])], 3, NOW)
        silence.step(NOW)
        assert sock.recvfrom(512)[1][0] == source


def test_silence_is_judged_by_the_first_question_without_an_answer(
    silence: Silence, worker: Child
) -> None:
    silence.begin(QUESTION, [worker.place], 3, NOW)
    silence.step(NOW)
    assert not silence.is_silent(NOW + 0.49)
    assert silence.is_silent(NOW + 0.5)
    silence.step(NOW + 0.5)
    assert silence.quiet_until == NOW + 0.5 + QUIET_S
    assert silence.next_at() == NOW + 0.5 + INTERVAL_OF_SILENCE_S
    worker.answer()  # the first question, late
    read(silence)
    assert not silence.is_silent(NOW + 0.6)


def ask_in_vain(silence: Silence, until: float) -> None:
    """Lets time pass without an answer."""
    due = silence.next_at()
    while due is not None and due < until:
        silence.step(due)
        due = silence.next_at()


def begin_with_an_answer(silence: Silence, worker: Child, stuck_after_s: float) -> None:
    """Begins, and has the worker answer once; the next question is due now."""
    silence.begin(QUESTION, [worker.place], stuck_after_s, NOW - INTERVAL_S)
    silence.step(NOW - INTERVAL_S)
    worker.answer()
    read(silence)


def test_worker_is_stuck_after_its_time_and_has_the_last_second_for_itself(
    silence: Silence, worker: Child
) -> None:
    begin_with_an_answer(silence, worker, 3)
    ask_in_vain(silence, NOW + 2)
    assert silence.quiet_until < NOW + 2
    silence.step(NOW + 2)
    assert silence.quiet_until == NOW + 3
    assert not silence.is_stuck(NOW + 2.99)
    assert silence.is_stuck(NOW + 3)
    silence.step(NOW + 3)  # it cannot be killed either: queries are refused as before
    assert silence.quiet_until == NOW + 3 + QUIET_S


def test_any_answer_shows_that_a_worker_is_not_stuck(silence: Silence, worker: Child) -> None:
    begin_with_an_answer(silence, worker, 15)
    ask_in_vain(silence, NOW + 14)
    worker.answer()  # the first question of the silence
    read(silence)
    assert not silence.is_stuck(NOW + 15)


def test_worker_is_never_stuck_with_a_limit_of_0(silence: Silence, worker: Child) -> None:
    begin_with_an_answer(silence, worker, 0)
    ask_in_vain(silence, NOW + 60)
    assert silence.is_silent(NOW + 60)
    assert not silence.is_stuck(NOW + 60)


def test_worker_that_never_answered_is_not_stuck(silence: Silence, worker: Child) -> None:
    silence.begin(QUESTION, [worker.place], 3, NOW)
    ask_in_vain(silence, NOW + 9)
    assert silence.is_silent(NOW + 9)
    assert not silence.is_stuck(NOW + 9)


def test_answers_are_remembered_until_the_worker_is_another(
    silence: Silence, worker: Child
) -> None:
    begin_with_an_answer(silence, worker, 3)
    silence.begin(QUESTION, [worker.place], 3, NOW)
    ask_in_vain(silence, NOW + 3)
    assert silence.is_stuck(NOW + 3)
    silence.stop()
    silence.begin(QUESTION, [worker.place], 3, NOW)
    ask_in_vain(silence, NOW + 3)
    assert not silence.is_stuck(NOW + 3)


def test_worker_is_not_stuck_while_it_cannot_be_asked(silence: Silence, worker: Child) -> None:
    begin_with_an_answer(silence, worker, 3)
    silence.begin(
        QUESTION, [("192.0.2.1", 53)], 3, NOW
    )  # not an address here: no way from loopback
    ask_in_vain(silence, NOW + 9)
    assert silence.is_silent(NOW + 9)
    assert not silence.is_stuck(NOW + 9)


def test_successor_is_gone_only_after_its_own_keeper_had_its_turn(
    silence: Silence, worker: Child
) -> None:
    silence.begin(QUESTION, [worker.place], 3, NOW)
    silence.close()
    silence.resume(NOW)
    silence.step(NOW)
    assert not silence.is_deserted(NOW + 4.9)
    assert silence.is_deserted(NOW + 5)


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
    silence: Silence, worker: Child, reply: Callable[[bytes], bytes]
) -> None:
    silence.begin(QUESTION, [worker.place], 3, NOW)
    silence.step(NOW)
    worker.answer(reply)
    read(silence)
    assert silence.unanswered_since == NOW


def test_answer_from_elsewhere_does_not_count(
    silence: Silence, worker: Child, other: Child
) -> None:
    silence.begin(QUESTION, [worker.place], 3, NOW)
    silence.step(NOW)
    question, keeper = worker.sock.recvfrom(512)
    other.sock.sendto(question[:2] + b"\x80" + question[3:], keeper)
    read(silence)
    assert silence.unanswered_since == NOW


def test_one_address_that_answers_is_enough(silence: Silence, worker: Child, other: Child) -> None:
    silence.begin(QUESTION, [worker.place, other.place], 3, NOW)
    for now in (NOW, NOW + 0.5, NOW + 1, NOW + 1.5, NOW + 2):
        silence.step(now)
        worker.answer()
        read(silence)
    assert silence.silence_s(NOW + 2) == 0


def test_silence_of_the_former_worker_is_not_the_new_ones(silence: Silence, worker: Child) -> None:
    silence.begin(QUESTION, [worker.place], 3, NOW)
    silence.step(NOW)
    silence.stop()
    assert silence.silence_s(NOW + 60) == 0
    assert silence.unanswered_since == NOW
    silence.begin(QUESTION, [worker.place], 3, NOW + 60)
    assert silence.silence_s(NOW + 60) == 0


def test_sleep_of_the_keeper_is_not_the_workers_silence(silence: Silence, worker: Child) -> None:
    begin_with_an_answer(silence, worker, 3)
    silence.step(NOW)
    silence.forgive(NOW + 30)
    assert not silence.is_silent(NOW + 30)
    assert silence.is_stuck(NOW + 33)


def test_what_is_no_address_is_left_out(silence: Silence) -> None:
    silence.begin(QUESTION, [("no address", 53), ("\N{SNOWMAN}", 53)], 3, NOW)
    assert silence.next_at() is None


def test_without_addresses_nothing_is_asked(silence: Silence) -> None:
    silence.begin(QUESTION, [], 3, NOW)
    silence.step(NOW)
    assert silence.next_at() is None
    assert silence.silence_s(NOW + 9) == 0
