"""What of servers and caches is read only when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import monotonic

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.net.sockets import receive_drops
from nodecache.resolve.block import BlockState
from nodecache.serving.blocks import Blocks
from nodecache.serving.routes import cache_series
from nodecache.serving.server import Server


class Numbers:
    """Puts sizes and counts into the counters."""

    def __init__(
        self, servers: Mapping[Address, Server], blocks: Blocks, counters: Counters
    ) -> None:
        """Names the gauges; ``servers`` and ``blocks`` are looked at whenever they are read."""
        self._servers = servers
        self._blocks = blocks
        self._counters = counters
        # One of its servers shows what is counted once for a block, so that sums hold.
        self._server_of: dict[BlockState, str] = {}
        gauges = counters.gauges
        gauges["cache_octets"] = lambda: blocks.budget.octets
        gauges["packet_cache_octets"] = lambda: sum(s.packets.octets for s in servers.values())
        gauges["packet_cache_entries"] = lambda: sum(len(s.packets) for s in servers.values())
        gauges["tcp_connections"] = lambda: sum(s.tcp.connection_count for s in servers.values())
        counters.before_scrape.append(self._hand_in)
        counters.long_before_scrape.append(self._hand_in_slowly)

    def apply(self) -> None:
        """Takes note that servers and blocks are others now: the gauges are about their caches."""
        for series in self._counters.caches:
            series.entries.clear()
        self._server_of.clear()
        for server in self._servers.values():
            for state in server.states:
                self._server_of.setdefault(state, server.label)
                if state.messages is not None:
                    series = cache_series(self._counters, server.label, state)
                    series.entries["success"] = state.messages.success.__len__
                    series.entries["denial"] = state.messages.denial.__len__

    def _hand_in_slowly(self) -> Iterator[None]:
        for server in list(self._servers.values()):
            yield from server.packets.hand_in_slowly(monotonic())

    def _hand_in(self) -> None:
        now = monotonic()
        drops: dict[str, int] = {}
        for server in self._servers.values():
            server.packets.hand_in(now)
            # The wildcards of both families share a label.
            drops[server.label] = drops.get(server.label, 0) + receive_drops(server.udp_socket)
        self._counters.receive_drops |= drops
        self._blocks.hand_in(self._server_of)
        for state, label in self._server_of.items():
            if state.messages is not None:
                series = cache_series(self._counters, label, state)
                series.success_evictions = state.messages.success.evictions
                series.denial_evictions = state.messages.denial.evictions
