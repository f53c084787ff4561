"""Looks for forwarding loops, for the ``loop`` directive: after each start, reload, and finding."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from time import monotonic

from nodecache.config.model import ForwardPolicy
from nodecache.directives.loop.act import LoopGuard
from nodecache.directives.loop.model import LOOP
from nodecache.resolve.block import PATIENCE_S, BlockState
from nodecache.resolve.resolver import Resolver
from nodecache.wire.const import MAX_NAME_OCTETS

# A looped question is back in milliseconds; no longer than an exchange may take is waited for it.
_LOOK_S = PATIENCE_S + 0.5
# How long a block that loops rests before it is looked at again.
_REST_S = 30.0
_LABEL_OCTETS = 16
_RANDOM_OCTETS = 2 * (_LABEL_OCTETS + 1)

logger = logging.getLogger("nodecache")


def make_watch(
    resolver: Resolver, flush: Callable[[], None], loop: asyncio.AbstractEventLoop
) -> LoopWatch:
    """Returns what looks after the blocks that have ``loop``."""
    return LoopWatch(resolver, flush, loop)


class LoopWatch:
    """Guards the server blocks that have ``loop``."""

    def __init__(
        self, resolver: Resolver, flush: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._resolver = resolver
        self._flush = flush
        self._loop = loop
        self._tasks: dict[BlockState, asyncio.Task[None]] = {}
        self._looked_at: dict[BlockState, tuple[ForwardPolicy, ...]] = {}

    @property
    def findings(self) -> list[str]:
        """Zones that loop at present, a sentence for each block."""
        return [
            f"{_zones(state)}: what is forwarded comes back here, so misses get SERVFAIL"
            for state in self._tasks
            if state.guard is not None and state.guard.is_looping
        ]

    def watch(self, states: Iterable[BlockState]) -> None:
        """Looks at those of ``states`` that forward otherwise than before, and at no others."""
        wanted = {s: s.block.forwards for s in states if s.block.of(LOOP)}
        for state in [s for s, seen in self._looked_at.items() if wanted.get(s) != seen]:
            self._forget(state)
        for state in wanted.keys() - self._looked_at.keys():
            if len(state.block.zones[0].wire) <= MAX_NAME_OCTETS - _RANDOM_OCTETS:
                self._looked_at[state] = wanted[state]
                self._tasks[state] = self._loop.create_task(self._guard(state))

    def stop(self) -> None:
        """Ends all looks."""
        for state in list(self._looked_at):
            self._forget(state)

    def _forget(self, state: BlockState) -> None:
        del self._looked_at[state]
        self._tasks.pop(state).cancel()
        state.guard = None

    async def _guard(self, state: BlockState) -> None:
        """Looks until an upstream has answered that does not send the question back."""
        is_looping = False
        while True:
            guard = LoopGuard(_unguessable_name(state), is_looping)
            self._resolver.look_for_loop(state, guard, monotonic())
            self._flush()
            await asyncio.sleep(_LOOK_S)
            if not guard.has_returned and not guard.has_failed:
                break
            if guard.has_returned and not is_looping:
                logger.error(
                    "plugin/loop: what zone %s forwards comes back here: its misses get SERVFAIL"
                    " until that is mended; correct its 'forward' or the resolv.conf that it names",
                    _zones(state),
                )
            is_looping = guard.is_looping
            await asyncio.sleep(_REST_S)
        state.guard = None
        if is_looping:
            logger.info("plugin/loop: zone %s forwards without a loop again", _zones(state))


def _unguessable_name(state: BlockState) -> bytes:
    """Returns two random labels below the block's zone, in wire format."""
    labels = [os.urandom(_LABEL_OCTETS // 2).hex().encode() for _ in range(2)]
    first, second = (bytes([len(label)]) + label for label in labels)
    return first + second + state.block.zones[0].wire


def _zones(state: BlockState) -> str:
    return " ".join(zone.text for zone in state.block.zones)
