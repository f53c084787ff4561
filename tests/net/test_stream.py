from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.net.stream import Overdue, State, Stream, TcpBounds
from nodecache.wire.framing import frame

BOUNDS = TcpBounds(unanswered=2, junk=3)
NOW = 1000.0


def opened() -> Stream:
    return Stream(BOUNDS, NOW)


def reading(now: float = NOW) -> Stream:
    """A stream over which a query was asked and answered."""
    stream = opened()
    ask(stream, now, b"query")
    answer(stream, now)
    return stream


def ask(stream: Stream, now: float, *messages: bytes) -> list[bytes]:
    """Has messages arrive that the resolver answers later; returns those that it was given."""
    stream.receive(b"".join(map(frame, messages)), now)
    taken = []
    while (message := stream.take()) is not None:
        taken.append(message)
        assert not stream.judge(None)
    stream.settle(now)
    return taken


def answer(stream: Stream, now: float) -> State:
    stream.answer(now)
    return stream.settle(now)


def test_connection_without_a_first_octet_is_overdue_after_three_seconds() -> None:
    stream = opened()
    assert stream.overdue(NOW + 3) is None
    assert stream.overdue(NOW + 3.001) is Overdue.IDLE


def test_idle_connection_is_overdue_after_ten_seconds_but_not_a_busy_one() -> None:
    idle, busy = reading(), reading()
    for second in range(1, 11):
        ask(busy, NOW + second, b"query")
        answer(busy, NOW + second)
    assert idle.overdue(NOW + 10) is None
    assert idle.overdue(NOW + 10.001) is Overdue.IDLE
    assert busy.overdue(NOW + 20) is None
    assert busy.overdue(NOW + 20.001) is Overdue.IDLE


def test_late_reply_counts_as_a_sign_of_life() -> None:
    stream = opened()
    ask(stream, NOW, b"query")
    answer(stream, NOW + 4)
    assert stream.overdue(NOW + 14) is None
    assert stream.overdue(NOW + 14.001) is Overdue.IDLE


def test_message_that_is_never_completed_is_overdue_however_it_drips() -> None:
    stream = reading()
    stream.receive(b"\0\xff", NOW + 1)
    for second in range(2, 6):  # an octet now and then does not help
        assert not stream.receive(b"x", NOW + second)
    assert stream.overdue(NOW + 6) is None
    assert stream.overdue(NOW + 6.001) is Overdue.MESSAGE
    assert Overdue.MESSAGE.value == "tcp_incomplete"


def test_time_for_a_message_starts_with_its_first_octet() -> None:
    stream = reading()
    whole = frame(b"in two parts")
    stream.receive(whole[:5], NOW + 9)
    assert stream.overdue(NOW + 14) is None
    assert stream.receive(whole[5:] + whole[:1], NOW + 14)
    stream.take()
    stream.judge(b"reply")
    stream.settle(NOW + 14)
    assert stream.overdue(NOW + 19) is None
    assert stream.overdue(NOW + 19.001) is Overdue.MESSAGE


def test_message_is_not_late_for_the_time_in_which_we_read_nothing() -> None:
    stream = opened()
    ask(stream, NOW, b"first", b"second")
    stream.receive(b"\0", NOW)
    assert stream.settle(NOW) is State.FULL
    assert stream.overdue(NOW + 9) is None
    assert answer(stream, NOW + 9) is State.READING
    assert stream.overdue(NOW + 14) is None
    assert stream.overdue(NOW + 14.001) is Overdue.MESSAGE


def test_client_that_leaves_its_replies_unread_is_overdue_after_five_seconds() -> None:
    stream = reading()
    stream.is_unread = True
    assert stream.settle(NOW + 1) is State.BLOCKED
    assert stream.overdue(NOW + 6) is None
    assert stream.overdue(NOW + 6.001) is Overdue.CLIENT
    assert Overdue.CLIENT.value == "tcp_slow_client"
    stream.resume(NOW + 6)
    assert stream.settle(NOW + 6) is State.READING
    assert stream.overdue(NOW + 16) is None


def test_client_that_does_not_let_us_close_is_overdue_after_five_seconds() -> None:
    stream = reading()
    stream.close(NOW + 1)
    stream.close(NOW + 5)
    assert stream.overdue(NOW + 6) is None
    assert stream.overdue(NOW + 6.001) is Overdue.CLIENT


def test_no_more_queries_are_taken_than_may_be_unanswered() -> None:
    stream = opened()
    assert ask(stream, NOW, b"1", b"2", b"3") == [b"1", b"2"]
    assert stream.settle(NOW) is State.FULL
    assert stream.take() is None
    assert answer(stream, NOW) is State.FULL  # until what waits was taken
    assert stream.take() == b"3"


