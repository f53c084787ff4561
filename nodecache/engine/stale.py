"""When what has expired is served, and when it is asked for again (RFC 8767 sections 4 and 5).

A fresh answer is tried for as long as the Corefile says; who comes later than that, or while the
name is known to fail or its upstreams to be dead, gets the stale one at once.
"""

from __future__ import annotations

from nodecache.cache.admit import Answer
from nodecache.cache.lifetime import Kind
from nodecache.cache.message import NEVER, Message
from nodecache.config.model import StaleMode
from nodecache.engine.block import BlockState, Pending
from nodecache.wire.const import NXDOMAIN, RCODE_MASK

# RFC 8767 section 5 has a failure recheck timer: from one question to the next for a name that
# is not refreshed. What is asked steadily is fresh again so long after its upstream is back.
RECHECK_S = 2.0

# So long after a recheck was due a name counts as failing: five rechecks. Later nobody knows,
# and the next client may wait for a fresh answer again.
FAILING_S = 10.0


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
