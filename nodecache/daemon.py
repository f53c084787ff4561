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
import sys
from array import array
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from nodecache import __version__
from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.engine.forwarder import Forwarder
from nodecache.engine.resolver import Resolver
from nodecache.errors import SocketError
from nodecache.listeners import Listeners, describe
from nodecache.net.forward import UpstreamShell
from nodecache.net.sockets import raise_descriptor_limit
from nodecache.telemetry.endpoints import Endpoints
from nodecache.telemetry.errorlog import ErrorLog

logger = logging.getLogger("nodecache")

_TICK_S = 1.0
_ENDPOINT_RETRY_S = 10.0
# node-cache gives its listeners 5 s to finish what they have.
_GRACE_S = 5.0


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
        self._listeners = Listeners(config, self._resolver, self._counters, self._flush, loop)
        self._endpoints = Endpoints(self._counters, loop)
        self._error_logs = {
            state: ErrorLog(state.block.errors)
            for state in self._listeners.states
            if state.block.errors is not None
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolver_timer: asyncio.TimerHandle | None = None
        self._resolver_due = inf
        self._tick_timer: asyncio.TimerHandle | None = None
        self._has_pidfile = False

    def start(self) -> None:
        """Opens all listeners and serves.

        Raises:
            SocketError: An address to serve DNS on cannot be used; nothing is left open.
        """
        self._loop.set_exception_handler(self._on_escaped_error)
        self._listeners.start()
        self._tick()
        self._write_pidfile()
        self._announce()
        self._start_endpoints()

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
        self._listeners.budget.expire(now)
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

    def _announce(self) -> None:
        """Says in a few lines what listens where and forwards whereto; warnings even if quiet."""
        for warning in self._config.warnings:
            logger.warning("%s", warning)
        if self._config.quiet:
            return
        logger.info("nodecache %s", __version__)
        for address, states in self._listeners.servers.items():
            for state in states:
                logger.info("on %s: %s", address, describe(state.block))
        logger.info("caching up to %.0f MiB in all", self._config.cache_octets / 1024 / 1024)

    def _write_pidfile(self) -> None:
        if self._config.pidfile:
            try:
                Path(self._config.pidfile).write_text(f"{os.getpid()}\n", encoding="ascii")
                self._has_pidfile = True
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
        self._listeners.stop_reading_datagrams()  # first: its misses have to be waited for too
        await asyncio.gather(self._finish_pending(), self._listeners.drain_connections(_GRACE_S))
        for task in list(self._tasks):
            task.cancel()
        await self._endpoints.stop()
        await self._shell.close()
        for timer in (self._tick_timer, self._resolver_timer):
            if timer is not None:
                timer.cancel()
        self._listeners.close()
        self._remove_pidfile()

    async def _finish_pending(self) -> None:
        deadline = monotonic() + _GRACE_S
        while self._resolver.pending_count and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # an event would cost every miss something

    def _remove_pidfile(self) -> None:
        if self._has_pidfile:  # one that we did not write is somebody else's
            with contextlib.suppress(OSError):
                Path(self._config.pidfile).unlink()


def _message_ids() -> Iterator[int]:
    """Yields unpredictable message IDs (RFC 5452 section 9.2), one system call for 4,096."""
    while True:
        yield from array("H", os.urandom(8192))
