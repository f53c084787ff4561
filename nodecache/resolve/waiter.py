"""A query on its way, and the reply made for it: counted, and as long as its client can take."""

from __future__ import annotations

from typing import Any, NamedTuple

from nodecache.cache.message import Message
from nodecache.resolve.block import BlockState
from nodecache.resolve.listener import Listener
from nodecache.resolve.zones import ServedZone
from nodecache.wire.const import OPT_FIXED, RCODE_MASK
from nodecache.wire.numbers import EDE_STALE_ANSWER, NXDOMAIN, OPTION_NSID
from nodecache.wire.query import Query
from nodecache.wire.reply import compose_reply, extended_error
from nodecache.wire.rrs import has_option, read_options

STALE_TTL_S = 5
_STALE_ANSWER = extended_error(EDE_STALE_ANSWER)


class Waiter(NamedTuple):
    """A query whose reply comes later."""

    listener: Listener
    client: Any
    query: Query
    served: ServedZone
    since: float


def reply_to(
    waiter: Waiter,
    flags: int,
    counts: tuple[int, int, int],
    records: bytes,
    plugin: str,
    duration_s: float,
    options: bytes = b"",
) -> bytes:
    """Returns the whole reply to a waiter, counted for ``plugin``; else as ``compose_reply``."""
    query, queries = waiter.query, waiter.served.queries
    state = waiter.served.state
    limit = most_octets(query, waiter.listener, state)
    if state.nsid:
        options += identity_for(query, state)
    rest = compose_reply(query, flags, counts, records, limit, options)
    rcode = flags & RCODE_MASK
    queries.count_response(rcode, plugin, len(rest) + 2)
    if rcode == NXDOMAIN:
        queries.count_nxdomain(query.qname)
    queries.durations.observe(duration_s)
    return query.octets[:2] + rest


def reply_stale(waiter: Waiter, message: Message) -> bytes:
    """Returns a reply made of an expired message (RFC 8767 section 4)."""
    waiter.served.caches.served_stale += 1
    records = message.records_with_ttl(STALE_TTL_S)
    flags, counts = message.flags, message.counts
    return reply_to(waiter, flags, counts, records, "cache", 0.0, _STALE_ANSWER)


def identity_for(query: Query, state: BlockState) -> bytes:
    """Returns the NSID option of a block that has one, b"" for who does not ask for it."""
    if not query.has_edns or len(query.octets) == query.question_end + OPT_FIXED.size:
        return b""  # as nearly all: an OPT record without options
    return state.nsid if has_option(read_options(query.octets), OPTION_NSID) else b""


def most_octets(query: Query, listener: Listener, state: BlockState) -> int:
    """Returns how long a reply may be."""
    if listener.proto == "udp":
        return min(query.payload_size, state.most_udp_octets, listener.most_octets)
    return listener.most_octets
