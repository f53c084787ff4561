"""The octets of a REFUSED reply to whatever came in.

Octets in, octets out. Not ``wire.query``, which imports dataclasses: 1.7 MB of the keeper's memory.
"""

from __future__ import annotations

from nodecache.wire.const import (
    CD,
    EDNS_DO,
    HEADER,
    HEADER_OCTETS,
    MAX_LABEL_OCTETS,
    MAX_NAME_OCTETS,
    OPCODE_MASK,
    OPT_FIXED,
    OUR_PAYLOAD_OCTETS,
    QR,
    RD,
)
from nodecache.wire.numbers import REFUSED, TYPE_OPT
from nodecache.wire.records import walk_records

# Longer ones are cut by the sockets' readers; no stub resolver sends them.
MAX_QUERY_OCTETS = 4096
# OPT and a signature are what a query may carry; more is not worth a walk.
_MAX_RECORDS = 8


def compose_refusal(query: bytes) -> bytes | None:
    """Returns the whole reply, at most as long as the query; None for what is no query.

    Args:
        query: Whole message, 0 to 4096 octets, untrusted, perhaps cut.

    ID, opcode, RD and CD are the query's (RFC 1035 section 4.1.1, RFC 4035 section 3.2.2). The
    question is copied octet for octet, since stubs compare it; one that is broken is left out. A
    query with EDNS gets a bare OPT record with its DO (RFC 6891 section 6.1.1, RFC 3225 section 3).
    """
    if len(query) < HEADER_OCTETS or query[2] & QR >> 8:
        return None
    message_id, flags, qdcount, ancount, nscount, arcount = HEADER.unpack_from(query)
    question = opt = b""
    end = _question_end(query, qdcount)
    if end:
        question = query[HEADER_OCTETS:end]
        opt = _compose_opt(query, end, ancount + nscount + arcount)
    word = QR | flags & (OPCODE_MASK | RD | CD) | REFUSED
    header = HEADER.pack(message_id, word, bool(question), 0, 0, bool(opt))
    return header + question + opt


def _question_end(query: bytes, qdcount: int) -> int:
    """Returns the offset behind the question, 0 for a broken one or several (RFC 9619)."""
    if qdcount != 1:
        return 0 if qdcount else HEADER_OCTETS
    position = HEADER_OCTETS
    while position < min(len(query), HEADER_OCTETS + MAX_NAME_OCTETS):
        label = query[position]
        if label == 0:
            return position + 5 if position + 5 <= len(query) else 0
        if label > MAX_LABEL_OCTETS:
            return 0
        position += label + 1
    return 0


def _compose_opt(query: bytes, start: int, count: int) -> bytes:
    """Returns our OPT record, b"" if the query shows none."""
    if not 0 < count <= _MAX_RECORDS:
        return b""
    for rtype, ttl, *_ in walk_records(query, start, count) or ():
        if rtype == TYPE_OPT:
            return OPT_FIXED.pack(0, TYPE_OPT, OUR_PAYLOAD_OCTETS, 0, 0, ttl & EDNS_DO, 0)
    return b""
