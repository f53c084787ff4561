"""From an upstream's response to what everybody who waits is sent, and what is kept of it."""

from __future__ import annotations

from math import ceil
from typing import TypeVar

from nodecache.cache.lifetime import (
    LONGEST_FAILURE_S,
    Kind,
    classify,
    covers_all_types,
    failure_lifetime_s,
    lifetime_s,
    refresh_lead_s,
    tells_of_existence,
)
from nodecache.cache.message import Message
from nodecache.cache.store import MessageCache
from nodecache.wire.const import HEADER_OCTETS, RA, TC, U32
from nodecache.wire.key import QNAME_END
from nodecache.wire.numbers import SERVFAIL
from nodecache.wire.query import is_below
from nodecache.wire.response import Response, scan_response

Value = TypeVar("Value", bytes, int, float, tuple[int, int, int])

_HIGHEST_PLAIN_RCODE = 15
_NO_COUNTS = (0, 0, 0)


class Answer:
    """What goes to all who asked the same question.

    Attributes:
        flags: Flag word; AA, RA, AD and RCODE of it count.
        counts: ANCOUNT, NSCOUNT, ARCOUNT of ``records``.
        records: Their octets, without OPT.
        is_truncated: The upstream could not send the whole either.
        kind: What it is.
    """

    __slots__ = ("counts", "flags", "is_truncated", "kind", "records")

    def __init__(
        self, flags: int, counts: tuple[int, int, int], records: bytes, kind: Kind
    ) -> None:
        self.flags = flags
        self.counts = counts
        self.records = records
        self.is_truncated = bool(flags & TC)
        self.kind = kind


def admit_response(
    octets: bytes,
    key: bytes,
    messages: MessageCache | None,
    now: float,
    jitter: float,
    speaks_for_name: bool = True,
) -> Answer | None:
    """Returns what to send, and keeps what may be kept; None if the response is malformed.

    Args:
        octets: The response; its ID and question were found to match.
        key: See wire/key.py.
        messages: Where it may be kept; None for nowhere, then TTLs pass unchanged.
        now: Monotonic seconds.
        jitter: In [0, 1), spreads refreshes.
        speaks_for_name: An NXDOMAIN may answer other types of the name, too: the upstream said it
            of the name that was asked for.

    Raises nothing. RCODEs above 15 speak about our own EDNS record and count as malformed.
    """
    question_end = HEADER_OCTETS + len(key) - 1
    response = scan_response(octets, question_end)
    if response is None or response.rcode > _HIGHEST_PLAIN_RCODE:
        return None
    kind = classify(response)
    if messages is not None:
        covers = speaks_for_name and covers_all_types(kind, response)
        ttl_s = _keep(response, kind, key, messages, now, jitter, covers)
        if ttl_s > 0:
            records = U32.pack(ceil(ttl_s)).join(response.pieces)
            return Answer(response.flags, response.counts, records, kind)
    records = response.records(octets, question_end)
    return Answer(response.flags, response.counts, records, kind)


def admit_failure(key: bytes, messages: MessageCache | None, now: float) -> Answer:
    """Returns the SERVFAIL for a question that no upstream answered.

    It is kept for the shortest time that RFC 9520 section 3.2 allows, so that an upstream that
    comes back is asked again at once.
    """
    flags = RA | SERVFAIL
    if messages is not None:
        ttl_s = failure_lifetime_s(messages.policy, failures=0)
        if ttl_s > 0:
            message = Message(key, Kind.FAILURE, flags, _NO_COUNTS, (b"",), ttl_s, now)
            messages.admit(message, now)
    return Answer(flags, _NO_COUNTS, b"", Kind.FAILURE)


def _keep(
    response: Response,
    kind: Kind,
    key: bytes,
    messages: MessageCache,
    now: float,
    jitter: float,
    covers: bool,
) -> float:
    """Keeps the message made of ``response``, and returns its TTL; 0 if it has no lifetime.

    The TTL holds for names that ``disable`` is about, too: they are only not kept.
    """
    policy = messages.policy
    qname = key[:QNAME_END]
    failures = _failures_before(key, messages) if kind is Kind.FAILURE else 0
    ttl_s = lifetime_s(kind, response, policy, failures)
    disabled = policy.disable_success if kind is Kind.SUCCESS else policy.disable_denial
    if ttl_s <= 0 or (disabled and any(is_below(qname, zone.wire) for zone in disabled)):
        if tells_of_existence(response):
            messages.note_existence(key, now)
        return ttl_s
    message = make_message(response, kind, key, ttl_s, now)
    if kind is Kind.FAILURE:
        message.failures = failures + 1
        # Remembered for a while after expiry, only to tell the next failure that it is not the
        # first; it is never served stale.
        message.keep_until += LONGEST_FAILURE_S
    else:
        message.keeps_ttl = policy.keep_ttl
        message.covers_all_types = covers and messages.covers_all_types(key)
        if policy.serve_stale is not None:
            message.keep_until += policy.serve_stale.duration_s
        if policy.prefetch is not None:
            lead_s = refresh_lead_s(ttl_s, policy.prefetch.percentage, jitter)
            message.refresh_at = message.expires_at - lead_s
        else:
            message.refresh_at = message.expires_at
    messages.admit(message, now)
    return ttl_s


def make_message(
    response: Response, kind: Kind, key: bytes, ttl_s: float, stored_at: float
) -> Message:
    """Returns the message made of ``response``, which shares with others what it can."""
    first, *rest = response.pieces
    pieces = (_shared(first, _first_pieces), *rest)
    counts = _shared(response.counts, _counts)
    flags = _shared(response.flags, _flags)
    return Message(key, kind, flags, counts, pieces, _shared(ttl_s, _lifetimes), stored_at)


# What most messages have in common: an owner name that points to the question, and one record.
# Holding it once saves 1.5 MB for 10,000 names.
_first_pieces: dict[bytes, bytes] = {}
_counts: dict[tuple[int, int, int], tuple[int, int, int]] = {}
_flags: dict[int, int] = {}
_lifetimes: dict[float, float] = {}
_MOST_SHARED = 64


def _shared(value: Value, pool: dict[Value, Value]) -> Value:
    """Returns an equal value that other messages hold too, if there is one."""
    shared = pool.get(value)
    if shared is not None:
        return shared
    if len(pool) < _MOST_SHARED:
        pool[value] = value
    return value


def _failures_before(key: bytes, messages: MessageCache) -> int:
    before = messages.peek(key)
    return before.failures if before is not None else 0
