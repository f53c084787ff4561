"""What directives bring to a running daemon, from one configuration to the next."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import dns.message

from nodecache.config.flags import Flags
from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.loading import Source
from nodecache.serving.blocks import Blocks
from nodecache.serving.directives import Notes, Watches
from tests.cache.building import NOW
from tests.config.reading import read_corefile
from tests.loops import run

TEMPLATE = "template ANY A {\nrcode NXDOMAIN\n}"


def block(*directives: str) -> Config:
    return read_corefile(". {\n" + "\n".join(directives) + "\n}\n")


def question(name: str) -> bytes:
    return dns.message.make_query(name, "A").to_wire()[12:]


def test_figures_of_templates_go_on_through_changes_and_end_with_the_block() -> None:
    counters = Counters()
    blocks = Blocks(1 << 20, counters)
    matches = []
    for config in (block(TEMPLATE), block(TEMPLATE, "hosts"), block("errors"), block(TEMPLATE)):
        (state,) = blocks.apply(config, NOW)
        if state.behind_cache is not None:
            assert state.behind_cache.plan(question("a.example")).plugin == "template"
        blocks.hand_in({state: "dns://x"})
        matches.append(counters.template_matches.get(("dns://x", ".", "IN", "A")))
    assert matches == [1, 2, 2, 3]
    blocks.apply(Config(()), NOW)
    (state,) = blocks.apply(block(TEMPLATE), NOW)
    counters.template_matches.clear()
    blocks.hand_in({state: "dns://x"})
    assert counters.template_matches == {}


def test_series_of_hosts_files_come_and_go_with_the_directive(tmp_path: Path) -> None:
    corefile, hosts = tmp_path / "Corefile", tmp_path / "hosts"
    hosts.write_text("192.0.2.1 a.test b.test\n")
    source = Source(Flags(localip=("127.0.0.1",), basecorefile=str(corefile)), {})
    counters = Counters()
    notes = Notes(counters)
    found = []
    for directive in ("errors", f"hosts {hosts} {{\nno_reverse\n}}", "errors"):
        corefile.write_text(f". {{\n{directive}\n}}\n")
        notes.note(source.load())
        found.append((dict(counters.hosts_entries), counters.hosts_changed_at))
    changed_at = hosts.stat().st_mtime
    assert found == [({}, 0.0), ({str(hosts): 2}, changed_at), ({}, 0.0)]


def test_looks_begin_with_the_first_block_that_asks_for_them_and_end_with_the_last() -> None:
    class Resolver:
        def __init__(self) -> None:
            self.looks = 0

        def look_for_loop(self, *_arguments: object) -> None:
            self.looks += 1

    async def main() -> list[int]:
        resolver, blocks, seen = Resolver(), Blocks(1 << 20, Counters()), []
        watches = Watches(cast("Any", resolver), lambda: None, asyncio.get_running_loop())
        forward = "forward . 192.0.2.1"
        for config in (block(forward), block(forward, "loop"), block(forward)):
            watches.watch(blocks.apply(config, NOW))
            await asyncio.sleep(0)
            seen.append(resolver.looks)
        assert watches.findings == []
        watches.stop()
        return seen

    assert run(main()) == [0, 1, 1]
