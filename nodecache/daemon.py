"""The composition root: builds every part, serves one Config after the other, takes it all down.

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
from array import array
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.engine.block import BlockState
from nodecache.engine.forwarder import Forwarder
from nodecache.engine.resolver import Resolver
from nodecache.loading import Source, note_hosts
from nodecache.net.forward import UpstreamShell
from nodecache.net.selfcheck import make_probe
from nodecache.net.sockets import raise_descriptor_limit
from nodecache.serving.announcing import announce, announce_change
from nodecache.serving.blocks import Blocks
from nodecache.serving.listeners import Listeners
from nodecache.serving.loops import LoopWatch
from nodecache.serving.pages import Pages
from nodecache.serving.reloading import Reloader
from nodecache.telemetry.errorlog import ErrorLog
from nodecache.telemetry.loglines import configure_logging, flush_lines, set_debug

logger = logging.getLogger("nodecache")

_ENDING = (signal.SIGTERM, signal.SIGINT)
_TICK_S = 1.0
_THREADS = 2
# node-cache gives its listeners 5 s to finish what they have.
_GRACE_S = 5.0


def run(config: Config, source: Source) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code.

    Raises:
        SocketError: An address to serve DNS on cannot be used.
    """
    configure_logging(config.log_format, logging.INFO)
    raise_descriptor_limit()
    _tune_collector()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(config, source))


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


async def _serve(config: Config, source: Source) -> int:
    loop = asyncio.get_running_loop()
    # Reading files and importing is all there is to do aside; a thread more is 0.2 MB more.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, "aside"))
    daemon = Daemon(config, source, loop)
    stopping = asyncio.Event()
    for number in _ENDING:
        loop.add_signal_handler(number, stopping.set)
    for number in (signal.SIGUSR1, signal.SIGHUP):
        loop.add_signal_handler(number, daemon.reload)
    try:
        daemon.start()
        await stopping.wait()
        await daemon.lameduck()
    finally:
        await daemon.close()
        for number in _ENDING:
            # Everything is done: who asks again must not make it look like a crash.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
    return 0


class Daemon:
    """All parts of one running nodecache."""

    def __init__(self, config: Config, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._source = source
        self._loop = loop
        self._counters = Counters()
        self._forwarder = Forwarder(self._counters, random.random, _message_ids().__next__)
        self._resolver = Resolver(
            self._forwarder, self._counters, random.random, config.max_inflight
        )
        self._shell = UpstreamShell(self._forwarder, loop, self._after)
        self._blocks = Blocks(config.cache_octets, self._counters)
        self._listeners = Listeners(self._resolver, self._counters, self._blocks, self._flush, loop)
        self._loops = LoopWatch(self._resolver, self._flush, loop)
        self._reloader = Reloader(source, config, self._go_over, self._counters)
        probe = make_probe()
        self._resolver.self_check = probe[2:]
        self._pages = Pages(
            self._counters,
            lambda: list(self._listeners.servers),
            probe,
            self._details,
            loop,
            legacy_metrics=config.legacy_metrics,
        )
        self._error_logs: dict[BlockState, ErrorLog] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolver_timer: asyncio.TimerHandle | None = None
        self._resolver_due = inf
        self._tick_due = 0.0
        self._tick_timer: asyncio.TimerHandle | None = None
        self._has_pidfile = False

    def start(self) -> None:
        """Opens all listeners and serves.

        Raises:
            SocketError: An address to serve DNS on cannot be used; nothing is left open.
        """
        self._loop.set_exception_handler(self._on_escaped_error)
        self._counters.setup_errors["configmap"] = int(self._source.has_left_out_kubedns)
        self._apply(self._config)
        self._tick_due = monotonic()
        self._tick()
        self._write_pidfile()
        announce(self._config, self._listeners.servers)
        for job in (self._reloader.run(), self._reloader.look_for_service()):
            self._keep(job)

    def reload(self) -> None:
        """Reads the configuration again soon; a wrong one changes nothing."""
        self._reloader.ask()

    def _go_over(self, config: Config) -> None:
        """Serves another configuration. Raises SocketError; then everything is as it was."""
        before, self._config = self._config, config
        try:
            self._apply(config)
        except BaseException:
            self._config = before
            raise
        announce_change(config, before, self._listeners.servers)
        # What was replaced refers to itself here and there, and the collector comes by seldom: 77
        # KB would stay of each reload. It takes 4 ms.
        gc.collect()

    def _apply(self, config: Config) -> None:
        self._listeners.apply(config)
        policies = [policy for block in config.blocks for policy in block.forwards]
        self._forwarder.keep_only(
            (upstream for policy in policies for upstream in policy.upstreams), monotonic()
        )
        self._shell.flush()
        self._open_error_logs()
        set_debug(any(block.is_debug for block in config.blocks))
        self._loops.watch(self._blocks.states)
        self._pages.apply(config)
        self._counters.config_sha512 = self._source.sha512
        note_hosts(config, self._counters)

    def _open_error_logs(self) -> None:
        for log in self._error_logs.values():
            log.finish()
        self._error_logs = {
            state: ErrorLog(state.block.errors)
            for state in self._blocks.states
            if state.block.errors is not None
        }

    def _details(self) -> list[str]:
        """Returns what an operator should know although queries are served."""
        details = self._loops.findings
        if self._reloader.refusal:
            details.append(f"a newer configuration is refused: {self._reloader.refusal}")
        if self._config.missing_service is not None:
            details.append(f"{self._config.missing_service.name} is not known yet")
        return details

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
                log = self._error_logs.get(error.state)
                if log is not None:
                    log.note(error.question, error.text)
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
        self._flush()

    def _tick(self) -> None:
        """Once a second: expired messages go, error sums are written, the loop's lag is noted."""
        now = monotonic()
        self._counters.loop_lag.observe(max(0.0, now - self._tick_due))
        self._blocks.budget.expire(now)
        for log in self._error_logs.values():
            log.tick(now)
        flush_lines()
        self._tick_due = now + _TICK_S
        self._tick_timer = self._loop.call_later(_TICK_S, self._tick)

    def _keep(self, job: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        self._pages.is_leaving = True
        waits = [block.health.lameduck_s for block in self._config.blocks if block.health]
        if any(waits):
            logger.info("lameduck: serving on for %g s", max(waits))
            await asyncio.sleep(max(waits))

    async def close(self) -> None:
        """Stops taking queries, answers what is under way for a few seconds, and closes all."""
        for task in list(self._tasks):
            task.cancel()
        self._loops.stop()
        self._listeners.stop_reading_datagrams()  # first: its misses have to be waited for too
        await asyncio.gather(self._finish_pending(), self._listeners.drain_connections(_GRACE_S))
        await self._pages.close()
        await self._shell.close()
        for timer in (self._tick_timer, self._resolver_timer):
            if timer is not None:
                timer.cancel()
        self._listeners.close()
        for log in self._error_logs.values():
            log.finish()
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
