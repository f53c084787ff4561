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
from nodecache.serving.hostnames import HostNames

# Files are looked at this often: a change is in force within 2 s.
_LOOK_S = 1.0
# A file that is being written is read once more before it is called wrong, and one that goes on
# changing is read again, a few times, before half of it is taken for the whole.
_SECOND_LOOK_S = 0.3
_AT_REST_S = 0.1
_MOST_READINGS = 5
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

    Attributes:
        hosts: Of upstreams that are named by a host.
        refusal: Why what the files say is not in force, "" if it is.
    """

    def __init__(
        self, source: Source, config: Config, apply: Callable[[Config], None], counters: Counters
    ) -> None:
        self.hosts = HostNames(self._complete_again)
        self._source = source
        self._loaded = self._config = config
        self._apply = apply
        self._counters = counters
        self._asked = asyncio.Event()
        self._retry_at: float | None = None
        self._is_running = False
        self.refusal = ""
        # Whether we started with what was in force before, since the files were refused.
        self._is_of_before = source.refused is not None
        counters.setup_errors["configmap"] = 0
        counters.gauges["config_last_good"] = lambda: int(self._is_of_before)

    @property
    def findings(self) -> list[str]:
        """What an operator should know although queries are served."""
        if not self.refusal:
            return []
        if self._is_of_before:
            return [f"{self._telling_of_before()}; the files are refused: {self.refusal}"]
        return [f"a newer configuration is refused: {self.refusal}"]

    def _telling_of_before(self) -> str:
        return f"serving the last configuration that worked, of {self._source.recorded_at}"

    async def begin(self) -> Config:
        """Returns the first configuration with the addresses of its hosts, as far as known."""
        if self._source.refused is not None:
            self._refuse(self._source.refused, self._telling_of_before())
        await self.hosts.take_in(self._loaded)
        self._config = self.hosts.complete(self._loaded)
        return self._config

    def ask(self) -> None:
        """Reads everything again soon, changed or not; for signals."""
        self._asked.set()

    async def run(self) -> None:
        """Reloads when asked, and when something has changed; never returns."""
        self._is_running = True
        self._complete_again()
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
            config = await self._load_at_rest()
        except ConfigError:
            await asyncio.sleep(_SECOND_LOOK_S)
            try:
                config = await self._load_at_rest()
            except ConfigError as error:
                self._refuse(error)
                return
        if self._source.has_left_out_kubedns:
            self._counters.setup_errors["configmap"] += 1
        await self.hosts.take_in(config)
        self._go_over(config)
        self.hosts.keep_only(self._loaded)

    async def _load_at_rest(self) -> Config:
        """Loads the configuration from files that nobody is writing at present, if possible."""
        config = await asyncio.to_thread(self._source.load)
        for _ in range(_MOST_READINGS - 1):
            await asyncio.sleep(_AT_REST_S)
            if not await asyncio.to_thread(self._source.has_changed):
                break
            config = await asyncio.to_thread(self._source.load)
        return config

    def _complete_again(self) -> None:
        """Goes over to other addresses of the hosts, whatever the files say by now."""
        config = self.hosts.complete(self._loaded)
        if self._is_running and config != self._config:
            self._switch(self._loaded, config)

    def _go_over(self, loaded: Config) -> None:
        config = self.hosts.complete(loaded)
        if config == self._config:
            self._loaded = loaded
            if self.refusal:
                logger.info("plugin/reload: the files say what is in force again")
        elif not self._switch(loaded, config):
            return
        self.refusal = ""
        self._is_of_before = False

    def _switch(self, loaded: Config, config: Config) -> bool:
        """Returns whether ``config`` is in force now."""
        try:
            self._apply(config)
        except NodecacheError as error:
            self._retry_at = monotonic() + _RETRY_S
            self._refuse(error)
            return False
        self._loaded, self._config = loaded, config
        return True

    def _refuse(self, error: NodecacheError, instead: str = "the running one goes on") -> None:
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
        logger.error("plugin/reload: the configuration is refused; %s", instead)
