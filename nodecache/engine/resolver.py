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
from nodecache.config.model import ROOT, ForwardPolicy, StaleMode
from nodecache.counters import Counters
from nodecache.engine.block import MOST_WAITERS, BlockState, Pending
from nodecache.engine.directives.chase import add_answers, find_open_target
from nodecache.engine.directives.whoami import whoami_response
from nodecache.engine.exchange import Exchange, Failure
from nodecache.engine.listener import Listener
from nodecache.engine.local import Plan
from nodecache.engine.loop import LoopGuard
from nodecache.engine.waiter import Waiter, most_octets, reply_stale, reply_to
from nodecache.engine.zones import ServedZone
from nodecache.wire.const import (
    CLASS_IN,
    EDE_CACHED_ERROR,
    EDE_NETWORK_ERROR,
    EDE_NO_REACHABLE_AUTHORITY,
    EDE_NOT_READY,
    NXDOMAIN,
    RA,
    RCODE_MASK,
    REFUSED,
    SERVFAIL,
    TYPE_AND_CLASS,
    TYPE_HINFO,
)
from nodecache.wire.query import Query, Refusal, Silence, scan_query
from nodecache.wire.reply import (
    compose_ends,
    compose_refusal,
    compose_reply,
    extended_error,
    keep_what_fits,
)
from nodecache.wire.rrs import read_options

SILENCE = b""  # what ``query`` returns when there will be no reply

# After a failed refresh a name rests this long before the next hit tries again.
_REFRESH_PAUSE_S = 2.0
_NO_COUNTS = (0, 0, 0)
_CACHED_ERROR = extended_error(EDE_CACHED_ERROR)
_NETWORK_ERROR = extended_error(EDE_NETWORK_ERROR)
_NOT_READY = extended_error(EDE_NOT_READY)
_NO_REACHABLE_AUTHORITY = extended_error(EDE_NO_REACHABLE_AUTHORITY)
# Stands for a forward policy where a directive of the block answers.
_ANSWERED_HERE = ForwardPolicy(ROOT, ())
_KEY_OF_PROBE = b"\1"  # RD set, neither CD nor DO: see Query.key()
# Failures kept for the error log between two looks of the shell; more are only counted.
_MOST_ERRORS = 256


