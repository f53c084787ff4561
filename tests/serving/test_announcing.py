from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, cast

import pytest

from nodecache import __version__
from nodecache.config.model import Address, Config
from nodecache.counters import Counters
from nodecache.serving.announcing import announce, announce_change, describe
from nodecache.serving.blocks import Blocks
from tests.cache.building import NOW
from tests.config.reading import read_corefile

TWO = """
cluster.local in-addr.arpa {
    forward . 192.0.2.1 192.0.2.2 {
        force_tcp
    }
}
. {
    forward . 192.0.2.3
}
"""
ADDRESS = Address("127.0.0.15", 53)


@pytest.fixture(autouse=True)
def _every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nodecache")


class FakeServer:
    """As much of a server as is announced."""

    def __init__(self, config: Config) -> None:
        blocks = Blocks(1 << 20, Counters())
        blocks.apply(config, NOW)
        self.states = blocks.states


def servers(config: Config) -> Any:
    return {ADDRESS: cast("Any", FakeServer(config))}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_start_says_what_listens_forwards_and_caches(caplog: pytest.LogCaptureFixture) -> None:
    config = replace(read_corefile(TWO), cache_octets=3 << 20, warnings=("mind the gap",))
    announce(config, servers(config))
    assert lines(caplog) == [
        "mind the gap",
        f"nodecache {__version__}",
        "on 127.0.0.15:53: cluster.local. in-addr.arpa. -> tcp://192.0.2.1:53, tcp://192.0.2.2:53",
        "on 127.0.0.15:53: . -> udp://192.0.2.3:53",
        "caching up to 3 MiB in all",
    ]


def test_quiet_start_says_warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    config = replace(read_corefile(TWO), quiet=True, warnings=("mind the gap",))
    announce(config, servers(config))
    assert lines(caplog) == ["mind the gap"]


def test_reload_says_what_is_new_and_nothing_twice(caplog: pytest.LogCaptureFixture) -> None:
    before = replace(read_corefile(TWO), warnings=("mind the gap",))
    text = TWO.replace("192.0.2.3", "192.0.2.4")
    config = replace(read_corefile(text), warnings=("mind the gap", "wet paint"))
    announce_change(config, before, servers(config))
    assert lines(caplog) == [
        "wet paint",
        "configuration loaded: 2 server blocks on 1 addresses",
        "now: . -> udp://192.0.2.4:53",
    ]


@pytest.mark.parametrize(
    ("inside", "answering"),
    [
        ("forward . tls://192.0.2.9", "tls://192.0.2.9:853"),
        ("forward . 192.0.2.9:5300", "udp://192.0.2.9:5300"),
        ("whoami", "whoami"),
        ("", "nobody"),
        ("rewrite name a.example b.example\nforward . 192.0.2.9", "rewrite, udp://192.0.2.9:53"),
    ],
)
def test_block_is_described_by_who_answers(inside: str, answering: str) -> None:
    (block,) = read_corefile(f"example {{\n{inside}\n}}").blocks
    assert describe(block) == f"example. -> {answering}"
