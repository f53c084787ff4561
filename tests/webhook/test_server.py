"""The listener on real sockets, with real TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from nodecache.config.model import Address
from nodecache.errors import SocketError
from nodecache.webhook import server as server_module
from nodecache.webhook.conversation import Reply, Request
from nodecache.webhook.identity import ServerIdentity
from nodecache.webhook.room import MOST_CONNECTIONS
from nodecache.webhook.server import Server
from tests.loops import Run, until
from tests.webhook.clients import Client, ask_once, get, post, review
from tests.webhook.pairs import NAME, make_pair, trusting

HOST = Address("127.0.0.1", 0)
CHAIN, KEY = make_pair()
TRUSTING = trusting(CHAIN)
APPLICATION_DATA = 23  # RFC 8446 section 5.1


@dataclass
class House:
    server: Server
    identity: ServerIdentity
    noted: list[str] = field(default_factory=list)


def respond(request: Request) -> Reply:
    return Reply(200, b"%s %d\n" % (request.path.encode(), len(request.body)))


@asynccontextmanager
async def opened(*, is_plain: bool = False) -> AsyncIterator[House]:
    identity, noted = ServerIdentity(), list[str]()
    identity.load(CHAIN, KEY)
    context = None if is_plain else identity.context
    server = Server(HOST, context, respond, noted.append)
    try:
        yield House(server, identity, noted)
    finally:
        await server.drain()


def test_reviews_are_answered_one_after_the_other_on_one_connection(run: Run) -> None:
    def ask_often(port: int) -> list[tuple[int, bytes]]:
        with Client(port, TRUSTING) as client:
            return [client.ask(post(b"x" * n)) for n in (1, 100_000, 0)]

    async def main() -> None:
        async with opened() as house:
            answers = await asyncio.to_thread(ask_often, house.server.port)
            assert answers == [(200, b"/inject %d\n" % n) for n in (1, 100_000, 0)]

    run(main())


def test_a_body_of_megabytes_comes_whole(run: Run) -> None:
    async def main() -> None:
        async with opened() as house:
            request = post(b"x" * 8 * 1024 * 1024)
            answer = await asyncio.to_thread(ask_once, house.server.port, TRUSTING, request)
            assert answer == (200, b"/inject 8388608\n")

    run(main())


def test_head_and_body_leave_in_one_record_and_one_segment(run: Run) -> None:
    def records_of_an_answer(port: int) -> list[int]:
        """Returns how many records of TLS each read from TCP brought."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = TRUSTING.wrap_bio(incoming, outgoing, server_hostname=NAME)
        with socket.create_connection(("127.0.0.1", port), 30) as tcp:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    tcp.sendall(outgoing.read())
                    incoming.write(tcp.recv(65536))
            tls.write(get("/healthz"))
            tcp.sendall(outgoing.read())
            reads, answer = [], b""
            while b"/healthz 0\n" not in answer:
                piece = tcp.recv(65536)
                reads.append(count_records(piece))
                incoming.write(piece)
                answer += tls.read()
            return reads

    async def main() -> None:
        async with opened() as house:
            assert await asyncio.to_thread(records_of_an_answer, house.server.port) == [1]

    run(main())


def count_records(octets: bytes) -> int:
    count = 0
    while octets:
        assert octets[0] == APPLICATION_DATA
        octets = octets[5 + int.from_bytes(octets[3:5], "big") :]
        count += 1
    return count


def test_without_tls_the_same_is_answered(run: Run) -> None:
    async def main() -> None:
        async with opened(is_plain=True) as house:
            answer = await asyncio.to_thread(ask_once, house.server.port, None, get("/healthz"))
            assert answer == (200, b"/healthz 0\n")

    run(main())


def test_a_handshake_that_fails_is_counted_and_harms_nobody(run: Run) -> None:
    def ask_as_a_stranger(port: int) -> None:
        with Client(port, None) as client:
            client.socket.sendall(get("/healthz"))
            assert client.is_closed()
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(port, trusting(make_pair()[0]))

    async def main() -> None:
        async with opened() as house:
            await asyncio.to_thread(ask_as_a_stranger, house.server.port)
            await until(lambda: house.noted == ["handshake"] * 2)
            answer = await asyncio.to_thread(ask_once, house.server.port, TRUSTING, post(review()))
            assert answer[0] == 200

    run(main())


def test_who_does_not_begin_a_handshake_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HANDSHAKE_S", 0.2)

    def wait(port: int) -> bool:
        with Client(port, None) as client:
            return client.is_closed()

    async def main() -> None:
        async with opened() as house:
            assert await asyncio.to_thread(wait, house.server.port)
            await until(lambda: len(house.server.room) == 0)
            assert house.noted == ["handshake"]

    run(main())


def test_idle_connections_beyond_the_bound_make_room_for_reviews(run: Run) -> None:
    def crowd(port: int) -> None:
        idle = [Client(port, None) for _ in range(3 * MOST_CONNECTIONS)]
        assert ask_once(port, TRUSTING, post(review()))[0] == 200
        for client in idle:
            client.close()

    async def main() -> None:
        async with opened() as house:
            await asyncio.to_thread(crowd, house.server.port)
            assert house.noted.count("evicted") > MOST_CONNECTIONS
            await until(lambda: len(house.server.room) == 0)

    run(main())


def test_a_drain_answers_what_is_under_way_and_takes_nothing_new(run: Run) -> None:
    async def main() -> None:
        async with opened() as house:
            port, whole = house.server.port, post(review())
            busy = await asyncio.to_thread(Client, port, TRUSTING)
            idle = await asyncio.to_thread(Client, port, TRUSTING)
            busy.socket.sendall(whole[:-1])
            await until(lambda: house.server.room.in_flight == 1)
            draining = asyncio.create_task(house.server.drain())
            assert await asyncio.to_thread(idle.is_closed)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.to_thread(Client, port, TRUSTING)
            assert not draining.done()
            assert (await asyncio.to_thread(busy.ask, whole[-1:]))[0] == 200
            assert await asyncio.to_thread(busy.is_closed)
            await draining
            busy.close()
            idle.close()

    run(main())


def test_a_drain_does_not_wait_for_ever(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "DRAIN_S", 0.2)

    async def main() -> None:
        async with opened() as house:
            busy = await asyncio.to_thread(Client, house.server.port, TRUSTING)
            busy.socket.sendall(post(review())[:-1])
            await until(lambda: house.server.room.in_flight == 1)
            await house.server.drain()
            assert await asyncio.to_thread(busy.is_closed)
            busy.close()

    run(main())


def test_no_name_is_looked_up_to_listen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a webhook of a DNS server must not need DNS")

    for name in ("getaddrinfo", "gethostbyaddr", "gethostbyname", "getfqdn"):
        monkeypatch.setattr(socket, name, refuse)

    async def main() -> None:
        for host in ("", "127.0.0.1", "::1"):
            server = Server(Address(host, 0), None, respond, print)
            assert server.port
            await server.drain()

    run(main())


def test_an_address_in_use_is_refused_with_the_next_step(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = Address("127.0.0.1", other.getsockname()[1])
            with pytest.raises(SocketError, match="stop it, or choose another port"):
                Server(address, None, respond, print)

    run(main())
