"""Goes over to a changed configuration while serving; a wrong one leaves the running one alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from time import monotonic

from nodecache.config.kubedns import is_in_kubedns
from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.errors import ConfigError, NodecacheError
from nodecache.loading import Source

# Files are looked at this often: a change is in force within 2 s.
_LOOK_S = 1.0
# A file that is being written is read once more before it is called wrong.
_SECOND_LOOK_S = 0.3
# An address that could not be bound may come up later.
_RETRY_S = 10.0
# How often a Service that the environment does not name is looked for.
_SERVICE_S = 5.0
_SERVICE_TIMEOUT_S = 2.0

logger = logging.getLogger("nodecache")


class Reloader:
    """Watches what the configuration was made of.

    Args:
        source: Reads it.
        apply: Goes over to a configuration; raises SocketError with everything as it was.
        counters: Gets the failures.
    """

    def __init__(
        self, source: Source, config: Config, apply: Callable[[Config], None], counters: Counters
    ) -> None:
        self._source = source
        self._config = config
        self._apply = apply
        self._counters = counters
        self._asked = asyncio.Event()
        self._retry_at: float | None = None
        self.refusal = ""

    def ask(self) -> None:
        """Reads everything again soon, changed or not; for signals."""
        self._asked.set()

    async def run(self) -> None:
        """Reloads when asked, and when something has changed; never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _LOOK_S)
            try:
                await self._look()
            except Exception:
                # Ours to mend; but who stopped looking would never load anything again.
                self._counters.panics += 1
                logger.exception("plugin/reload: the running configuration goes on")
                await asyncio.sleep(_RETRY_S)

    async def _look(self) -> None:
        """Reloads if there is reason to."""
        if self._asked.is_set():
            self._asked.clear()
            logger.info("reading the configuration again, as asked")
            await self._reload()
        elif await self._is_due():
            await self._reload()

    async def look_for_service(self) -> None:
        """Finds the upstream Service that the environment does not name; never returns."""
        while True:
            missing = self._config.missing_service
            if missing is not None:
                # Imported where a Service is missing: few are.
                from nodecache.net.service import find_service  # noqa: PLC0415

                domain, servers = self._config.cluster_domain, missing.servers
                address = await find_service(
                    missing.name, missing.namespace, domain, servers, _SERVICE_TIMEOUT_S
                )
                if address:
                    logger.info("found %s at %s", missing.name, address)
                    self._source.learn(missing.variable, address)
                    self.ask()
            await asyncio.sleep(_SERVICE_S)

    async def _is_due(self) -> bool:
        if self._retry_at is not None and monotonic() >= self._retry_at:
            return True
        if not self._config.is_watched:
            return False
        return await asyncio.to_thread(self._source.has_changed)

    async def _reload(self) -> None:
        self._retry_at = None
        logger.debug("reading the configuration again")
        try:
            config = await asyncio.to_thread(self._source.load)
        except ConfigError:
            await asyncio.sleep(_SECOND_LOOK_S)
            try:
                config = await asyncio.to_thread(self._source.load)
            except ConfigError as error:
                self._refuse(error)
                return
        self._go_over(config)

    def _go_over(self, config: Config) -> None:
        if config == self._config:
            if self.refusal:
                logger.info("plugin/reload: the files say what is in force again")
            self.refusal = ""
            return
        try:
            self._apply(config)
        except NodecacheError as error:
            self._retry_at = monotonic() + _RETRY_S
            self._refuse(error)
            return
        self._config = config
        self.refusal = ""

    def _refuse(self, error: NodecacheError) -> None:
        """Counts a failed reload, and logs it unless it failed for the same reason before."""
        self._counters.reload_failures += 1
        if isinstance(error, ConfigError) and all(map(is_in_kubedns, error.faults)):
            self._counters.setup_errors["configmap"] += 1
        text = str(error)
        if text == self.refusal:
            return
        self.refusal = text
        for line in text.split("\n"):
            logger.error("plugin/reload: %s", line)
        logger.error("plugin/reload: the configuration is refused; the running one goes on")
