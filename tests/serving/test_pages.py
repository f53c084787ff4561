"""Pages come and go with the configuration; what they say is tested in tests/telemetry."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.net.listening import ListeningSockets
from nodecache.serving import pages as module
from nodecache.serving.pages import Pages
from tests.config.reading import read_corefile
from tests.daemon.processes import HOST, free_port
from tests.loops import PATIENCE_S, run, until
from tests.telemetry.test_endpoints import get

NO_ADDRESSES: Sequence[Address] = ()  # nobody to ask, so /health is well


class Desk:
    """Pages, with the sockets that they have."""

    def __init__(self) -> None:
        self.details: list[str] = []
        self.sockets = ListeningSockets({})
        self.pages = Pages(
            Counters(),
            lambda: NO_ADDRESSES,
            b"",
            lambda: self.details,
            self.sockets,
            asyncio.get_running_loop(),
            legacy_metrics=False,
        )

    async def apply(self, *directives: str, setup: Address | None = None) -> None:
        config = read_corefile("\n".join((". {", *directives, "}")))
        self.pages.apply(replace(config, setup_metrics=setup))
        await self.pages.wait_until_tried()

    @property
    def open(self) -> set[int]:
        return {int(name.rpartition(":")[2]) for name in self.sockets.all}


def at_desk(scene: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        desk = Desk()
        try:
            await scene(desk)
        finally:
            await desk.pages.close()
            desk.sockets.close()

    run(main())


async def status(port: int, path: str) -> int | None:
    """Returns what a page says, None while nobody listens there."""
    try:
        return (await get(Address(HOST, port), path))[0]
    except ConnectionError:
        return None


async def until_open(port: int, path: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await status(port, path) != 200:  # noqa: ASYNC110 # a port tells nobody
            await asyncio.sleep(0.01)


def test_each_page_is_where_the_configuration_wants_it() -> None:
    metrics, health, ready, profiles = (free_port() for _ in range(4))

    async def scene(desk: Desk) -> None:
        await desk.apply(
            f"prometheus {HOST}:{metrics}", f"health {HOST}:{health}",
            f"ready {HOST}:{ready}", f"pprof {HOST}:{profiles}",
        )  # fmt: skip
        await until_open(metrics, "/metrics")
        await until_open(health, "/health")
        await until_open(ready, "/ready")
        await until_open(profiles, "/debug/pprof/heap")
        assert desk.open == {metrics, health, ready, profiles}
        assert await status(health, "/metrics") == 404

    at_desk(scene)


def test_pages_of_one_address_share_its_socket() -> None:
    port = free_port()

    async def scene(desk: Desk) -> None:
        await desk.apply(f"prometheus {HOST}:{port}", f"ready {HOST}:{port}")
        await until_open(port, "/metrics")
        await until_open(port, "/ready")
        assert desk.open == {port}

    at_desk(scene)


def test_page_that_is_wanted_no_more_is_closed_and_others_keep_their_sockets() -> None:
    metrics, old, new = (free_port() for _ in range(3))

    async def scene(desk: Desk) -> None:
        await desk.apply(f"prometheus {HOST}:{metrics}", f"ready {HOST}:{old}")
        await until_open(metrics, "/metrics")
        await until_open(old, "/ready")
        before = desk.sockets.all[f"http {HOST}:{metrics}"]
        await desk.apply(f"prometheus {HOST}:{metrics}", f"ready {HOST}:{new}")
        await until_open(new, "/ready")
        assert desk.sockets.all[f"http {HOST}:{metrics}"] is before
        assert await status(metrics, "/metrics") == 200
        assert await status(old, "/ready") is None
        assert desk.open == {metrics, new}

    at_desk(scene)


def test_taken_port_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.02)
    caplog.set_level(logging.INFO, "nodecache")
    port, other = free_port(), free_port()

    async def scene(desk: Desk) -> None:
        with socket.create_server((HOST, port)):
            await desk.apply(f"prometheus {HOST}:{port}", f"ready {HOST}:{other}")
            await until_open(other, "/ready")
            await until(lambda: caplog.text.count("next try in 0.02 s") >= 2)
            assert f"{HOST}:{port}" in caplog.text
        await until_open(port, "/metrics")

    at_desk(scene)


def test_page_that_is_tried_again_can_be_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.02)
    port = free_port()

    async def scene(desk: Desk) -> None:
        with socket.create_server((HOST, port)):
            await desk.apply(f"prometheus {HOST}:{port}")
            await until(lambda: "next try" in caplog.text)
            await desk.apply()
        told = caplog.text.count("next try")
        other = free_port()
        await desk.apply(f"ready {HOST}:{other}")
        await until_open(other, "/ready")
        assert desk.open == {other}
        assert caplog.text.count("next try") == told

    at_desk(scene)


def test_ready_tells_details_and_that_we_leave() -> None:
    port = free_port()

    async def scene(desk: Desk) -> None:
        desk.details = ["the Corefile is refused"]
        await desk.apply(f"ready {HOST}:{port}")
        await until_open(port, "/ready")
        _, text = await get(Address(HOST, port), "/ready?format=json")
        assert json.loads(text)["details"] == ["the Corefile is refused"]
        desk.pages.is_leaving = True
        code, text = await get(Address(HOST, port), "/ready")
        assert code == 503
        assert "going down" in text

    at_desk(scene)


def test_one_address_for_all_metrics_has_one_page_of_all() -> None:
    port = free_port()

    async def scene(desk: Desk) -> None:
        await desk.apply(f"prometheus {HOST}:{port}", setup=Address(HOST, port))
        await until_open(port, "/metrics")
        _, text = await get(Address(HOST, port), "/metrics")
        assert "coredns_nodecache_setup_errors_total" in text
        assert "coredns_forward_healthcheck_broken_total" in text

    at_desk(scene)
