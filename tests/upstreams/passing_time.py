"""A node whose stub resolvers and upstream live on a virtual clock, tier 1 included."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nodecache.config.model import CachePolicy
from nodecache.resolve.block import Pending
from nodecache.upstreams.exchange import Failure
from tests.cache.building import NOW, a, query, response
from tests.resolve.resolving import Bed

# What becomes of an exchange: how long that takes, and its result; None for never.
Behaviour = Callable[[Pending, float], tuple[float, bytes | Failure] | None]


class Got(NamedTuple):
    """One reply: when the query came, how long it waited, and the octets behind the ID."""

    name: str
    asked_at: float
    waited_s: float
    octets: bytes


def answers(ttl_s: int, rtt_s: float) -> Behaviour:
    """An upstream that gives every name one address."""
    return lambda pending, _: (rtt_s, response(pending.key, [a(ttl_s)]))


@dataclass
class Node:
    """One resolver and one packet cache, asked and answered by events in order of time.

    Attributes:
        begun: When each exchange began, and its key.
        most_under_way: Exchanges at once.
    """

    upstream: Behaviour
    policy: CachePolicy = field(default_factory=CachePolicy)
    seed: int = 1
    start: float = NOW
    got: list[Got] = field(default_factory=list)
    begun: list[tuple[float, bytes]] = field(default_factory=list)
    most_under_way: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.bed = Bed(self.policy, random=self.dice.random, now=self.start, most_pending=10_000)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._seen = 0

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Has ``act`` called ``when`` seconds after the start."""
        self._put(self.start + when, act)

    def _put(self, when: float, act: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (when, self._sequence, act))

    def ask_steadily(
        self, name: str, interval_s: float, until_s: float, from_s: float = 0.0
    ) -> None:
        """Puts queries down, one each ``interval_s``."""
        asked = query(name)
        for number in range(int((until_s - from_s) / interval_s) + 1):
            self.at(from_s + number * interval_s, lambda: self.serve(name, asked))

    def run(self, until_s: float) -> None:
        """Lets time pass: queries, answers and the resolver's timer in order."""
        end = self.start + until_s
        while (when := self._next_at()) <= end:
            self.bed.now = max(self.bed.now, when)
            if self._events and self._events[0][0] <= self.bed.now:
                heapq.heappop(self._events)[2]()
            else:
                self.bed.resolver.timer(self.bed.now)
            self._pass_on()
        self.bed.now = end

    def _next_at(self) -> float:
        event = self._events[0][0] if self._events else float("inf")
        timer = self.bed.resolver.next_timer()
        return event if timer is None else min(event, timer)

    def serve(self, name: str, asked: bytes) -> None:
        """Does what net/udp.py does for one datagram."""
        self._serve(name, asked)
        self._pass_on()

    def _serve(self, name: str, asked: bytes) -> None:
        bed, packets, now = self.bed, self.bed.packets, self.bed.now
        if now >= packets.turns_at:
            packets.turn(now)
        packet = packets.fresh.get(asked[2:]) or packets.revive(asked[2:], now)
        if packet is not None:
            packet.hits += 1
            self.got.append(Got(name, now, 0.0, packet.reply))
            return
        reply = bed.resolver.query(asked, bed.udp, (name, now), now)
        if reply:
            self.got.append(Got(name, now, 0.0, reply[2:]))

    def _pass_on(self) -> None:
        """Hands replies out that came later, and questions to the upstream."""
        bed = self.bed
        replies, bed.resolver.results.replies = bed.resolver.results.replies, []
        for _, (name, asked_at), reply in replies:
            self.got.append(Got(name, asked_at, bed.now - asked_at, reply[2:]))
        for pending in bed.forwarder.submitted[self._seen :]:
            self.begun.append((bed.now, pending.key))
            outcome = self.upstream(pending, bed.now)
            if outcome is not None:
                self._put(bed.now + outcome[0], self._answer(pending, outcome[1]))
        self._seen = len(bed.forwarder.submitted)
        self.most_under_way = max(self.most_under_way, bed.resolver.pending_count)

    def _answer(self, pending: Pending, result: bytes | Failure) -> Callable[[], None]:
        def act() -> None:
            self.bed.forwarder.finish(pending, result, self.bed.now)
            if not pending.is_done:  # a response that was refused, and nobody else to ask
                self.bed.forwarder.finish(pending, Failure.MALFORMED, self.bed.now)

        return act

    def waits(self, after_s: float = 0.0) -> list[Got]:
        """Returns the replies, of queries that came after so long, that had to wait."""
        return [g for g in self.got if g.waited_s > 0 and g.asked_at > self.start + after_s]


def asked_at(node: Node) -> Sequence[float]:
    """Returns when the upstream was asked, in seconds after the start."""
    return [when - node.start for when, _ in node.begun]
