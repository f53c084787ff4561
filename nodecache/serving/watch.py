"""Who asks what at present, for ``nodecache top``: sampled, and only while somebody looks.

While nobody does nothing here is called. While somebody does, at most about SAMPLES_A_SECOND
queries are looked at more closely, each standing for as many as passed by; on a node that is asked
less than that it is all of them.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from nodecache.cache.message import Message
from nodecache.net.mmsg import Batch, Countdown
from nodecache.resolve.block import Pending
from nodecache.resolve.listener import Listener
from nodecache.resolve.resolver import Resolver
from nodecache.serving.server import Server
from nodecache.sketches import SpaceSaving
from nodecache.upstreams.exchange import Failure
from nodecache.wire.const import HEADER_OCTETS, RCODE_MASK
from nodecache.wire.key import key_of
from nodecache.wire.numbers import NXDOMAIN, SERVFAIL
from nodecache.wire.query import Query, name_end, scan_query

SAMPLES_A_SECOND = 100  # 10 to 20 us each: a fifth of a per cent of a core
# From one look to the end of watching: longer than anybody waits between two looks.
WATCHED_S = 15.0
# What is told is about the last one to two of these.
WINDOW_S = 10.0
_PLACES = 512

_PACKET, _MESSAGE, _MISS = range(3)


class Tally:
    """How often one question was asked, and what became of it; estimates.

    Attributes:
        answers: Hits of ready packets, hits of messages, misses.
        nxdomains: Of all these, those denied.
        exchanges: With upstreams.
        exchange_s: Seconds that they took.
        failures: Those that came to nothing or to SERVFAIL.
    """

    __slots__ = ("answers", "exchange_s", "exchanges", "failures", "nxdomains")

    def __init__(self) -> None:
        self.answers = [0.0, 0.0, 0.0]
        self.nxdomains = 0.0
        self.exchanges = 0.0
        self.exchange_s = 0.0
        self.failures = 0.0

    @property
    def queries(self) -> float:
        """All of them."""
        return sum(self.answers)

    def add(self, other: Tally) -> None:
        """Adds what another window saw."""
        self.answers = [one + two for one, two in zip(self.answers, other.answers, strict=True)]
        self.nxdomains += other.nxdomains
        self.exchanges += other.exchanges
        self.exchange_s += other.exchange_s
        self.failures += other.failures


class Window:
    """What was seen in some seconds.

    Attributes:
        began_at: Monotonic seconds.
        queries: All of them, counted one by one.
        questions: By question in wire format.
        tallies: More of those that have a place, from when they got it.
        all: Of all questions together.
        clients: By IP address.
    """

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.queries = 0
        self.questions: SpaceSaving[bytes] = SpaceSaving(_PLACES)
        self.tallies: dict[bytes, Tally] = {}
        self.all = Tally()
        self.clients: SpaceSaving[str] = SpaceSaving(_PLACES)

    def tally(self, question: bytes, weight: float) -> Tally:
        """Returns the tally of a question that was asked ``weight`` times more."""
        lost = self.questions.add(question, weight)
        if lost is not None:
            self.tallies.pop(lost, None)
        return self.tallies.setdefault(question, Tally())


class Watch:
    """Looks at queries while somebody looks at it.

    Args:
        servers: Returns all that serve at present.
        resolver: Tells of the ends of exchanges.
        loop: Serves queries.

    Attributes:
        every: How many queries one that is looked at stands for.
    """

    def __init__(
        self,
        servers: Callable[[], Iterable[Server]],
        resolver: Resolver,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.every = 1
        self._servers = servers
        self._resolver = resolver
        self._loop = loop
        self._until = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._windows = [Window(monotonic())]
        # Queries until the next one that is looked at; with what was dealt out of them, that is how
        # many there were, so that a batch costs one subtraction.
        self._countdown = Countdown(1)
        self._dealt = 1
        self._ends_left = 1
        self._noted = 0
        self._before_window = self._before_second = 0

    @property
    def is_on(self) -> bool:
        """Whether queries are looked at."""
        return self._tick is not None

    def look(self) -> list[Window]:
        """Returns what was seen of late, the newest window last, and goes on watching."""
        now = monotonic()
        self._until = now + WATCHED_S
        if self._tick is None:
            self._windows = [Window(now)]
            self.every, self._noted = 1, 0
            self._before_window = self._before_second = self._dealt - self._countdown.left
            self._resolver.watch_ends(self._see_end)
            self._tick = self._loop.call_later(1.0, self._each_second)
        # At each look, since a reload may have brought others.
        for server in self._servers():
            server.udp.batch.watch(self._countdown, partial(self._see_batch, server.udp_listener))
            server.tcp.resolver = _WatchedResolver(self._resolver, self._see_query)
        self._count()
        return list(self._windows)

    def _count(self) -> int:
        """Counts the queries of the present window; returns those since the beginning of all."""
        seen = self._dealt - self._countdown.left
        self._windows[-1].queries = seen - self._before_window
        return seen

    def stop(self) -> None:
        """Looks at nothing any more."""
        if self._tick is None:
            return
        self._tick.cancel()
        self._tick = None
        self._resolver.watch_ends(None)
        for server in self._servers():
            server.udp.batch.unwatch()
            server.tcp.resolver = self._resolver

    def _each_second(self) -> None:
        now = monotonic()
        if now >= self._until:
            self.stop()
            return
        window, seen = self._windows[-1], self._count()
        self.every, self._noted = max(1, (seen - self._before_second) // SAMPLES_A_SECOND), 0
        self._before_second = seen
        if now - window.began_at >= WINDOW_S:
            self._windows = [window, Window(now)]
            self._before_window = seen
        self._tick = self._loop.call_later(1.0, self._each_second)

    # On the way of queries; each of these must be short.

    def _see_batch(self, listener: Listener, batch: Batch, lengths: tuple[int, ...]) -> None:
        """Of a batch in which the countdown came to its end."""
        while self._countdown.left <= 0:
            slot = len(lengths) - 1 + self._countdown.left
            start = batch.spans[slot][2]
            octets = batch.octets[start : start + lengths[slot]]
            self._note(octets, listener, batch.peer(slot))
            self._deal()

    def _see_query(self, octets: bytes, listener: Listener, client: Any) -> None:
        """The same of each query that comes over TCP."""
        self._countdown.left -= 1
        if self._countdown.left <= 0:
            self._note(octets, listener, client)
            self._deal()

    def _deal(self) -> None:
        stride = self._stride()
        self._countdown.left += stride
        self._dealt += stride

    def _stride(self) -> int:
        """Returns how many queries pass by until the next one; no rhythm of stubs may meet it."""
        every = self.every
        self._noted += 1
        if self._noted > SAMPLES_A_SECOND:
            self.every, self._noted = 2 * every, 0
        return every if every == 1 else random.randrange(1, 2 * every)  # noqa: S311 # no secret

    def _note(self, octets: bytes, listener: Listener, client: Any) -> None:
        window, weight = self._windows[-1], float(self.every)
        packet = None if listener.packets is None else listener.packets.peek(octets[2:])
        message: Message | None
        if packet is not None:
            # Who has a packet asked in lower case, and was scanned once.
            question = octets[HEADER_OCTETS : name_end(octets, HEADER_OCTETS) + 4]
            tier, message = _PACKET, packet.message
        else:
            query = scan_query(octets)
            if not isinstance(query, Query):
                return
            question = query.qname + octets[query.question_end - 4 : query.question_end]
            message = _find(query, listener)
            tier = _MISS if message is None else _MESSAGE
        is_denied = message is not None and message.rcode == NXDOMAIN
        window.clients.add(listener.locate(client).host, weight)
        for tally in (window.all, window.tally(question, weight)):
            tally.answers[tier] += weight
            if is_denied:
                tally.nxdomains += weight

    def _see_end(self, pending: Pending, result: bytes | Failure, now: float) -> None:
        self._ends_left -= 1
        if self._ends_left > 0:
            return
        self._ends_left = self._stride()
        weight = float(self.every)
        rcode = SERVFAIL if isinstance(result, Failure) else result[3] & RCODE_MASK
        window = self._windows[-1]
        for tally in (window.all, window.tallies.get(pending.question)):
            if tally is not None:
                tally.exchanges += weight
                tally.exchange_s += weight * (now - pending.started_at)
                tally.failures += weight * (rcode == SERVFAIL)
                # Of a refresh nobody is told, of a shared exchange all who joined it.
                tally.nxdomains += weight * len(pending.waiters) * (rcode == NXDOMAIN)


class _WatchedResolver:
    """Stands before the resolver of a TCP server while somebody looks."""

    def __init__(self, resolver: Resolver, see: Callable[[bytes, Listener, Any], None]) -> None:
        self._resolver = resolver
        self._see = see

    def query(self, octets: bytes, listener: Listener, client: Any, now: float) -> bytes | None:
        self._see(octets, listener, client)
        return self._resolver.query(octets, listener, client, now)


def _find(query: Query, listener: Listener) -> Message | None:
    """Returns the message that answers a query, None for a miss."""
    served, now = listener.zones.find(query.qname, query.qtype), monotonic()
    messages = None if served is None else served.state.cache_for(query.qname)
    message = None if messages is None else messages.find(key_of(query), now)
    return message if message is not None and message.expires_at > now else None


@dataclass(frozen=True, slots=True)
class Seen:
    """What all windows saw.

    Attributes:
        queries: All of them, counted one by one.
        all: What became of them, estimated.
        tallies: By question.
        errors: Question -> how many more it may have been asked.
        clients: IP address -> queries.
    """

    queries: int
    all: Tally
    tallies: dict[bytes, Tally]
    errors: Counter[bytes]
    clients: Counter[str]


def merged(windows: Sequence[Window]) -> Seen:
    """Returns what all windows saw."""
    queries = sum(window.queries for window in windows)
    seen = Seen(queries, Tally(), {}, Counter(), Counter())
    for window in windows:
        seen.all.add(window.all)
        for question, tally in window.tallies.items():
            seen.tallies.setdefault(question, Tally()).add(tally)
        for question, estimate in window.questions.heaviest(_PLACES):
            seen.errors[question] += round(estimate.error)
        for client, estimate in window.clients.heaviest(_PLACES):
            seen.clients[client] += round(estimate.weight - estimate.error)
    return seen
