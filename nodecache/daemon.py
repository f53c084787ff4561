"""The composition root: builds every part from one Config, serves, and takes it all down again.

No policy of its own. Whatever the network layer finds out goes through ``_after``, which hands
replies to their listeners; that, the two timers and the tick of each second are all that moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import socket
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from nodecache import __version__
from nodecache.cache.packet import PacketCache
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import ROOT, Address, Config, NxdomainScope, ServerBlock
from nodecache.counters import CacheSeries, Counters, QuerySeries
from nodecache.engine.block import BlockState
from nodecache.engine.forwarder import Forwarder
from nodecache.engine.listener import Listener
from nodecache.engine.resolver import Resolver
from nodecache.engine.zones import ServedZone, Zones
from nodecache.errors import SocketError
from nodecache.net.forward import UpstreamShell
from nodecache.net.sockets import open_tcp, open_udp, raise_descriptor_limit
from nodecache.net.tcp import TcpServer
from nodecache.net.udp import UdpServer, seal_for_this_platform, udp_server_class
from nodecache.telemetry.endpoints import Endpoints
from nodecache.telemetry.errorlog import ErrorLog

logger = logging.getLogger("nodecache")

# Part of the octet budget that holds ready replies; the rest holds the messages they are made of.
_PACKET_PART = 0.25
_MOST_PACKETS = 16_384  # of one listening address
_TICK_S = 1.0
_ENDPOINT_RETRY_S = 10.0
# node-cache gives its listeners 5 s to finish what they have.
_GRACE_S = 5.0
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 # what a block without ``bind`` asks for


def run(config: Config) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code.

    Raises:
        SocketError: An address to serve DNS on cannot be used.
    """
    logging.basicConfig(format="[%(levelname)s] %(message)s", level=logging.INFO, stream=sys.stderr)
    raise_descriptor_limit()
    _tune_collector()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(config))


def _tune_collector() -> None:
    """Has Python look for reference cycles less often.

    A query makes none; with the default (every 700 new objects) the search took 8 % of a miss,
    and one through all cached messages would hold up queries for milliseconds.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Returns uvloop's factory, None for asyncio's own where uvloop does not exist."""
    try:
        import uvloop  # noqa: PLC0415 # platforms without it still serve
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(config: Config) -> int:
    loop = asyncio.get_running_loop()
    daemon = Daemon(config, loop)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        daemon.start()
        await stopping.wait()
        await daemon.lameduck()
    finally:
        await daemon.close()
    return 0


