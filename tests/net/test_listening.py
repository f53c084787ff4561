from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from nodecache.config.model import Address
from nodecache.net.listening import ListeningSockets

ANY_PORT = Address("127.0.0.1", 0)
NAME = f"udp {ANY_PORT}"


@dataclass
class Keeper:
    """Notes what it is to hold and to release."""

    held: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    def hold(self, name: str, _sock: socket.socket) -> None:
        self.held.append(name)

    def release(self, name: str) -> None:
        self.released.append(name)


def bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def inherited() -> Iterator[dict[str, socket.socket]]:
    sockets = {NAME: bound(), "udp 127.0.0.1:1": bound()}
    yield sockets
    for sock in sockets.values():
        sock.close()


def test_inherited_socket_is_taken_and_another_made_once(
    keeper: Keeper, inherited: dict[str, socket.socket]
) -> None:
    place = inherited[NAME].getsockname()
    sockets = ListeningSockets(inherited, (), keeper.hold, keeper.release)
    assert sockets.has_inherited
    with sockets.udp(ANY_PORT) as first, sockets.udp(ANY_PORT) as again:
        assert first.getsockname() == again.getsockname() == place
        assert not first.getblocking()
    with sockets.tcp(ANY_PORT) as made:
        assert made.getsockname() != place
    assert keeper.held == [NAME, f"tcp {ANY_PORT}"]
    assert sockets.all.keys() == {NAME, f"tcp {ANY_PORT}"}
    sockets.close()


def test_what_nobody_wanted_is_closed_and_released(
    keeper: Keeper, inherited: dict[str, socket.socket]
) -> None:
    sockets = ListeningSockets(inherited, (), keeper.hold, keeper.release)
    sockets.udp(ANY_PORT).close()
    sockets.drop_unused()
    assert keeper.released == ["udp 127.0.0.1:1"]
    assert inherited["udp 127.0.0.1:1"].fileno() == -1
    assert not sockets.has_inherited
    sockets.close()


def test_socket_outlives_its_user_until_it_is_given_up(keeper: Keeper) -> None:
    sockets = ListeningSockets({}, (), keeper.hold, keeper.release)
    user = sockets.udp(ANY_PORT)
    (inode,) = sockets.inodes
    user.close()
    assert sockets.inodes == {inode}
    sockets.give_up(NAME)
    sockets.give_up(NAME)
    assert keeper.released == [NAME]
    assert sockets.inodes == frozenset()