class Asks(Protocol):
    """What the resolver needs of a forwarder."""

    def submit(self, exchange: Exchange, now: float) -> None:
        """Begins an exchange; may end it at once."""


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
        self.self_check = b""
        self._forwarder = forwarder
        self._counters = counters
        self._random = random
        self._most_pending = most_pending
        self._stale_at: list[tuple[float, int, Pending]] = []
        self._sequence = 0

    def refuse_misses(self) -> None:
        """From now on answers what it knows, and refuses the rest: we are about to leave."""
        self._most_pending = 0

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
        if served.front is not None:
            return served.front.query(query, client, now)
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
        if octets[2:] == self.self_check:
            return reply
        unserved = listener.zones.unserved
        unserved.count_query(0, len(octets), wants_dnssec=False)
        unserved.count_response(verdict.rcode, "", len(reply))
        return reply

    def _hit(self, waiter: Waiter, message: Message, now: float) -> bytes:
        """Returns the reply made of a valid message, and admits the question to tier 1."""
        listener, query, served = waiter.listener, waiter.query, waiter.served
        self._note_hit(message, served, now)
        limit = most_octets(query, listener, served.state)
        error = _CACHED_ERROR if message.kind is Kind.FAILURE else b""
        head, tail, fits = compose_ends(
            query, message.flags, message.counts, message.records_octets, limit, error
        )
        records, pieces = message.records(now), message.pieces
        if not fits:
            head, kept, octets = keep_what_fits(head, tail, records, message.counts[0], limit)
            records, pieces = records[:octets], message.first_pieces(kept, octets)
        reply = query.octets[:2] + head + records + tail
        served.queries.count_response(message.rcode, "cache", len(reply))
        served.queries.durations.observe(0.0)
        packets = listener.packets
        # Cookies and 0x20 spellings will not come again: they would only push others out.
        if packets is not None and not query.is_personal and query.qname in query.octets:
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
        pending = self._begin(served.state, message.key, now)
        if pending is not None:
            pending.message = message
            served.caches.prefetches += 1
            self._counters.count_event("refreshed")
            self._submit(pending, now)

    def _ask(self, waiter: Waiter, key: bytes, stale: Message | None, now: float) -> bytes | None:
        """Joins or begins the exchange for ``key``; ``stale`` may be served instead (RFC 8767)."""
        state = waiter.served.state
        guard = state.guard
        if guard is not None and guard.stops(waiter.query.qname):
            return self._shed(waiter, stale, SERVFAIL)
        pending = state.pending.get(key)
        if pending is not None:
            if len(pending.waiters) >= MOST_WAITERS:
                self._counters.count_event("shed")
                return self._shed(waiter, stale)
            self._counters.count_event("coalesced")
            return self._wait(pending, waiter, stale, now)
        if stale is not None and stale.refresh_at > now:
            return reply_stale(waiter, stale)
        pending = self._begin(state, key, now, waiter)
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
                return reply_stale(waiter, stale)
            if not pending.waiters:
                self._serve_stale_at(now + wait_s, pending)
        pending.waiters.append(waiter)
        return None

    def _serve_stale_at(self, when: float, pending: Pending) -> None:
        self._sequence += 1
        heapq.heappush(self._stale_at, (when, self._sequence, pending))

    def _shed(self, waiter: Waiter, stale: Message | None, rcode: int = REFUSED) -> bytes:
        """Returns what a miss gets when nobody may be asked: a stale reply, or an error."""
        if stale is not None:
            return reply_stale(waiter, stale)
        policy = waiter.served.state.forward_for(waiter.query.qname)
        error = _NOT_READY if policy is not None and not policy.upstreams else b""
        return reply_to(waiter, RA | rcode, _NO_COUNTS, b"", "forward", 0.0, error)

    def _begin(
        self, state: BlockState, key: bytes, now: float, waiter: Waiter | None = None
    ) -> Pending | None:
        """Returns a new exchange, not yet submitted; None if nobody may be asked.

        ``waiter`` is who asks, None for a question of our own.
        """
        plan = state.chain.plan(key[:-1]) if state.chain is not None else None
        question = key[:-1] if plan is None else plan.question
        if plan is not None and plan.response is not None:
            policy = _ANSWERED_HERE
        elif (found := state.forward_for(question[:-4])) is not None:
            policy = found
            if not policy.upstreams or self._is_full(state, policy):
                return None
        elif state.block.is_whoami and waiter is not None:
            plan, policy = _plan_whoami(question, plan, waiter), _ANSWERED_HERE
        else:
            return None
        messages = state.cache_for(key[:-5])
        pending = Pending(state, key, policy, messages, now, self._done, plan)
        state.pending[key] = pending
        self.pending_count += 1
        return pending

    def _is_full(self, state: BlockState, policy: ForwardPolicy) -> bool:
        """Whether there are too many exchanges; counts it."""
        if policy.max_concurrent and len(state.pending) >= policy.max_concurrent:
            self._counters.max_concurrent_rejects += 1
        elif self.pending_count < self._most_pending:
            return False
        self._counters.count_event("shed")
        return True

    def _submit(self, pending: Pending, now: float) -> None:
        if pending.message is not None:
            pending.message.refresh_at = NEVER
        plan = pending.plan
        if plan is None or plan.response is None:
            self._forwarder.submit(pending, now)
            return
        target = find_open_target(plan.response) if plan.plugin == "template" else None
        if target is None or not self._chase(pending, plan.response, target, now):
            self._finish_here(pending, plan.response, now)

    def _chase(self, pending: Pending, response: bytes, target: bytes, now: float) -> bool:
        """Asks for the end of the CNAME that a template made; False if nobody may be asked."""
        policy = pending.state.forward_for(target[:-4])
        if policy is None or not policy.upstreams:
            return False

        def take(_: Exchange, result: bytes | Failure, now: float) -> bool:
            found = b"" if isinstance(result, Failure) else result
            self._finish_here(pending, add_answers(response, found), now)
            return True

        head, tail = pending.state.query_ends[pending.key[-1]]
        query = head + target + tail
        exchange = Exchange(target, query, policy, now, pending.deadline, take)
        self._forwarder.submit(exchange, now)
        return True

    def _finish_here(self, pending: Pending, response: bytes, now: float) -> None:
        """Ends an exchange that a directive of ours answered."""
        pending.is_done = True
        if not self._done(pending, response, now):
            self._done(pending, Failure.MALFORMED, now)

    def look_for_loop(self, state: BlockState, guard: LoopGuard, now: float) -> None:
        """Asks for the name of ``guard`` and keeps nothing; ``guard`` tells what came of it."""
        state.guard = guard
        key = guard.qname + TYPE_AND_CLASS.pack(TYPE_HINFO, CLASS_IN) + _KEY_OF_PROBE
        pending = self._begin(state, key, now)
        if pending is not None:
            pending.messages = None
            self._submit(pending, now)

    def _done(self, pending: Pending, result: bytes | Failure, now: float) -> bool:
        """Takes the end of an exchange: keeps what came, and replies to all who waited.

        Returns False, with nothing done, for a malformed response: then somebody else is asked.
        """
        answer: Answer | None = None
        error = b""
        if isinstance(result, Failure):
            self._note_error(pending, result.value)
            answer = admit_failure(pending.key, pending.messages, now)
            is_reachable = result is not Failure.UNREACHABLE
            error = _NO_REACHABLE_AUTHORITY if is_reachable else _NETWORK_ERROR
        elif not pending.policy.next_rcodes or not self._moves_on(pending, result, now):
            response = result if pending.plan is None else pending.plan.restore(result)
            if response is not None:
                key, messages = pending.key, pending.messages
                answer = admit_response(response, key, messages, now, self._random())
            if answer is None:
                self._note_error(pending, "the upstream's response is malformed")
                return False
        if answer is not None:
            del pending.state.pending[pending.key]
            self.pending_count -= 1
            self._settle(pending, answer, error, now)
        return True

    def _settle(self, pending: Pending, answer: Answer, error: bytes, now: float) -> None:
        message = pending.message
        if message is not None and message.partition is not None:
            if not _is_refreshed(answer):
                message.refresh_at = now + _REFRESH_PAUSE_S
                if message.keep_until > now:
                    self._serve_stale(pending, message, now)
            elif pending.state.messages is not None:
                # The fresh answer could not be kept (TTL 0), but what it replaces is over.
                pending.state.messages.remove(message)
        plugin = "forward"
        if pending.plan is not None:
            plugin = pending.plan.plugin
            error = error or read_options(pending.plan.response)
        for waiter in pending.waiters:
            reply = reply_to(
                waiter,
                answer.flags,
                answer.counts,
                answer.records,
                plugin,
                now - waiter.since,
                error,
                0 if answer.is_truncated else None,
            )
            self._send(waiter, reply, now)

    def _send(self, waiter: Waiter, reply: bytes, now: float) -> None:
        """Hands out a reply that comes later."""
        front = waiter.listener.front
        if front is None:
            self.replies.append((waiter.listener, waiter.client, reply))
        else:
            front.deliver(waiter.client, reply, now)

    def _moves_on(self, pending: Pending, response: bytes, now: float) -> bool:
        """Hands the question to the block's next ``forward`` if ``next`` says so."""
        policy = pending.policy
        if response[3] & 0xF not in policy.next_rcodes:
            return False
        state = pending.state
        following = state.forward_for(pending.question[:-4], after=policy)
        if following is None:
            return False
        key, messages, plan = pending.key, pending.messages, pending.plan
        successor = Pending(state, key, following, messages, now, self._done, plan)
        successor.waiters, successor.message = pending.waiters, pending.message
        # The patience of those who wait goes on, it does not begin anew.
        successor.deadline = pending.deadline
        if successor.message is not None and successor.waiters:
            since = successor.waiters[0].since
            self._serve_stale_at(since + _stale_wait_s(state), successor)
        state.pending[pending.key] = successor
        self._submit(successor, now)
        return True

    def _serve_stale(self, pending: Pending, message: Message, now: float) -> None:
        waiters, pending.waiters = pending.waiters, []
        for waiter in waiters:
            self._send(waiter, reply_stale(waiter, message), now)

    def _note_error(self, pending: Pending, text: str) -> None:
        guard = pending.state.guard
        if guard is not None and guard.qname == pending.key[:-5]:
            guard.has_failed = True
            return  # nobody waits for it, and nobody knows its name
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
                self._serve_stale(pending, pending.message, now)


def _plan_whoami(question: bytes, plan: Plan | None, waiter: Waiter) -> Plan:
    address = waiter.listener.locate(waiter.client)
    response = whoami_response(question, address, waiter.listener.proto)
    return Plan(question, plan.rewritten if plan is not None else None, response, "whoami")


def _is_refreshed(answer: Answer) -> bool:
    """Whether ``answer`` tells the state of the data; if not, what was known stays in place.

    RFC 8767 section 4: NOERROR and NXDOMAIN do. A truncated answer, a referral and a NODATA
    without SOA are no answers that anybody could use.
    """
    if answer.kind is Kind.NOT_KEPT:
        return answer.flags & RCODE_MASK == NXDOMAIN and not answer.is_truncated
    return answer.kind is not Kind.FAILURE


def _stale_wait_s(state: BlockState) -> float:
    """Returns how long a fresh answer is waited for before a stale one goes out."""
    policy = state.messages.policy.serve_stale if state.messages is not None else None
    if policy is None or policy.mode is StaleMode.IMMEDIATE:
        return 0.0
    return policy.verify_timeout_s
