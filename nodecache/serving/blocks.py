"""The server blocks at work: what each holds, and what of it outlives a change.

One budget of octets for all message caches. A block of the new configuration continues the one
of the old that served the same zones; its messages stay as far as they are still true.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from nodecache.cache.carry_over import CarryOver
from nodecache.cache.store import EXPIRE_AT_ONCE, Budget, MessageCache
from nodecache.config.model import (
    ROOT,
    Config,
    ForwardPolicy,
    NamedUpstream,
    NxdomainScope,
    ServerBlock,
)
from nodecache.counters import Counters
from nodecache.resolve.behind_cache import BehindCache
from nodecache.resolve.block import BlockState
from nodecache.serving.directives import (
    Tallies,
    behind_cache_settings,
    build_behind_cache,
    build_whoami,
    nsid_option,
)
from nodecache.wire.key import QUESTION_END

logger = logging.getLogger("nodecache")

# Part of the octet budget that holds ready replies; the rest holds the messages they are made of.
_PACKET_PART = 0.25
# A change that comes while so many before it are on their way ends the first of them at one go.
_MOST_UNDER_WAY = 4


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
        self._tallies: dict[BlockState, Tallies] = {}
        self._under_way: deque[CarryOver] = deque()  # the first must end before the next may

    def apply(self, config: Config, now: float) -> tuple[BlockState, ...]:
        """Goes over to the blocks of ``config``; returns their states in the same order."""
        scopes = {NxdomainScope.CLUSTER: config.cluster_domain.wire, NxdomainScope.ALL: ROOT.wire}
        covering = scopes.get(config.nxdomain_scope)
        continued = _pair(config.blocks, self.states)
        states = []
        for block, old in zip(config.blocks, continued, strict=True):
            state = old
            if state is None:
                state = BlockState(block, self._new_cache(block, covering))
                # A rate shows the first slow exchange only of a series that began with 0.
                self._counters.slow_exchanges.setdefault(block.zones_label, 0)
                state.behind_cache = self._new_behind_cache(state, block)
            else:
                self._go_over(state, block, covering, now)
            state.nsid = nsid_option(block)
            state.whoami = build_whoami(block)
            states.append(state)
        for state in set(self.states) - set(states):
            self._tallies.pop(state, None)
            self._retire(state, now)
        self.states = tuple(states)
        return self.states

    def sweep(self, now: float) -> bool:
        """Moves messages to the rules of now, or lets go what has expired; about 1 ms.

        Returns whether it should be called again at once.
        """
        if not self._under_way:
            return self.budget.expire(now) == EXPIRE_AT_ONCE
        if not self._under_way[0].step(now):
            self._under_way.popleft()
        return True

    def _carry_over(
        self,
        old: MessageCache,
        new: MessageCache | None,
        now: float,
        holds: Callable[[bytes], bool] | None,
    ) -> None:
        """Has the messages of ``old`` moved by ``sweep``, and by whoever asks for one of them."""
        if len(self._under_way) >= _MOST_UNDER_WAY:
            while self._under_way[0].step(now):
                pass
            self._under_way.popleft()
        self._under_way.append(CarryOver(old, new, now, holds))

    def _retire(self, state: BlockState, now: float) -> None:
        """Ends a block that the new configuration does not have."""
        if state.messages is not None:
            self._carry_over(state.messages, None, now, None)
        for pending in state.pending.values():
            pending.messages = pending.message = None
        state.messages = None

    def _new_cache(self, block: ServerBlock, covering: bytes | None) -> MessageCache | None:
        return None if block.cache is None else MessageCache(block.cache, self.budget, covering)

    def _new_behind_cache(self, state: BlockState, block: ServerBlock) -> BehindCache | None:
        return build_behind_cache(block, self._tallies.setdefault(state, Tallies()))

    def hand_in(self, server_of: Mapping[BlockState, str]) -> None:
        """Copies what directives counted to the series of one server for each block."""
        for state, server in server_of.items():
            if state in self._tallies:
                self._tallies[state].hand_in(server, self._counters)

    def _go_over(
        self, state: BlockState, block: ServerBlock, covering: bytes | None, now: float
    ) -> None:
        """Gives ``state`` a new configuration, and of its messages those that still hold."""
        before, behind_cache = state.messages, state.behind_cache
        if not _has_same_chain(state.block, block):
            behind_cache = self._new_behind_cache(state, block)
        messages = before
        if not _keeps_all(state, block, covering):
            messages = self._new_cache(block, covering)
            if before is not None:
                self._carry_over(before, messages, now, _judge(state, block, behind_cache))
            logger.debug(
                "%s: the cache goes over to other rules",
                " ".join(zone.text for zone in block.zones),
            )
            _lead_pending(state, block, messages)
        state.configure(block, messages, behind_cache)


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
    return behind_cache_settings(old) == behind_cache_settings(new)


def _keeps_all(state: BlockState, block: ServerBlock, covering: bytes | None) -> bool:
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


def _lead_pending(state: BlockState, block: ServerBlock, messages: MessageCache | None) -> None:
    """Has what is under way, asked by the old rules, kept by the new ones if they ask alike."""
    for pending in state.pending.values():
        pending.messages = messages if _asks_alike(state.block, block) else None
        known = pending.message
        if known is not None and (messages is None or messages.peek(known.key) is not known):
            pending.message = None  # it does not hold any more


def _judge(
    state: BlockState, block: ServerBlock, behind_cache: BehindCache | None
) -> Callable[[bytes], bool] | None:
    """Returns whether what was kept under a key still holds by ``block``; None if nothing does."""
    if not _asks_alike(state.block, block):
        return None
    if behind_cache is state.behind_cache:
        return lambda _key: True
    chains = [each for each in (state.behind_cache, behind_cache) if each is not None]

    def is_untouched(key: bytes) -> bool:
        plans = (each.plan(key[:QUESTION_END]) for each in chains)
        return all(plan.rewritten is None and plan.response is None for plan in plans)

    return is_untouched


def _asks_alike(old: ServerBlock, new: ServerBlock) -> bool:
    """Whether answers of the old upstreams are those of the new ones, too.

    They are if each ``forward`` takes the same names and still has one of its upstreams, or of the
    hosts that name them: what was added is then meant to answer alike. A stub domain that moves
    house starts anew.
    """
    if len(old.forwards) != len(new.forwards):
        return False
    for before, after in zip(old.forwards, new.forwards, strict=True):
        if (before.origin, before.except_zones) != (after.origin, after.except_zones):
            return False
        if before.upstreams and set(_places(before)).isdisjoint(_places(after)):
            return False
    return True


def _places(policy: ForwardPolicy) -> Iterator[object]:
    yield from (upstream.address for upstream in policy.upstreams)
    for each in policy.destinations:
        if isinstance(each, NamedUpstream):
            yield each.host.name, each.pattern.address.port
