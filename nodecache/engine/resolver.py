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
from nodecache.config.model import ROOT, ForwardPolicy
from nodecache.counters import Counters
from nodecache.engine.block import MOST_AHEAD, MOST_WAITERS, BlockState, Pending
from nodecache.engine.directives.chase import add_answers, find_open_target
from nodecache.engine.directives.whoami import whoami_response
from nodecache.engine.exchange import Exchange, Failure
from nodecache.engine.listener import Listener
from nodecache.engine.local import Plan
from nodecache.engine.lookout import Lookout
from nodecache.engine.loop import LoopGuard
from nodecache.engine.shares import ClientShares
from nodecache.engine.stale import (
    is_failing,
    is_refreshed,
    is_resting,
    rests_until,
    stale_wait_s,
)
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

_NO_COUNTS = (0, 0, 0)
# Nobody was asked, so nobody failed.
_REFUSED_HERE = (Failure.OVERLOADED, Failure.PACED)
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

    def looks_dead(self, policy: ForwardPolicy, now: float) -> bool:
        """Whether none of the upstreams of ``policy`` is likely to answer."""

    def refusal(self, policy: ForwardPolicy) -> Failure | None:
        """Returns why an exchange would end at once, as far as that is known."""


class UpstreamError(NamedTuple):
    """A failed exchange, for the error log."""

    state: BlockState
    question: bytes
    text: str