def test_nothing_is_answered_while_the_client_leaves_its_replies_unread() -> None:
    stream = opened()
    stream.receive(frame(b"1") + frame(b"2"), NOW)
    stream.is_unread = True
    assert stream.take() is None
    assert stream.settle(NOW) is State.BLOCKED
    stream.resume(NOW)
    assert stream.take() == b"1"


def test_junk_in_a_row_ends_it_and_what_waits_is_thrown_away() -> None:
    stream = opened()
    stream.receive(frame(b"junk") * 4, NOW)
    verdicts = []
    while stream.take() is not None:
        verdicts.append(stream.judge(b""))
    assert verdicts == [False, False, True]
    assert stream.unanswered == 0


@pytest.mark.parametrize("reply", [b"reply", None])
def test_junk_between_queries_does_no_harm(reply: bytes | None) -> None:
    stream = opened()
    for _ in range(BOUNDS.unanswered):
        stream.receive(frame(b"junk") * 2 + frame(b"query"), NOW)
        verdicts = []
        for said in (b"", b"", reply):
            stream.take()
            verdicts.append(stream.judge(said))
        assert verdicts == [False, False, False]


def test_half_closed_connection_gets_its_replies_and_closes() -> None:
    stream = opened()
    ask(stream, NOW, b"1", b"2")
    assert not stream.end()
    assert stream.settle(NOW) is State.ENDING
    assert answer(stream, NOW) is State.ENDING
    assert answer(stream, NOW) is State.CLOSING


def test_what_ends_within_a_message_is_told_and_not_waited_for() -> None:
    stream = opened()
    stream.receive(frame(b"unfinished")[:-1], NOW)
    assert stream.end()
    assert stream.settle(NOW) is State.CLOSING


def test_only_a_reading_connection_with_nothing_under_way_is_idle() -> None:
    assert opened().is_idle
    assert reading().is_idle
    asked, partly, blocked, closing = opened(), reading(), reading(), reading()
    ask(asked, NOW, b"query")
    partly.receive(b"\0", NOW)
    blocked.is_unread = True
    blocked.settle(NOW)
    closing.close(NOW)
    assert not any(stream.is_idle for stream in (asked, partly, blocked, closing))


def happen(stream: Stream, event: str, now: float) -> None:
    """Has an event come that may come in the stream's state."""
    if event in SAID:
        if stream.state is State.READING:
            bring_messages(stream, SAID[event], now)
    elif event == "octet":
        if stream.state is State.READING:
            stream.receive(b"\1", now)
    elif event == "reply":
        if stream.unanswered:
            stream.answer(now)
    elif event == "unread":
        stream.is_unread = True
    else:
        OTHERS[event](stream, now)


SAID = {"junk": b"", "query": b"reply", "late": None}
OTHERS: dict[str, Callable[[Stream, float], object]] = {
    "read": Stream.resume,
    "end": lambda stream, _: stream.end(),
    "close": Stream.close,
}


def bring_messages(stream: Stream, said: bytes | None, now: float) -> None:
    """Has two messages arrive, of which the resolver says the same."""
    stream.receive(frame(b"1") + frame(b"2"), now)
    while stream.take() is not None:
        if stream.judge(said):
            stream.close(now)


# What is true in each state: (messages wait that may be taken, the client sent its last, the client
# leaves replies unread); None for either.
TRUE_IN = {
    State.READING: (False, False, False),
    State.FULL: (None, False, False),
    State.BLOCKED: (False, None, True),
    State.ENDING: (None, True, False),
    State.CLOSING: (False, None, None),
}


@given(st.lists(st.sampled_from([*SAID, *OTHERS, "octet", "reply", "unread"]), max_size=40))
def test_state_says_what_is_done_whatever_happens(events: list[str]) -> None:
    stream = opened()
    for number, event in enumerate(events):
        before = stream.state
        happen(stream, event, NOW + number)
        state = stream.settle(NOW + number)
        assert before is not State.CLOSING or state is State.CLOSING
        facts = (stream.has_work, stream.is_at_eof, stream.is_unread)
        expected = zip(TRUE_IN[state], facts, strict=True)
        assert all(wanted in (None, fact) for wanted, fact in expected)
        assert 0 <= stream.unanswered <= BOUNDS.unanswered
        if state is State.FULL:
            assert stream.unanswered == BOUNDS.unanswered or stream.has_work
