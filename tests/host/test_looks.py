"""Cheap looks at the node: what is local, and which of the kernel's events count."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from nodecache.config.node import NodePlan
from nodecache.host import looks
from nodecache.host.looks import Events, find_gaps, is_local
from tests.loops import run


class Queue:
    """Stands for a netlink socket: gives what was put in, then has nothing."""

    def __init__(self, datagrams: list[bytes | int]) -> None:
        self.datagrams = datagrams
        self.is_closed = False

    def recv(self, _most: int) -> bytes:
        if not self.datagrams:
            raise BlockingIOError
        datagram = self.datagrams.pop(0)
        if isinstance(datagram, int):
            raise OSError(datagram, "from the kernel")
        return datagram

    def close(self) -> None:
        self.is_closed = True


class Loop:
    """Stands for the loop; ``readers`` are who would be called."""

    def __init__(self) -> None:
        self.readers: list[object] = []

    def remove_reader(self, reader: object) -> None:
        self.readers.remove(reader)


def calls_for(datagrams: list[bytes | int], mark: bytes) -> tuple[int, Queue]:
    """Returns how often we are called in one wake-up, and the queue after it."""
    queue, loop, events = Queue(datagrams), Loop(), Events()
    loop.readers.append(queue)
    events._loop = loop  # type: ignore[assignment]
    events._sockets.append(queue)  # type: ignore[arg-type]
    calls: list[int] = []
    events._read(queue, lambda: calls.append(1), mark)  # type: ignore[arg-type]
    assert queue.is_closed == (not loop.readers)
    return len(calls), queue


def test_loopback_is_local() -> None:
    assert is_local("127.0.0.1")


@pytest.mark.parametrize(
    "address",
    [
        "127.77.1.2", "192.0.2.1", "2001:db8::1", "255.255.255.255", "", "x", "1.2.3.4/32", "\0",
        "fe80::1%no-such", "1.2.3", "\udc80",
    ],
)  # fmt: skip
def test_what_is_elsewhere_or_no_address_is_not_local(address: str) -> None:
    assert not is_local(address)


def test_gaps_name_the_address() -> None:
    assert find_gaps(NodePlan("no-such-link", ("127.0.0.1",))) == []
    gaps = find_gaps(NodePlan("no-such-link", ("127.0.0.1", "192.0.2.1")))
    assert gaps == ["192.0.2.1 is not local"]


def test_any_route_event_counts_once_a_wake_up() -> None:
    assert calls_for([b"link", b"address", b"address"], b"")[0] == 1
    assert calls_for([], b"")[0] == 0


@pytest.mark.parametrize("name", [b"inet nodecache\0", b"NODECACHE-INPUT", b"\x00nodecache"])
def test_rules_events_count_if_they_name_us(name: bytes) -> None:
    assert calls_for([b"kube-proxy", b"x" * 100 + name], b"nodecache")[0] == 1


def test_rules_events_of_others_cost_no_call() -> None:
    assert calls_for([b"kube-proxy", b"KUBE-SVC-ABC", b"node cache"], b"nodecache")[0] == 0


@pytest.mark.parametrize("mark", [b"", b"nodecache"])
def test_lost_events_count(mark: bytes) -> None:
    assert calls_for([errno.ENOBUFS], mark)[0] == 1


def test_work_of_one_wake_up_is_bounded() -> None:
    calls, queue = calls_for([b"x"] * 1000, b"")
    assert calls == 1
    assert len(queue.datagrams) == 1000 - looks._MOST_READS


def test_socket_that_fails_is_given_up() -> None:
    calls, queue = calls_for([errno.EBADF, b"more"], b"")
    assert calls == 0
    assert queue.is_closed


def test_events_open_and_close_on_a_real_loop() -> None:
    async def open_and_close() -> list[socket.socket]:
        events = Events()
        events.start(asyncio.get_running_loop(), lambda: None, lambda: None)
        opened = list(events._sockets)
        events.close()
        events.close()
        return opened

    opened = run(open_and_close())
    assert opened  # route events need no right
    assert all(each.fileno() == -1 for each in opened)


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A kernel that lets us hear of no rules; returns the protocols that we hear of."""
    bound: list[int] = []

    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            if self.proto == looks._NETLINK_NETFILTER:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            bound.append(self.proto)
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr("socket.socket", Refusing)
    return bound


def test_events_without_the_right_to_hear_of_rules_are_those_of_routes(
    forbidden: list[int],
) -> None:
    async def count() -> int:
        events = Events()
        events.start(asyncio.get_running_loop(), lambda: None, lambda: None)
        count = len(events._sockets)
        events.close()
        return count

    assert run(count()) == 1
    assert forbidden == [looks._NETLINK_ROUTE]
