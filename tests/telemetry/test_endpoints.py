"""/metrics, /health and /ready on real loopback sockets, with good and bad clients."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodecache.config.model import Address
from nodecache.counters import Counters, QuerySeries, UpstreamSeries
from nodecache.errors import SocketError
from nodecache.net.sockets import open_http
from nodecache.telemetry import endpoints as endpoints_module
from nodecache.telemetry import http_server
from nodecache.telemetry.catalogue import Exposure
from nodecache.telemetry.endpoints import Endpoints
from nodecache.telemetry.health import Readiness, SelfCheck
from nodecache.telemetry.http_server import PageRequest, Response
from tests.loops import Run, until

ANY_PORT = Address("127.0.0.1", 0)
Scene = Callable[[Endpoints, Counters], Awaitable[None]]
Play = Callable[[Scene], None]


@pytest.fixture
def play(run: Run) -> Play:
    """Returns a function that runs a scene with endpoints that are stopped afterwards."""

    async def main(scene: Scene) -> None:
        counters = Counters()
        endpoints = Endpoints(counters, asyncio.get_running_loop(), open_http)
        try:
            await scene(endpoints, counters)
        finally:
            await endpoints.stop()

    return lambda scene: run(main(scene))


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


async def be_well() -> tuple[str, ...]:
    return ()


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


def test_health_says_what_is_wrong(play: Play) -> None:
    complaints: tuple[str, ...] = ("10.0.0.1:53 over TCP: no answer within 1 s", "and UDP, too")

    async def check() -> tuple[str, ...]:
        return complaints

    async def scene(endpoints: Endpoints, _: Counters) -> None:
        nonlocal complaints
        address = await endpoints.start_health(ANY_PORT, check)
        assert await get(address, "/health") == (503, "\n".join(complaints))
        status, text = await get(address, "/health?format=json")
        assert (status, json.loads(text)) == (503, {"healthy": False, "reasons": [*complaints]})
        complaints = ()
        assert await get(address, "/health") == (200, "OK")
        status, text = await get(address, "/health?format=json")
        assert (status, json.loads(text)) == (200, {"healthy": True, "reasons": []})

    play(scene)


def test_flood_of_health_requests_asks_once(play: Play) -> None:
    asked = 0

    async def ask_slowly() -> list[str]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return []

    async def scene(endpoints: Endpoints, _: Counters) -> None:
        check = SelfCheck(ask_slowly, asyncio.get_running_loop())
        address = await endpoints.start_health(ANY_PORT, check)
        replies = await asyncio.gather(*(get(address, "/health") for _ in range(30)))
        assert set(replies) == {(200, "OK")}
        assert asked == 1

    play(scene)


def test_ready_gives_reasons_and_details(play: Play) -> None:
    report = Readiness(False, ("no address is bound yet",))

    async def scene(endpoints: Endpoints, _: Counters) -> None:
        nonlocal report
        address = await endpoints.start_ready(ANY_PORT, lambda: report)
        assert await get(address, "/ready") == (503, "no address is bound yet")
        refused = "configuration of Corefile refused: line 3"
        report = Readiness(True)
        assert await get(address, "/ready") == (200, "OK")
        report = Readiness(True, details=(refused,))
        assert await get(address, "/ready") == (200, f"OK\n{refused}")
        report = Readiness(False, ("going down",), (refused,))
        assert await get(address, "/ready") == (503, f"going down\n{refused}")
        report = Readiness(True, details=(refused,))
        status, text = await get(address, "/ready?format=json")
        assert status == 200
        assert json.loads(text) == {
            "ready": True,
            "reasons": [],
            "details": [refused],
        }

    play(scene)


@pytest.mark.parametrize(
    ("path", "accept", "is_json"),
    [
        ("/ready", "application/json", True),
        ("/ready", "text/html, Application/JSON;q=0.9", True),
        ("/ready", "*/*", False),
        ("/ready", "application/jsonp", False),
        ("/ready?format=json", "*/*", True),
        ("/ready?format=text&format=json", "*/*", True),
        ("/ready?format=xml", "*/*", False),
        ("/ready?=&&=json", "*/*", False),
    ],
)
def test_json_is_for_who_asks_for_it(play: Play, path: str, accept: str, is_json: bool) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_ready(ANY_PORT, lambda: Readiness(True))
        request = f"GET {path} HTTP/1.1\r\nAccept: {accept}\r\n\r\n"
        response = await ask(address, request.encode())
        assert (b"Content-Type: application/json\r\n" in response) == is_json
        assert response.endswith(b"\r\n\r\nOK") != is_json

    play(scene)


def test_page_gets_path_and_fields_of_the_query(play: Play) -> None:
    async def show(request: PageRequest) -> Response:
        text = f"{request.path} {sorted(request.query.items())} {request.wants_json}"
        return Response(HTTPStatus.OK, text.encode())

    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_page(ANY_PORT, "/debug/profile", show)
        status, text = await get(address, "/debug/profile?seconds=5&seconds=6&raw=&sort=a%20b")
        fields = [("raw", ""), ("seconds", "6"), ("sort", "a b")]
        assert (status, text) == (200, f"/debug/profile {fields} False")

    play(scene)


def test_too_many_fields_are_a_bad_request(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_ready(ANY_PORT, lambda: Readiness(True))
        most = http_server.MAX_QUERY_FIELDS
        assert (await get(address, "/ready?" + "&".join(["a=1"] * most)))[0] == 200
        assert (await get(address, "/ready?" + "&".join(["a=1"] * (most + 1))))[0] == 400

    play(scene)


@pytest.mark.parametrize(
    ("exposures", "pages"),
    [
        ([Exposure.SERVING], ["serving setup"]),
        ([Exposure.SETUP], ["setup"]),
        ([Exposure.SERVING, Exposure.SETUP], ["serving", "setup"]),
        ([Exposure.SETUP, Exposure.SERVING], ["setup", "serving"]),
        ([Exposure.SERVING, Exposure.SERVING], ["serving setup", "serving setup"]),
        ([Exposure.SERVING, Exposure.ALL], ["serving", "serving setup"]),
    ],
)
def test_addresses_share_the_series_out(
    play: Play, exposures: list[Exposure], pages: list[str]
) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        addresses = [Address(f"127.0.0.{2 + number}", 0) for number in range(len(exposures))]
        pairs = zip(addresses, exposures, strict=True)
        bound = [await endpoints.start_metrics(address, shown) for address, shown in pairs]
        assert [await shown_at(address) for address in bound] == pages

    play(scene)


def test_address_named_twice_shows_everything(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT, Exposure.SERVING)
        assert await endpoints.start_metrics(ANY_PORT, Exposure.SETUP) == address
        assert await shown_at(address) == "serving setup"

    play(scene)


def test_set_up_series_move_when_their_address_is_gone(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        other = Address("127.0.0.2", 0)
        address = await endpoints.start_metrics(ANY_PORT, Exposure.SERVING)
        await endpoints.start_metrics(other, Exposure.SETUP)
        assert await shown_at(address) == "serving"
        await endpoints.stop_page(other, "/metrics")
        assert await shown_at(address) == "serving setup"

    play(scene)


def test_taken_set_up_address_leaves_its_series_where_they_can_be_seen(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT, Exposure.SERVING)
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = Address("127.0.0.1", other.getsockname()[1])
            with pytest.raises(SocketError):
                await endpoints.start_metrics(taken, Exposure.SETUP)
        assert await shown_at(address) == "serving setup"

    play(scene)


async def shown_at(address: Address) -> str:
    """Returns which parts the page at ``address`` shows."""
    text = (await get(address, "/metrics"))[1]
    parts = {"serving": "coredns_build_info", "setup": "nodecache_build_info"}
    return " ".join(part for part, name in parts.items() if f"# TYPE {name} " in text)


def test_former_names_are_shown_to_who_asks_for_them(play: Play) -> None:
    async def scene(_: Endpoints, counters: Counters) -> None:
        counters.upstreams.append(UpstreamSeries("10.96.0.10:53"))
        for legacy in (False, True):
            loop = asyncio.get_running_loop()
            endpoints = Endpoints(counters, loop, open_http, legacy_metrics=legacy)
            address = await endpoints.start_metrics(ANY_PORT)
            text = (await get(address, "/metrics"))[1]
            assert ("coredns_forward_healthcheck_failures_total{" in text) == legacy
            await endpoints.stop()

    play(scene)


def test_stopped_address_is_closed_and_others_stay(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        other = Address("127.0.0.2", 0)
        address = await endpoints.start_health(ANY_PORT, be_well)
        gone = await endpoints.start_health(other, be_well)
        await endpoints.stop_page(other, "/health")
        await endpoints.stop_page(other, "/health")
        with pytest.raises(ConnectionError):
            await ask(gone, b"GET /health HTTP/1.1\r\n\r\n")
        assert await get(address, "/health") == (200, "OK")
        assert await endpoints.start_health(gone, be_well) == gone
        assert await get(gone, "/health") == (200, "OK")

    play(scene)


def test_last_page_takes_the_listener_with_it(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, be_well)
        await endpoints.start_ready(ANY_PORT, lambda: Readiness(True))
        await endpoints.stop_page(ANY_PORT, "/health")
        assert b" 404 " in (await ask(address, b"GET /health HTTP/1.1\r\n\r\n")).splitlines()[0]
        assert await get(address, "/ready") == (200, "OK")
        await endpoints.stop_page(ANY_PORT, "/ready")
        with pytest.raises(ConnectionError):
            await ask(address, b"GET /ready HTTP/1.1\r\n\r\n")

    play(scene)


def test_own_requests_follow_health_to_another_address(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "OWN_REQUEST_INTERVAL_S", 0.01)

    async def scene(endpoints: Endpoints, counters: Counters) -> None:
        other = Address("127.0.0.2", 0)
        await endpoints.start_health(ANY_PORT, be_well)
        await endpoints.stop_page(ANY_PORT, "/health")
        await asyncio.sleep(0.05)
        await endpoints.start_health(other, be_well)
        seen = sum(counters.health_durations.counts)
        await until(lambda: sum(counters.health_durations.counts) > seen)
        assert counters.health_failures == 0

    play(scene)


def test_one_address_serves_both_pages_however_often_it_is_named(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_metrics(ANY_PORT)
        assert await endpoints.start_metrics(ANY_PORT) == address
        assert await endpoints.start_health(ANY_PORT, be_well) == address
        assert (await get(address, "/metrics"))[0] == 200
        assert (await get(address, "/health"))[0] == 200

    play(scene)


def test_page_exists_only_where_it_was_started(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, be_well)
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
        address = await endpoints.start_health(ANY_PORT, be_well)
        silent = await asyncio.open_connection(address.host, address.port)
        await endpoints.stop()
        assert await silent[0].read() == b""
        silent[1].close()
        with pytest.raises(ConnectionError):
            await ask(address, b"GET /health HTTP/1.1\r\n\r\n")
        assert await endpoints.start_health(address, be_well) == address
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
        address = await endpoints.start_health(ANY_PORT, be_well)
        response = await ask(address, request_octets)
        assert status in response.splitlines()[0]
        assert response.count(b"HTTP/1.") <= 1 or status != b"200"
        assert await get(address, "/health") == (200, "OK")

    play(scene)


def test_head_is_answered_without_body(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, be_well)
        response = await ask(address, b"HEAD /health HTTP/1.1\r\n\r\n")
        assert b" 200 " in response
        assert b"Content-Length: 2\r\n" in response
        assert response.endswith(b"\r\n\r\n")

    play(scene)


def test_request_may_come_octet_by_octet(play: Play) -> None:
    async def scene(endpoints: Endpoints, _: Counters) -> None:
        address = await endpoints.start_health(ANY_PORT, be_well)
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
        address = await endpoints.start_health(ANY_PORT, be_well)
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
        address = await endpoints.start_health(ANY_PORT, be_well)
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
        counters.gauges["tcp_connections"] = lambda: 1 // 0
        assert await ask(address, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        del counters.gauges["tcp_connections"]
        assert (await get(address, "/metrics"))[0] == 200

    play(scene)
    assert "a page failed" in caplog.text


def test_own_health_is_timed_and_its_failures_are_counted(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "OWN_REQUEST_INTERVAL_S", 0.01)

    async def scene(endpoints: Endpoints, counters: Counters) -> None:
        await endpoints.start_health(ANY_PORT, be_well)
        await until(lambda: sum(counters.health_durations.counts) >= 2)
        assert counters.health_failures == 0
        monkeypatch.setattr(endpoints_module, "_request_health", _refuse)
        await until(lambda: counters.health_failures >= 2)

    play(scene)


async def _refuse(_: Address) -> None:
    raise ConnectionRefusedError
