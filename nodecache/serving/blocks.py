"""The server blocks at work: what each holds, and what of it outlives a change.

One budget of octets for all message caches. A block of the new configuration continues the one
of the old that served the same zones; its messages stay as far as they are still true.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nodecache.cache.carry import carry_over
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import ROOT, Config, NxdomainScope, ServerBlock, Upstream
from nodecache.counters import Counters
from nodecache.engine.block import BlockState
from nodecache.engine.local import Chain
from nodecache.serving.directives import build_chain, new_counts

if TYPE_CHECKING:
    from nodecache.engine.directives.template import TemplateCounts

logger = logging.getLogger("nodecache")

# Part of the octet budget that holds ready replies; the rest holds the messages they are made of.
_PACKET_PART = 0.25


class Blocks:
    """All server blocks.

    Attributes:
        states: In the order of the configuration.
        budget: Of all message caches.
        packet_octets: What all packet caches together may hold.
    """

    def __init__(self, cache_octets: int, counters: Counters) -> None:
        self.states: tuple[BlockState, ...] = ()
        self.budget = Budget(int(cache_octets * (1 - _PACKET_PART)))
        self.packet_octets = int(cache_octets * _PACKET_PART)
        self._counters = counters
        self._template_counts: dict[BlockState, TemplateCounts] = {}

    def apply(self, config: Config, now: float) -> tuple[BlockState, ...]:
        """Goes over to the blocks of ``config``; returns their states in the same order."""
        covering = config.cluster_domain if config.nxdomain_scope is NxdomainScope.CLUSTER else ROOT
        continued = _pair(config.blocks, self.states)
        states = []
        for block, old in zip(config.blocks, continued, strict=True):
            state = old
            if state is None:
                state = BlockState(block, self._new_cache(block, covering.wire))
                state.chain = self._new_chain(state, block)
            else:
                self._go_over(state, block, covering.wire, now)
            states.append(state)
        for state in set(self.states) - set(states):
            self._template_counts.pop(state, None)
            _retire(state)
        self.states = tuple(states)
        return self.states

    def _new_cache(self, block: ServerBlock, covering: bytes) -> MessageCache | None:
        return None if block.cache is None else MessageCache(block.cache, self.budget, covering)

    def _new_chain(self, state: BlockState, block: ServerBlock) -> Chain | None:
        counts = self._template_counts.get(state) or new_counts(block)
        if counts is not None:
            self._template_counts[state] = counts
        return build_chain(block, counts if block.templates else None)

    def hand_in(self, server_of: Mapping[BlockState, str]) -> None:
        """Copies what the templates counted to the series of one server for each block."""
        counters = self._counters
        for state, counts in self._template_counts.items():
            server = server_of[state]
            counters.template_matches |= {(server, *k): n for k, n in counts.matches.items()}
            counters.template_failures |= {
                (server, *k): n for k, n in counts.template_failures.items()
            }
            counters.template_rr_failures |= {
                (server, *k): n for k, n in counts.rr_failures.items()
            }

    def _go_over(self, state: BlockState, block: ServerBlock, covering: bytes, now: float) -> None:
        """Gives ``state`` a new configuration, and of its messages those that still hold."""
        before, chain = state.messages, state.chain
        if not _has_same_chain(state.block, block):
            chain = self._new_chain(state, block)
        messages = before
        if not _keeps_all(state, block, covering):
            messages = self._new_cache(block, covering)
            if before is not None and messages is not None:
                carry_over(before, messages, now, _judge(state, block, chain))
            elif before is not None:
                before.retire()
            logger.debug(
                "%s: the cache goes over to other rules with %d messages",
                " ".join(zone.text for zone in block.zones),
                0 if messages is None else len(messages),
            )
            for pending in state.pending.values():
                # What is under way was asked by the old rules.
                pending.messages = messages if _asks_alike(state.block, block) else None
                if pending.message is not None and pending.message.partition is None:
                    pending.message = None  # it does not hold any more
        state.configure(block, messages, chain)


def _pair(blocks: Sequence[ServerBlock], states: Sequence[BlockState]) -> list[BlockState | None]:
    """Returns for each block the state that it continues: the same zones, else some of them."""
    left = list(states)
    found: list[BlockState | None] = [None] * len(blocks)
    for is_same in (_is_same_place, _is_near_place):
        for index, block in enumerate(blocks):
            if found[index] is None:
                found[index] = next((s for s in left if is_same(s.block, block)), None)
                left = [state for state in left if state is not found[index]]
    return found


def _is_same_place(old: ServerBlock, new: ServerBlock) -> bool:
    return (old.zones, old.port, old.bind) == (new.zones, new.port, new.bind)


def _is_near_place(old: ServerBlock, new: ServerBlock) -> bool:
    return old.port == new.port and not set(old.zones).isdisjoint(new.zones)


def _has_same_chain(old: ServerBlock, new: ServerBlock) -> bool:
    return (old.rewrites, old.templates, old.hosts) == (new.rewrites, new.templates, new.hosts)


def _keeps_all(state: BlockState, block: ServerBlock, covering: bytes) -> bool:
    """Whether the message cache may stay as it is."""
    messages = state.messages
    if messages is None or block.cache is None:
        return messages is None and block.cache is None
    return (
        messages.policy == block.cache
        and messages.nxdomain_zone == covering
        and _has_same_chain(state.block, block)
        and _asks_alike(state.block, block)
    )


def _judge(state: BlockState, block: ServerBlock, chain: Chain | None) -> Callable[[bytes], bool]:
    """Returns whether what was kept under a key still holds by the rules of ``block``."""
    if not _asks_alike(state.block, block):
        return lambda _key: False
    if chain is state.chain:
        return lambda _key: True
    chains = [each for each in (state.chain, chain) if each is not None]

    def is_untouched(key: bytes) -> bool:
        plans = (each.plan(key[:-1]) for each in chains)
        return all(plan.rewritten is None and plan.response is None for plan in plans)

    return is_untouched


def _asks_alike(old: ServerBlock, new: ServerBlock) -> bool:
    """Whether answers of the old upstreams are those of the new ones, too.

    They are if each ``forward`` takes the same names and still has one of its upstreams: what
    was added is then meant to answer alike. A stub domain that moves house starts anew.
    """
    if len(old.forwards) != len(new.forwards):
        return False
    for before, after in zip(old.forwards, new.forwards, strict=True):
        if (before.origin, before.except_zones) != (after.origin, after.except_zones):
            return False
        if before.upstreams and set(_addresses(before.upstreams)).isdisjoint(
            _addresses(after.upstreams)
        ):
            return False
    return True


def _addresses(upstreams: Sequence[Upstream]) -> Iterator[object]:
    return (upstream.address for upstream in upstreams)


def _retire(state: BlockState) -> None:
    """Ends a block that the new configuration does not have."""
    if state.messages is not None:
        state.messages.retire()
    for pending in state.pending.values():
        pending.messages = pending.message = None
    state.messages = None
