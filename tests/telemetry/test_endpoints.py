"""/metrics and /health on real loopback sockets, with good and bad clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from hypothesis import example, given
from hypothesis import strategies as st

from nodecache.config.model import Address
from nodecache.counters import Counters, QuerySeries
from nodecache.errors import SocketError
from nodecache.telemetry import endpoints as endpoints_module
from nodecache.telemetry import http_server
from nodecache.telemetry.endpoints import Endpoints

ANY_PORT = Address("127.0.0.1", 0)
Scene = Callable[[Endpoints, Counters], Awaitable[None]]
Play = Callable[[Scene], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Play:
    """Returns a function that runs a scene with endpoints that are stopped afterwards."""

    async def run(scene: Scene) -> None:
        counters = Counters()
        endpoints = Endpoints(counters, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(30):
                await scene(endpoints, counters)
        finally:
            await endpoints.stop()

    return lambda scene: request.param(run(scene))


async def ask(address: Address, request: bytes) -> bytes:
    """Sends ``request`` and returns all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def get(address: Address, path: str) -> tuple[int, str]:
    """Returns status and body of a GET."""
    octets = await ask(address, f"GET {path} HTTP/1.1\r\nHost: node\r\n\r\n".encode())
    head, _, body = octets.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return int(head.split()[1]), body.decode()


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for something that other tasks bring about."""
    while not is_so():  # noqa: ASYNC110 (plain integers have no event to wait for)
        await asyncio.sleep(0.01)


def test_metrics_shows_what_was_counted(play: Play) -> None:
    async def scene(endpoints: Endpoints, counters: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT)
        series = QuerySeries("dns://127.0.0.1:53", ".", "udp", "1")
        counters.queries.append(series)
        for queries in (1, 2):
            series.count_query(1, 40, wants_dnssec=False)
            status, text = await get(address, "/metrics")
            assert status == 200
            assert f'type="A",view="",zone="."}} {queries}.0\n' in text

    play(scene)


def test_health_follows_the_daemon(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        healthy = True
        address = await endpoints.start_health(ANY_PORT, lambda: healthy)
        assert await get(address, "/health") == (200, "OK")
        healthy = False
        assert await get(address, "/health") == (503, "Service Unavailable")

    play(scene)


def test_one_address_serves_both_pages_however_often_it_is_named(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT)
        assert await endpoints.start_metrics(ANY_PORT) == address
        assert await endpoints.start_health(ANY_PORT, lambda: True) == address
        assert (await get(address, "/metrics"))[0] == 200
        assert (await get(address, "/health"))[0] == 200

    play(scene)


def test_page_exists_only_where_it_was_started(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, lambda: True)
        assert b"404" in (await ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")).splitlines()[0]

    play(scene)


def test_address_in_use_is_an_error_that_says_what_to_do(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = Address("127.0.0.1", other.getsockname()[1])
            with pytest.raises(SocketError, match=rf"{address}.*another process listens there"):
                await endpoints.start_metrics(address)
        assert (await get(await endpoints.start_metrics(address), "/metrics"))[0] == 200

    play(scene)


def test_stopped_endpoints_listen_no_more_and_can_start_again(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, lambda: True)
        silent = await asyncio.open_connection(address.host, address.port)
        await endpoints.stop()
        assert await silent[0].read() == b""
        silent[1].close()
        with pytest.raises(ConnectionError):
            await ask(address, b"GET /health HTTP/1.1\r\n\r\n")
        assert await endpoints.start_health(address, lambda: True) == address
        assert (await get(address, "/health"))[0] == 200

    play(scene)


@pytest.mark.parametrize(
    ("request_octets", "status"),
    [
        (b"POST /health HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"405"),
        (b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 9000, b"431"),
        (b"GET /health HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /health OTHER/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET /health?verbose=1 HTTP/1.1\n\n", b"200"),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", b"200"),
        (b"GET /health HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\n\r\n", b"200"),
    ],
)
def test_each_request_gets_the_status_it_deserves(
    play: Play, request_octets: bytes, status: bytes
) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, lambda: True)
        response = await ask(address, request_octets)
        assert status in response.splitlines()[0]
        assert response.count(b"HTTP/1.") <= 1 or status != b"200"
        assert await get(address, "/health") == (200, "OK")

    play(scene)


def test_head_is_answered_without_body(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, lambda: True)
        response = await ask(address, b"HEAD /health HTTP/1.1\r\n\r\n")
        assert b" 200 " in response
        assert b"Content-Length: 2\r\n" in response
        assert response.endswith(b"\r\n\r\n")

    play(scene)


def test_request_may_come_octet_by_octet(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, lambda: True)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        for octet in b"GET /health HTTP/1.1\r\n\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(0)
        assert (await reader.read()).endswith(b"OK")
        writer.close()

    play(scene)


def test_client_may_close_its_side_after_asking(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        writer.write_eof()
        assert b"coredns_build_info" in await reader.read()
        writer.close()

    play(scene)


def test_client_that_closes_without_asking_is_let_go(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET /met")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()

    play(scene)


@given(st.binary(max_size=600) | st.binary(max_size=200).map(lambda tail: b"GET /" + tail))
@example(b"")
@example(b"\r\n\r\n")
@example(b"GET\x00/ HTTP/1.1\r\n\xff: \x80\r\n\r\n")
def test_any_head_is_refused_or_names_a_path(head: bytes) -> None:
    request = http_server.Request(head)
    octets = request.refusal or request.compose_error(404)
    assert octets.startswith(b"HTTP/1.0 ")


def test_silent_clients_do_not_lock_out_a_health_probe(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, lambda: True)
        silent = [
            await asyncio.open_connection(address.host, address.port)
            for _ in range(http_server.MAX_CONNECTIONS + 5)
        ]
        assert await get(address, "/health") == (200, "OK")
        assert await silent[0][0].read() == b""
        for connection in silent:
            connection[1].close()

    play(scene)


def test_slow_client_is_cut_off(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_S", 0.05)

    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, lambda: True)
        assert await ask(address, b"GET /health") == b""

    play(scene)


def test_client_that_leaves_during_a_scrape_harms_nobody(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT)
        await get(address, "/metrics")
        writer = (await asyncio.open_connection(address.host, address.port))[1]
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        waiting = asyncio.create_task(get(address, "/metrics"))
        await asyncio.sleep(0.01)
        writer.transport.abort()
        assert (await waiting)[0] == 200

    play(scene)


def test_scrapes_that_wait_together_share_one_rendering(play: Play) -> None:
    async def scene(endpoints: Endpoints, counters: Counters) -> None:
        renderings: list[None] = []
        counters.before_scrape.append(lambda: renderings.append(None))
        address = await endpoints.start_metrics(ANY_PORT)
        await get(address, "/metrics")
        replies = await asyncio.gather(*(get(address, "/metrics") for _ in range(20)))
        assert {status for status, _ in replies} == {200}
        assert len(renderings) <= 4

    play(scene)


def test_failing_gauge_ends_the_scrape_and_nothing_else(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(endpoints: Endpoints, counters: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT)
        counters.gauges["broken"] = lambda: 1 // 0
        assert await ask(address, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        del counters.gauges["broken"]
        assert (await get(address, "/metrics"))[0] == 200

    play(scene)
    assert "a page failed" in caplog.text


def test_own_health_is_timed_and_its_failures_are_counted(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "SELF_CHECK_INTERVAL_S", 0.01)

    async def scene(endpoints: Endpoints, counters: Counters) -> None:
        await endpoints.start_health(ANY_PORT, lambda: True)
        await until(lambda: sum(counters.health_durations.counts) >= 2)
        assert counters.health_failures == 0
        monkeypatch.setattr(endpoints_module, "_request_health", _refuse)
        await until(lambda: counters.health_failures >= 2)

    play(scene)


async def _refuse(_: Address) -> None:
    raise ConnectionRefusedError
