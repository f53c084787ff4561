"""What may be kept and for how long: one RFC clause behind each line, nothing else.

Knows neither tables nor clocks; seconds in, seconds out.
"""

from __future__ import annotations

import enum

from nodecache.config.model import CachePolicy
from nodecache.wire.const import TC
from nodecache.wire.numbers import NOERROR, NOTIMP, NXDOMAIN, SERVFAIL
from nodecache.wire.response import Response

# RFC 9520 section 3.2: a resolution failure is kept for at least 1 s and at most 5 minutes, and
# for longer while it lasts. Five seconds is what CoreDNS keeps from the first failure on.
FIRST_FAILURE_S = 1.0
LONGEST_FAILURE_S = 5.0

# An alias whose end is missing, without a word for how long: what CoreDNS keeps without a TTL.
LONGEST_WITHOUT_SOA_S = 5.0

# A reply shows whole seconds, and tier 1 looks at the clock once a second: what lives shorter
# than this is answered from tier 2, which is exact.
LEAST_PACKET_TTL_S = 3

# Refreshing ahead starts this long before expiry at the latest: tier 1 notices it up to 1 s late.
LEAST_REFRESH_LEAD_S = 1.5
# Part of a lifetime: a message that were due at once would be asked for without end.
MOST_REFRESH_LEAD = 0.9


class Kind(enum.Enum):
    """What a response is, as far as a cache cares."""

    SUCCESS = "success"
    NODATA = "NODATA"
    NXDOMAIN = "NXDOMAIN"
    FAILURE = "failure"
    NOT_KEPT = "not kept"


def classify(response: Response) -> Kind:
    """Returns what ``response`` is.

    Not kept: truncated (RFC 2181 section 9), negative without SOA (RFC 2308 section 5), referrals
    (RFC 2308 section 2.2: they say nothing about the QNAME), RCODEs without a rule of their own.
    """
    if response.flags & TC:
        return Kind.NOT_KEPT
    rcode = response.rcode
    if rcode == NOERROR:
        if response.answers_type:
            return Kind.SUCCESS
        # An alias whose end has no such data is NODATA with the alias in front (RFC 2308
        # section 2.2), whoever answered forgot the SOA or not.
        has_any = response.counts[0] or response.negative_ttl_s is not None
        return Kind.NODATA if has_any else Kind.NOT_KEPT
    if rcode == NXDOMAIN:
        return Kind.NOT_KEPT if response.negative_ttl_s is None else Kind.NXDOMAIN
    return Kind.FAILURE if rcode in (SERVFAIL, NOTIMP) else Kind.NOT_KEPT


def covers_all_types(kind: Kind, response: Response) -> bool:
    """Whether an NXDOMAIN speaks for every type of the QNAME (RFC 2308 section 5, RFC 8020).

    Behind an alias it is the final name that does not exist, not the QNAME.
    """
    return kind is Kind.NXDOMAIN and response.counts[0] == 0


def tells_of_existence(response: Response) -> bool:
    """Whether the QNAME exists by ``response``: it has data, other data or an alias."""
    if response.rcode == NOERROR:
        return not response.is_referral
    return response.rcode == NXDOMAIN and response.counts[0] > 0


def lifetime_s(kind: Kind, response: Response, policy: CachePolicy, failures: int = 0) -> float:
    """Returns the TTL that the whole message gets, 0 when it must not be kept.

    All records share the smallest TTL among them, as CoreDNS does; RRsets of one answer are of
    no use without each other. Floor first, then cap: the cap wins (CoreDNS).

    Args:
        kind: From classify().
        response: The response itself.
        policy: Bounds of the server block.
        failures: Failures in a row before this one; the time doubles with each (RFC 9520).
    """
    if kind is Kind.SUCCESS:
        return _bounded(
            response.least_ttl_s or 0, policy.success.min_ttl_s, policy.success.max_ttl_s
        )
    if kind in (Kind.NODATA, Kind.NXDOMAIN):
        floor_s, cap_s = policy.denial.min_ttl_s, policy.denial.max_ttl_s
        if response.negative_ttl_s is None:
            # The alias may live for long, but its end may come at any time.
            return min(_bounded(response.least_ttl_s or 0, floor_s, cap_s), LONGEST_WITHOUT_SOA_S)
        # RFC 2308 section 5: the lesser of the SOA's TTL and its MINIMUM; an alias in front may
        # expire earlier.
        ttl = min(response.negative_ttl_s, response.least_ttl_s or 0)
        return _bounded(ttl, floor_s, cap_s)
    if kind is Kind.FAILURE:
        return failure_lifetime_s(policy, failures)
    return 0.0


def failure_lifetime_s(policy: CachePolicy, failures: int) -> float:
    """Returns how long SERVFAIL is kept after ``failures`` others in a row."""
    if policy.servfail_s is not None:
        return policy.servfail_s
    return min(FIRST_FAILURE_S * 2.0 ** min(failures, 8), LONGEST_FAILURE_S)


def refresh_lead_s(ttl_s: float, percentage: int, jitter: float) -> float:
    """Returns how long before expiry a hot message is refreshed.

    Args:
        ttl_s: Lifetime of the message.
        percentage: Part of it that may remain, 10 to 90.
        jitter: In [0, 1): up to a third more, so that nodes do not refresh together.
    """
    lead_s = max(ttl_s * percentage / 100, min(LEAST_REFRESH_LEAD_S, ttl_s / 2))
    return min(lead_s * (1 + jitter / 3), ttl_s * MOST_REFRESH_LEAD)


def _bounded(ttl_s: int, floor_s: int, cap_s: int) -> float:
    return float(min(max(ttl_s, floor_s), cap_s))
