from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.errors import ApiError
from nodecache.webhook.certificates.api import ApiClient, Reply, _receive, find_api_server
from nodecache.webhook.certificates.model import ApiServer
from tests import loops
from tests.cluster.api_server import ApiServer as FakeApiServer
from tests.cluster.authority import Authority
from tests.loops import Run

PATH = "/api/v1/namespaces/default"
OK = b"HTTP/1.1 200 OK\r\nDate: Tue, 01 Dec 2026 00:00:00 GMT\r\nContent-Length: 2\r\n\r\n{}"
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeApiServer]:
    with FakeApiServer() as server:
        yield server


@pytest.fixture
def place(fake: FakeApiServer, tmp_path: Path) -> ApiServer:
    """What a pod knows of the fake API server."""
    (tmp_path / "token").write_text(fake.admin_token + "\n")
    (tmp_path / "ca.crt").write_bytes(fake.ca_pem)
    port = int(fake.url.rpartition(":")[2])
    return ApiServer("127.0.0.1", port, str(tmp_path / "token"), str(tmp_path / "ca.crt"))


def complaint(run: Run, place: ApiServer, timeout_s: float = loops.PATIENCE_S) -> str:
    with pytest.raises(ApiError) as caught:
        run(ApiClient(place, timeout_s).get(PATH))
    return str(caught.value)


def answered(
    run: Run,
    folder: Path,
    behave: Behave,
    *,
    host: str = "127.0.0.1",
    certified: str = "",
    timeout_s: float = loops.PATIENCE_S,
) -> Reply:
    """Returns the reply of a server that behaves like this; the complaint about it is raised."""
    authority = Authority()
    (folder / "ca.crt").write_bytes(authority.ca_pem)
    (folder / "token").write_text("token")

    async def ask() -> Reply:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                outcome = behave(reader, writer)
                if asyncio.iscoroutine(outcome):
                    await outcome
            except (ConnectionError, ssl.SSLError):
                pass
            finally:
                writer.close()

        context = authority.server_context(certified or host)
        server = await asyncio.start_server(serve, host, 0, ssl=context)
        try:
            port = server.sockets[0].getsockname()[1]
            files = str(folder / "token"), str(folder / "ca.crt")
            return await ApiClient(ApiServer(host, port, *files), timeout_s).get(PATH)
        finally:
            server.close()

    return run(ask())


def say(*octets: bytes) -> Behave:
    def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in octets:
            writer.write(each)

    return behave


def test_an_object_is_read_over_verified_tls_with_the_pods_token(
    run: Run, place: ApiServer
) -> None:
    reply = run(ApiClient(place).get(PATH))
    assert reply.status == 200
    assert json.loads(reply.body)["metadata"]["name"] == "default"
    assert reply.date is not None
    assert abs(reply.date - datetime.now(UTC).timestamp()) < 600


def test_a_patch_is_carried_out(run: Run, place: ApiServer) -> None:
    body = b'{"metadata": {"labels": {"patched": "yes"}}}'
    reply = run(ApiClient(place).patch(PATH, "application/merge-patch+json", body))
    assert reply.status == 200
    assert json.loads(reply.body)["metadata"]["labels"]["patched"] == "yes"


def test_a_refusal_is_a_reply(run: Run, place: ApiServer) -> None:
    Path(place.token_file).write_text("nobody's")
    assert run(ApiClient(place).get(PATH)).status == 401


def test_token_and_ca_are_read_anew_for_each_request(
    run: Run, place: ApiServer, fake: FakeApiServer
) -> None:
    client = ApiClient(place)
    Path(place.token_file).write_text("expired")
    assert run(client.get(PATH)).status == 401
    Path(place.token_file).write_text(fake.admin_token)
    assert run(client.get(PATH)).status == 200
    Path(place.ca_file).write_bytes(Authority().ca_pem)
    with pytest.raises(ApiError, match="does not verify it"):
        run(client.get(PATH))


def test_ipv6_is_served_alike(run: Run, tmp_path: Path) -> None:
    assert answered(run, tmp_path, say(OK), host="::1").body == b"{}"


def test_the_date_is_that_of_the_api_server(run: Run, tmp_path: Path) -> None:
    reply = answered(run, tmp_path, say(OK))
    assert reply.date == datetime(2026, 12, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "date", [b"", b"Date: yesterday\r\n", b"Date: Tue, 01 Dec 9999 00:00:00 GMT\r\n"]
)
def test_a_date_that_cannot_be_is_none(run: Run, tmp_path: Path, date: bytes) -> None:
    octets = b"HTTP/1.1 200 OK\r\n" + date + b"Content-Length: 0\r\n\r\n"
    assert answered(run, tmp_path, say(octets)).date is None


