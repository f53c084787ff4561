"""May a miss begin an exchange, and what does it get if not?

Each bound is looked at here: all exchanges, those of one forward, one client's share, and what
the upstreams take. Until something is near its bound, exchanges.py does not come here at all.
"""

from __future__ import annotations

from collections.abc import Callable

from nodecache.cache.message import Message
from nodecache.config.model import ForwardPolicy
from nodecache.counters import Counters
from nodecache.resolve.block import BlockState
from nodecache.resolve.results import FailedQuery, Results
from nodecache.resolve.shares import ClientShares
from nodecache.resolve.waiter import Waiter, reply_stale, reply_to
from nodecache.upstreams.exchange import Failure
from nodecache.upstreams.wording import too_many
from nodecache.wire.const import RA
from nodecache.wire.key import QUESTION_END, key_of
from nodecache.wire.numbers import EDE_NOT_READY, REFUSED
from nodecache.wire.reply import extended_error

_NO_COUNTS = (0, 0, 0)
_NOT_READY = extended_error(EDE_NOT_READY)


class Admission:
    """Finds room for exchanges.

    Attributes:
        pending_count: Exchanges under way; who begins and ends them counts them.
        looks_from: Exchanges under way from which there may be no room. 0 while an upstream takes
            no more, so that refusing a flood costs little.
    """

    def __init__(
        self,
        refusal: Callable[[ForwardPolicy], Failure | None],
        counters: Counters,
        results: Results,
        most_pending: int,
        client_share: int,
    ) -> None:
        """Begins with nothing under way.

        Args:
            refusal: Returns why the upstreams of a forward take no exchange now, None if they do.
            counters: Get what was refused, by reason.
            results: Get what the error log is to be told.
            most_pending: Exchanges under way above which misses are REFUSED.
            client_share: Per cent for one client, see ClientShares.
        """
        self.pending_count = 0
        self._refusal = refusal
        self._counters = counters
        self._results = results
        self._most_pending = most_pending
        self._shares = ClientShares(client_share, most_pending)
        self.looks_from = self._shares.crowded_from

    def __repr__(self) -> str:
        """Returns who is counted, for tests and people debugging."""
        return repr(self._shares)

    def refuse_all(self) -> None:
        """Finds no room from now on: we are about to leave."""
        self._most_pending = self.looks_from = 0

    def find_room(
        self, state: BlockState, policy: ForwardPolicy, waiter: Waiter | None
    ) -> str | None:
        """Returns to whom a new exchange is counted, "" for nobody; None if there is no room.

        To be asked for a forward with ``max_concurrent``, and from ``looks_from`` exchanges on.
        ``waiter`` is who asks, None for a question of our own. What is counted to somebody must be
        given back.
        """
        if self._is_full(state, policy, waiter) or self._is_refused(policy, waiter):
            return None
        shares, pending_of_block = self._shares, len(state.pending)
        if waiter is None or not shares.is_crowded(policy, self.pending_count, pending_of_block):
            return ""
        owner = shares.take(waiter.listener.locate(waiter.client).host, policy)
        if not owner:
            self._counters.count_event("shed")
            self._counters.count_event("shed_client_share")
            return None
        return owner

    def give_back(self, owner: str) -> None:
        """Takes note that an exchange which ``find_room`` counted to ``owner`` has ended."""
        self._shares.give_back(owner)

    def note_refusal(self, failure: Failure, *, is_counted: bool = True) -> None:
        """Takes note that the upstreams took no exchange: the next ones are looked at first."""
        self.looks_from = 0
        if is_counted:
            self._counters.count_event("shed")
            if failure is Failure.PACED:
                self._counters.count_event("shed_paced")

    def _is_full(self, state: BlockState, policy: ForwardPolicy, waiter: Waiter | None) -> bool:
        """Whether there are too many exchanges; counts it."""
        most = policy.max_concurrent
        if most and len(state.pending) >= most:
            self._counters.max_concurrent_rejects += 1
            if waiter is not None:
                question = key_of(waiter.query)[:QUESTION_END]
                failure = FailedQuery(state, question, REFUSED, too_many(most))
                self._results.note_failure(failure)
        elif self.pending_count < self._most_pending:
            return False
        self._counters.count_event("shed")
        return True

    def _is_refused(self, policy: ForwardPolicy, waiter: Waiter | None) -> bool:
        """Whether no upstream takes another exchange; counts it."""
        refusal = self._refusal(policy)
        if refusal is None:
            if self._most_pending:
                self.looks_from = self._shares.crowded_from
            return False
        self.note_refusal(refusal, is_counted=waiter is not None)
        return True


def shed(waiter: Waiter, stale: Message | None, rcode: int = REFUSED) -> bytes:
    """Returns what a miss gets when nobody may be asked: a stale reply, or an error."""
    if stale is not None:
        return reply_stale(waiter, stale)
    policy = waiter.served.state.forward_for(waiter.query.qname)
    error = _NOT_READY if policy is not None and not policy.upstreams else b""
    return reply_to(waiter, RA | rcode, _NO_COUNTS, b"", "forward", 0.0, error)
