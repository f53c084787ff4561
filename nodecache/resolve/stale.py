"""Serving what has expired: when, to whom, and when it is asked for again (RFC 8767).

A fresh answer is tried for as long as the Corefile says; who comes later than that, or while the
name is known to fail or its upstreams to be dead, gets the stale one at once (sections 4 and 5).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from nodecache.cache.admit import Answer
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.config.model import ForwardPolicy, StaleMode
from nodecache.resolve.block import BlockState, Pending
from nodecache.resolve.exchanges import Exchanges
from nodecache.resolve.results import Results
from nodecache.resolve.waiter import Waiter, reply_stale, reply_to
from nodecache.wire.const import RCODE_MASK
from nodecache.wire.numbers import NXDOMAIN

# RFC 8767 section 5 has a failure recheck timer: from one question to the next for a name that
# is not refreshed. What is asked steadily is fresh again so long after its upstream is back.
RECHECK_S = 2.0

# So long after a recheck was due a name counts as failing: five rechecks. Later nobody knows,
# and the next client may wait for a fresh answer again.
FAILING_S = 10.0


class StaleServing:
    """Serves what has expired while a fresh answer is asked for, or cannot be had.

    Attributes:
        next_at: When ``timer`` has something to do, monotonic seconds; infinity for never.
    """

    def __init__(
        self,
        exchanges: Exchanges,
        looks_dead: Callable[[ForwardPolicy, float], bool],
        results: Results,
    ) -> None:
        """Begins with nothing to serve.

        Args:
            exchanges: Begins what is asked with nobody waiting.
            looks_dead: Returns whether none of the upstreams of a forward is likely to answer.
            results: Takes the replies that come later.
        """
        self.next_at = NEVER
        self._exchanges = exchanges
        self._looks_dead = looks_dead
        self._results = results
        self._due: list[tuple[float, int, Pending]] = []
        self._sequence = 0

    def is_fresh_unlikely(self, waiter: Waiter, stale: Message, now: float) -> bool:
        """Whether to wait for a fresh answer would be in vain, or is not wanted."""
        state = waiter.served.state
        if stale_wait_s(state) <= 0 or is_failing(stale, now):
            return True
        if state.behind_cache is not None:
            return False  # may answer by itself, or ask somebody else
        policy = state.forward_for(waiter.query.qname)
        return policy is not None and self._looks_dead(policy, now)

    def ask_behind(self, waiter: Waiter, key: bytes, stale: Message, now: float) -> bytes:
        """Returns a stale reply, and asks for the next one unless that was done just now."""
        reply = reply_stale(waiter, stale)
        if not is_resting(stale, now):
            pending = self._exchanges.begin_ahead(waiter.served.state, key, stale, now, waiter)
            if pending is not None:
                pending.stale_at = now
                self._exchanges.submit(pending, now)
        return reply

    def offer(self, pending: Pending, stale: Message, now: float) -> bool:
        """Has ``stale`` served if nothing fresh comes in time; True if it is time already."""
        pending.message = stale
        if not pending.stale_at:
            pending.stale_at = pending.started_at + stale_wait_s(pending.state)
            self.serve_at(pending.stale_at, pending)
        return pending.stale_at <= now

    def serve_at(self, when: float, pending: Pending) -> None:
        """Puts down that who waits for ``pending`` shall wait no longer than until ``when``."""
        self._sequence += 1
        heapq.heappush(self._due, (when, self._sequence, pending))
        self.next_at = self._due[0][0]

    def timer(self, now: float) -> None:
        """Serves those who have waited long enough."""
        while self.next_at <= now:
            _, _, pending = heapq.heappop(self._due)
            self.next_at = self._due[0][0] if self._due else NEVER
            if not pending.is_done and pending.message is not None and pending.waiters:
                self.serve_known(pending, now)
                self.serve(pending, pending.message, now)

    def serve(self, pending: Pending, message: Message, now: float) -> None:
        """Replies to all who wait with what has expired."""
        waiters, pending.waiters = pending.waiters, []
        for waiter in waiters:
            self._results.send(waiter, reply_stale(waiter, message), now)

    def serve_known(self, pending: Pending, now: float) -> None:
        """Serves what another question told of the name meanwhile, if it did."""
        messages = pending.messages
        known = messages.find(pending.key, now) if messages is not None else None
        if known is None or known.kind is not Kind.NXDOMAIN or known.expires_at <= now:
            return
        waiters, pending.waiters = pending.waiters, []
        records = known.records(now)
        for waiter in waiters:
            duration_s = now - waiter.since
            reply = reply_to(waiter, known.flags, known.counts, records, "cache", duration_s)
            self._results.send(waiter, reply, now)


def is_resting(stale: Message, now: float) -> bool:
    """Whether ``stale`` was asked for in vain just now, and must not be asked for again yet."""
    return now < stale.refresh_at < NEVER


def is_failing(stale: Message, now: float) -> bool:
    """Whether the last question for ``stale``, not long ago, came to nothing.

    Only such a question puts ``refresh_at`` behind the end of the lifetime.
    """
    return stale.expires_at < stale.refresh_at and now - stale.refresh_at < FAILING_S


def rests_until(pending: Pending, now: float) -> float:
    """Returns from when on the message of an exchange that failed may be asked for again."""
    return max(now, pending.started_at + RECHECK_S)


def stale_wait_s(state: BlockState) -> float:
    """Returns how long a fresh answer is tried for before a stale one goes out."""
    policy = state.messages.policy.serve_stale if state.messages is not None else None
    if policy is None or policy.mode is StaleMode.IMMEDIATE:
        return 0.0
    return policy.verify_timeout_s


def is_refreshed(answer: Answer) -> bool:
    """Whether ``answer`` tells the state of the data; if not, what was known stays in place.

    RFC 8767 section 4: NOERROR and NXDOMAIN do. A truncated answer, a referral and a NODATA
    without SOA are no answers that anybody could use.
    """
    if answer.kind is Kind.NOT_KEPT:
        return answer.flags & RCODE_MASK == NXDOMAIN and not answer.is_truncated
    return answer.kind is not Kind.FAILURE
