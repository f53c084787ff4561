"""The UDP server on real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

import pytest

from nodecache.config.model import Address
from nodecache.errors import SocketError
from nodecache.net import mmsg, udp
from nodecache.net.sockets import open_udp
from nodecache.net.udp import UdpServer
from nodecache.resolve.listener import Listener
from nodecache.resolve.resolver import Resolver
from tests.cache.building import a, key, opt, query, response, ttls
from tests.daemon.processes import wait_until
from tests.loops import LOOPS
from tests.resolve.resolving import Bed

Result = TypeVar("Result")


@dataclass
class UdpHouse:
    """A served UDP socket; its clients live in another thread than its loop."""

    loop: asyncio.AbstractEventLoop
    host: str
    complaints: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bed = Bed(now=monotonic(), seal=mmsg.seal)
        self.sock = open_udp(Address(self.host, 0))
        self.port = self.sock.getsockname()[1]
        self.server = UdpServer(
            self.sock, self.bed.udp, self.bed.resolver, self.flush, self.bed.counters, self.loop
        )

    def flush(self) -> None:
        """Answers all that is asked, but names that begin with "late"."""
        for exchange in self.bed.forwarder.under_way:
            if not exchange.key.startswith(b"\4late"):
                self.answer(exchange.key)
        self.bed.collect()

    def answer(self, asked: bytes) -> None:
        (exchange,) = [each for each in self.bed.forwarder.under_way if each.key == asked]
        self.bed.forwarder.finish(exchange, response(asked, [a(30)]), monotonic())
        self.bed.collect()

    def call(self, function: Callable[[], Result]) -> Result:
        """Calls it in the loop's thread."""
        future: Future[Result] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 # raised again where it was asked for
                future.set_exception(error)

        self.loop.call_soon_threadsafe(call)
        return future.result(10)

    def start(self) -> None:
        self.call(self.server.start)

    def client(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.settimeout(5)
        return sock

    def ask(self, *messages: bytes, at: str | None = None) -> list[bytes]:
        """Sends all messages in one burst; returns as many replies."""
        with self.client() as sock:
            for octets in messages:
                sock.sendto(octets, (at or self.host, self.port))
            return [sock.recv(65535) for _ in messages]

    @property
    def drops(self) -> dict[str, int]:
        return self.bed.counters.drops


def run(
    body: Callable[[UdpHouse], None],
    loop_name: str = "asyncio",
    host: str = "127.0.0.1",
) -> UdpHouse:
    async def main() -> UdpHouse:
        loop = asyncio.get_running_loop()
        house = UdpHouse(loop, host)
        loop.set_exception_handler(lambda _, context: house.complaints.append(context))
        try:
            await asyncio.wait_for(asyncio.to_thread(body, house), 20)
        finally:
            house.server.close()
        return house

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        house = runner.run(main())
    assert house.complaints == []
    return house


@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_misses_and_hits_between_them_all_get_their_own_reply(loop_name: str, host: str) -> None:
    hot = [f"hot{n}.cluster.local" for n in range(5)]
    asked = [
        query(f"new{n}.cluster.local" if n % 3 == 0 else hot[n % 5], ident=n) for n in range(200)
    ]

    def body(house: UdpHouse) -> None:
        house.start()
        for name in hot:
            house.ask(query(name))
            house.ask(query(name))
        assert len(house.bed.packets) == 5
        house.call(house.server.stop_reading)
        with house.client() as sock:
            for octets in asked:
                sock.sendto(octets, (house.host, house.port))
            house.start()
            replies = sorted(sock.recv(65535) for _ in asked)
        assert [reply[:2] for reply in replies] == [octets[:2] for octets in asked]
        for octets, reply in zip(asked, replies, strict=True):
            assert reply[12 : len(octets)] == octets[12:]
            assert reply[3] & 0xF == 0
            assert ttls(reply, len(octets))[0] in (28, 29, 30)

    house = run(body, loop_name, host)
    house.bed.packets.hand_in(monotonic())
    series = house.bed.series
    assert sum(series.requests.values()) == sum(series.responses.values()) == 210
    assert sum(series.durations.counts) == 210
    assert series.responses[0, "forward"] == 5 + 67
    assert house.drops == {}


@pytest.mark.parametrize(
    ("host", "asked"),
    [("0.0.0.0", ["127.0.0.1", "127.0.0.2", "127.9.8.7"]), ("::", ["::1"])],
)
def test_wildcard_bind_replies_from_the_address_that_was_asked(host: str, asked: list[str]) -> None:
    def body(house: UdpHouse) -> None:
        house.start()
        for address in [*asked, *asked, *reversed(asked)]:
            with house.client() as sock:
                # Connected: a reply from another address would not arrive.
                sock.connect((address, house.port))
                for n in range(3):
                    sock.send(query(ident=n))
                    assert sock.recv(4096)[:2] == bytes([0, n])

    run(body, host=host)


class FailsForOne:
    """A resolver with an error in it, for one name."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def query(self, octets: bytes, listener: Listener, client: Any, now: float) -> bytes | None:
        if b"fatal" in octets:
            raise RuntimeError("of ours")
        return self._resolver.query(octets, listener, client, now)


def test_an_error_of_ours_takes_one_query_and_not_its_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def body(house: UdpHouse) -> None:
        monkeypatch.setattr(house.server, "_resolver", FailsForOne(house.bed.resolver))
        with house.client() as sock:
            for ident, name in enumerate(["one", "fatal", "two"]):
                sock.sendto(query(name, ident=ident), (house.host, house.port))
            house.start()
            replies = sorted(sock.recv(4096)[:2] for _ in range(2))
        assert replies == [b"\0\0", b"\0\2"]
        assert house.bed.counters.drops == {"panic": 1}
        assert len(house.complaints) == 1
        house.complaints.clear()

    run(body)


def test_late_reply_reaches_who_asked() -> None:
    def body(house: UdpHouse) -> None:
        house.start()
        with house.client() as first, house.client() as second:
            first.sendto(query("late", ident=1), (house.host, house.port))
            second.sendto(query("LATE", ident=2), (house.host, house.port))
            house.ask(query("other"))
            wait_until(lambda: house.bed.counters.events.get("coalesced") == 1, "two who wait")
            house.call(house.server.stop_reading)
            house.call(lambda: house.answer(key("late")))
            replies = first.recv(4096), second.recv(4096)
        assert [reply[:2] for reply in replies] == [b"\0\1", b"\0\2"]
        assert replies[1][12:18] == b"\4LATE\0"

    run(body)


def test_datagrams_of_every_length_are_answered_or_counted() -> None:
    def body(house: UdpHouse) -> None:
        house.start()
        with house.client() as sock:
            for length in (0, 1, 2, 11):
                sock.sendto(bytes(length), (house.host, house.port))
        for length in (3000, 60_000):
            (reply,) = house.ask(query().ljust(length, b"\0"))
            assert (reply[:2], reply[3] & 0xF) == (query()[:2], 0)
        assert house.ask(query(ident=3))[0][:2] == b"\0\3"

    house = run(body)
    assert house.drops == {"too_short": 4}


def test_responses_get_no_reply() -> None:
    def body(house: UdpHouse) -> None:
        house.start()
        with house.client() as sock:
            sock.sendto(query(flags=0x8100), (house.host, house.port))
            wait_until(lambda: house.drops, "a drop")
            sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                sock.recv(512)

    assert run(body).drops == {"is_response": 1}


def test_ttl_of_a_hit_counts_down_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [float(int(monotonic()))]

    def body(house: UdpHouse) -> None:
        house.start()
        shown = []
        for _ in range(7):
            shown.append(ttls(house.ask(query())[0], len(query()))[0])
            clock[0] += 0.5
        # The third and later ones are of the packet cache, which shows the end of its second.
        assert shown == [30, 30, 28, 28, 27, 27, 26]
        assert house.bed.exchanges == 1

    for module in (udp, sys.modules[__name__]):
        monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    run(body)


def test_large_replies_and_small_ones_share_a_batch() -> None:
    def body(house: UdpHouse) -> None:
        addresses = [a(30, bytes([10, 0, n >> 8, n & 255])) for n in range(400)]
        truncated = len(query("late")) + 16 * 30  # as many as 512 octets hold

        def answer_large() -> None:
            for exchange in house.bed.forwarder.under_way:
                octets = response(exchange.key, addresses)
                house.bed.forwarder.finish(exchange, octets, monotonic())
            house.bed.collect()

        house.start()
        with house.client() as sock:
            sock.sendto(query("late"), (house.host, house.port))
            wait_until(lambda: house.bed.exchanges == 1, "an exchange")
            house.call(answer_large)
            assert len(sock.recv(65535)) == truncated
        asked = [query("late", ident=n, edns=opt(8192) if n % 2 else b"") for n in range(20)]
        replies = sorted(house.ask(*asked, *asked))
        for n, reply in enumerate(replies):
            assert reply[:2] == asked[n // 2][:2]
            assert len(reply) == (len(asked[1]) + 16 * 400 if n // 2 % 2 else truncated)

    run(body)


class Refusing:
    """Stands before a function that sends: ``outcomes`` come first, then the function."""

    def __init__(self, function: Callable[..., Any], outcomes: list[Any]) -> None:
        self.function = function
        self.outcomes = outcomes

    def __call__(self, *arguments: Any) -> Any:
        if not self.outcomes:
            return self.function(*arguments)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome


def obstruct(house: UdpHouse, monkeypatch: pytest.MonkeyPatch, outcomes: list[Any]) -> None:
    """Lets the next sends of hits and of other replies end otherwise."""
    batch = house.server._batch
    for name in ("send", "send_late"):
        faulty = Refusing(getattr(batch, name), [outcome or 0 for outcome in outcomes])
        monkeypatch.setattr(batch, name, faulty)


def warm(house: UdpHouse) -> None:
    house.start()
    house.ask(query())
    house.ask(query())


def test_full_socket_delays_replies_but_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(house: UdpHouse) -> None:
        warm(house)
        house.call(lambda: obstruct(house, monkeypatch, [False, False, False]))
        asked = [query(ident=n) for n in range(50)] + [
            query(f"n{n}", ident=100 + n) for n in range(50)
        ]
        assert sorted(reply[:2] for reply in house.ask(*asked)) == [o[:2] for o in asked]
        assert house.call(lambda: len(house.server._backlog)) == 0

    assert run(body).drops == {}


def test_backlog_is_bounded_and_what_exceeds_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "_MOST_BACKLOG", 3)

    def body(house: UdpHouse) -> None:
        warm(house)
        house.call(house.server.stop_reading)
        with house.client() as sock:
            for n in range(10):
                sock.sendto(query(ident=n), (house.host, house.port))
            house.call(lambda: obstruct(house, monkeypatch, [False]))
            house.start()
            replies = [sock.recv(512)[:2] for _ in range(3)]
        assert replies == [bytes([0, n]) for n in range(3)]

    assert run(body).drops == {"udp_socket_full": 7}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENETUNREACH])
def test_hopeless_reply_is_counted_and_the_others_go_out(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(house: UdpHouse) -> None:
        warm(house)
        house.call(house.server.stop_reading)
        with house.client() as sock:
            for n in range(10):
                sock.sendto(query(ident=n), (house.host, house.port))
            house.call(lambda: obstruct(house, monkeypatch, [OSError(number, "no")]))
            house.start()
            replies = [sock.recv(512)[:2] for _ in range(9)]
        assert replies == [bytes([0, n]) for n in range(1, 10)]

    assert run(body).drops == {f"udp_send_{errno.errorcode[number].lower()}": 1}


def test_receive_error_is_counted_and_service_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(house: UdpHouse) -> None:
        house.start()
        fault = [OSError(errno.ENOMEM, "no")]
        batch = house.server._batch
        monkeypatch.setattr(batch, "receive", Refusing(batch.receive, fault))
        assert house.ask(query(ident=5))[0][:2] == b"\0\5"

    assert run(body).bed.counters.events["udp_receive_enomem"] == 1


def test_reply_after_close_is_counted_and_touches_no_descriptor() -> None:
    client: list[Any] = []

    def body(house: UdpHouse) -> None:
        house.start()
        with house.client() as sock:
            sock.sendto(query("late"), (house.host, house.port))
            wait_until(lambda: house.bed.exchanges == 1, "an exchange")

    house = run(body)
    client += house.bed.forwarder.under_way
    house.answer(key("late"))
    assert len(client) == 1
    assert house.drops == {"udp_closed": 1}


def test_many_clients_at_once_get_what_they_asked_for() -> None:
    def body(house: UdpHouse) -> None:
        warm(house)
        wrong: list[bytes] = []

        def client(number: int) -> None:
            for n in range(30):
                octets = query(
                    "a.cluster.local" if n % 4 else f"c{number}x{n}", ident=number << 8 | n
                )
                (reply,) = house.ask(octets)
                if reply[:2] + reply[12 : len(octets)] != octets[:2] + octets[12:]:
                    wrong.append(reply)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert wrong == []

    house = run(body, "uvloop")
    house.bed.packets.hand_in(monotonic())
    assert sum(house.bed.series.responses.values()) == 242


def test_server_needs_a_packet_cache() -> None:
    def body(house: UdpHouse) -> None:
        house.bed.udp.packets = None
        with pytest.raises(ValueError, match="packet cache"):
            UdpServer(
                house.sock,
                house.bed.udp,
                house.bed.resolver,
                house.flush,
                house.bed.counters,
                house.loop,
            )

    run(body)


def test_interpreter_that_keeps_octets_elsewhere_serves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mmsg, "is_available", lambda: False)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(SocketError, match="CPython on Linux"),
    ):
        mmsg.Batch(sock, keeps_destination=False)
