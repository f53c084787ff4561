"""The composition root: builds every part, serves one Config after the other, takes it all down.

No policy of its own, and no query comes through here: see pump.py for what each of them moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from array import array
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from nodecache.config.model import Address, Config
from nodecache.config.node import NodePlan
from nodecache.counters import Counters
from nodecache.loading import Source
from nodecache.net.forward import UpstreamShell
from nodecache.net.listening import ListeningSockets
from nodecache.net.selfcheck import ask_ourselves, make_probe
from nodecache.resolve.resolver import Resolver
from nodecache.serving.announcing import announce, announce_change
from nodecache.serving.beating import Beat, Voice
from nodecache.serving.blocks import Blocks
from nodecache.serving.directives import Notes, Watches
from nodecache.serving.errorlogs import ErrorLogs
from nodecache.serving.listeners import Listeners
from nodecache.serving.pages import Pages
from nodecache.serving.pump import Pump
from nodecache.serving.reloading import Reloader
from nodecache.serving.tick import Tick
from nodecache.serving.views import StateView, compose_json
from nodecache.serving.watch import Watch
from nodecache.telemetry.loglines import set_debug
from nodecache.upstreams.forwarder import Forwarder

if TYPE_CHECKING:
    from nodecache.telemetry.http_server import Page, PageRequest, Response

logger = logging.getLogger("nodecache")

# An answer to ourselves takes no longer, or we do not serve.
_SELF_TEST_S = 1.0
# node-cache gives its listeners 5 s to finish what they have.
_GRACE_S = 5.0


class Daemon:
    """All parts of one running nodecache.

    Attributes:
        counters: Of everything.
        blocks: The server blocks at work.
        beat: Tells the node's rules that we answer.
        probe: A query that only this process knows (see net/selfcheck.py).
        more_details: Returns what /ready should tell beside what is known here.
        elsewhere: Returns hosts whose queries lead to somebody else at present.
        on_reload: Called when another configuration is in force.
        views: Pages for commands on this node (see process/window.py), by path.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        sockets: ListeningSockets,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.counters = self._counters = counters = Counters()
        self.probe = make_probe()
        self.more_details: Callable[[], list[str]] = list
        self.elsewhere: Callable[[], Collection[str]] = tuple
        self.on_reload: Callable[[], None] = lambda: None
        self._config = config
        self._source = source
        self._loop = loop
        message_id = chain.from_iterable(_message_ids()).__next__
        self._forwarder = Forwarder(self._counters, random.random, message_id)
        self._resolver = Resolver(
            self._forwarder,
            self._counters,
            random.random,
            config.max_inflight,
            config.client_share,
        )
        self._error_logs = ErrorLogs()
        timed = (self._forwarder, self._resolver)
        self._pump = Pump(self._resolver.results, timed, self._error_logs.note, loop)
        self._shell = UpstreamShell(self._forwarder, loop, self._pump.flush)
        self._pump.ask_upstreams = self._shell.flush
        self.blocks = self._blocks = Blocks(config.cache_octets, self._counters)
        self._tick = Tick(self._blocks, self._error_logs, self._counters, loop)
        self._listeners = Listeners(
            self._resolver, self._counters, self._blocks, self._pump.flush, sockets, loop
        )
        self.beat = Beat(self._resolver, self._voices, self._counters, loop)
        self._watches = Watches(self._resolver, self._pump.flush, loop)
        self._notes = Notes(self._counters)
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
        self._watch = Watch(self._listeners.servers.values, self._resolver, loop)
        state = StateView(
            self.probe, lambda: self._config, self._reloader, self.beat, self._details, counters
        )
        self.views: Mapping[str, Page] = {**state.pages, "/top": self._show_top}
        self._counters.gauges["pending_exchanges"] = lambda: self._resolver.pending_count
        self._counters.gauges["kept_files"] = lambda: len(self._config.kept_files)
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_pidfile = False

    @property
    def plan(self) -> NodePlan:
        """What the configuration in force asks of the node."""
        return self._config.node

    @property
    def addresses(self) -> list[Address]:
        """Where we serve DNS."""
        return list(self._listeners.servers)

    @property
    def places(self) -> list[tuple[str, int]]:
        """Hosts and ports where we serve DNS, our own ones in place of "every address"."""
        return list(self._listeners.places(self._config.node.addresses))

    async def look_up_hosts(self) -> None:
        """Finds upstreams that are named by a host; waits a moment at most, others come later."""
        self._config = await self._reloader.begin()

    def prepare(self) -> None:
        """Builds everything, and opens the listeners; nothing is read from them yet.

        Raises:
            SocketError: An address to serve DNS on cannot be used; nothing is left open.
        """
        self._loop.set_exception_handler(self._on_escaped_error)
        self._counters.setup_errors["configmap"] += self._source.has_left_out_kubedns
        self._apply(self._config)

    def start(self) -> None:
        """Serves."""
        self._listeners.start()
        self._tick.start()
        self._write_pidfile()
        announce(self._config, self._listeners.servers)
        reloader = self._reloader
        for job in (reloader.run(), reloader.look_for_service(), reloader.hosts.run()):
            self._keep(job)

    def _voices(self) -> list[Voice]:
        return self._listeners.voices(self.plan.addresses, self.plan.dns_port)

    async def ask_itself(self) -> list[str]:
        """Returns what is wrong with our own listeners, as a stub would see it."""
        return await ask_ourselves(self._reachable(), self.probe, _SELF_TEST_S)

    async def wait_for_pages(self) -> None:
        """Returns when every page has been opened, or has been tried once."""
        await self._pages.wait_until_tried()

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

    def _apply(self, config: Config) -> None:
        self._listeners.apply(config)
        policies = [policy for block in config.blocks for policy in block.forwards]
        self._forwarder.keep_only(
            (upstream for policy in policies for upstream in policy.upstreams), monotonic()
        )
        self._pump.flush()
        self._error_logs.open(self._blocks.states)
        set_debug(any(block.is_debug for block in config.blocks))
        self._watches.watch(self._blocks.states)
        self._pages.apply(config)
        self._counters.config_sha512 = self._source.sha512
        self._notes.note(config)

    def _details(self) -> list[str]:
        """Returns what an operator should know although queries are served."""
        reloader = self._reloader
        details = self._watches.findings + reloader.hosts.findings + reloader.findings
        details += [
            f"{path} is gone or of no use: what it said before goes on"
            for path in self._config.kept_files
        ]
        if self._config.missing_service is not None:
            details.append(f"{self._config.missing_service.name} is not known yet")
        return details + self.more_details()

    async def _show_top(self, _request: PageRequest) -> Response:
        from nodecache.serving.top import compose_top  # noqa: PLC0415 # for who looks

        slow, pools = self._resolver.slow_names.slowest, self._forwarder.pools
        return compose_json(compose_top(self._watch, slow, pools, self._config))

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

    async def serve_on(self, wait_s: float) -> None:
        """Serves on for ``wait_s``, or for as long as the ``health`` directive asks."""
        lameduck = [block.health.lameduck_s for block in self._config.blocks if block.health]
        longest_s = max([wait_s, *lameduck])
        if longest_s:
            logger.info("serving on for %g s, or until a successor has taken over", longest_s)
            await asyncio.sleep(longest_s)

    def yield_sockets(self) -> None:
        """Leaves what comes, and what is queued, to a successor."""
        self._listeners.yield_sockets()
        self._pages.stop_accepting()

    async def drain(self, *, is_succeeded: bool = False, refuses_misses: bool = False) -> None:
        """Finishes what is under way, for a few seconds.

        Args:
            is_succeeded: Who waits to be accepted is a successor's.
            refuses_misses: Others still come, and shall go on to another server.
        """
        if refuses_misses:
            self._resolver.refuse_misses()
        if not is_succeeded:
            self._listeners.accept_waiting()
        await asyncio.gather(self._finish_pending(), self._listeners.drain_connections(_GRACE_S))

    async def close(self, *, is_succeeded: bool = False) -> None:
        """Answers what has arrived, and closes all; a successor's pidfile stays."""
        for task in list(self._tasks):
            task.cancel()
        self._watch.stop()
        self._reloader.hosts.close()
        self._watches.stop()
        if not is_succeeded:
            self._resolver.refuse_misses()
            self._listeners.stop_reading_datagrams()
        await self._pages.close()
        self._pump.stop()
        await self._shell.close()
        self._tick.stop()
        self._listeners.close()
        self._error_logs.finish()
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


def _message_ids() -> Iterator[array[int]]:
    """Yields unpredictable message IDs (RFC 5452 section 9.2), one system call for 4,096."""
    while True:
        yield array("H", os.urandom(8192))