def test_bodies_in_chunks_and_early_hints_are_read(run: Run, tmp_path: Path) -> None:
    octets = (
        b"HTTP/1.1 103 Early Hints\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    )
    assert answered(run, tmp_path, say(octets)).body == b"{}"


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"nonsense\r\n\r\n", "that is no HTTP"),
        (b"", "that is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "that is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "that is no HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000_000, "it is longer than 4 MiB"),
    ],
)
def test_answers_that_are_broken_or_too_long_are_complaints(
    run: Run, tmp_path: Path, octets: bytes, reason: str
) -> None:
    with pytest.raises(ApiError, match=reason):
        answered(run, tmp_path, say(octets))


class Heard:
    """What a channel would give, piece by piece."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 204 No Content\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 2\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"Date: \xff\r\n",
        b"\r\n",
        b"2\r\n{}\r\n",
        b"0\r\n\r\n",
        b"{}",
    ]
)


@given(st.lists(PIECES | st.binary(max_size=8), max_size=8))
def test_whatever_a_server_says_is_a_reply_or_no_http(pieces: list[bytes]) -> None:
    protocol = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target="/", headers=[("Host", "x")])
    for each in (request, h11.EndOfMessage()):
        protocol.send(each)
    with suppress(h11.RemoteProtocolError, StopIteration):
        _receive(protocol, Heard(pieces)).send(None)  # it waits for nothing


def test_an_answer_that_drips_ends_when_its_time_is_over(run: Run, tmp_path: Path) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    with pytest.raises(ApiError, match=r"127\.0\.0\.1:\d+: it took longer than 0\.5 s; check"):
        answered(run, tmp_path, drip, timeout_s=0.5)


def test_a_server_that_never_shakes_hands_is_given_up(run: Run, place: ApiServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = replace(place, port=mute.getsockname()[1])
        assert "it took longer than 0.5 s" in complaint(run, silent, 0.5)


def test_nobody_there_is_a_complaint_with_the_address(run: Run, place: ApiServer) -> None:
    text = complaint(run, replace(place, port=1))
    assert text.startswith("no answer from the API server at 127.0.0.1:1: ")
    assert text.endswith("check the pod's network and NetworkPolicies")
    assert "[::1]:1" in complaint(run, replace(place, host="::1", port=1))


def test_a_server_of_another_name_is_not_told_the_token(run: Run, tmp_path: Path) -> None:
    heard: list[object] = []
    with pytest.raises(ApiError, match=r"ca\.crt does not verify it: .*mismatch"):
        answered(run, tmp_path, lambda *_: heard.append("a request"), certified="192.0.2.1")
    assert heard == []


def test_a_pod_without_a_token_is_told_what_it_needs(run: Run, place: ApiServer) -> None:
    for missing in (replace(place, token_file="/x/token"), replace(place, ca_file="/x/ca.crt")):
        assert "automountServiceAccountToken: true" in complaint(run, missing)
    Path(place.token_file).write_text("two\r\nlines: x")
    assert "holds no token" in complaint(run, place)
    Path(place.token_file).write_text("token")
    Path(place.ca_file).write_text("nonsense")
    assert "holds no certificates" in complaint(run, place)
    Path(place.ca_file).write_bytes(b"\xff" * 10)
    assert "cannot be read" in complaint(run, place)


def test_a_pod_finds_its_api_server_in_the_environment() -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    expected = ApiServer("fd00::1", 6443, f"{folder}/token", f"{folder}/ca.crt")
    assert find_api_server(environ) == expected


@pytest.mark.parametrize(
    "environ",
    [{}, {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "tcp://x"}],
)
def test_outside_of_a_pod_there_is_none(environ: dict[str, str]) -> None:
    with pytest.raises(ApiError, match="run it in a pod, or give it a certificate by files"):
        find_api_server(environ)


def test_a_request_can_be_cancelled_at_any_moment(run: Run, place: ApiServer) -> None:
    async def ask(turns: int) -> bool:
        task = asyncio.create_task(ApiClient(place).get(PATH))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return task.cancelled()

    # uvloop would complain when it is closed, and run() of what a loop logs.
    assert sum(run(ask(turns)) for turns in range(20)) > 0