class Daemon:
    """All parts of one running nodecache."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._loop = loop
        self._counters = Counters()
        self._forwarder = Forwarder(self._counters, random.random, _message_ids().__next__)
        self._resolver = Resolver(
            self._forwarder, self._counters, random.random, config.max_inflight
        )
        self._shell = UpstreamShell(self._forwarder, loop, self._after)
        self._budget = Budget(int(config.cache_octets * (1 - _PACKET_PART)))
        self._endpoints = Endpoints(self._counters, loop)
        self._error_logs: dict[BlockState, ErrorLog] = {}
        self._evictions: dict[MessageCache, CacheSeries] = {}
        self._packets: list[PacketCache] = []
        self._udp: list[UdpServer] = []
        self._tcp: list[TcpServer] = []
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolver_timer: asyncio.TimerHandle | None = None
        self._resolver_due = inf
        self._tick_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Opens all listeners and serves.

        Raises:
            SocketError: An address to serve DNS on cannot be used; nothing is left open.
        """
        self._loop.set_exception_handler(self._on_escaped_error)
        servers = self._group_by_address()
        packet_octets = int(self._config.cache_octets * _PACKET_PART / max(1, len(servers)))
        for address, states in servers.items():
            self._listen(address, states, packet_octets)
        for udp in self._udp:
            udp.start()
        for tcp in self._tcp:
            tcp.start()
        self._watch_numbers()
        self._tick()
        self._write_pidfile()
        if not self._config.quiet:
            self._announce(servers)
        self._start_endpoints()

    def _group_by_address(self) -> dict[Address, list[BlockState]]:
        """Returns which server blocks share which listening address."""
        config = self._config
        covering = config.cluster_domain if config.nxdomain_scope is NxdomainScope.CLUSTER else ROOT
        servers: dict[Address, list[BlockState]] = {}
        for block in config.blocks:
            messages = None
            if block.cache is not None:
                messages = MessageCache(block.cache, self._budget, covering.wire)
            state = BlockState(block, messages)
            if block.errors is not None:
                self._error_logs[state] = ErrorLog(block.errors)
            for host in block.bind or _WILDCARDS:
                servers.setdefault(Address(host, block.port), []).append(state)
        return servers

    def _listen(self, address: Address, states: list[BlockState], packet_octets: int) -> None:
        """Opens the UDP and the TCP listener of one address."""
        server = f"dns://:{address.port}" if address.host in _WILDCARDS else f"dns://{address}"
        family = "2" if ":" in address.host else "1"
        caches = {state: self._cache_series(server, state) for state in states}
        packets = PacketCache(_MOST_PACKETS, packet_octets, seal_for_this_platform())
        try:
            udp_socket = open_udp(address)
            self._sockets.append(udp_socket)
            tcp_socket = open_tcp(address)
            self._sockets.append(tcp_socket)
        except SocketError:
            if address.host == "::" and not socket.has_ipv6:
                return
            raise
        udp_zones = self._zones(server, "udp", family, caches)
        udp = Listener(server, "udp", family, udp_zones, _undeliverable, packets)
        self._packets.append(packets)
        server_class = udp_server_class()
        self._udp.append(
            server_class(udp_socket, udp, self._resolver, self._flush, self._counters, self._loop)
        )
        tcp_zones = self._zones(server, "tcp", family, caches)
        tcp = Listener(server, "tcp", family, tcp_zones, _undeliverable)
        self._tcp.append(
            TcpServer(tcp_socket, tcp, self._resolver, self._flush, self._counters, self._loop)
        )

    def _zones(
        self, server: str, proto: str, family: str, caches: dict[BlockState, CacheSeries]
    ) -> Zones:
        """Returns the zones of one listener, each with series of its own."""
        served = []
        for state, cache_series in caches.items():
            for zone in state.block.zones:
                queries = self._query_series(server, zone.text, proto, family)
                served.append(ServedZone(zone, state, queries, cache_series))
                self._counters.plugins += [
                    (server, zone.text, name) for name in state.block.directives
                ]
        return Zones(served, self._query_series(server, "dropped", proto, family))

    def _query_series(self, server: str, zone: str, proto: str, family: str) -> QuerySeries:
        series = QuerySeries(server, zone, proto, family)
        self._counters.queries.append(series)
        return series

    def _cache_series(self, server: str, state: BlockState) -> CacheSeries:
        zones = ",".join(zone.text for zone in state.block.zones)
        series = CacheSeries(server, zones)
        messages = state.messages
        if messages is not None:
            series.entries["success"] = lambda: len(messages.success)
            series.entries["denial"] = lambda: len(messages.denial)
            self._counters.caches.append(series)
            # One of its servers shows the evictions of a block, so that sums over servers hold.
            self._evictions.setdefault(messages, series)
        return series

    def _watch_numbers(self) -> None:
        """Names what is read only when somebody scrapes."""
        gauges = self._counters.gauges
        gauges["pending_exchanges"] = lambda: self._resolver.pending_count
        gauges["cache_octets"] = lambda: self._budget.octets
        gauges["packet_cache_octets"] = lambda: sum(cache.octets for cache in self._packets)
        gauges["packet_cache_entries"] = lambda: sum(len(cache) for cache in self._packets)
        gauges["tcp_connections"] = lambda: sum(server.connection_count for server in self._tcp)
        self._counters.before_scrape.append(self._hand_in)

    def _hand_in(self) -> None:
        for cache in self._packets:
            cache.hand_in(monotonic())
        for messages, series in self._evictions.items():
            series.success_evictions = messages.success.evictions
            series.denial_evictions = messages.denial.evictions

    def _flush(self) -> None:
        """After queries: sends what they have for the upstreams, and what is answered already."""
        self._shell.flush()
        self._after()

    def _after(self) -> None:
        """Delivers what the last event made ready, and sets the resolver's timer."""
        replies = self._resolver.replies
        if replies:
            self._resolver.replies = []
            for listener, client, reply in replies:
                listener.deliver(client, reply)
        errors = self._resolver.errors
        if errors:
            self._resolver.errors = []
            for error in errors:
                self._error_logs[error.state].note(error.question, error.text)
        due = self._resolver.next_timer()
        if due is not None and due < self._resolver_due:
            if self._resolver_timer is not None:
                self._resolver_timer.cancel()
            self._resolver_due = due
            self._resolver_timer = self._loop.call_later(
                max(0.0, due - monotonic()), self._on_resolver_timer
            )

    def _on_resolver_timer(self) -> None:
        self._resolver_timer, self._resolver_due = None, inf
        self._resolver.timer(monotonic())
        self._after()

    def _tick(self) -> None:
        """Once a second: expired messages go, error sums are written."""
        now = monotonic()
        self._budget.expire(now)
        for log in self._error_logs.values():
            log.tick(now)
        self._tick_timer = self._loop.call_later(_TICK_S, self._tick)

    def _start_endpoints(self) -> None:
        blocks = self._config.blocks
        metrics = {block.prometheus for block in blocks} | {self._config.setup_metrics}
        for address in metrics - {None}:
            self._keep_trying(self._endpoints.start_metrics, address)
        for address in {block.health.address for block in blocks if block.health is not None}:
            self._keep_trying(self._endpoints.start_health, address, lambda: True)

    def _keep_trying(self, start: Callable[..., Any], *arguments: Any) -> None:
        """Starts an HTTP endpoint; a taken port is logged and tried again, DNS goes on."""

        async def keep_trying() -> None:
            while True:
                try:
                    await start(*arguments)
                except SocketError as error:
                    logger.error("%s (next try in %g s)", error, _ENDPOINT_RETRY_S)
                    await asyncio.sleep(_ENDPOINT_RETRY_S)
                else:
                    return

        task = self._loop.create_task(keep_trying())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _announce(self, servers: dict[Address, list[BlockState]]) -> None:
        """Says in a few lines what listens where and forwards whereto."""
        logger.info("nodecache %s", __version__)
        for address, states in servers.items():
            for state in states:
                logger.info("%s on %s -> %s", _zone_names(state.block), address, _targets(state))
        octets = self._config.cache_octets
        logger.info("caching up to %.0f MiB in all", octets / 1024 / 1024)
        for warning in self._config.warnings:
            logger.warning("%s", warning)

    def _write_pidfile(self) -> None:
        if self._config.pidfile:
            try:
                Path(self._config.pidfile).write_text(f"{os.getpid()}\n", encoding="ascii")
            except OSError as error:
                logger.error("cannot write the pidfile %s: %s", self._config.pidfile, error)

    def _on_escaped_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error of ours: it is counted and shown, and the next query is served."""
        self._counters.panics += 1
        loop.default_exception_handler(context)

    async def lameduck(self) -> None:
        """Serves on for as long as the ``health`` directive asks."""
        waits = [block.health.lameduck_s for block in self._config.blocks if block.health]
        if any(waits):
            logger.info("lameduck: serving on for %g s", max(waits))
            await asyncio.sleep(max(waits))

    async def close(self) -> None:
        """Stops taking queries, answers what is under way for a few seconds, and closes all."""
        for udp in self._udp:
            udp.stop_reading()
        closing = [tcp.close(_GRACE_S) for tcp in self._tcp]
        await asyncio.gather(self._finish_pending(), *closing)
        for task in list(self._tasks):
            task.cancel()
        await self._endpoints.stop()
        await self._shell.close()
        for timer in (self._tick_timer, self._resolver_timer):
            if timer is not None:
                timer.cancel()
        for udp in self._udp:
            udp.close()
        for sock in self._sockets:
            sock.close()
        self._remove_pidfile()

    async def _finish_pending(self) -> None:
        deadline = monotonic() + _GRACE_S
        while self._resolver.pending_count and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # an event would cost every miss something

    def _remove_pidfile(self) -> None:
        if self._config.pidfile:
            with contextlib.suppress(OSError):
                Path(self._config.pidfile).unlink()


def _message_ids() -> Iterator[int]:
    """Yields unpredictable message IDs (RFC 5452 section 9.2), one system call for 4,096."""
    while True:
        yield from array("H", os.urandom(8192))


def _undeliverable(client: object, reply: bytes) -> None:
    """Stands in until a server takes the listener."""


def _zone_names(block: ServerBlock) -> str:
    return " ".join(zone.text for zone in block.zones)


def _targets(state: BlockState) -> str:
    policies: Iterable[str] = (
        f"{upstream.transport.value}://{upstream.address}"
        for policy in state.block.forwards
        for upstream in policy.upstreams
    )
    return ", ".join(policies) or "nobody: queries are refused"
