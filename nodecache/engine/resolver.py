"""Behind the packet cache: find the zone, look up, coalesce, ask, keep, reply.

Sans-I/O. ``query`` takes what a listener received, the forwarder calls back with what an upstream
answered, and replies that come later are collected in ``replies`` for the shell to deliver.

Every query gets one reply, or a counted drop (``Counters.drops``).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from nodecache.cache.admit import Answer, admit_failure, admit_response
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.cache.packet import Packet
from nodecache.config.model import StaleMode
from nodecache.counters import Counters
from nodecache.engine.block import MOST_WAITERS, BlockState, Pending
from nodecache.engine.exchange import Exchange, Failure
from nodecache.engine.listener import Listener
from nodecache.engine.zones import ServedZone
from nodecache.wire.const import (
    EDE_CACHED_ERROR,
    EDE_NETWORK_ERROR,
    EDE_NO_REACHABLE_AUTHORITY,
    EDE_STALE_ANSWER,
    NXDOMAIN,
    RA,
    RCODE_MASK,
    REFUSED,
)
from nodecache.wire.query import Query, Refusal, Silence, scan_query
from nodecache.wire.reply import compose_ends, compose_refusal, compose_reply

SILENCE = b""  # what ``query`` returns when there will be no reply

STALE_TTL_S = 5
# After a failed refresh a name rests this long before the next hit tries again.
_REFRESH_PAUSE_S = 2.0
_NO_COUNTS = (0, 0, 0)
# Failures kept for the error log between two looks of the shell; more are only counted.
_MOST_ERRORS = 256


class Asks(Protocol):
    """What the resolver needs of a forwarder."""

    def submit(self, exchange: Exchange, now: float) -> None:
        """Begins an exchange; may end it at once."""


class Waiter(NamedTuple):
    """A query whose reply comes later."""

    listener: Listener
    client: Any
    query: Query
    served: ServedZone
    since: float


class UpstreamError(NamedTuple):
    """A failed exchange, for the error log."""

    state: BlockState
    question: bytes
    text: str


class Resolver:
    """The miss path of all listeners."""

    def __init__(
        self, forwarder: Asks, counters: Counters, random: Callable[[], float], most_pending: int
    ) -> None:
        """Makes a resolver with nothing under way.

        Args:
            forwarder: Asks the upstreams.
            counters: Of the whole daemon.
            random: Returns numbers in [0, 1).
            most_pending: Exchanges under way above which misses are REFUSED.
        """
        self.replies: list[tuple[Listener, Any, bytes]] = []
        self.errors: list[UpstreamError] = []
        self.pending_count = 0
        self._forwarder = forwarder
        self._counters = counters
        self._random = random
        self._most_pending = most_pending
        self._stale_at: list[tuple[float, int, Pending]] = []
        self._sequence = 0

    def query(self, octets: bytes, listener: Listener, client: Any, now: float) -> bytes | None:
        """Returns the reply to ``octets``, SILENCE for none, None if it comes in ``replies``.

        ``client`` is handed back to ``listener.deliver``. Raises nothing.
        """
        query = scan_query(octets)
        if not isinstance(query, Query):
            return self._refuse(octets, query, listener)
        served = listener.zones.find(query.qname, query.qtype)
        if served is None:
            listener.zones.unserved.count_query(query.qtype, len(octets), query.dnssec_ok)
            reply = octets[:2] + compose_reply(query, RA | REFUSED, _NO_COUNTS, b"", 512)
            listener.zones.unserved.count_response(REFUSED, "", len(reply))
            return reply
        served.queries.count_query(query.qtype, len(octets), query.dnssec_ok)
        waiter = Waiter(listener, client, query, served, now)
        messages = served.state.cache_for(query.qname)
        if messages is None:
            return self._ask(waiter, query.key(), None, now)
        served.caches.requests += 1
        key = query.key()
        message = messages.find(key, now)
        if message is not None and message.expires_at > now:
            return self._hit(waiter, message, now)
        served.caches.misses += 1
        if message is not None and message.kind is not Kind.FAILURE and message.keep_until > now:
            return self._ask(waiter, key, message, now)
        return self._ask(waiter, key, None, now)

    def _refuse(self, octets: bytes, verdict: Refusal | Silence, listener: Listener) -> bytes:
        if isinstance(verdict, Silence):
            self._counters.count_drop(verdict.value)
            return SILENCE
        reply = octets[:2] + compose_refusal(octets, verdict)
        unserved = listener.zones.unserved
        unserved.count_query(0, len(octets), wants_dnssec=False)
        unserved.count_response(verdict.rcode, "", len(reply))
        return reply

    def _hit(self, waiter: Waiter, message: Message, now: float) -> bytes:
        """Returns the reply made of a valid message, and admits the question to tier 1."""
        listener, query, served = waiter.listener, waiter.query, waiter.served
        self._note_hit(message, served, now)
        limit = _most_octets(query, listener)
        error = EDE_CACHED_ERROR if message.kind is Kind.FAILURE else None
        head, tail, fits = compose_ends(
            query, message.flags, message.counts, message.records_octets, limit, error
        )
        reply = query.octets[:2] + head + (message.records(now) if fits else b"") + tail
        served.queries.count_response(message.rcode, "cache", len(reply))
        served.queries.durations.observe(0.0)
        packets = listener.packets
        # Cookies and 0x20 spellings will not come again: they would only push others out.
        if packets is not None and not query.is_personal and query.qname in query.octets:
            pieces = message.pieces if fits else (b"",)
            series = (served.queries, served.caches)
            packets.admit(Packet(query, message, pieces, (head, tail), series), now)
        return reply

    def _note_hit(self, message: Message, served: ServedZone, now: float) -> None:
        if message.kind is Kind.SUCCESS:
            served.caches.success_hits += 1
        else:
            served.caches.denial_hits += 1
        if message.partition is not None:
            message.partition.touch(message)
        messages = served.state.messages
        prefetch = messages.policy.prefetch if messages is not None else None
        if prefetch is not None:
            if now - message.hit_at > prefetch.duration_s:
                message.hits = 0
            if message.refresh_at <= now and message.hits + 1 >= prefetch.amount:
                self._refresh(message, served, now)
        message.hits += 1
        message.hit_at = now

    def _refresh(self, message: Message, served: ServedZone, now: float) -> None:
        """Asks for a message that is still valid, once, with nobody waiting (refresh-ahead)."""
        if message.key in served.state.pending:
            return
        pending = self._begin(served.state, message.key, message.key[:-5], now)
        if pending is not None:
            pending.message = message
            served.caches.prefetches += 1
            self._counters.count_event("refreshed")
            self._submit(pending, now)

    def _ask(self, waiter: Waiter, key: bytes, stale: Message | None, now: float) -> bytes | None:
        """Joins or begins the exchange for ``key``; ``stale`` may be served instead (RFC 8767)."""
        state = waiter.served.state
        pending = state.pending.get(key)
        if pending is not None:
            if len(pending.waiters) >= MOST_WAITERS:
                self._counters.count_event("shed")
                return self._shed(waiter, stale)
            self._counters.count_event("coalesced")
            return self._wait(pending, waiter, stale, now)
        if stale is not None and stale.refresh_at > now:
            return self._stale_reply(waiter, stale)
        pending = self._begin(state, key, waiter.query.qname, now)
        if pending is None:
            return self._shed(waiter, stale)
        reply = self._wait(pending, waiter, stale, now)
        self._submit(pending, now)
        return reply

    def _wait(
        self, pending: Pending, waiter: Waiter, stale: Message | None, now: float
    ) -> bytes | None:
        """Lets ``waiter`` wait; returns a stale reply if it should not have to."""
        if stale is not None:
            pending.message = stale
            wait_s = _stale_wait_s(pending.state)
            if wait_s <= 0:
                return self._stale_reply(waiter, stale)
            if not pending.waiters:
                self._serve_stale_at(now + wait_s, pending)
        pending.waiters.append(waiter)
        return None

    def _serve_stale_at(self, when: float, pending: Pending) -> None:
        self._sequence += 1
        heapq.heappush(self._stale_at, (when, self._sequence, pending))

    def _shed(self, waiter: Waiter, stale: Message | None) -> bytes:
        """Returns what a miss gets when nobody may be asked: a stale reply, or REFUSED."""
        if stale is not None:
            return self._stale_reply(waiter, stale)
        return self._compose(waiter, RA | REFUSED, _NO_COUNTS, b"", "forward", 0.0)

    def _begin(self, state: BlockState, key: bytes, qname: bytes, now: float) -> Pending | None:
        """Returns a new exchange, not yet submitted; None if nobody may be asked."""
        policy = state.forward_for(qname)
        if policy is None:
            return None
        if policy.max_concurrent and len(state.pending) >= policy.max_concurrent:
            self._counters.max_concurrent_rejects += 1
            self._counters.count_event("shed")
            return None
        if self.pending_count >= self._most_pending:
            self._counters.count_event("shed")
            return None
        pending = Pending(state, key, policy, state.cache_for(qname), now, self._done)
        state.pending[key] = pending
        self.pending_count += 1
        return pending

    def _submit(self, pending: Pending, now: float) -> None:
        if pending.message is not None:
            pending.message.refresh_at = NEVER
        self._forwarder.submit(pending, now)

    def _done(self, pending: Pending, result: bytes | Failure, now: float) -> bool:
        """Takes the end of an exchange: keeps what came, and replies to all who waited.

        Returns False, with nothing done, for a malformed response: then somebody else is asked.
        """
        answer: Answer | None = None
        error: int | None = None
        if isinstance(result, Failure):
            self._note_error(pending, result.value)
            answer = admit_failure(pending.key, pending.messages, now)
            is_reachable = result is not Failure.UNREACHABLE
            error = EDE_NO_REACHABLE_AUTHORITY if is_reachable else EDE_NETWORK_ERROR
        elif not pending.policy.next_rcodes or not self._moves_on(pending, result, now):
            answer = admit_response(result, pending.key, pending.messages, now, self._random())
            if answer is None:
                self._note_error(pending, "the upstream's response is malformed")
                return False
        if answer is not None:
            del pending.state.pending[pending.key]
            self.pending_count -= 1
            self._settle(pending, answer, error, now)
        return True

    def _settle(self, pending: Pending, answer: Answer, error: int | None, now: float) -> None:
        message = pending.message
        if message is not None and message.partition is not None:
            if not _is_refreshed(answer):
                message.refresh_at = now + _REFRESH_PAUSE_S
                if message.keep_until > now:
                    self._serve_stale(pending, message)
            elif pending.state.messages is not None:
                # The fresh answer could not be kept (TTL 0), but what it replaces is over.
                pending.state.messages.remove(message)
        for waiter in pending.waiters:
            reply = self._compose(
                waiter,
                answer.flags,
                answer.counts,
                answer.records,
                "forward",
                now - waiter.since,
                error,
                0 if answer.is_truncated else None,
            )
            self.replies.append((waiter.listener, waiter.client, reply))

    def _moves_on(self, pending: Pending, response: bytes, now: float) -> bool:
        """Hands the question to the block's next ``forward`` if ``next`` says so."""
        policy = pending.policy
        if response[3] & 0xF not in policy.next_rcodes:
            return False
        state = pending.state
        following = state.forward_for(pending.question[:-4], after=policy)
        if following is None:
            return False
        successor = Pending(state, pending.key, following, pending.messages, now, self._done)
        successor.waiters, successor.message = pending.waiters, pending.message
        # The patience of those who wait goes on, it does not begin anew.
        successor.deadline = pending.deadline
        if successor.message is not None and successor.waiters:
            since = successor.waiters[0].since
            self._serve_stale_at(since + _stale_wait_s(state), successor)
        state.pending[pending.key] = successor
        self._submit(successor, now)
        return True

    def _serve_stale(self, pending: Pending, message: Message) -> None:
        for waiter in pending.waiters:
            self.replies.append(
                (waiter.listener, waiter.client, self._stale_reply(waiter, message))
            )
        pending.waiters = []

    def _stale_reply(self, waiter: Waiter, message: Message) -> bytes:
        """Returns a reply made of an expired message (RFC 8767 section 4)."""
        waiter.served.caches.served_stale += 1
        records = message.records_with_ttl(STALE_TTL_S)
        return self._compose(
            waiter, message.flags, message.counts, records, "cache", 0.0, EDE_STALE_ANSWER
        )

    def _compose(
        self,
        waiter: Waiter,
        flags: int,
        counts: tuple[int, int, int],
        records: bytes,
        plugin: str,
        duration_s: float,
        extended_error: int | None = None,
        limit: int | None = None,
    ) -> bytes:
        """Returns the whole reply to a waiter, counted."""
        query, listener, queries = waiter.query, waiter.listener, waiter.served.queries
        if limit is None:
            limit = _most_octets(query, listener)
        rest = compose_reply(query, flags, counts, records, limit, extended_error)
        queries.count_response(flags & 0xF, plugin, len(rest) + 2)
        queries.durations.observe(duration_s)
        return query.octets[:2] + rest

    def _note_error(self, pending: Pending, text: str) -> None:
        self._counters.count_event("upstream_failures")
        if pending.state.block.errors is not None and len(self.errors) < _MOST_ERRORS:
            self.errors.append(UpstreamError(pending.state, pending.question, text))

    def next_timer(self) -> float | None:
        """Returns when ``timer`` wants to be called, monotonic seconds; None for never."""
        return self._stale_at[0][0] if self._stale_at else None

    def timer(self, now: float) -> None:
        """Serves stale messages to those who have waited long enough for a fresh one."""
        while self._stale_at and self._stale_at[0][0] <= now:
            _, _, pending = heapq.heappop(self._stale_at)
            if not pending.is_done and pending.message is not None and pending.waiters:
                self._serve_stale(pending, pending.message)


def _is_refreshed(answer: Answer) -> bool:
    """Whether ``answer`` tells the state of the data; if not, what was known stays in place.

    RFC 8767 section 4: NOERROR and NXDOMAIN do. A truncated answer, a referral and a NODATA
    without SOA are no answers that anybody could use.
    """
    if answer.kind is Kind.NOT_KEPT:
        return answer.flags & RCODE_MASK == NXDOMAIN and not answer.is_truncated
    return answer.kind is not Kind.FAILURE


def _most_octets(query: Query, listener: Listener) -> int:
    """Returns how long a reply may be."""
    if listener.proto == "udp":
        return min(query.payload_size, listener.most_octets)
    return listener.most_octets


def _stale_wait_s(state: BlockState) -> float:
    """Returns how long a fresh answer is waited for before a stale one goes out."""
    policy = state.messages.policy.serve_stale if state.messages is not None else None
    if policy is None or policy.mode is StaleMode.IMMEDIATE:
        return 0.0
    return policy.verify_timeout_s
