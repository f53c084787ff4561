"""The TCP listener and its connections (net/tcp.py, net/connection.py) on real sockets.

The times of a connection are arithmetic: see test_stream.py.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.net.connection import ClientConnection
from nodecache.net.sockets import open_tcp
from nodecache.net.stream import State, TcpBounds
from nodecache.net.tcp import TcpServer
from nodecache.resolve.listener import Listener
from nodecache.wire.framing import frame
from tests.loops import Run, until

BIG = 60_000


@dataclass
class Scripted:
    """A resolver that does what the octets after the ID say; otherwise it echoes at once."""

    asked: list[tuple[bytes, Any]] = field(default_factory=list)
    flushed_at: list[int] = field(default_factory=list)

    def query(self, octets: bytes, listener: Listener, client: object, now: float) -> bytes | None:
        assert abs(now - time.monotonic()) < 1
        self.asked.append((octets, client))
        if octets[2:].startswith(b"late"):
            return None
        if octets[2:].startswith(b"junk"):
            return b""
        if octets[2:].startswith(b"big"):
            return octets[:2] + bytes(BIG)
        return octets

    def flush(self) -> None:
        self.flushed_at.append(len(self.asked))


@dataclass
class TcpHouse:
    """A served socket, and what a test needs to look into it."""

    resolver: Scripted
    server: TcpServer
    listener: Listener
    counters: Counters
    address: tuple[str, int]
    clients: list[Client] = field(default_factory=list)

    async def connect(self, local: str = "127.0.0.1") -> Client:
        reader, writer = await asyncio.open_connection(*self.address, local_addr=(local, 0))
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    @property
    def connection(self) -> ClientConnection:
        """The server's end of the only connection."""
        (connection,) = self.server._connections
        return connection

    def later(self, seconds: float) -> None:
        """Has the server look at its connections as if that much time had gone by."""
        self.server.sweep(time.monotonic() + seconds)

    async def until_asked(self, count: int) -> None:
        await until(lambda: len(self.resolver.asked) >= count)

    def deliver(self, index: int) -> None:
        octets, client = self.resolver.asked[index]
        self.listener.deliver(client, octets)


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *messages: bytes) -> None:
        self.writer.write(b"".join(map(frame, messages)))

    async def receive(self) -> bytes:
        length = int.from_bytes(await self.reader.readexactly(2), "big")
        return await self.reader.readexactly(length)

    async def is_closed(self) -> bool:
        """Waits until the server closed the connection; False if octets come instead."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 5) == b""
        except ConnectionError:
            return True


def make_listener() -> Listener:
    routes: Any = None  # the scripted resolver routes nothing
    return Listener("dns://127.0.0.1:53", "tcp", "1", routes, lambda client, reply: None)


@asynccontextmanager
async def serving(bounds: TcpBounds | None = None) -> AsyncIterator[TcpHouse]:
    counters = Counters()
    resolver = Scripted()
    sock = open_tcp(Address("127.0.0.1", 0))
    listener = make_listener()
    server = TcpServer(
        sock,
        listener,
        resolver,
        resolver.flush,
        counters,
        asyncio.get_running_loop(),
        bounds or TcpBounds(),
    )
    server.start()
    house = TcpHouse(resolver, server, listener, counters, sock.getsockname())
    try:
        yield house
    finally:
        await server.close(0.0)
        assert server.connection_count == 0
        sock.close()
        for client in house.clients:
            client.writer.transport.abort()
        await asyncio.sleep(0.01)


def test_a_query_is_answered_over_a_connection_that_stays_open(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            for text in (b"01first", b"02second"):
                client.send(text)
                assert await client.receive() == text
            assert house.server.connection_count == 1

    run(main())


def test_pipelined_queries_are_answered_in_any_order(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.send(b"00late", b"01late", b"02now", b"03late")
            await house.until_asked(4)
            assert await client.receive() == b"02now"
            for index in (3, 0, 1):
                house.deliver(index)
            received = [await client.receive() for _ in range(3)]
            assert received == [b"03late", b"00late", b"01late"]

    run(main())


def test_the_upstream_shell_is_driven_once_for_all_queries_of_a_chunk(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.send(*[b"00late"] * 20)
            await house.until_asked(20)
            await until(lambda: house.resolver.flushed_at == [20])

    run(main())


def test_queries_cut_at_every_octet_are_put_together(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.writer.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )
            for octet in frame(b"01split prefix") + frame(b"02again"):
                client.writer.write(bytes([octet]))
                await asyncio.sleep(0.001)
            assert await client.receive() == b"01split prefix"
            assert await client.receive() == b"02again"

    run(main())


@pytest.mark.parametrize("size", [1, 11, 16_381, 16_382, 16_383, 65_534, 65_535])
def test_messages_of_every_size_pass_whole(run: Run, size: int) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.send(b"x" * size, b"y" * size)
            assert await client.receive() == b"x" * size
            assert await client.receive() == b"y" * size

    run(main())


def test_a_half_closed_client_gets_its_answers_before_the_close(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.send(b"00late", b"01now", b"02late")
            client.writer.write_eof()
            assert await client.receive() == b"01now"
            house.deliver(2)
            house.deliver(0)
            assert await client.receive() == b"02late"
            assert await client.receive() == b"00late"
            assert await client.is_closed()

    run(main())


def test_a_client_that_ends_within_a_message_is_counted(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.writer.write(frame(b"00unfinished")[:-1])
            client.writer.write_eof()
            assert await client.is_closed()
            assert house.counters.drops == {"tcp_incomplete": 1}

    run(main())


def test_a_reply_for_a_client_that_left_is_counted_and_harmless(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.send(b"00late")
            await house.until_asked(1)
            client.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.writer.transport.abort()
            await until(lambda: house.server.connection_count == 0)
            house.deliver(0)
            assert house.counters.drops == {"tcp_client_gone": 1}

    run(main())


def test_a_reply_delivered_within_the_query_is_sent(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:

            def query(octets: bytes, listener: Listener, client: object, now: float) -> None:
                listener.deliver(client, octets)

            house.resolver.query = query  # type: ignore[method-assign]
            client = await house.connect()
            client.send(b"00at once", b"01too")
            assert await client.receive() == b"00at once"
            assert await client.receive() == b"01too"

    run(main())


def test_reading_pauses_while_too_many_queries_are_unanswered(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(unanswered=4)) as house:
            client = await house.connect()
            client.send(*[b"%02dlate" % n for n in range(10)])
            await house.until_asked(4)
            client.send(b"10late")
            await until(lambda: house.connection.stream.state is State.FULL)
            assert not house.connection.is_reading
            assert len(house.resolver.asked) == 4
            for index in range(11):
                await house.until_asked(index + 1)
                house.deliver(index)
                assert await client.receive() == b"%02dlate" % index
                assert len(house.resolver.asked) <= index + 5

    run(main())


def test_what_a_paused_client_sends_stays_in_the_kernel_and_with_the_client(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(unanswered=1)) as house:
            client = await house.connect()
            client.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536
            )
            client.send(*[b"00late" + bytes(1000)] * 16_000)
            await house.until_asked(1)
            await asyncio.sleep(0.3)
            assert client.writer.transport.get_write_buffer_size() > 4_000_000
            assert len(house.resolver.asked) == 1

    run(main())


def test_a_client_that_does_not_read_is_not_read_from_and_then_reset(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(blocked_s=1000)) as house:
            slow = await house.connect()
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.send(*[b"00big"] * 1000)
            await until(lambda: len(house.resolver.asked) > 0)
            await until(lambda: house.connection.stream.state is State.BLOCKED)
            assert not house.connection.is_reading
            house.later(900)
            assert house.counters.drops == {}
            house.later(1001)
            assert house.counters.drops == {"tcp_slow_client": 1}
            assert len(house.resolver.asked) < 500
            await until(lambda: house.server.connection_count == 0)
            quick = await house.connect()
            quick.send(b"01now")
            assert await quick.receive() == b"01now"

    run(main())


def test_a_client_that_reads_late_gets_everything(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(*[b"%02dbig" % n for n in range(100)])
            await until(lambda: len(house.resolver.asked) > 0)
            await until(lambda: house.connection.stream.state is State.BLOCKED)
            assert len(house.resolver.asked) < 100
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for index in range(100):
                assert await client.receive() == b"%02d" % index + bytes(BIG)
            assert house.counters.drops == {}

    run(main())


def test_late_replies_to_a_client_that_does_not_read_are_bounded(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(most_unsent_octets=200_000)) as house:
            slow = await house.connect()
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.send(*[b"00late"] * 128)
            await house.until_asked(128)
            for _, client in house.resolver.asked:
                house.listener.deliver(client, bytes(BIG))
                await asyncio.sleep(0)
            assert house.counters.drops["tcp_slow_client"] == 1
            assert house.counters.drops["tcp_client_gone"] > 50

    run(main())


def test_unsent_octets_of_all_clients_together_are_bounded(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(unsent_octets_in_all=100_000, sweep_s=0.05)) as house:
            for _ in range(4):
                slow = await house.connect()
                slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
                slow.send(*[b"00big"] * 1000)
            await until(lambda: house.counters.drops.get("tcp_slow_client", 0) >= 3)

    run(main())


def test_a_connection_whose_time_is_over_is_closed(run: Run) -> None:
    async def main() -> None:
        bounds = TcpBounds(first_octet_s=1000, idle_s=2000, sweep_s=0.01)
        async with serving(bounds) as house:
            silent, idle = await house.connect(), await house.connect()
            idle.send(b"00now")
            assert await idle.receive() == b"00now"
            await until(lambda: house.server.connection_count == 2)
            house.later(900)
            await asyncio.sleep(0.05)  # some looks of the server's own, by the real time
            assert house.server.connection_count == 2
            house.later(1100)
            assert await silent.is_closed()
            idle.send(b"01now")
            assert await idle.receive() == b"01now"
            house.later(2100)
            assert await idle.is_closed()
            assert house.counters.drops == {}

    run(main())


def test_the_server_looks_by_itself_for_connections_whose_time_is_over(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(first_octet_s=0.0, sweep_s=0.01)) as house:
            client = await house.connect()
            assert await client.is_closed()

    run(main())


def test_a_message_that_is_never_completed_closes_the_connection(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(message_s=1000, idle_s=5000)) as house:
            client = await house.connect()
            client.send(b"00now")
            assert await client.receive() == b"00now"
            client.writer.write(b"\0\xff")
            await until(lambda: not house.connection.is_idle)
            house.later(900)
            assert house.server.connection_count == 1
            house.later(1100)
            assert await client.is_closed()
            assert house.counters.drops == {"tcp_incomplete": 1}

    run(main())


def test_empty_messages_between_queries_are_passed_over(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(junk=3)) as house:
            client = await house.connect()
            for number in (0, 1, 2):
                client.send(b"", b"", b"%02dnow" % number)
                assert await client.receive() == b"%02dnow" % number
            assert house.counters.drops == {}

    run(main())


def test_a_client_that_sends_nothing_but_empty_messages_is_closed(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.send(b"00now", *[b""] * 8000, b"01now")
            assert await client.receive() == b"00now"
            assert await client.is_closed()
            assert house.counters.drops == {"tcp_junk": 1}
            assert len(house.resolver.asked) == 1 + house.server.bounds.junk

    run(main())


def test_junk_without_end_closes_the_connection(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(junk=3)) as house:
            client = await house.connect()
            client.send(b"00junk", b"01junk", b"02now")
            assert await client.receive() == b"02now"
            client.send(b"03junk", b"04junk", b"05junk", b"06now")
            assert await client.is_closed()
            assert house.counters.drops == {"tcp_junk": 1}
            assert len(house.resolver.asked) == 6

    run(main())


def test_when_all_connections_are_taken_the_longest_idle_one_goes(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(connections=3)) as house:
            clients = [await house.connect() for _ in range(3)]
            for client in (clients[1], clients[0], clients[2]):
                client.send(b"00now")
                assert await client.receive() == b"00now"
            newcomer = await house.connect()
            newcomer.send(b"01now")
            assert await newcomer.receive() == b"01now"
            assert await clients[1].is_closed()
            assert house.counters.drops == {"tcp_connection_limit": 1}
            assert house.server.connection_count == 3
            clients[0].send(b"02now")
            assert await clients[0].receive() == b"02now"

    run(main())


def test_when_no_connection_is_idle_the_newcomer_is_closed(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(connections=2)) as house:
            busy = [await house.connect() for _ in range(2)]
            for client in busy:
                client.send(b"00late")
            await house.until_asked(2)
            newcomer = await house.connect()
            assert await newcomer.is_closed()
            assert house.counters.drops == {"tcp_connection_limit": 1}
            for index, client in enumerate(busy):
                house.deliver(index)
                assert await client.receive() == b"00late"

    run(main())


def test_one_client_cannot_take_the_connections_of_another(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(connections_per_client=2)) as house:
            modest = await house.connect("127.0.0.2")
            modest.send(b"00now")
            assert await modest.receive() == b"00now"
            greedy = [await house.connect("127.0.0.3") for _ in range(5)]
            await until(lambda: house.counters.drops == {"tcp_client_limit": 3})
            assert await greedy[0].is_closed()
            assert house.server.connection_count == 3
            modest.send(b"01now")
            assert await modest.receive() == b"01now"

    run(main())


def test_a_flood_of_connections_leaves_service_and_bounds_intact(run: Run) -> None:
    async def main() -> None:
        async with serving(TcpBounds(connections=20)) as house:
            loyal = await house.connect()
            loyal.send(b"00late")
            await house.until_asked(1)
            flood = [await house.connect() for _ in range(200)]
            assert house.server.connection_count <= 20
            house.deliver(0)
            assert await loyal.receive() == b"00late"
            last = await house.connect()
            last.send(b"01now")
            assert await last.receive() == b"01now"
            for client in flood:
                client.writer.close()

    run(main())


def test_shutdown_answers_what_is_pending_and_closes_the_idle_at_once(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            idle, busy = await house.connect(), await house.connect()
            idle.send(b"00now")
            assert await idle.receive() == b"00now"
            busy.send(b"01late")
            await house.until_asked(2)
            closing = asyncio.create_task(house.server.close(10.0))
            assert await idle.is_closed()
            assert not closing.done()
            house.deliver(1)
            assert await busy.receive() == b"01late"
            assert await busy.is_closed()
            await asyncio.wait_for(closing, 1)

    run(main())


def test_shutdown_ends_after_its_grace_whatever_is_pending(run: Run) -> None:
    async def main() -> None:
        async with serving() as house:
            client = await house.connect()
            client.send(b"00late")
            await house.until_asked(1)
            await house.server.close(0.05)
            assert house.server.connection_count == 0
            assert house.counters.drops == {"tcp_shutdown": 1}
            assert await client.is_closed()

    run(main())


def test_connections_that_wait_in_the_socket_are_left_to_a_successor(run: Run) -> None:
    async def main() -> None:
        with open_tcp(Address("127.0.0.1", 0)) as sock:
            resolver = Scripted()
            listener = make_listener()
            loop = asyncio.get_running_loop()
            first, second = (
                TcpServer(sock, listener, resolver, resolver.flush, Counters(), loop)
                for _ in range(2)
            )
            first.start()
            await first.close(0.0)
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            writer.write(frame(b"00now"))
            second.start()
            assert await reader.readexactly(7) == frame(b"00now")
            writer.close()
            await second.close(0.0)

    run(main())


def starve(loop: str, case: str) -> str:
    """Serves in a process that has no descriptor left; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", STARVED, loop, case],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_without_descriptors_nothing_spins_and_service_goes_on_later(loop: str) -> None:
    assert starve(loop, "alone").split() == ["starved", "served"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_without_descriptors_an_idle_connection_makes_room(loop: str) -> None:
    assert starve(loop, "idle").strip() == "made room"


STARVED = textwrap.dedent("""
    import asyncio, os, resource, socket, sys, time
    import uvloop
    from nodecache.config.model import Address
    from nodecache.counters import Counters
    from nodecache.resolve.listener import Listener
    from nodecache.net.sockets import open_tcp
    from nodecache.net.tcp import TcpServer

    class Echo:
        def query(self, octets, listener, client, now):
            return octets

    async def main():
        loop = asyncio.get_running_loop()
        sock = open_tcp(Address("127.0.0.1", 0))
        listener = Listener("dns://127.0.0.1:53", "tcp", "1", None, None)
        counters = Counters()
        server = TcpServer(sock, listener, Echo(), lambda: None, counters, loop)
        server.start()
        client = socket.socket()
        has_idle = sys.argv[2] == "idle"
        idle = socket.create_connection(sock.getsockname())
        idle.setblocking(False)
        idle.send(b"\\0\\2hi")
        assert await loop.sock_recv(idle, 100) == b"\\0\\2hi"
        if not has_idle:
            idle.close()
            while server.connection_count:
                await asyncio.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        client.connect(sock.getsockname())
        client.send(b"\\0\\2hi")
        client.setblocking(False)
        if has_idle:
            assert await asyncio.wait_for(loop.sock_recv(client, 100), 3) == b"\\0\\2hi"
            assert counters.drops == {"tcp_accept_failed": 1}, counters.drops
            assert await loop.sock_recv(idle, 100) == b""
            print("made room")
            return
        cpu = time.process_time()
        await asyncio.sleep(1)
        assert time.process_time() - cpu < 0.3, "spins"
        assert 1 <= counters.drops["tcp_accept_failed"] <= 20, counters.drops
        print("starved")
        for fd in taken:
            os.close(fd)
        received = await asyncio.wait_for(loop.sock_recv(client, 100), 3)
        assert received == b"\\0\\2hi", received
        client.close()
        await server.close(1.0)
        sock.close()
        print("served")

    factory = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    """)
