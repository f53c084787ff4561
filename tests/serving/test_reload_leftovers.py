"""A reload leaves nothing in cycles: a search for them would walk over all that is cached."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from time import monotonic

import pytest

from nodecache.config.flags import parse_flags
from nodecache.loading import Source
from nodecache.net.listening import ListeningSockets
from nodecache.serving.daemon import Daemon
from tests.loops import run
from tests.net.fake_upstream import unused_port

PLAIN = "errors"
MANY = """errors {
  consolidate 5m ".*timeout$"
 }
 loadbalance
 log
 loop
 prometheus 127.0.0.1:%d
 health 127.0.0.1:%d
 rewrite name suffix .rewritten.test. .example.
 hosts {
  192.0.2.1 host.test
  fallthrough
 }
 template IN A template.test {
  answer "{{ .Name }} 60 IN A 192.0.2.2"
  fallthrough
 }"""


def left_in_cycles() -> list[str]:
    """Returns the types of ours that only a search for cycles can free, and frees them."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = [type(each) for each in gc.garbage]
    gc.garbage.clear()
    gc.collect()
    return [str(each) for each in found if each.__module__.startswith("nodecache")]


@pytest.mark.parametrize("directives", [PLAIN, MANY], ids=["plain", "many"])
def test_what_a_reload_replaces_is_free_without_a_search_for_cycles(
    tmp_path: Path, directives: str
) -> None:
    if directives is MANY:
        directives %= unused_port(), unused_port()
    port = unused_port()
    path = tmp_path / "Corefile"

    def write(cap_s: int, upstream: int) -> None:
        path.write_text(
            f".:{port} {{\n bind 127.0.0.1\n cache {cap_s}\n {directives}\n"
            f" forward . 127.0.0.1:{upstream}\n}}\n"
        )

    async def main() -> None:
        write(300, 5301)
        words = ["-localip", "127.0.0.1", "-setupinterface=false", "-setupiptables=false"]
        words += ["-conf", str(path), "-basecorefile", str(path), "-rundir", ""]
        flags, faults = parse_flags([*words, "-metrics-listen-address", ""])
        assert faults == []
        source, sockets = Source(flags, {}), ListeningSockets({})
        daemon = Daemon(source.load(), source, sockets, asyncio.get_running_loop())
        daemon.prepare()
        daemon.start()
        await daemon.wait_for_pages()
        try:
            found = []
            gc.disable()
            for cap_s, upstream in ((200, 5301), (100, 5302), (50, 5302)):
                left_in_cycles()
                write(cap_s, upstream)
                daemon._go_over(source.load())
                await asyncio.sleep(0.05)
                while daemon.blocks.sweep(monotonic()):
                    pass
                await daemon.wait_for_pages()
                found.append(left_in_cycles())
            assert found == [[], [], []]
        finally:
            gc.enable()
            await daemon.close()
            sockets.close()

    run(main())
