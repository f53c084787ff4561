from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from nodecache.config.model import Address
from nodecache.net.pktinfo import keep_destination
from nodecache.net.sockets import open_udp
from nodecache.process.channel import Serving
from nodecache.process.keeper import held
from nodecache.process.keeper.held import Held
from tests.daemon.processes import free_port
from tests.process.keeper.bed import REFUSED, query
from tests.process.keeper.scripted import SELF_CHECK
from tests.process.keeper.test_silence import NOW


class Wildcard:
    """What a keeper holds that has one socket, which is bound to every address."""

    def __init__(self) -> None:
        self.held = Held()
        self.port = free_port()
        address = Address("0.0.0.0", self.port)
        sock = open_udp(address)
        keep_destination(sock)  # as the worker does
        self.held.hold(f"udp {address}", sock)

    def lose_worker(self, *refusing: str) -> None:
        """Has a worker serve at two addresses, and end."""
        places = [(host, self.port) for host in ("127.0.0.1", "127.0.0.9")]
        refused = [place for place in places if place[0] in refusing]
        self.held.ask(Serving(SELF_CHECK, places, refused, 3), NOW)
        self.held.say_goodbye()
        self.held.refuse_once(NOW + 1)
        self.held.is_refusing = True

    def rcode(self) -> int | None:
        """What a stub gets that asks at one of the addresses; None for silence."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stub:
            stub.setblocking(False)
            stub.connect(("127.0.0.9", self.port))
            stub.send(query())
            for _, _, call in self.held.polled(NOW + 1):
                call(NOW + 1)
            try:
                return stub.recv(512)[3] & 0xF
            except BlockingIOError:
                return None


@pytest.fixture
def goodbyes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gathers the addresses to which goodbye was said."""
    said: list[str] = []
    monkeypatch.setattr(held, "say_goodbye", lambda _sock, host: said.append(host))
    return said


@pytest.fixture
def wildcard() -> Iterator[Wildcard]:
    wildcard = Wildcard()
    yield wildcard
    wildcard.held.close()


def test_socket_of_every_address_refuses_where_no_address_leads_elsewhere(
    wildcard: Wildcard, goodbyes: list[str]
) -> None:
    wildcard.lose_worker("127.0.0.1", "127.0.0.9")
    assert wildcard.rcode() == REFUSED
    assert goodbyes == []


def test_socket_of_every_address_says_goodbye_for_those_that_lead_elsewhere(
    wildcard: Wildcard, goodbyes: list[str]
) -> None:
    wildcard.lose_worker("127.0.0.9")
    assert wildcard.rcode() is None  # nobody can tell by the socket which address was asked
    assert goodbyes == ["127.0.0.1"]


def test_goodbye_is_not_said_for_a_socket_that_is_gone(
    wildcard: Wildcard, goodbyes: list[str]
) -> None:
    wildcard.held.release(f"udp 0.0.0.0:{wildcard.port}")
    wildcard.lose_worker()
    assert goodbyes == []
