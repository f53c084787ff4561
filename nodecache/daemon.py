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
from array import array
from collections.abc import Callable, Collection, Coroutine, Iterator
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from nodecache.config.model import Address, Config
from nodecache.counters import Counters
from nodecache.engine.block import BlockState
from nodecache.engine.forwarder import Forwarder
from nodecache.engine.resolver import Resolver
from nodecache.loading import Source, note_hosts
from nodecache.net.forward import UpstreamShell
from nodecache.net.listening import ListeningSockets
from nodecache.net.selfcheck import ask_ourselves, make_probe
from nodecache.serving.announcing import announce, announce_change
from nodecache.serving.blocks import Blocks
from nodecache.serving.listeners import Listeners
from nodecache.serving.loops import LoopWatch
from nodecache.serving.pages import Pages
from nodecache.serving.reloading import Reloader
from nodecache.telemetry.errorlog import ErrorLog
from nodecache.telemetry.loglines import flush_lines, set_debug

logger = logging.getLogger("nodecache")

_TICK_S = 1.0
# An answer to ourselves takes no longer, or we do not serve.
_SELF_TEST_S = 1.0
# node-cache gives its listeners 5 s to finish what they have.
_GRACE_S = 5.0


class Daemon:
    """All parts of one running nodecache.

    Attributes:
        counters: Of everything.
        blocks: The server blocks at work.
        probe: A query that only this process knows (see net/selfcheck.py).
        more_details: Returns what /ready should tell beside what is known here.
        elsewhere: Returns hosts whose queries lead to somebody else at present.
        on_reload: Called when another configuration is in force.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        sockets: ListeningSockets,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.counters = self._counters = Counters()
        self.probe = make_probe()
        self.more_details: Callable[[], list[str]] = list
        self.elsewhere: Callable[[], Collection[str]] = tuple
        self.on_reload: Callable[[], None] = lambda: None
        self._config = config
        self._source = source
        self._loop = loop
        self._forwarder = Forwarder(self._counters, random.random, _message_ids().__next__)
        self._resolver = Resolver(
            self._forwarder,
            self._counters,
            random.random,
            config.max_inflight,
            config.client_share,
        )
        self._shell = UpstreamShell(self._forwarder, loop, self._after)
        self.blocks = self._blocks = Blocks(config.cache_octets, self._counters)
        self._listeners = Listeners(
            self._resolver, self._counters, self._blocks, self._flush, sockets, loop
        )
        self._loops = LoopWatch(self._resolver, self._flush, loop)
        self._reloader = Reloader(source, config, self._go_over, self._counters)
        self._resolver.self_check = self.probe[2:]
        self._pages = Pages(
            self._counters,
            self._reachable,
            self.probe,
            self._details,
            sockets,
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

    @property
    def addresses(self) -> list[Address]:
        """Where we serve DNS."""
        return list(self._listeners.servers)

    def prepare(self) -> None:
        """Builds everything, and opens the listeners; nothing is read from them yet.

        Raises:
            SocketError: An address to serve DNS on cannot be used; nothing is left open.
        """
        self._loop.set_exception_handler(self._on_escaped_error)
        self._counters.setup_errors["configmap"] = int(self._source.has_left_out_kubedns)
        self._apply(self._config)

    def start(self) -> None:
        """Serves."""
        self._listeners.start()
        self._tick_due = monotonic()
        self._tick()
        self._write_pidfile()
        announce(self._config, self._listeners.servers)
        for job in (self._reloader.run(), self._reloader.look_for_service()):
            self._keep(job)

    async def ask_itself(self) -> list[str]:
        """Returns what is wrong with our own listeners, as a stub would see it."""
        return await ask_ourselves(self._reachable(), self.probe, _SELF_TEST_S)

    async def settle(self) -> None:
        """Returns when every page has been opened, or has been tried once."""
        await self._pages.settle()

    def reload(self) -> None:
        """Reads the configuration again soon; a wrong one changes nothing."""
        self._reloader.ask()

    def _reachable(self) -> list[Address]:
        elsewhere = self.elsewhere()
        return [address for address in self.addresses if address.host not in elsewhere]

    def _go_over(self, config: Config) -> None:
        """Serves another configuration. Raises SocketError; then everything is as it was."""
        before, self._config = self._config, config
        try:
            self._apply(config)
        except BaseException:
            self._config = before
            raise
        announce_change(config, before, self._listeners.servers)
        self.on_reload()
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
        return details + self.more_details()

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

    def say_leaving(self) -> None:
        """Lets /ready say that we are about to go."""
        self._pages.is_leaving = True

    async def lameduck(self) -> None:
        """Serves on for as long as the ``health`` directive asks."""
        waits = [block.health.lameduck_s for block in self._config.blocks if block.health]
        if any(waits):
            logger.info("lameduck: serving on for %g s", max(waits))
            await asyncio.sleep(max(waits))

    def yield_sockets(self) -> None:
        """Leaves what comes, and what is queued, to a successor."""
        self._listeners.yield_sockets()
        self._pages.stop_accepting()

    async def drain(self, *, is_succeeded: bool = False) -> None:
        """Finishes what is under way, for a few seconds.

        Other misses are refused meanwhile, unless there is a successor: then they come over
        connections that its clients keep, and are answered as ever.
        """
        if not is_succeeded:
            self._resolver.refuse_misses()
        await asyncio.gather(self._finish_pending(), self._listeners.drain_connections(_GRACE_S))

    async def close(self, *, is_succeeded: bool = False) -> None:
        """Answers what has arrived, and closes all; a successor's pidfile stays."""
        for task in list(self._tasks):
            task.cancel()
        self._loops.stop()
        if not is_succeeded:
            self._resolver.refuse_misses()
            self._listeners.stop_reading_datagrams()
        await self._pages.close()
        await self._shell.close()
        for timer in (self._tick_timer, self._resolver_timer):
            if timer is not None:
                timer.cancel()
        self._listeners.close()
        for log in self._error_logs.values():
            log.finish()
        if not is_succeeded:
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
