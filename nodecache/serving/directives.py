"""Builds what only some server blocks have, by the table of directives; most daemons never do.

A directive's modules are imported when the first block has it: that saves time at the start, and
memory for good where the directive is not used.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from nodecache.config.model import Address, Config, ServerBlock
from nodecache.counters import Counters
from nodecache.directives.lazy import LazyPlugin, Place
from nodecache.directives.table import plugins_of, settings_of
from nodecache.resolve.behind_cache import BehindCache, Responder, Rewriter
from nodecache.resolve.block import BlockState
from nodecache.wire.const import TYPE_AND_CLASS
from nodecache.wire.numbers import OPTION_NSID

if TYPE_CHECKING:
    import asyncio

    from nodecache.resolve.before_cache import Directives
    from nodecache.resolve.resolver import Resolver

_BEFORE_CACHE = (Place.BEFORE_CACHE, Place.LOGS)
_BEHIND_CACHE = (Place.REWRITES, Place.ANSWERS)

Whoami = Callable[[bytes, Address, str], bytes]


def before_cache_settings(block: ServerBlock) -> tuple[tuple[str, object], ...]:
    """Returns what decides on what stands before the cache, to compare."""
    return settings_of(block, *_BEFORE_CACHE)


def behind_cache_settings(block: ServerBlock) -> tuple[tuple[str, object], ...]:
    """Returns what decides on what stands behind the cache, to compare."""
    return settings_of(block, *_BEHIND_CACHE)


def build_before_cache(block: ServerBlock) -> Directives | None:
    """Returns what stands before the cache, None if nothing does."""
    plugins = tuple(plugins_of(block, *_BEFORE_CACHE))
    if not plugins:
        return None
    from nodecache.resolve.before_cache import Directives  # noqa: PLC0415 (see above)

    parts = Directives()
    for plugin in plugins:
        parts = plugin.module("act").before_cache(block, parts, random.random)
    return parts


class Tallies:
    """The responders of one running server block that have figures, each the latest of its kind.

    Their figures go on from one configuration to the next.
    """

    def __init__(self) -> None:
        self._latest: dict[LazyPlugin, Responder] = {}

    def build(self, plugin: LazyPlugin, block: ServerBlock) -> Responder:
        """Returns the responder of a directive in ``block``."""
        responder: Responder = plugin.module("act").responder(block, self._latest.get(plugin))
        if plugin.counts:
            self._latest[plugin] = responder
        return responder

    def hand_in(self, server: str, counters: Counters) -> None:
        """Copies the figures to the series of one server."""
        for plugin, responder in self._latest.items():
            plugin.module("act").hand_in(responder, server, counters)


def build_behind_cache(block: ServerBlock, tallies: Tallies) -> BehindCache | None:
    """Returns what stands between cache and ``forward``, None if nothing does."""
    rewriter: Rewriter | None = None
    for plugin in plugins_of(block, Place.REWRITES):
        rewriter = plugin.module("act").rewriter(block)
    responders = tuple(tallies.build(plugin, block) for plugin in plugins_of(block, Place.ANSWERS))
    return BehindCache(rewriter, responders) if rewriter or responders else None


def build_whoami(block: ServerBlock) -> Whoami | None:
    """Returns what tells a client where its query came from, None without ``whoami``."""
    whoami: Whoami | None = None
    for plugin in plugins_of(block, Place.ANSWERS_LAST):
        whoami = plugin.module("act").whoami_response
    return whoami


def nsid_option(block: ServerBlock) -> bytes:
    """Returns the EDNS option that tells which server this is, b"" without ``nsid``."""
    if block.nsid is None:
        return b""
    data = (block.nsid or socket.gethostname() or "localhost").encode("utf-8", "replace")
    return TYPE_AND_CLASS.pack(OPTION_NSID, len(data)) + data


class Watch(Protocol):
    """What looks after some server blocks, as ``loop`` does."""

    @property
    def findings(self) -> list[str]:
        """What an operator should know, a sentence each."""

    def watch(self, states: Iterable[BlockState]) -> None:
        """Looks after those of ``states`` that have the directive, and after no others."""

    def stop(self) -> None:
        """Ends all looks."""


class Watches:
    """All of them, begun when a block first has the directive."""

    def __init__(
        self, resolver: Resolver, flush: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._begun: dict[LazyPlugin, Watch] = {}
        self._parts = (resolver, flush, loop)

    @property
    def findings(self) -> list[str]:
        """What an operator should know, a sentence each."""
        return [finding for watch in self._begun.values() for finding in watch.findings]

    def watch(self, states: Iterable[BlockState]) -> None:
        """Goes over to these server blocks."""
        present = tuple(states)
        for state in present:
            for plugin in plugins_of(state.block, Place.LOOKS):
                if plugin not in self._begun:
                    self._begun[plugin] = plugin.module("watch").make_watch(*self._parts)
        for watch in self._begun.values():
            watch.watch(present)

    def stop(self) -> None:
        """Ends all looks."""
        for watch in self._begun.values():
            watch.stop()


class Notes:
    """Figures that come with a configuration, such as the entries of hosts files."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._seen: dict[LazyPlugin, None] = {}

    def note(self, config: Config) -> None:
        """Tells the series of ``config``, and of what it has no more."""
        for block in config.blocks:
            self._seen |= {plugin: None for plugin in plugins_of(block, *Place) if plugin.notes}
        for plugin in self._seen:
            plugin.module("series").note(config, self._counters)
