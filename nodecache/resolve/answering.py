"""The way back: what is kept of what came, and what each gets who waits for it."""

from __future__ import annotations

from collections.abc import Callable

from nodecache.cache.admit import Answer, admit_failure, admit_response
from nodecache.cache.lifetime import Kind
from nodecache.counters import Counters
from nodecache.resolve.admission import Admission, shed
from nodecache.resolve.block import PATIENCE_S, Pending
from nodecache.resolve.exchanges import Asks, Exchanges
from nodecache.resolve.results import FailedQuery, Results
from nodecache.resolve.slow_names import SLOW_S, SlowNames
from nodecache.resolve.stale import StaleServing, is_refreshed, rests_until
from nodecache.resolve.waiter import Waiter, reply_to
from nodecache.upstreams.exchange import Failure
from nodecache.upstreams.wording import describe
from nodecache.wire.const import RA, RCODE_MASK
from nodecache.wire.key import QNAME_END
from nodecache.wire.numbers import (
    EDE_NETWORK_ERROR,
    EDE_NO_REACHABLE_AUTHORITY,
    NOERROR,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
)
from nodecache.wire.reply import extended_error
from nodecache.wire.rrs import read_options

_NO_COUNTS = (0, 0, 0)
# Nobody was asked, so nobody failed.
_REFUSED_HERE = (Failure.OVERLOADED, Failure.PACED)
_NETWORK_ERROR = extended_error(EDE_NETWORK_ERROR)
_NO_REACHABLE_AUTHORITY = extended_error(EDE_NO_REACHABLE_AUTHORITY)


