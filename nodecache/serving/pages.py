"""The HTTP pages that the configuration asks for, opened and closed as it changes."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nodecache.config.model import Address, Config, ServerBlock
from nodecache.counters import Counters
from nodecache.directives.lazy import LazyPlugin, Place
from nodecache.directives.table import plugins_of
from nodecache.errors import SocketError
from nodecache.net.listening import ListeningSockets
from nodecache.net.selfcheck import ask_ourselves
from nodecache.telemetry.catalogue import Exposure
from nodecache.telemetry.endpoints import Endpoints
from nodecache.telemetry.health import Readiness, SelfCheck

logger = logging.getLogger("nodecache")

# A query to ourselves is answered within this time, or we are not healthy.
_HEALTHY_WITHIN_S = 1.0
_RETRY_S = 10.0

if TYPE_CHECKING:
    from nodecache.telemetry.http_server import Page

# Address, path, and what a change of must open the page anew.
_Page = tuple[Address, str, Exposure | None]
_Start = Callable[[], Awaitable[Address]]


class Pages:
    """Keeps /metrics, /health, /ready and /debug/pprof/ where the configuration wants them.

    Args:
        counters: What /metrics shows.
        addresses: Where we serve DNS at present.
        probe: See net/selfcheck.py.
        details: What /ready tells beside whether we are ready.
        sockets: Where the listening sockets come from.
        loop: The loop that serves queries.
        legacy_metrics: Whether /metrics shows the former names of forward's series, too.
    """

    def __init__(
        self,
        counters: Counters,
        addresses: Callable[[], Sequence[Address]],
        probe: bytes,
        details: Callable[[], Sequence[str]],
        sockets: ListeningSockets,
        loop: asyncio.AbstractEventLoop,
        *,
        legacy_metrics: bool,
    ) -> None:
        self.is_leaving = False
        self._details = details
        self._loop = loop
        self._endpoints = Endpoints(
            counters,
            loop,
            sockets.http,
            lambda address: sockets.give_up(f"http {address}"),
            legacy_metrics=legacy_metrics,
        )
        self._self_check = SelfCheck(
            lambda: ask_ourselves(addresses(), probe, _HEALTHY_WITHIN_S), loop
        )
        self._gauges = counters.gauges
        self._made: dict[LazyPlugin, Mapping[str, Page]] = {}
        self._open: dict[_Page, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()

    def apply(self, config: Config) -> None:
        """Opens the pages that ``config`` names, and closes all others, in the background."""
        task = self._loop.create_task(self._go_over(self._wanted(config)))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def wait_until_tried(self) -> None:
        """Returns when the last ``apply`` has tried every page once."""
        await asyncio.gather(*self._changes, return_exceptions=True)
        async with self._changing:
            await asyncio.sleep(0)

    def stop_accepting(self) -> None:
        """Leaves new connections to a successor."""
        self._endpoints.stop_accepting()

    async def close(self) -> None:
        """Closes everything."""
        for task in [*self._changes, *self._open.values()]:
            task.cancel()
        await self._self_check.close()
        await self._endpoints.stop()

    def _wanted(self, config: Config) -> Mapping[_Page, _Start]:
        ends, wanted = self._endpoints, dict[_Page, _Start]()
        exposures: dict[Address, Exposure] = {}
        if config.setup_metrics is not None:
            exposures[config.setup_metrics] = Exposure.SETUP
        for block in config.blocks:
            if block.prometheus is not None:
                before = exposures.get(block.prometheus, Exposure.SERVING)
                exposures[block.prometheus] = before | Exposure.SERVING
            if block.health is not None:
                start = functools.partial(ends.start_health, block.health.address, self._self_check)
                wanted[block.health.address, "/health", None] = start
            for plugin in plugins_of(block, Place.PAGES):
                wanted |= self._pages_of(plugin, block)
            if block.ready is not None:
                start = functools.partial(ends.start_ready, block.ready, self._report)
                wanted[block.ready, "/ready", None] = start
        for address, exposure in exposures.items():
            start = functools.partial(ends.start_metrics, address, exposure)
            wanted[address, "/metrics", exposure] = start
        return wanted

    def _pages_of(self, plugin: LazyPlugin, block: ServerBlock) -> Mapping[_Page, _Start]:
        """Returns the pages of a directive, which are the same for all blocks."""
        module = plugin.module("pages")
        if plugin not in self._made:
            self._made[plugin] = module.make_pages(self._gauges)
        address: Address = module.address_of(block)
        start = functools.partial(self._endpoints.start_page, address)
        return {
            (address, path, None): functools.partial(start, path, page)
            for path, page in self._made[plugin].items()
        }

    async def _go_over(self, wanted: Mapping[_Page, _Start]) -> None:
        async with self._changing:
            for page in self._open.keys() - wanted.keys():
                self._open.pop(page).cancel()
                await self._endpoints.stop_page(page[0], page[1])
            for page in wanted.keys() - self._open.keys():
                self._open[page] = self._loop.create_task(self._keep_trying(page, wanted[page]))

    async def _keep_trying(self, page: _Page, start: _Start) -> None:
        """Opens a page; a taken port is logged and tried again, DNS goes on."""
        while True:
            try:
                bound = await start()
            except SocketError as error:
                logger.error("%s (next try in %g s)", error, _RETRY_S)
                await asyncio.sleep(_RETRY_S)
            else:
                if not page[0].port:
                    logger.info("%s of %s is at http://%s%s", page[1], page[0], bound, page[1])
                return

    def _report(self) -> Readiness:
        reasons = ("going down",) if self.is_leaving else ()
        return Readiness(not self.is_leaving, reasons, tuple(self._details()))
