from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nodecache.wire.framing import Deframer, frame

MESSAGES = st.lists(st.binary(max_size=80), max_size=8)


def fed(pieces: list[bytes]) -> tuple[list[bytes], Deframer]:
    deframer = Deframer()
    return [message for piece in pieces for message in deframer.feed(piece)], deframer


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(marks)]


def test_a_frame_is_the_length_in_network_order_and_the_message() -> None:
    assert frame(b"abc") == b"\0\3abc"
    assert frame(b"") == b"\0\0"
    assert frame(bytes(65535))[:2] == b"\xff\xff"


@given(MESSAGES)
def test_a_whole_stream_gives_all_messages(messages: list[bytes]) -> None:
    received, deframer = fed([b"".join(map(frame, messages))])
    assert received == messages
    assert deframer.pending_octets == 0


@given(MESSAGES)
def test_a_stream_fed_octet_by_octet_gives_all_messages(messages: list[bytes]) -> None:
    stream = b"".join(map(frame, messages))
    received, deframer = fed([bytes([octet]) for octet in stream])
    assert received == messages
    assert deframer.pending_octets == 0


@given(MESSAGES, st.lists(st.integers(0, 10_000), max_size=6))
def test_a_stream_cut_anywhere_gives_all_messages(messages: list[bytes], places: list[int]) -> None:
    received, deframer = fed(cut(b"".join(map(frame, messages)), places))
    assert received == messages
    assert deframer.pending_octets == 0


@given(MESSAGES, st.binary(min_size=1, max_size=80), st.lists(st.integers(0, 10_000), max_size=6))
def test_an_incomplete_message_is_pending(
    messages: list[bytes], last: bytes, places: list[int]
) -> None:
    stream = b"".join(map(frame, [*messages, last]))
    for missing in (1, len(last), len(last) + 1):
        received, deframer = fed(cut(stream[:-missing], places))
        assert received == messages
        assert deframer.pending_octets == len(last) + 2 - missing
        is_known = deframer.pending_octets >= 2
        assert deframer.announced_octets == (len(last) if is_known else 0)
        assert deframer.feed(stream[-missing:]) == [last]
        assert deframer.announced_octets == 0


def test_the_largest_message_passes_in_segments() -> None:
    message = bytes(range(256)) * 256
    message = message[:65535]
    stream = frame(message)
    received, _ = fed([stream[at : at + 1460] for at in range(0, len(stream), 1460)])
    assert received == [message]


def test_messages_do_not_change_when_more_is_fed() -> None:
    deframer = Deframer()
    deframer.feed(b"\0\3a")
    (first,) = deframer.feed(b"bc\0\3x")
    deframer.feed(b"yz")
    assert first == b"abc"
    assert isinstance(first, bytes)
