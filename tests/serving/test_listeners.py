"""What listens where, through starts, reloads and faults; every address is one of loopback here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nodecache.config.model import ROOT, Address, CachePolicy, Config, ServerBlock, Timeouts
from nodecache.counters import Counters
from nodecache.directives.whoami.model import WHOAMI
from nodecache.errors import SocketError
from nodecache.resolve.resolver import Resolver
from nodecache.serving import listeners as module
from nodecache.serving.blocks import Blocks
from nodecache.serving.listeners import Listeners
from nodecache.serving.pump import Pump
from tests.cache.building import query
from tests.loops import run, until
from tests.resolve.resolving import FakeForwarder

FIRST, SECOND = Address("10.0.0.1", 53), Address("10.0.0.2", 53)
CACHE_OCTETS = 1 << 20


def block(*hosts: str, **options: Any) -> ServerBlock:
    return ServerBlock((ROOT,), 53, bind=hosts, **options).having(WHOAMI, True)


def config(*blocks: ServerBlock) -> Config:
    return Config(blocks)


class Sockets:
    """Makes sockets on 127.0.0.1 for any address.

    Attributes:
        broken: Names of sockets that cannot be opened.
        made: All that were made, by name.
        given_up: Names, in order.
    """

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.made: dict[str, socket.socket] = {}
        self.given_up: list[str] = []

    def udp(self, address: Address) -> socket.socket:
        return self._make(f"udp {address}", socket.SOCK_DGRAM)

    def tcp(self, address: Address) -> socket.socket:
        sock = self._make(f"tcp {address}", socket.SOCK_STREAM)
        sock.listen()
        return sock

    def _make(self, name: str, kind: socket.SocketKind) -> socket.socket:
        if name in self.broken:
            raise SocketError(f"cannot listen on {name}")
        sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        sock.bind(("127.0.0.1", 0))
        self.made[name] = sock
        return sock

    def give_up(self, name: str) -> None:
        self.given_up.append(name)

    @property
    def open(self) -> set[str]:
        return {name for name, sock in self.made.items() if sock.fileno() >= 0}


class ListeningHouse:
    """Listeners with all that they need."""

    def __init__(self) -> None:
        self.is_closed = False
        self.counters = Counters()
        self.sockets = Sockets()
        self.blocks = Blocks(CACHE_OCTETS, self.counters)
        loop = asyncio.get_running_loop()
        resolver = Resolver(FakeForwarder(), self.counters, lambda: 0.0, 1000)
        sockets: Any = self.sockets
        pump = Pump(resolver.results, (resolver,), lambda _: None, loop)
        self.listeners = Listeners(resolver, self.counters, self.blocks, pump.flush, sockets, loop)

    def apply(self, *blocks: ServerBlock) -> None:
        self.listeners.apply(config(*blocks))

    def close(self) -> None:
        """Closes all, once."""
        if not self.is_closed:
            self.is_closed = True
            self.listeners.close()

    async def ask(self, address: Address) -> bytes:
        """Returns the reply over UDP."""
        place = self.sockets.made[f"udp {address}"].getsockname()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(place)
            await loop.sock_sendall(sock, query())
            async with asyncio.timeout(20):
                return await loop.sock_recv(sock, 512)


def live(body: Callable[[ListeningHouse], Awaitable[None]]) -> None:
    async def main() -> None:
        house = ListeningHouse()
        try:
            await body(house)
        finally:
            house.close()
            await asyncio.sleep(0)
            for sock in house.sockets.made.values():
                sock.close()

    run(main())


def test_nothing_is_answered_before_the_start_and_what_came_before_it_is_afterwards() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1"))
        asking = asyncio.ensure_future(house.ask(FIRST))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asking.done()
        house.listeners.start()
        assert await asking

    live(body)


def test_address_that_is_added_while_serving_is_served_at_once() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1"))
        house.listeners.start()
        house.apply(block("10.0.0.1", "10.0.0.2"))
        assert await house.ask(SECOND)

    live(body)


def test_address_that_cannot_be_used_leaves_everything_as_it_was() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1"))
        before = dict(house.listeners.servers)
        house.sockets.broken = {"tcp 10.0.0.3:53"}
        with pytest.raises(SocketError):
            house.apply(block("10.0.0.2", "10.0.0.3"))
        assert house.listeners.servers == before
        assert house.sockets.open == {"udp 10.0.0.1:53", "tcp 10.0.0.1:53"}
        # The UDP socket of the broken address was open already, and so was all of the other one.
        gone = {"udp 10.0.0.2:53", "tcp 10.0.0.2:53", "udp 10.0.0.3:53", "tcp 10.0.0.3:53"}
        assert set(house.sockets.given_up) == gone

    live(body)


def test_address_that_stays_keeps_its_sockets_and_packets() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1"))
        server = house.listeners.servers[FIRST]
        routes, zones = server.routes, server.udp_listener.zones
        house.apply(block("10.0.0.1"))
        assert house.listeners.servers[FIRST] is server
        assert (server.routes, server.udp_listener.zones) == (routes, zones)
        assert house.sockets.given_up == []

    live(body)


@pytest.mark.parametrize(
    "changed",
    [block("10.0.0.1", bufsize=512), block("10.0.0.1", nsid="here")],
    ids=["bufsize", "nsid"],
)
def test_what_changes_the_octets_of_replies_ends_the_packets(
    changed: ServerBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1"))
        server = house.listeners.servers[FIRST]
        cleared: list[bool] = []
        monkeypatch.setattr(server.packets, "clear", lambda: cleared.append(True))
        house.apply(block("10.0.0.1", timeouts=Timeouts(idle_s=7.0)))
        assert (cleared, server.tcp.bounds.idle_s) == ([], 7.0)
        house.apply(changed)
        assert cleared == [True]

    live(body)


def test_address_that_a_reload_takes_away_is_closed_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_GRACE_S", 0.05)

    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1", "10.0.0.2"))
        house.listeners.start()
        house.apply(block("10.0.0.1"))
        assert list(house.listeners.servers) == [FIRST]
        await until(lambda: house.sockets.open == {"udp 10.0.0.1:53", "tcp 10.0.0.1:53"})
        assert house.sockets.given_up == ["udp 10.0.0.2:53", "tcp 10.0.0.2:53"]
        assert await house.ask(FIRST)

    live(body)


def test_end_closes_what_a_reload_took_away_just_now() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1", "10.0.0.2"))
        house.listeners.start()
        house.apply(block("10.0.0.1"))
        await asyncio.sleep(0)  # it begins to leave
        house.close()
        await until(lambda: house.sockets.open == set())

    live(body)


def test_yielded_sockets_are_read_no_more() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1"))
        house.listeners.start()
        assert await house.ask(FIRST)
        house.listeners.yield_sockets()
        asking = asyncio.ensure_future(house.ask(FIRST))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asking.done()
        # Who leaves without a successor takes what is queued, and answers it.
        house.listeners.stop_reading_datagrams()
        assert await asking

    live(body)


def test_packets_share_their_octets_among_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(house: ListeningHouse) -> None:
        sizes: list[int] = []
        house.apply(block("10.0.0.1"))
        packets = house.listeners.servers[FIRST].packets
        monkeypatch.setattr(packets, "resize", sizes.append)
        house.apply(block("10.0.0.1"))
        house.apply(block("10.0.0.1", "10.0.0.2"))
        assert sizes == [house.blocks.packet_octets, house.blocks.packet_octets // 2]

    live(body)


def test_voice_is_the_address_itself_or_the_one_for_every_address_one_for_each_family() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1", "10.0.0.2"))
        hosts = ["10.0.0.9", "10.0.0.2", "10.0.0.1", "fd00::1"]
        (voice,) = house.listeners.voices(hosts, 53)
        assert (voice.host, voice.port) == ("10.0.0.2", 53)
        assert house.listeners.voices(hosts, 54) == []
        house.apply(block("0.0.0.0"))
        (voice,) = house.listeners.voices(hosts, 53)
        assert voice.host == "10.0.0.9"

    live(body)


def test_places_are_our_own_addresses_in_place_of_every_address() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("0.0.0.0"))
        own = ["10.0.0.1", "fd00::1"]
        assert list(house.listeners.places(own)) == [("10.0.0.1", 53)]
        assert list(house.listeners.places([])) == [("0.0.0.0", 53)]
        house.apply(block("10.0.0.1"))
        assert list(house.listeners.places(own)) == [("10.0.0.1", 53)]

    live(body)


def test_entries_are_shown_for_each_address_and_evictions_only_once() -> None:
    async def body(house: ListeningHouse) -> None:
        house.apply(block("10.0.0.1", "10.0.0.2", cache=CachePolicy()))
        shown = house.counters.caches
        assert [sorted(series.entries) for series in shown] == [["denial", "success"]] * 2
        messages = house.blocks.states[0].messages
        assert messages is not None
        messages.success.evictions = 5
        for hand_in in house.counters.before_scrape:
            hand_in()
        assert [series.success_evictions for series in shown] == [5, 0]
        house.apply(block("10.0.0.1", "10.0.0.2"))
        assert all(not series.entries for series in shown)

    live(body)
