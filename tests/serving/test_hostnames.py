"""Upstreams that are named by a host follow its addresses, and outlive those who know them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

import nodecache.net.hostnames
from nodecache.config.flags import Flags
from nodecache.config.hostnames import with_addresses
from nodecache.config.model import (
    ROOT,
    Address,
    CachePolicy,
    Config,
    ForwardPolicy,
    HostName,
    NamedUpstream,
    ServerBlock,
    Upstream,
)
from nodecache.config.names import parse_name
from nodecache.counters import Counters
from nodecache.loading import Source
from nodecache.net.hostnames import Found
from nodecache.serving import hostnames, reloading
from nodecache.serving.reloading import Reloader
from tests.loops import run, until

SERVERS = (Address("192.0.2.53", 53),)
HOST = HostName(parse_name("up.test"), SERVERS)
OTHER = HostName(parse_name("other.test"), SERVERS)
FIXED = Upstream(Address("192.0.2.9", 5300))


def config_of(*destinations: Upstream | NamedUpstream | HostName) -> Config:
    named = tuple(
        NamedUpstream(each, Upstream(Address("", 5300))) if isinstance(each, HostName) else each
        for each in destinations
    )
    fixed = tuple(each for each in named if isinstance(each, Upstream))
    forward = ForwardPolicy(ROOT, fixed, destinations=named)
    block = ServerBlock((ROOT,), 53, cache=CachePolicy(), forwards=(forward,))
    return Config((block,), is_watched=False)


def upstreams(config: Config) -> list[str]:
    return [str(upstream.address) for upstream in config.blocks[0].forwards[0].upstreams]


class Bench(Source):
    """A reloader whose files are ``config``, and whose hosts are at ``found``."""

    def __init__(self, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(Flags(), {})
        self.config = config
        self.found: dict[HostName, Found] = {}
        self.asked: list[HostName] = []
        self.applied: list[Config] = []
        self.reloader = Reloader(self, config, self.applied.append, Counters())
        monkeypatch.setattr(nodecache.net.hostnames, "find_addresses", self._find)
        monkeypatch.setattr(hostnames, "_LEAST_S", 0.02)
        monkeypatch.setattr(hostnames, "_MOST_S", 0.04)
        monkeypatch.setattr(hostnames, "_PATIENCE_S", 0.2)
        monkeypatch.setattr(reloading, "_AT_REST_S", 0.001)

    def load(self) -> Config:
        return self.config

    async def _find(self, host: HostName) -> Found:
        self.asked.append(host)
        await asyncio.sleep(0)
        await until(lambda: host in self.found)
        return self.found[host]

    def live(self, story: Coroutine[Any, Any, None]) -> None:
        async def main() -> None:
            jobs: list[asyncio.Task[None]] = []
            self.applied.append(await self.reloader.begin())
            jobs = [
                asyncio.create_task(job) for job in (self.reloader.run(), self.reloader.hosts.run())
            ]
            await story
            for job in jobs:
                job.cancel()
            self.reloader.hosts.close()

        run(main())

    async def until(self, *wanted: str) -> None:
        await until(lambda: upstreams(self.applied[-1]) == list(wanted))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(config_of(HOST, FIXED), monkeypatch)


def test_addresses_are_known_before_the_first_query_in_the_order_of_the_corefile(
    bench: Bench,
) -> None:
    bench.found[HOST] = Found(("192.0.2.1", "192.0.2.2"), 60)

    async def story() -> None:
        assert upstreams(bench.applied[0]) == [
            "192.0.2.1:5300", "192.0.2.2:5300", "192.0.2.9:5300",
        ]  # fmt: skip

    bench.live(story())


def test_start_goes_on_without_who_does_not_answer_and_takes_the_address_later(
    bench: Bench,
) -> None:
    async def story() -> None:
        assert upstreams(bench.applied[0]) == ["192.0.2.9:5300"]
        bench.found[HOST] = Found(("192.0.2.1",), 60)
        await bench.until("192.0.2.1:5300", "192.0.2.9:5300")

    bench.live(story())


def test_host_that_moves_is_followed_and_told_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench.found[HOST] = Found(("192.0.2.1",), 1)

    async def story() -> None:
        bench.found[HOST] = Found(("192.0.2.2",), 1)
        await bench.until("192.0.2.2:5300", "192.0.2.9:5300")
        asked = len(bench.asked)
        await until(lambda: len(bench.asked) > asked + 3)

    bench.live(story())
    assert len(bench.applied) == 2
    assert caplog.text.count("up.test. is at 192.0.2.2") == 1


def test_last_known_addresses_stay_while_nobody_knows_any(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.found[HOST] = Found(("192.0.2.1",), 1)

    async def story() -> None:
        bench.found[HOST] = Found(trouble="192.0.2.53:53 does not answer")
        await until(lambda: bench.reloader.hosts.findings)
        assert upstreams(bench.applied[-1]) == ["192.0.2.1:5300", "192.0.2.9:5300"]
        (finding,) = bench.reloader.hosts.findings
        assert "does not answer; its addresses of before go on" in finding
        bench.found[HOST] = Found(("192.0.2.1",), 1)
        await until(lambda: not bench.reloader.hosts.findings)

    bench.live(story())
    assert len(bench.applied) == 1
    assert caplog.text.count("does not answer") == 1


def test_new_host_of_a_reload_is_known_before_it_is_in_force(bench: Bench) -> None:
    bench.found = {HOST: Found(("192.0.2.1",), 60), OTHER: Found(("192.0.2.3",), 60)}

    async def story() -> None:
        bench.config = config_of(OTHER)
        bench.reloader.ask()
        await bench.until("192.0.2.3:5300")
        asked = len(bench.asked)
        await asyncio.sleep(0.2)  # several times what asking again takes
        assert HOST not in bench.asked[asked:]

    bench.live(story())
    assert [upstreams(config) for config in bench.applied[1:]] == [["192.0.2.3:5300"]]


def test_host_that_moves_is_followed_although_the_files_are_wrong_by_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.found[HOST] = Found(("192.0.2.1",), 1)

    async def story() -> None:
        bench.reloader.refusal = "Corefile:1:1: nonsense"
        bench.found[HOST] = Found(("192.0.2.2",), 1)
        await bench.until("192.0.2.2:5300", "192.0.2.9:5300")
        assert bench.reloader.refusal == "Corefile:1:1: nonsense"

    bench.live(story())


def test_our_own_address_and_more_than_fifteen_are_left_out(bench: Bench) -> None:
    own = frozenset({Address("192.0.2.5", 53)})
    pattern = NamedUpstream(HOST, Upstream(Address("", 53)))
    config = config_of(pattern)
    config = replace(config, own_addresses=own)
    found = tuple(f"192.0.2.{n}" for n in range(1, 30))
    (block,) = with_addresses(config, {HOST: found}).blocks
    hosts = [upstream.address.host for upstream in block.forwards[0].upstreams]
    assert hosts == [f"192.0.2.{n}" for n in range(1, 17) if n != 5]


def test_configuration_without_hosts_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(config_of(FIXED), monkeypatch)

    async def story() -> None:
        await asyncio.sleep(0.1)

    bench.live(story())
    assert bench.asked == []
