"""Upstreams over real sockets, right and wrong ones; on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import resource
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
import uvloop

from nodecache.config.model import (
    ROOT,
    Address,
    ForwardPolicy,
    SelectionPolicy,
    TlsSettings,
    Transport,
    Upstream,
)
from nodecache.counters import Counters
from nodecache.net.forward import UpstreamShell
from nodecache.resolve.results import Results
from nodecache.serving.pump import Pump
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.upstreams.forwarder import Forwarder
from nodecache.upstreams.room import MAX_CONNECTIONS
from nodecache.upstreams.wording import describe
from nodecache.wire.framing import frame
from nodecache.wire.reply import compose_upstream_query
from tests.net.fake_upstream import FakeUpstream, Peer, running, unused_port
from tests.upstreams.forwarding import answer, question

Run = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Run]:
    """Runs a coroutine on the loop; nothing may reach the log but our own warnings."""

    def run_it(main: Coroutine[None, None, None]) -> None:
        if request.param == "asyncio":
            asyncio.run(main)
        else:
            uvloop.run(main)

    with caplog.at_level(logging.INFO):
        yield run_it
    assert [r for r in caplog.records if r.name != "nodecache.net.forward"] == []
    assert [r for r in caplog.records if r.exc_info] == []


class Client:
    """A resolver that keeps nothing: submits exchanges and waits for their ends."""

    def __init__(self) -> None:
        self.counters = Counters()
        dice = random.Random()
        self.forwarder = Forwarder(self.counters, dice.random, lambda: dice.randrange(65536))
        self.told = 0
        self.failures: list[str] = []
        loop = asyncio.get_running_loop()
        self.pump = Pump(Results(), (self.forwarder,), lambda _: None, loop)
        self.shell = UpstreamShell(self.forwarder, loop, self._after)
        self.pump.ask_upstreams = self.shell.flush

    def _after(self) -> None:
        self.told += 1
        self.pump.flush()

    def ask(
        self, policy: ForwardPolicy, name: str = "a.cluster.local", patience_s: float = 4.5
    ) -> asyncio.Future[bytes | Failure]:
        done: asyncio.Future[bytes | Failure] = asyncio.get_running_loop().create_future()
        asked = question(name)
        now = monotonic()
        query = compose_upstream_query(asked, 0x0100, dnssec_ok=False)

        def take(exchange: Exchange, end: bytes | Failure, __: float) -> bool:
            if isinstance(end, Failure):
                self.failures.append(describe(exchange, end)[0])
            done.set_result(end)
            return True

        exchange = Exchange(asked, query, policy, now, now + patience_s, take)
        self.forwarder.submit(exchange, now)
        self.pump.flush()
        return done


@asynccontextmanager
async def clients() -> AsyncIterator[Client]:
    client = Client()
    try:
        yield client
    finally:
        client.pump.stop()
        await client.shell.close()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Client, FakeUpstream]]:
    async with running() as server, clients() as client:
        yield client, server


def to(*ports: int, transport: Transport = Transport.TCP) -> ForwardPolicy:
    upstreams = tuple(Upstream(Address("127.0.0.1", port), transport) for port in ports)
    return ForwardPolicy(ROOT, upstreams, selection=SelectionPolicy.SEQUENTIAL)


def is_answer(outcome: bytes | Failure) -> bool:
    return isinstance(outcome, bytes) and outcome[2] & 0x80 != 0


def first_connection_only(fault: Callable[[Peer, bytes], None]) -> Callable[[Peer, bytes], None]:
    def on_query(peer: Peer, query: bytes) -> None:
        if peer.number == 0:
            fault(peer, query)
        else:
            peer.send(answer(query))

    return on_query


def wrong_id(peer: Peer, query: bytes) -> None:
    peer.send(bytes([query[0] ^ 0x55]) + answer(query)[1:])


def wrong_question(peer: Peer, query: bytes) -> None:
    peer.send(answer(query).replace(b"cluster", b"clumsie"))


def half_a_message(peer: Peer, query: bytes) -> None:
    peer.send_raw(frame(answer(query))[:9])
    peer.close()


def half_a_message_and_silence(peer: Peer, query: bytes) -> None:
    peer.send_raw(frame(answer(query))[:9])


def silence(peer: Peer, query: bytes) -> None:
    """Says nothing."""


def junk(peer: Peer, query: bytes) -> None:
    peer.send_raw(b"\0\0" * 100 + os.urandom(200))


@pytest.mark.parametrize(
    "fault",
    [
        lambda peer, query: peer.close(),
        lambda peer, query: peer.reset(),
        wrong_id,
        wrong_question,
        half_a_message,
        half_a_message_and_silence,
        silence,
        junk,
    ],
    ids=[
        "EOF",
        "RST",
        "wrong ID",
        "wrong question",
        "half and EOF",
        "half and silence",
        "silence",
        "junk",
    ],
)
def test_a_faulty_connection_never_fails_the_query(
    run: Run, fault: Callable[[Peer, bytes], None]
) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            server.on_query = first_connection_only(fault)
            response = await client.ask(to(server.port))
            assert isinstance(response, bytes)
            query = server.peers[-1].queries[-1]
            assert response == answer(query)
            assert len(server.peers) == 2

    run(main())


def test_an_established_connection_that_resets_costs_nothing(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            assert is_answer(await client.ask(to(server.port)))
            server.on_query = first_connection_only(lambda peer, query: peer.reset())
            asked_at = monotonic()
            assert is_answer(await client.ask(to(server.port)))
            assert monotonic() - asked_at < 0.2

    run(main())


def test_one_connection_serves_many_queries(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            for n in range(50):
                assert is_answer(await client.ask(to(server.port), f"n{n}.cluster.local"))
            assert len(server.peers) == 1
            assert client.told >= 50

    run(main())


def test_many_queries_at_once_are_all_answered(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            counts: list[int] = []

            def count_and_answer(peer: Peer, query: bytes) -> None:
                counts.append(sum(pool.connection_counts().values()))
                peer.send(answer(query))

            server.on_query = count_and_answer
            policy = to(server.port)
            pool = client.forwarder.pool(policy.upstreams[0])
            names = [f"n{n}.cluster.local" for n in range(800)]
            asked = [client.ask(policy, name) for name in names]
            for name, outcome in zip(names, await asyncio.gather(*asked), strict=True):
                assert isinstance(outcome, bytes)
                assert question(name) in outcome
            assert max(counts) <= MAX_CONNECTIONS

    run(main())


def test_answers_out_of_order_and_in_pieces(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            held: dict[Peer, list[bytes]] = {}

            def on_query(peer: Peer, query: bytes) -> None:
                held.setdefault(peer, []).append(query)

            async def answer_backwards() -> None:
                await asyncio.sleep(0.02)
                for peer, queries in held.items():
                    octets = b"".join(frame(answer(query)) for query in reversed(queries))
                    for start in range(0, len(octets), 7):
                        peer.send_raw(octets[start : start + 7])
                        await asyncio.sleep(0)

            server.on_query = on_query
            asked = [client.ask(to(server.port), f"n{n}.cluster.local") for n in range(3)]
            await answer_backwards()
            outcomes = await asyncio.gather(*asked)
            for n, outcome in enumerate(outcomes):
                assert isinstance(outcome, bytes)
                assert question(f"n{n}.cluster.local") in outcome

    run(main())


def test_a_late_answer_is_discarded_without_harm(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            server.on_query = silence
            assert await client.ask(to(server.port), patience_s=0.1) is Failure.TIMED_OUT
            [peer] = server.peers
            server.on_query = lambda peer, query: peer.send(answer(query))
            peer.send(answer(peer.queries[0]))
            assert is_answer(await client.ask(to(server.port), "b.cluster.local"))
            assert "upstream_strays" not in client.counters.events

    run(main())


def test_a_60_kb_answer_arrives_whole(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            server.on_query = lambda peer, query: peer.send(answer(query, octets=bytes(60_000)))
            response = await client.ask(to(server.port))
            assert isinstance(response, bytes)
            assert len(response) > 60_000

    run(main())


def test_refused_connections_end_the_query_within_a_second(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with clients() as client:
            asked_at = monotonic()
            outcomes = await asyncio.gather(*[client.ask(to(unused_port())) for _ in range(20)])
            assert set(outcomes) == {Failure.UNREACHABLE}
            assert 0.2 < monotonic() - asked_at < 1.0

    run(main())
    assert "cannot be reached over tcp" in caplog.text


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.UDP])
def test_an_upstream_that_is_reached_again_is_logged_once_a_warning(
    run: Run, caplog: pytest.LogCaptureFixture, transport: Transport
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with clients() as client:
            port = unused_port()
            for _ in range(3):  # the warnings are 30 s apart
                assert isinstance(
                    await client.ask(to(port, transport=transport), patience_s=0.5), Failure
                )
                async with running(port=port) as server:
                    server.on_query = lambda peer, query: peer.send(answer(query))
                    assert is_answer(await client.ask(to(port, transport=transport)))

    run(main())
    kind = transport.value
    assert caplog.text.count(f"cannot be reached over {kind}") == 1
    assert len(re.findall(rf"is reached over {kind}, after \d+\.\d s", caplog.text)) == 1


def test_warnings_about_one_upstream_are_rare(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with clients() as client:
            policy = to(unused_port())
            for _ in range(3):
                await client.ask(policy)

    run(main())
    assert len(caplog.records) == 1


def test_a_refused_upstream_is_passed_over(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            asked_at = monotonic()
            assert is_answer(await client.ask(to(unused_port(), server.port)))
            assert monotonic() - asked_at < 0.2

    run(main())


def test_a_server_that_starts_late_answers_the_query_that_waited(run: Run) -> None:
    async def main() -> None:
        port = unused_port()
        async with clients() as client:
            asked = client.ask(to(port))
            await asyncio.sleep(0.08)
            async with running(port=port):
                assert is_answer(await asked)

    run(main())


def test_accept_then_hang_is_worked_on_until_the_deadline(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            server.on_query = silence
            asked_at = monotonic()
            assert await client.ask(to(server.port), patience_s=1.5) is Failure.TIMED_OUT
            assert 1.45 < monotonic() - asked_at < 1.8
            assert len(server.peers) <= 6

    run(main())


def test_a_full_backlog_is_a_connect_time_out(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            port = deaf.getsockname()[1]
            fillers = []
            try:
                for _ in range(4):
                    filler = socket.socket()
                    filler.setblocking(False)
                    filler.connect_ex(("127.0.0.1", port))
                    fillers.append(filler)
                async with clients() as client, running() as server:
                    asked_at = monotonic()
                    assert is_answer(await client.ask(to(port, server.port)))
                    assert monotonic() - asked_at < 0.5
                    assert await client.ask(to(port), patience_s=3.0) is Failure.UNREACHABLE
            finally:
                for filler in fillers:
                    filler.close()

    run(main())


def test_idle_connections_are_closed_on_time(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            upstream = Upstream(Address("127.0.0.1", server.port), Transport.TCP, expire_s=0.3)
            assert is_answer(await client.ask(ForwardPolicy(ROOT, (upstream,))))
            assert server.lost == 0
            await asyncio.sleep(0.5)
            assert server.lost == 1

    run(main())


def test_no_file_descriptors_is_a_failure_to_connect(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            assert is_answer(await client.ask(to(server.port, transport=Transport.UDP)))
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
            try:
                for transport in (Transport.TCP, Transport.UDP):
                    outcome = await client.ask(to(server.port, transport=transport))
                    assert outcome is Failure.UNREACHABLE
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await asyncio.sleep(1.1)
            for transport in (Transport.TCP, Transport.UDP):
                assert is_answer(await client.ask(to(server.port, transport=transport)))

    run(main())


def open_sockets() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("socket:")}


def test_closing_leaves_nothing_open(run: Run) -> None:
    async def main() -> None:
        before = open_sockets()
        async with running() as server:
            async with clients() as client:
                server.on_query = silence
                for n in range(10):
                    client.ask(to(server.port), f"n{n}.cluster.local")
                    client.ask(to(server.port, transport=Transport.UDP), f"n{n}.cluster.local")
                client.ask(to(unused_port()))
                await asyncio.sleep(0.05)
                client.ask(to(unused_port()), "last.cluster.local")
            await asyncio.sleep(0.05)
            assert server.lost == len(server.peers)
        await asyncio.sleep(0.05)
        assert open_sockets() == before

    run(main())


# UDP.


def test_each_udp_query_has_its_own_source_port(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            for n in range(20):
                policy = to(server.port, transport=Transport.UDP)
                assert is_answer(await client.ask(policy, f"n{n}.cluster.local"))
            ports = {source[1] for _, source in server.datagrams}
            assert len(ports) > 15

    run(main())


def test_strays_over_udp_are_ignored(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            server.on_datagram = lambda query: [
                query,
                os.urandom(40),
                bytes([query[0] ^ 1]) + answer(query)[1:],
                answer(query).replace(b"cluster", b"clumsie"),
                answer(query),
            ]
            outcome = await client.ask(to(server.port, transport=Transport.UDP))
            assert outcome == answer(server.datagrams[0][0])
            assert client.counters.events["upstream_strays"] == 4
            assert len(server.datagrams) == 1

    run(main())


def test_a_lost_datagram_is_repeated(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            server.on_datagram = lambda query: [answer(query)] if server.datagrams[1:] else []
            assert is_answer(await client.ask(to(server.port, transport=Transport.UDP)))
            assert len(server.datagrams) == 2

    run(main())


def test_a_refused_datagram_ends_the_query_soon(run: Run) -> None:
    async def main() -> None:
        async with clients() as client:
            asked_at = monotonic()
            policy = to(unused_port(), transport=Transport.UDP)
            assert await client.ask(policy) is Failure.UNREACHABLE
            assert monotonic() - asked_at < 1.0

    run(main())


def test_truncation_over_udp_is_repeated_over_tcp(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            server.on_datagram = lambda query: [answer(query, truncated=True)]
            server.on_query = lambda peer, query: peer.send(answer(query, octets=bytes(5000)))
            outcome = await client.ask(to(server.port, transport=Transport.UDP))
            assert isinstance(outcome, bytes)
            assert len(outcome) > 5000

    run(main())


def test_ipv6_upstreams_work(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        fake = FakeUpstream()
        try:
            server = await loop.create_server(lambda: Peer(fake), "::1", 0)
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = server.sockets[0].getsockname()[1]
        async with clients() as client:
            upstream = Upstream(Address("::1", port), Transport.TCP)
            assert is_answer(await client.ask(ForwardPolicy(ROOT, (upstream,))))
        server.close()
        await server.wait_closed()

    run(main())


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Returns the files of a certificate for dns.example and 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder: Path = tmp_path_factory.mktemp("tls")
    crt, key = str(folder / "crt.pem"), str(folder / "key.pem")
    subprocess.run(
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN=dns.example -addext subjectAltName=DNS:dns.example,IP:127.0.0.1"
        f" -keyout {key} -out {crt}".split(),
        check=True,
        capture_output=True,
    )
    return crt, key


def tls_policy(port: int, server_name: str, ca_file: str) -> ForwardPolicy:
    upstream = Upstream(
        Address("127.0.0.1", port),
        Transport.TLS,
        server_name=server_name,
        tls=TlsSettings(ca_file=ca_file),
    )
    return ForwardPolicy(ROOT, (upstream,))


def server_context(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.parametrize("server_name", ["dns.example", "dns.example.", ""])
def test_tls_with_a_good_certificate(
    run: Run, certificate: tuple[str, str], server_name: str
) -> None:
    async def main() -> None:
        async with running(server_context(certificate)) as server, clients() as client:
            policy = tls_policy(server.port, server_name, certificate[0])
            assert is_answer(await client.ask(policy))
            client.counters.fold()
            dialled = dict(client.counters.upstreams[0].dialled)
            assert dialled.keys() == {"tcp-tls"}  # more than once if a handshake takes 100 ms
            for _ in range(2):
                assert is_answer(await client.ask(policy))
            client.counters.fold()
            assert client.counters.upstreams[0].dialled == dialled

    run(main())


@pytest.mark.parametrize(
    ("server_name", "has_ca"), [("other.example", True), ("dns.example", False), ("a..b", True)]
)
def test_tls_with_a_bad_certificate_fails_and_says_why(
    run: Run,
    certificate: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
    server_name: str,
    has_ca: bool,
) -> None:
    async def main() -> None:
        async with running(server_context(certificate)) as server, clients() as client:
            policy = tls_policy(server.port, server_name, certificate[0] if has_ca else "")
            assert await client.ask(policy) is Failure.UNREACHABLE
            assert [peer.queries for peer in server.peers if peer.queries] == []
            assert server.datagrams == []

    run(main())
    assert "cannot be reached over tls" in caplog.text


def test_a_missing_ca_file_is_a_failure_to_connect(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with clients() as client:
            policy = tls_policy(unused_port(), "", "/nonexistent/ca.pem")
            assert await client.ask(policy) is Failure.UNREACHABLE

    run(main())
    assert "No such file" in caplog.text


def test_a_server_that_speaks_no_tls_gets_no_query(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            policy = tls_policy(server.port, "dns.example", "")
            assert await client.ask(policy, patience_s=15.0) is Failure.UNREACHABLE

    run(main())


# What is said of a failure.


def reset(peer: Peer, query: bytes) -> None:
    peer.reset()


def hang_up(peer: Peer, query: bytes) -> None:
    peer.close()


HERE = r"127\.0\.0\.1:[0-9]+"


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (reset, f"read tcp {HERE}->PEER: read: connection reset by peer"),
        (hang_up, "EOF"),
        (silence, f"read tcp {HERE}->PEER: i/o timeout"),
    ],
)
def test_stream_that_fails_is_told_in_the_words_of_coredns(
    run: Run, fault: Callable[[Peer, bytes], None], text: str
) -> None:
    async def main() -> None:
        async with pair() as (client, server):
            server.on_query = fault
            assert isinstance(await client.ask(to(server.port), patience_s=0.8), Failure)
            (told,) = client.failures
            assert re.fullmatch(text.replace("PEER", f"127.0.0.1:{server.port}"), told), told

    run(main())


@pytest.mark.parametrize(
    ("transport", "text"),
    [
        (Transport.TCP, "dial tcp PEER: connect: connection refused"),
        (Transport.TLS, "dial tcp PEER: connect: connection refused"),
        (Transport.UDP, f"read udp {HERE}->PEER: read: connection refused"),
    ],
)
def test_port_where_nobody_listens_is_told_in_the_words_of_coredns(
    run: Run, transport: Transport, text: str
) -> None:
    async def main() -> None:
        async with clients() as client:
            port = unused_port()
            assert await client.ask(to(port, transport=transport)) is Failure.UNREACHABLE
            (told,) = client.failures
            assert re.fullmatch(text.replace("PEER", f"127.0.0.1:{port}"), told), told

    run(main())


def test_silence_over_udp_is_told_in_the_words_of_coredns(run: Run) -> None:
    async def main() -> None:
        async with clients() as client:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
                deaf.bind(("127.0.0.1", 0))
                port = deaf.getsockname()[1]
                policy = to(port, transport=Transport.UDP)
                assert await client.ask(policy, patience_s=0.3) is Failure.TIMED_OUT
            (told,) = client.failures
            text = f"read udp {HERE}->127.0.0.1:{port}: i/o timeout"
            assert re.fullmatch(text, told), told

    run(main())


@pytest.mark.parametrize(
    ("server_name", "has_ca", "text"),
    [
        ("other.example", True, "x509: certificate is valid for others, not other.example"),
        ("dns.example", False, "x509: certificate signed by unknown authority"),
    ],
)
def test_bad_certificate_is_told_in_the_words_of_coredns(
    run: Run, certificate: tuple[str, str], server_name: str, has_ca: bool, text: str
) -> None:
    async def main() -> None:
        async with running(server_context(certificate)) as server, clients() as client:
            policy = tls_policy(server.port, server_name, certificate[0] if has_ca else "")
            assert await client.ask(policy) is Failure.UNREACHABLE
            (told,) = client.failures
            assert told == f"tls: failed to verify certificate: {text}"

    run(main())


def test_server_that_speaks_no_tls_is_told_in_the_words_of_coredns(run: Run) -> None:
    async def main() -> None:
        async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        async with clients() as client:
            server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                policy = tls_policy(port, "dns.example", "")
                assert await client.ask(policy) is Failure.UNREACHABLE
            (told,) = client.failures
            assert told == "tls: first record does not look like a TLS handshake"

    run(main())
