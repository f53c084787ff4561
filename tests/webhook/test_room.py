from __future__ import annotations

from nodecache.webhook.room import Guest, Room


def admit(room: Room, gone: list[int], number: int, *, is_busy: bool = False) -> Guest:
    guest, _ = room.admit()
    guest.abort = lambda: gone.append(number)
    guest.is_busy = is_busy
    return guest


def test_who_asks_for_nothing_makes_room_first_and_of_those_who_waits_longest() -> None:
    room, gone = Room(3), list[int]()
    admit(room, gone, 1, is_busy=True)
    patient = admit(room, gone, 2)
    admit(room, gone, 3)
    room.refresh(patient)
    admit(room, gone, 4)
    admit(room, gone, 5)
    assert gone == [3, 2]
    assert len(room) == 3


def test_when_all_ask_the_oldest_goes() -> None:
    room, gone = Room(2), list[int]()
    for number in range(3):
        admit(room, gone, number, is_busy=True)
    assert gone == [0]
    assert room.in_flight == 2


def test_octets_of_all_have_one_bound_and_come_back() -> None:
    room = Room(3, 100)
    first, second = room.admit()[0], room.admit()[0]
    assert room.gather(first, 60)
    assert not room.gather(second, 41)
    assert room.gather(second, 40)
    room.remove(first)
    assert room.gather(second, 100)
    room.remove(second)
    room.remove(second)
    assert room.gather(room.admit()[0], 100)


def test_who_was_sent_away_is_not_kept_by_an_answer_that_comes_later() -> None:
    room = Room(1)
    first, _ = room.admit()
    _, has_evicted = room.admit()
    room.refresh(first)
    assert (len(room), has_evicted) == (1, True)


def test_all_are_told_to_leave_or_to_end() -> None:
    room, told = Room(), list[str]()
    guest, _ = room.admit()
    guest.leave, guest.abort = lambda: told.append("leave"), lambda: told.append("abort")
    room.leave()
    room.abort()
    assert told == ["leave", "abort"]
    assert room.is_leaving