class Resolver:
    """The miss path of all listeners."""

    def __init__(
        self,
        forwarder: Asks,
        counters: Counters,
        random: Callable[[], float],
        most_pending: int,
        client_share: int = 100,
    ) -> None:
        """Makes a resolver with nothing under way.

        Args:
            forwarder: Asks the upstreams.
            counters: Of the whole daemon.
            random: Returns numbers in [0, 1).
            most_pending: Exchanges under way above which misses are REFUSED.
            client_share: Per cent for one client, see ClientShares.
        """
        self.replies: list[tuple[Listener, Any, bytes]] = []
        self.errors: list[UpstreamError] = []
        self.pending_count = 0
        self.self_check = b""
        self._forwarder = forwarder
        self._counters = counters
        self._random = random
        self._most_pending = most_pending
        self._shares = ClientShares(client_share, most_pending)
        # Exchanges under way from which each miss is looked at before it begins one; 0 while an
        # upstream takes no more, so that refusing a flood costs little.
        self._looks_from = self._shares.crowded_from
        self._lookout = Lookout()
        self._stale_at: list[tuple[float, int, Pending]] = []
        self._sequence = 0

    def refuse_misses(self) -> None:
        """From now on answers what it knows, and refuses the rest: we are about to leave."""
        self._most_pending = self._looks_from = 0

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
        if message.rcode == NXDOMAIN:
            served.queries.count_nxdomain(query.qname)
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
            if not message.hits:
                self._lookout.note(message, served, now)
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
        pending = self._begin_ahead(served.state, message.key, message, now)
        if pending is not None:
            served.caches.prefetches += 1
            self._counters.count_event("refreshed")
            self._submit(pending, now)

    def _begin_ahead(
        self,
        state: BlockState,
        key: bytes,
        message: Message,
        now: float,
        waiter: Waiter | None = None,
    ) -> Pending | None:
        """Returns a new exchange for which nobody waits; None if there may be none now."""
        if state.asked_ahead >= MOST_AHEAD:
            return None
        pending = self._begin(state, key, now, waiter)
        if pending is not None:
            state.asked_ahead += 1
            pending.is_ahead = True
            pending.message = message
        return pending

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
        if stale is not None and self._is_fresh_unlikely(waiter, stale, now):
            return self._ask_behind(waiter, key, stale, now)
        pending = self._begin(state, key, now, waiter)
        if pending is None:
            return self._shed(waiter, stale)
        reply = self._wait(pending, waiter, stale, now)
        self._submit(pending, now)
        return reply

    def _is_fresh_unlikely(self, waiter: Waiter, stale: Message, now: float) -> bool:
        """Whether to wait for a fresh answer would be in vain, or is not wanted."""
        state = waiter.served.state
        if stale_wait_s(state) <= 0 or is_failing(stale, now):
            return True
        if state.chain is not None:
            return False  # may answer by itself, or ask somebody else
        policy = state.forward_for(waiter.query.qname)
        return policy is not None and self._forwarder.looks_dead(policy, now)

    def _ask_behind(self, waiter: Waiter, key: bytes, stale: Message, now: float) -> bytes:
        """Returns a stale reply, and asks for the next one unless that was done just now."""
        reply = reply_stale(waiter, stale)
        if not is_resting(stale, now):
            pending = self._begin_ahead(waiter.served.state, key, stale, now, waiter)
            if pending is not None:
                pending.stale_at = now
                self._submit(pending, now)
        return reply

    def _wait(
        self, pending: Pending, waiter: Waiter, stale: Message | None, now: float
    ) -> bytes | None:
        """Lets ``waiter`` wait; returns a stale reply if it should not have to."""
        if stale is not None:
            pending.message = stale
            if not pending.stale_at:
                pending.stale_at = pending.started_at + stale_wait_s(pending.state)
                self._serve_stale_at(pending.stale_at, pending)
            if pending.stale_at <= now:
                return reply_stale(waiter, stale)
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
        owner = ""
        plan = state.chain.plan(key[:-1]) if state.chain is not None else None
        question = key[:-1] if plan is None else plan.question
        if plan is not None and plan.response is not None:
            policy = _ANSWERED_HERE
        elif (found := state.forward_for(question[:-4])) is not None:
            policy = found
            room = self._find_room(state, policy, waiter) if policy.upstreams else None
            if room is None:
                return None
            owner = room
        elif state.block.is_whoami and waiter is not None:
            plan, policy = _plan_whoami(question, plan, waiter), _ANSWERED_HERE
        else:
            return None
        messages = state.cache_for(key[:-5])
        pending = Pending(state, key, policy, messages, now, self._done, plan)
        pending.owner = owner
        state.pending[key] = pending
        self.pending_count += 1
        return pending

    def _find_room(
        self, state: BlockState, policy: ForwardPolicy, waiter: Waiter | None
    ) -> str | None:
        """Returns to whom a new exchange is counted, "" for nobody; None if there is no room."""
        shares = self._shares
        if not policy.max_concurrent and self.pending_count < self._looks_from:
            return ""
        if self._is_full(state, policy) or self._is_refused(policy, waiter):
            return None
        if waiter is None or not shares.is_crowded(policy, self.pending_count, len(state.pending)):
            return ""
        owner = shares.take(waiter.listener.locate(waiter.client).host, policy)
        if not owner:
            self._counters.count_event("shed")
            self._counters.count_event("shed_client_share")
            return None
        return owner

    def _is_refused(self, policy: ForwardPolicy, waiter: Waiter | None) -> bool:
        """Whether no upstream takes another exchange; counts it."""
        refusal = self._forwarder.refusal(policy)
        if refusal is None:
            if self._most_pending:
                self._looks_from = self._shares.crowded_from
            return False
        self._looks_from = 0
        if waiter is not None:
            self._count_refusal(refusal)
        return True

    def _count_refusal(self, failure: Failure) -> None:
        self._counters.count_event("shed")
        if failure is Failure.PACED:
            self._counters.count_event("shed_paced")

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
            pending.is_spare = True
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
            answer, error = self._fail(pending, result, now)
        elif not pending.policy.next_rcodes or not self._moves_on(pending, result, now):
            response = result if pending.plan is None else pending.plan.restore(result)
            if response is not None:
                key, messages = pending.key, pending.messages
                answer = admit_response(response, key, messages, now, self._random())
            if answer is None:
                self._note_error(pending, "the upstream's response is malformed")
                return False
        if answer is not None:
            state = pending.state
            del state.pending[pending.key]
            self.pending_count -= 1
            if pending.is_ahead:
                state.asked_ahead -= 1
            if pending.owner:
                self._shares.give_back(pending.owner)
            self._settle(pending, answer, error, now)
        return True

    def _fail(self, pending: Pending, failure: Failure, now: float) -> tuple[Answer, bytes]:
        """Returns what those get who wait for an exchange that failed, and its EDE option.

        Where nobody was asked, that is REFUSED, as CoreDNS's max_concurrent has it, and nothing
        is kept: it says nothing about the name, and a stub turns to its next nameserver at once.
        """
        if failure in _REFUSED_HERE and (pending.waiters or pending.is_spare):
            self._looks_from = 0
            if not pending.is_spare:
                self._count_refusal(failure)
            return Answer(RA | REFUSED, _NO_COUNTS, b"", Kind.FAILURE), b""
        self._note_error(pending, failure.value)
        is_unreachable = failure is Failure.UNREACHABLE
        error = _NETWORK_ERROR if is_unreachable else _NO_REACHABLE_AUTHORITY
        return admit_failure(pending.key, pending.messages, now), error

    def _settle(self, pending: Pending, answer: Answer, error: bytes, now: float) -> None:
        message = pending.message
        if message is not None and message.partition is not None:
            if not is_refreshed(answer):
                message.refresh_at = rests_until(pending, now)
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
        successor.is_ahead, successor.owner = pending.is_ahead, pending.owner
        # The patience of those who wait goes on, it does not begin anew.
        successor.started_at, successor.deadline = pending.started_at, pending.deadline
        successor.stale_at = pending.stale_at
        if successor.stale_at > now:
            self._serve_stale_at(successor.stale_at, successor)
        state.pending[pending.key] = successor
        self._submit(successor, now)
        return True

    def _serve_stale(self, pending: Pending, message: Message, now: float) -> None:
        waiters, pending.waiters = pending.waiters, []
        for waiter in waiters:
            self._send(waiter, reply_stale(waiter, message), now)

    def _serve_known(self, pending: Pending, stale: Message, now: float) -> None:
        """Serves stale, unless another question told more of the name meanwhile."""
        messages = pending.messages
        known = messages.find(pending.key, now) if messages is not None else None
        if known is None or known.kind is not Kind.NXDOMAIN or known.expires_at <= now:
            self._serve_stale(pending, stale, now)
            return
        waiters, pending.waiters = pending.waiters, []
        records = known.records(now)
        for waiter in waiters:
            duration_s = now - waiter.since
            reply = reply_to(waiter, known.flags, known.counts, records, "cache", duration_s)
            self._send(waiter, reply, now)

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
        first = self._lookout.next_at
        if self._stale_at and self._stale_at[0][0] < first:
            first = self._stale_at[0][0]
        return first if first < NEVER else None

    def timer(self, now: float) -> None:
        """Refreshes what is due, and serves stale to those who have waited long enough."""
        for message, served in self._lookout.take_due(now):
            self._refresh(message, served, now)
        while self._stale_at and self._stale_at[0][0] <= now:
            _, _, pending = heapq.heappop(self._stale_at)
            if not pending.is_done and pending.message is not None and pending.waiters:
                self._serve_known(pending, pending.message, now)


def _plan_whoami(question: bytes, plan: Plan | None, waiter: Waiter) -> Plan:
    address = waiter.listener.locate(waiter.client)
    response = whoami_response(question, address, waiter.listener.proto)
    return Plan(question, plan.rewritten if plan is not None else None, response, "whoami")
