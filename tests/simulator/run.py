"""Lives one history through."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from zlib import crc32

from tests.simulator.arrivals import EDGE_S
from tests.simulator.clock import Clock
from tests.simulator.history import History, Lookup
from tests.simulator.network import Network
from tests.simulator.node import Node
from tests.simulator.stubs import MANNERS, Asking, Query
from tests.simulator.violation import ViolationError
from tests.simulator.watch import OVERCOME_S, Watch
from tests.simulator.zone import Zone

BEGINS_AT = 1000.0
REST_S = 75.0  # longer than any connection lives, and than anything may be kept waiting
SWEEP_S = 1.0
MOST_TIMERS = 1000  # at one moment; more is a busy loop


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        queries: That stub resolvers sent.
        fingerprint: Of all replies and their times: equal runs have equal ones.
        violation: What did not hold, None if everything did.
    """

    queries: int
    fingerprint: int
    violation: ViolationError | None


class Run:
    """One history on its way."""

    def __init__(
        self,
        history: History,
        ignored: Collection[str] = (),
        alter: Callable[[Node], None] | None = None,
    ) -> None:
        """Makes everything ready.

        Args:
            history: What is to happen.
            ignored: Invariants that need not hold.
            alter: Gets the node before the beginning, to break it.
        """
        self.clock = clock = Clock(BEGINS_AT)
        self.zone = Zone()
        self.watch = watch = Watch(history, clock, self.zone, ignored)
        dice = random.Random(history.seed)
        self.network = Network(
            history.places, self.zone, clock, random.Random(dice.random()), watch
        )
        self.node = Node(history, clock, self.network, random.Random(dice.random()), self._reply)
        self.network.node = watch.node = self.node
        self.fingerprint = 0
        self._history = history
        self._dice = dice
        self._put_down(history)
        if alter is not None:
            alter(self.node)

    def _put_down(self, history: History) -> None:
        at, everyone = self._at, tuple(range(len(history.places)))
        for fault in history.faults:
            at(fault.at, partial(self.network.begin, fault))
            ends_at = min(fault.until, history.ends_at)
            at(ends_at, partial(self.network.end, fault))
            at(ends_at + OVERCOME_S + EDGE_S, self.watch.calmed)
        for blink in history.blinks:
            at(blink.at, partial(self.node.go_over, blink.upstreams))
            at(
                min(blink.until, history.ends_at),
                partial(self.node.go_over, everyone),
            )
        for lookup in history.lookups:
            at(lookup.at, partial(self._look_up, lookup))

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self.clock.at(BEGINS_AT + when, act)

    def _look_up(self, lookup: Lookup) -> None:
        for qtype in MANNERS[lookup.stub].types:
            Asking(lookup, qtype, self.clock, self._dice.randrange(1 << 16), self._ask).ask()

    def _ask(self, query: Query) -> None:
        self.watch.asked(query)
        self.node.ask(query)
        self.watch.taken(query)

    def _reply(self, query: Query, octets: bytes) -> None:
        self.fingerprint = crc32(octets + repr(self.clock.now).encode(), self.fingerprint)
        self.watch.replied(query, octets)
        # On its way to the stub resolver, so that it never asks from within the node.
        self.clock.after(0.0, lambda: query.asking.take(query))

    def live(self) -> None:
        """Lets time pass until all is at rest. Raises ViolationError."""
        self._sweep()
        end = BEGINS_AT + self._history.ends_at + REST_S
        timers = 0
        while True:
            event_at, timer_at = self.clock.next_at, self.node.next_timer()
            if min(event_at, end if timer_at is None else timer_at) >= end:
                break
            if timer_at is not None and timer_at <= event_at:
                timers = timers + 1 if timer_at <= self.clock.now else 0
                if timers > MOST_TIMERS:
                    raise ViolationError(
                        "no busy loop", self.clock.now - BEGINS_AT, "its timer is due"
                    )
                self.clock.now = max(self.clock.now, timer_at)
                self.node.timer()
            else:
                self.clock.step()
            self.watch.happened()
        self.watch.rest()

    def _sweep(self) -> None:
        self.watch.sweep()
        if self.clock.now < BEGINS_AT + self._history.ends_at:
            self.clock.after(SWEEP_S, self._sweep)


def run(
    history: History,
    ignored: Collection[str] = (),
    alter: Callable[[Node], None] | None = None,
) -> Outcome:
    """Lives ``history`` through; what does not hold is in the outcome."""
    life = Run(history, ignored, alter)
    try:
        life.live()
    except ViolationError as violation:
        return Outcome(life.watch.queries, life.fingerprint, violation)
    return Outcome(life.watch.queries, life.fingerprint, None)
