"""Upstreams that are named by a host: which hosts there are, and what they come to.

Pure; who looks them up is serving/hostnames.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from nodecache.config.model import (
    Address,
    Config,
    ForwardPolicy,
    HostName,
    NamedUpstream,
    ServerBlock,
    Upstream,
)
from nodecache.config.resolvconf import is_own
from nodecache.limits import UPSTREAM_COUNT

# Host -> its addresses, in a stable order.
Known = Mapping[HostName, tuple[str, ...]]


def hosts_of(config: Config) -> tuple[HostName, ...]:
    """Returns all hosts whose addresses are needed, each once."""
    destinations = (
        destination
        for block in config.blocks
        for policy in block.forwards
        for destination in policy.destinations
    )
    named = (each for each in destinations if isinstance(each, NamedUpstream))
    return tuple(dict.fromkeys(each.host for each in named))


def with_addresses(config: Config, known: Known) -> Config:
    """Returns ``config`` with the upstreams that all hosts come to; unknown ones come to none.

    Our own addresses are left out, and what is beyond the most upstreams of a ``forward``.
    """
    if not hosts_of(config):
        return config
    blocks = tuple(_complete_block(block, known, config) for block in config.blocks)
    return replace(config, blocks=blocks)


def _complete_block(block: ServerBlock, known: Known, config: Config) -> ServerBlock:
    forwards = (_complete(policy, known, config) for policy in block.forwards)
    return replace(block, forwards=tuple(forwards))


def _complete(policy: ForwardPolicy, known: Known, config: Config) -> ForwardPolicy:
    if not policy.destinations:
        return policy
    found = dict.fromkeys(_upstreams(policy, known, config))
    return replace(policy, upstreams=tuple(found)[: int(UPSTREAM_COUNT.most)])


def _upstreams(policy: ForwardPolicy, known: Known, config: Config) -> Iterator[Upstream]:
    for destination in policy.destinations:
        if isinstance(destination, Upstream):
            yield destination
            continue
        pattern = destination.pattern
        for host in known.get(destination.host, ()):
            address = Address(host, pattern.address.port)
            if not is_own(address, config.own_addresses):
                yield replace(pattern, address=address)
