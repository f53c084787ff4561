"""Which upstream of a forward policy is asked, first and next."""

from __future__ import annotations

from collections.abc import Callable

from nodecache.config.model import ForwardPolicy, SelectionPolicy
from nodecache.upstreams.connection import Pool
from nodecache.upstreams.exchange import Carrier


class Route:
    """The pools of one policy, in its order.

    Attributes:
        policy: Held so that its ``id`` stays taken.
        pools: As many as it has upstreams.
        only: The pool, if there is just one.
    """

    __slots__ = ("_random", "_turn", "only", "policy", "pools")

    def __init__(
        self, policy: ForwardPolicy, pools: tuple[Pool, ...], random: Callable[[], float]
    ) -> None:
        self.policy = policy
        self.pools = pools
        self.only = pools[0] if len(pools) == 1 else None
        self._random = random
        self._turn = -1

    def choose(self, now: float) -> Pool:
        """Returns the upstream to ask first; one that is down only if all are, at random."""
        usable = [pool for pool in self.pools if pool.is_usable(now)]
        if usable:
            if self.policy.selection is not SelectionPolicy.SEQUENTIAL:
                usable = [pool for pool in usable if not pool.forms.is_plain(now)] or usable
            return self._choose(usable)
        up = [pool for pool in self.pools if not pool.health.is_down]
        return self._choose_random(up or list(self.pools))

    def all_down(self) -> bool:
        """Whether every upstream is down."""
        return all(pool.health.is_down for pool in self.pools)

    def rank(self, tried: set[Carrier], now: float) -> list[Pool]:
        """Returns all pools: the usable first, then the untried, then those that take EDNS."""
        pools = self.pools
        if self.only is None and self.policy.selection is not SelectionPolicy.SEQUENTIAL:
            start = int(self._random() * len(pools))
            pools = pools[start:] + pools[:start]
        return sorted(
            pools,
            key=lambda pool: (not pool.is_usable(now), pool in tried, pool.forms.is_plain(now)),
        )

    def _choose(self, pools: list[Pool]) -> Pool:
        # A method kept in an attribute would be a cycle, and a route would outlive its reload.
        if self.policy.selection is SelectionPolicy.RANDOM:
            return self._choose_random(pools)
        if self.policy.selection is SelectionPolicy.ROUND_ROBIN:
            return self._choose_turn(pools)
        return pools[0]

    def _choose_random(self, pools: list[Pool]) -> Pool:
        return pools[int(self._random() * len(pools))]

    def _choose_turn(self, pools: list[Pool]) -> Pool:
        self._turn += 1
        return pools[self._turn % len(pools)]
