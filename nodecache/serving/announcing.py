"""What the log says about the configuration in force: one short block at start, one line later."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from nodecache import __version__
from nodecache.config.model import Address, Config, ServerBlock
from nodecache.directives.lazy import Place
from nodecache.directives.table import plugins_of
from nodecache.serving.server import Server

logger = logging.getLogger("nodecache")


def announce(config: Config, servers: Mapping[Address, Server]) -> None:
    """Says what listens where, forwards whereto, caches how much; warnings even if quiet."""
    for warning in config.warnings:
        logger.warning("%s", warning)
    if config.quiet:
        return
    logger.info("nodecache %s", __version__)
    for address, server in servers.items():
        for state in server.states:
            logger.info("on %s: %s", address, describe(state.block))
    logger.info("caching up to %.0f MiB in all", config.cache_octets / 1024 / 1024)


def announce_change(config: Config, before: Config, servers: Mapping[Address, Server]) -> None:
    """Says in a few lines what a reload changed."""
    for warning in config.warnings:
        if warning not in before.warnings:
            logger.warning("%s", warning)
    count = len(config.blocks)
    logger.info("configuration loaded: %d server blocks on %d addresses", count, len(servers))
    old = set(map(describe, before.blocks))
    for text in dict.fromkeys(map(describe, config.blocks)):
        if text not in old:
            logger.info("now: %s", text)


def describe(block: ServerBlock) -> str:
    """Returns "zones -> who answers" of a server block, for people."""
    zones = " ".join(zone.text for zone in block.zones)
    answering = [*_local_directives(block), *_upstreams(block)]
    return f"{zones} -> {', '.join(answering) or 'nobody'}"


def _local_directives(block: ServerBlock) -> Iterable[str]:
    answering = plugins_of(block, Place.REWRITES, Place.ANSWERS, Place.ANSWERS_LAST)
    return (plugin.name for plugin in answering)


def _upstreams(block: ServerBlock) -> list[str]:
    if not block.forwards:
        return []
    upstreams = [
        f"{upstream.transport.value}://{upstream.address}"
        for policy in block.forwards
        for upstream in policy.upstreams
    ]
    return upstreams or ["no upstream: queries are refused"]
