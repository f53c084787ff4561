"""The times of a connection, on a clock that is invented; real sockets are in test_server.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from nodecache.webhook.connection import BODY_S, HEAD_S, IDLE_S, LINGER_S, Connection
from nodecache.webhook.conversation import Reply, Request
from nodecache.webhook.room import Room
from tests.webhook.clients import get, post, review


@dataclass
class Timer:
    due_s: float
    call: Callable[[], None]
    is_off: bool = False

    def cancel(self) -> None:
        self.is_off = True


@dataclass
class Loop:
    now_s: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now_s + seconds, call))
        return self.timers[-1]

    def create_future(self) -> Ended:
        return Ended()

    def pass_by(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in self.timers:
            if timer.due_s <= self.now_s and not timer.is_off:
                timer.is_off = True
                timer.call()


class Ended:
    is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _: None) -> None:
        self.is_done = True


@dataclass
class Transport:
    written: list[bytes] = field(default_factory=list)
    end: str = ""
    is_reading: bool = True

    def write(self, octets: bytes) -> None:
        self.written.append(octets)

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "aborted"

    def is_closing(self) -> bool:
        return bool(self.end)

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class House:
    """A connection, and all that it touches."""

    def __init__(self, room: Room | None = None) -> None:
        self.loop = Loop()
        self.room = Room() if room is None else room
        self.transport = Transport()
        self.noted: list[str] = []
        self.asked: list[Request] = []
        self.guest, _ = self.room.admit()
        self.connection = Connection(
            cast("asyncio.AbstractEventLoop", self.loop),
            self.room,
            self.guest,
            self._respond,
            self.noted.append,
        )
        self.connection.connection_made(cast("asyncio.Transport", self.transport))

    def _respond(self, request: Request) -> Reply:
        self.asked.append(request)
        return Reply(200, b"yes\n")


@pytest.fixture
def house() -> House:
    return House()


WHOLE = post(review())
HEAD_LENGTH = WHOLE.index(b"\r\n\r\n") + 4


def test_an_answer_leaves_in_one_piece(house: House) -> None:
    house.connection.data_received(WHOLE)
    assert len(house.transport.written) == 1
    assert house.transport.written[0].endswith(b"\r\n\r\nyes\n")


def test_who_never_asks_is_left_after_the_idle_time(house: House) -> None:
    house.loop.pass_by(IDLE_S - 1)
    assert house.transport.end == ""
    house.loop.pass_by(1)
    assert (house.transport.end, house.noted) == ("aborted", [])


def test_the_idle_time_begins_anew_with_each_answer(house: House) -> None:
    for _ in range(3):
        house.loop.pass_by(IDLE_S - 1)
        house.connection.data_received(WHOLE)
    assert (len(house.asked), house.transport.end) == (3, "")


def test_a_slow_head_is_not_waited_for_however_steadily_it_drips(house: House) -> None:
    for octet in WHOLE[: int(HEAD_S)]:
        house.connection.data_received(bytes([octet]))
        assert house.transport.end == ""
        house.loop.pass_by(1)
    assert (house.transport.end, house.noted) == ("aborted", ["slow"])


def test_a_slow_body_is_not_waited_for_either(house: House) -> None:
    house.connection.data_received(WHOLE[:HEAD_LENGTH])
    for octet in WHOLE[HEAD_LENGTH : HEAD_LENGTH + int(BODY_S)]:
        assert house.transport.end == ""
        house.connection.data_received(bytes([octet]))
        house.loop.pass_by(1)
    assert (house.transport.end, house.noted) == ("aborted", ["slow"])


def test_head_and_body_have_a_time_each(house: House) -> None:
    house.connection.data_received(WHOLE[:10])
    house.loop.pass_by(HEAD_S - 1)
    house.connection.data_received(WHOLE[10:HEAD_LENGTH])
    house.loop.pass_by(BODY_S - 1)
    house.connection.data_received(WHOLE[HEAD_LENGTH:])
    assert (len(house.asked), house.transport.end) == (1, "")


def test_who_is_refused_may_read_why_before_he_is_left(house: House) -> None:
    head = b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    house.connection.data_received(head)
    house.connection.data_received(b"x" * 100_000)
    assert house.transport.written[0].startswith(b"HTTP/1.1 413 ")
    assert (house.transport.end, house.noted) == ("", ["too_large"])
    house.loop.pass_by(LINGER_S)
    assert house.transport.end == "aborted"


def test_bodies_of_all_connections_share_one_bound() -> None:
    room = Room(most_octets=100)
    first, second = House(room), House(room)
    first.connection.data_received(post(b"x" * 90)[:-10])
    second.connection.data_received(post(b"x" * 90)[:-10])
    assert second.transport.written[0].startswith(b"HTTP/1.1 503 ")
    assert second.noted == ["no_room"]
    first.connection.data_received(b"x" * 10)
    assert len(first.asked) == 1
    third = House(room)
    third.connection.data_received(post(b"x" * 90))
    assert len(third.asked) == 1


def test_who_does_not_read_is_not_read_from(house: House) -> None:
    house.connection.pause_writing()
    house.connection.data_received(WHOLE)
    assert (house.transport.is_reading, house.asked) == (False, [])
    house.connection.resume_writing()
    assert (house.transport.is_reading, len(house.asked)) == (True, 1)


def test_while_all_leave_an_answer_is_the_last(house: House) -> None:
    house.connection.data_received(WHOLE[:-1])
    house.room.leave()
    assert house.transport.end == ""
    house.connection.data_received(WHOLE[-1:])
    assert b"Connection: close" in house.transport.written[0]
    assert house.transport.end == "closed"


def test_who_waits_is_sent_away_when_all_leave(house: House) -> None:
    house.connection.data_received(get("/healthz"))
    house.room.leave()
    assert house.transport.end == "closed"


def test_who_does_not_take_leave_is_left(house: House) -> None:
    house.room.leave()
    house.loop.pass_by(LINGER_S)
    assert house.transport.end == "aborted"


def test_an_end_gives_the_place_up_and_stops_the_clock(house: House) -> None:
    house.connection.data_received(WHOLE[:-1])
    house.connection.connection_lost(None)
    house.loop.pass_by(IDLE_S)
    assert (len(house.room), house.noted) == (0, [])
    assert house.connection.ended.done()
