from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from nodecache.process.rights import close_descriptors, receive_with, send_with

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def opened() -> Iterator[list[int]]:
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    yield descriptors
    close_descriptors(descriptors)


def test_descriptors_come_along_in_their_order_and_are_closed_at_exec(
    pair: Pair, opened: list[int]
) -> None:
    pipe = os.pipe()
    held: list[int] = []
    try:
        send_with(pair[0], b"three", [opened[0], pipe[0], opened[1]])
        assert receive_with(pair[1], 100, 3, held) == (b"three", 0)
        kinds = [os.fstat(descriptor).st_mode for descriptor in held]
        assert kinds == [os.fstat(d).st_mode for d in (opened[0], pipe[0], opened[1])]
        assert not any(os.get_inheritable(descriptor) for descriptor in held)
    finally:
        close_descriptors(held)
        close_descriptors(list(pipe))
    assert held == []


def test_what_is_longer_than_allowed_is_told_and_its_descriptors_are_held(
    pair: Pair, opened: list[int]
) -> None:
    held: list[int] = []
    send_with(pair[0], b"longer", opened)
    octets, flags = receive_with(pair[1], 4, 1, held)
    assert octets == b"long"
    assert flags & socket.MSG_TRUNC
    assert flags & socket.MSG_CTRUNC
    # The kernel rounds the room up; what came is ours to close all the same.
    assert 1 <= len(held) < len(opened)
    close_descriptors(held)


def test_no_room_means_no_descriptor(pair: Pair, opened: list[int]) -> None:
    held: list[int] = []
    send_with(pair[0], b"one", opened[:1])
    octets, flags = receive_with(pair[1], 100, 0, held)
    assert (octets, held) == (b"one", [])
    assert flags & socket.MSG_CTRUNC


def test_end_is_no_octets(pair: Pair) -> None:
    pair[0].close()
    assert receive_with(pair[1], 100, 4, []) == (b"", 0)
