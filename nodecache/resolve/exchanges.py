"""The way out: what one question becomes, whom it goes to, and who answers instead.

What comes back goes to answering.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from nodecache.cache.message import NEVER, Message
from nodecache.config.model import ROOT, ForwardPolicy
from nodecache.resolve.admission import Admission
from nodecache.resolve.behind_cache import Plan
from nodecache.resolve.block import MOST_AHEAD, BlockState, Pending
from nodecache.resolve.cname_chase import add_answers, find_open_target
from nodecache.resolve.results import FailedQuery, Results
from nodecache.resolve.waiter import Waiter
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.wire.const import HEADER, QR, RA
from nodecache.wire.key import MARKS, QNAME_END, QUESTION_END
from nodecache.wire.numbers import SERVFAIL

# Stands for a forward policy where a directive of the block answers.
_ANSWERED_HERE = ForwardPolicy(ROOT, ())
_NOBODY_ANSWERS = "no next plugin found"  # CoreDNS's own words


class Asks(Protocol):
    """What the resolver needs of a forwarder."""

    def submit(self, exchange: Exchange, now: float) -> None:
        """Begins an exchange; may end it at once."""

    def looks_dead(self, policy: ForwardPolicy, now: float) -> bool:
        """Whether none of the upstreams of ``policy`` is likely to answer."""

    def refusal(self, policy: ForwardPolicy) -> Failure | None:
        """Returns why an exchange would end at once, as far as that is known."""

    def settle(self, exchange: Exchange, message: bytes, now: float) -> None:
        """Ends an exchange with a response that came to another one for its question."""


class Exchanges:
    """Begins exchanges, and ends their being under way.

    Attributes:
        on_done: Takes the end of a Pending, see Exchange.
        on_late: Takes what comes after a Pending has failed, see Exchange.
    """

    def __init__(self, forwarder: Asks, admission: Admission, results: Results) -> None:
        self.on_done: Callable[[Any, bytes | Failure, float], bool] = _take_nothing
        self.on_late: Callable[[Any, bytes, float], None] | None = None
        self._forwarder = forwarder
        self._admission = admission
        self._results = results

    def begin(
        self, state: BlockState, key: bytes, now: float, waiter: Waiter | None = None
    ) -> Pending | None:
        """Returns a new exchange, not yet submitted; None if nobody may be asked.

        ``waiter`` is who asks, None for a question of our own.
        """
        admission, owner = self._admission, ""
        messages = state.cache_for(key[:QNAME_END])
        plan = (
            state.behind_cache.plan(key[:QUESTION_END]) if state.behind_cache is not None else None
        )
        question = key[:QUESTION_END] if plan is None else plan.question
        if plan is not None and plan.response is not None:
            policy = _ANSWERED_HERE
        elif (found := state.forward_for(question[:-4])) is not None:
            policy = found
            if not policy.upstreams:
                return None
            if policy.max_concurrent or admission.pending_count >= admission.looks_from:
                room = admission.find_room(state, policy, waiter)
                if room is None:
                    return None
                owner = room
        else:
            plan = self._plan_without_forward(question, plan, state, waiter)
            if plan is None:
                return None
            policy, messages = _ANSWERED_HERE, None
        pending = Pending(state, key, policy, messages, now, self.on_done, plan)
        pending.on_late = self.on_late
        pending.wants_whole = waiter is not None and waiter.listener.proto == "tcp"
        pending.owner = owner
        state.pending[key] = pending
        admission.pending_count += 1
        return pending

    def _plan_without_forward(
        self, question: bytes, plan: Plan | None, state: BlockState, waiter: Waiter | None
    ) -> Plan | None:
        """Returns what a stub gets where no ``forward`` takes the question; None for a refusal.

        It is for this stub alone, and never kept.
        """
        rewritten = plan.rewritten if plan is not None else None
        if waiter is None:
            return None
        listener = waiter.listener
        if state.whoami is not None:
            response = state.whoami(question, listener.locate(waiter.client), listener.proto)
            return Plan(question, rewritten, response, "whoami")
        if not state.takes_queries:
            return None
        # CoreDNS says SERVFAIL, and no plugin's name.
        self._results.note_failure(FailedQuery(state, question, SERVFAIL, _NOBODY_ANSWERS))
        response = HEADER.pack(0, QR | RA | SERVFAIL, 1, 0, 0, 0) + question
        return Plan(question, rewritten, response, "")

    def begin_ahead(
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
        pending = self.begin(state, key, now, waiter)
        if pending is not None:
            state.asked_ahead += 1
            pending.is_ahead = True
            pending.message = message
        return pending

    def continue_with(self, policy: ForwardPolicy, pending: Pending, now: float) -> Pending:
        """Returns the exchange that stands in for ``pending``, which has ended, at ``policy``.

        Not yet submitted. The patience of those who wait goes on, it does not begin anew.
        """
        state, key, messages, plan = pending.state, pending.key, pending.messages, pending.plan
        again = Pending(state, key, policy, messages, now, self.on_done, plan)
        again.on_late = self.on_late
        again.waiters, again.message = pending.waiters, pending.message
        again.is_ahead, again.owner = pending.is_ahead, pending.owner
        again.started_at, again.deadline = pending.started_at, pending.deadline
        again.stale_at = pending.stale_at
        state.pending[key] = again
        return again

    def submit(self, pending: Pending, now: float) -> None:
        """Asks, or has answered what a directive of ours knows; it may be over at once."""
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

        def take(exchange: Exchange, result: bytes | Failure, now: float) -> bool:
            found = b"" if isinstance(result, Failure) else result
            pending.answered_by = exchange.answered_by
            self._finish_here(pending, add_answers(response, found), now)
            return True

        head, tail = pending.state.query_ends[pending.key[MARKS]]
        query = head + target + tail
        exchange = Exchange(target, query, policy, now, pending.deadline, take)
        self._forwarder.submit(exchange, now)
        return True

    def _finish_here(self, pending: Pending, response: bytes, now: float) -> None:
        """Ends an exchange that a directive of ours answered."""
        pending.is_done = True
        if not self.on_done(pending, response, now):
            self.on_done(pending, Failure.MALFORMED, now)

    def let_go(self, pending: Pending) -> None:
        """Takes an exchange that has ended out of all tables."""
        state = pending.state
        del state.pending[pending.key]
        self._admission.pending_count -= 1
        if pending.is_ahead:
            state.asked_ahead -= 1
        if pending.owner:
            self._admission.give_back(pending.owner)


def _take_nothing(_pending: object, _result: bytes | Failure, _now: float) -> bool:
    """Stands in until somebody takes what comes back."""
    return True