class Answering:
    """Takes the ends of all exchanges that ``exchanges`` begins.

    Attributes:
        slow_names: Which of them took long.
    """

    def __init__(
        self,
        forwarder: Asks,
        exchanges: Exchanges,
        admission: Admission,
        stale: StaleServing,
        results: Results,
        counters: Counters,
        random: Callable[[], float],
    ) -> None:
        self._forwarder = forwarder
        self._exchanges = exchanges
        self._admission = admission
        self._stale = stale
        self._results = results
        self._counters = counters
        self._random = random
        self.slow_names = SlowNames(counters.slow_exchanges)
        exchanges.on_done = self.done
        exchanges.on_late = self.keep_late

    def done(self, pending: Pending, result: bytes | Failure, now: float) -> bool:
        """Takes the end of an exchange: keeps what came, and replies to all who waited.

        Returns False, with nothing done, for a malformed response: then somebody else is asked.
        """
        late: list[Waiter] = []
        took_s, has_failed = now - pending.started_at, isinstance(result, Failure)
        if took_s >= SLOW_S or has_failed:
            self.slow_names.note(pending, took_s, has_failed=has_failed)
        if now >= pending.deadline and _has_failed(result):
            late = _part_late(pending, now)
        if isinstance(result, Failure):
            answer, error = self._fail(pending, result, now)
        elif pending.policy.next_rcodes and self._moves_on(pending, result, now):
            return True
        else:
            admitted = self._admit(pending, result, now)
            if admitted is None:
                self._note_failure(pending, "the upstream's response is malformed")
                return False
            answer, error = admitted, b""
        self._exchanges.let_go(pending)
        self._answer(pending, answer, error, now)
        if late:
            self._begin_anew(pending, late, now)
        return True

    def _admit(self, pending: Pending, response: bytes, now: float) -> Answer | None:
        """Keeps a response by the rules of its exchange; None for a malformed one."""
        plan = pending.plan
        rewritten = response if plan is None else plan.rewrite_response(response)
        if rewritten is None:
            return None
        speaks_for_name = plan is None or plan.speaks_for_name
        key, messages, random = pending.key, pending.messages, self._random()
        return admit_response(rewritten, key, messages, now, random, speaks_for_name)

    def _answer(self, pending: Pending, answer: Answer, error: bytes, now: float) -> None:
        """Replies to all who wait; what is known takes the place of an answer that failed."""
        if answer.kind is Kind.FAILURE:
            self._stale.serve_known(pending, now)
        message = pending.message
        if message is not None and message.partition is not None:
            if not is_refreshed(answer):
                message.refresh_at = rests_until(pending, now)
                if message.keep_until > now:
                    self._stale.serve(pending, message, now)
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
            )
            self._results.send(waiter, reply, now, pending.answered_by)

    def _moves_on(self, pending: Pending, response: bytes, now: float) -> bool:
        """Hands the question to the block's next ``forward`` if ``next`` says so."""
        policy = pending.policy
        if response[3] & RCODE_MASK not in policy.next_rcodes:
            return False
        following = pending.state.forward_for(pending.question[:-4], after=policy)
        if following is None:
            return False
        successor = self._exchanges.continue_with(following, pending, now)
        if successor.stale_at > now:
            self._stale.serve_at(successor.stale_at, successor)
        self._exchanges.submit(successor, now)
        return True

    def _begin_anew(self, pending: Pending, waiters: list[Waiter], now: float) -> None:
        """Asks again for those who joined an exchange towards its end: they can wait longer."""
        again = self._exchanges.begin(pending.state, pending.key, now, waiters[0])
        if again is None:
            for waiter in waiters:
                self._results.send(waiter, shed(waiter, None), now)
            return
        again.waiters = waiters
        again.deadline = waiters[0].since + PATIENCE_S
        self._exchanges.submit(again, now)

    def keep_late(self, pending: Pending, response: bytes, now: float) -> None:
        """Keeps what came after everybody had been told of a failure; their stubs will ask again.

        Who has asked again meanwhile gets it. After a reload nobody knows whether it still holds.
        """
        state, key, policy = pending.state, pending.key, pending.policy
        again = state.pending.get(key)
        if again is not None and again.policy is policy:
            self._forwarder.settle(again, response, now)
        elif (
            pending.messages is not None
            and any(policy is each for each in state.block.forwards)
            and response[3] & RCODE_MASK not in policy.next_rcodes
        ):
            self._admit(pending, response, now)

    # Failures.

    def _fail(self, pending: Pending, failure: Failure, now: float) -> tuple[Answer, bytes]:
        """Returns what those get who wait for an exchange that failed, and its EDE option.

        Where nobody was asked, that is REFUSED, as CoreDNS's max_concurrent has it, and nothing
        is kept: it says nothing about the name, and a stub turns to its next nameserver at once.
        """
        if failure in _REFUSED_HERE and (pending.waiters or pending.is_spare):
            self._admission.note_refusal(failure, is_counted=not pending.is_spare)
            return Answer(RA | REFUSED, _NO_COUNTS, b"", Kind.FAILURE), b""
        self._note_failure(pending, *describe(pending, failure))
        is_unreachable = failure is Failure.UNREACHABLE
        error = _NETWORK_ERROR if is_unreachable else _NO_REACHABLE_AUTHORITY
        return admit_failure(pending.key, pending.messages, now), error

    def _note_failure(self, pending: Pending, text: str, detail: str = "") -> None:
        guard = pending.state.guard
        if guard is not None and guard.qname == pending.key[:QNAME_END]:
            guard.note_failure()
            return  # nobody waits for it, and nobody knows its name
        self._counters.count_event("upstream_failures")
        failure = FailedQuery(pending.state, pending.question, SERVFAIL, text, detail)
        self._results.note_failure(failure)


def _has_failed(result: bytes | Failure) -> bool:
    """Whether an exchange ended without an answer, or with an error that was kept for its end."""
    return isinstance(result, Failure) or result[3] & RCODE_MASK not in (NOERROR, NXDOMAIN)


def _part_late(pending: Pending, now: float) -> list[Waiter]:
    """Takes those away from an exchange that joined it in the second half of its life."""
    late = [waiter for waiter in pending.waiters if now - waiter.since < PATIENCE_S / 2]
    if late:
        del pending.waiters[-len(late) :]  # they stand in the order in which they came
    return late
