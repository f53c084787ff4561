"""How long the TCP clients of one address may take: the longest times that its blocks ask for."""

from __future__ import annotations

from nodecache.config.model import Timeouts
from nodecache.net.stream import TcpBounds
from nodecache.serving.server import tcp_bounds


def test_without_timeouts_the_bounds_are_our_own() -> None:
    assert tcp_bounds([None, None]) == TcpBounds()
    assert tcp_bounds([Timeouts()]) == TcpBounds()


def test_longest_of_each_time_holds_for_all_blocks_of_an_address() -> None:
    bounds = tcp_bounds(
        [Timeouts(read_s=3.0, idle_s=20.0), None, Timeouts(read_s=7.0, write_s=2.0)]
    )
    assert (bounds.first_octet_s, bounds.message_s) == (7.0, 7.0)
    assert (bounds.blocked_s, bounds.idle_s) == (2.0, 20.0)
