"""Keeps the addresses of upstreams that are named by a host; the last known ones go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from nodecache.config.hostnames import hosts_of, with_addresses
from nodecache.config.model import Config, HostName

if TYPE_CHECKING:
    from nodecache.net.hostnames import Found

logger = logging.getLogger("nodecache")

# How long who starts or reloads waits for addresses before it goes on without.
_PATIENCE_S = 2.0
# Two small questions a host; so an address that moved is known soon, whatever its TTL says.
_LEAST_S = 5.0
_MOST_S = 30.0
_AT_ONCE = 8


class HostNames:
    """The hosts that the configuration names as upstreams.

    Args:
        on_change: Called when ``complete`` returns something else than before.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._known: dict[HostName, tuple[str, ...]] = {}
        self._due: dict[HostName, float] = {}
        self._troubles: dict[HostName, str] = {}
        self._looking: dict[HostName, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._has_hosts = asyncio.Event()

    @property
    def findings(self) -> list[str]:
        """What cannot be looked up at present, a sentence for each host."""
        return [self._sentence(host) for host in self._troubles]

    async def take_in(self, config: Config) -> None:
        """Takes the hosts of ``config`` in, too, and waits a moment for addresses of new ones."""
        hosts = hosts_of(config)
        for host in hosts:
            self._due.setdefault(host, 0.0)
        new = [host for host in hosts if host not in self._known]
        if new:
            self._has_hosts.set()
            await asyncio.wait(self._look(new), timeout=_PATIENCE_S)

    def keep_only(self, config: Config) -> None:
        """Lets go of the hosts that ``config`` does not name."""
        others = set(self._due) - set(hosts_of(config))
        for host in others:
            del self._due[host]
            self._known.pop(host, None)
            self._troubles.pop(host, None)
        if not self._due:
            self._has_hosts.clear()

    def complete(self, config: Config) -> Config:
        """Returns ``config`` with the upstreams that its hosts come to by now."""
        return with_addresses(config, self._known)

    async def run(self) -> None:
        """Looks all hosts up again and again; never returns."""
        while True:
            await self._has_hosts.wait()
            now = monotonic()
            self._look(host for host, due in self._due.items() if due <= now)
            await asyncio.sleep(_LEAST_S / 5)

    def close(self) -> None:
        """Stops what is under way."""
        for task in self._looking.values():
            task.cancel()

    def _look(self, hosts: Iterable[HostName]) -> list[asyncio.Task[None]]:
        """Returns the look-ups of ``hosts``, one for each, under way already or begun now."""
        tasks = []
        for host in hosts:
            task = self._looking.get(host)
            if task is None:
                task = self._looking[host] = asyncio.create_task(self._look_up(host))
            tasks.append(task)
        return tasks

    async def _look_up(self, host: HostName) -> None:
        # Imported where a host is named: few do.
        from nodecache.net.hostnames import find_addresses  # noqa: PLC0415

        try:
            async with self._room:
                found = await find_addresses(host)
            if host in self._due:
                self._due[host] = monotonic() + min(max(found.ttl_s, _LEAST_S), _MOST_S)
                self._note(host, found)
        finally:
            del self._looking[host]

    def _note(self, host: HostName, found: Found) -> None:
        if not found.hosts:
            is_news = host not in self._troubles
            self._troubles[host] = found.trouble
            if is_news:
                logger.warning("%s", self._sentence(host))
            return
        if self._troubles.pop(host, None) or self._known.get(host) != found.hosts:
            logger.info("%s is at %s", host.name.text, ", ".join(found.hosts))
        if self._known.get(host) != found.hosts:
            self._known[host] = found.hosts
            self._on_change()

    def _sentence(self, host: HostName) -> str:
        fate = "its addresses of before go on" if host in self._known else "it is not asked"
        return f"no address for the upstream {host.name.text}: {self._troubles[host]}; {fate}"
