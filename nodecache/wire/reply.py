"""What goes back to a stub resolver: header, the question octet for octet, records, our OPT.

A reply is built without its ID, because the packet cache sends it to whoever asks next.
"""

from __future__ import annotations

import struct

from nodecache.wire.const import (
    AA,
    AD,
    CD,
    EDNS_DO,
    HEADER_OCTETS,
    OPT_FIXED,
    OUR_PAYLOAD_OCTETS,
    QR,
    RA,
    RD,
    TC,
)
from nodecache.wire.numbers import OPTION_EXTENDED_ERROR, TYPE_OPT
from nodecache.wire.query import Query, Refusal
from nodecache.wire.records import walk_records

_REST = struct.Struct("!HHHHH")  # the header behind the ID
_SECTIONS = struct.Struct("!HHHH")  # of it what comes before ARCOUNT
_OPCODE_AND_RD_CD = 0x7800 | RD | CD
_EDE = struct.Struct("!HHH")


def extended_error(code: int, text: bytes = b"") -> bytes:
    """Returns an Extended DNS Error as an EDNS option (RFC 8914 section 2)."""
    return _EDE.pack(OPTION_EXTENDED_ERROR, 2 + len(text), code) + text


def compose_opt(
    dnssec_ok: bool,
    rcode: int = 0,
    payload_octets: int = OUR_PAYLOAD_OCTETS,
    options: bytes = b"",
) -> bytes:
    """Returns our OPT record, DO mirrored."""
    flags = EDNS_DO if dnssec_ok else 0
    fixed = (0, TYPE_OPT, payload_octets, rcode >> 4, 0, flags, len(options))
    return OPT_FIXED.pack(*fixed) + options


_OPT = compose_opt(dnssec_ok=False)
_OPT_DO = compose_opt(dnssec_ok=True)


def compose_ends(
    query: Query,
    flags: int,
    counts: tuple[int, int, int],
    records_octets: int,
    limit: int,
    options: bytes = b"",
) -> tuple[bytes, bytes, bool]:
    """Returns what stands before and behind the records of a reply, and whether they fit.

    If they do not fit, the ends are those of a reply without records; see ``keep_what_fits``.

    Args:
        query: Whose question is echoed, 0x20 case included.
        flags: Flag word of the response; AA, TC, RA, AD and RCODE are taken from it.
        counts: ANCOUNT, NSCOUNT, ARCOUNT of the records.
        records_octets: Their length, names compressed against the same question.
        limit: Most octets that the whole reply may have.
        options: EDNS options in wire format, sent only to who has EDNS.
    """
    word = QR | flags & (AA | TC | RA | AD | 0xF) | query.flags & (RD | CD)
    if word & AD and not query.wants_ad:
        word ^= AD
    question = query.octets[HEADER_OCTETS : query.question_end]
    opt = b""
    if query.has_edns:
        if options:
            opt = compose_opt(query.dnssec_ok, options=options)
        else:
            opt = _OPT_DO if query.dnssec_ok else _OPT
    if HEADER_OCTETS + len(question) + records_octets + len(opt) > limit:
        return _REST.pack(word, 1, 0, 0, query.has_edns) + question, opt, False
    ancount, nscount, arcount = counts
    header = _REST.pack(word, 1, ancount, nscount, arcount + query.has_edns)
    return header + question, opt, True


def compose_reply(
    query: Query,
    flags: int,
    counts: tuple[int, int, int],
    records: bytes,
    limit: int,
    options: bytes = b"",
) -> bytes:
    """Returns the reply to ``query`` without its ID; arguments as in ``compose_ends``."""
    head, tail, fits = compose_ends(query, flags, counts, len(records), limit, options)
    if not fits:
        head, _, octets = keep_what_fits(query, head, tail, records, counts, limit)
        records = records[:octets]
    return head + records + tail


def keep_what_fits(
    query: Query, head: bytes, tail: bytes, records: bytes, counts: tuple[int, int, int], limit: int
) -> tuple[bytes, int, int]:
    """Returns ``head`` with the counts of what fits, the number of those records, their octets.

    Answers are kept one by one, with TC if one is missing: most stubs ask again over TCP, but some
    (musl before 1.2.4) make do with what a truncated reply holds, so it should hold what it can, as
    CoreDNS's does. The other sections are kept whole or left out without TC, the additional one
    first (RFC 2181 section 9): a stub that is told of an absence needs no SOA to believe it. Only
    who validates does need the authority section, so with DO it counts (RFC 4035 sections 3.1.1
    and 3.1.3).

    Args:
        query: Whom the reply is for.
        head: Of ``compose_ends``, for a reply without records.
        tail: The same.
        records: All records.
        counts: ANCOUNT, NSCOUNT, ARCOUNT of them.
        limit: Most octets of the reply, its ID included.
    """
    ancount, nscount, _ = counts
    start = end = 2 + len(head)
    octets = b"\0\0" + head + records[: max(0, limit - start - len(tail))]
    answers = 0
    while answers < ancount and (found := walk_records(octets, end, 1)):
        end = found[0][4]
        answers += 1
    authority = walk_records(octets, end, nscount) if answers == ancount else None
    if authority:
        end = authority[-1][4]
    left_out = nscount - len(authority or ())
    word = head[0] << 8 | head[1]
    if answers < ancount or (left_out and query.dnssec_ok):
        word |= TC
    sections = _SECTIONS.pack(word, 1, answers, nscount - left_out)
    return sections + head[_SECTIONS.size :], answers + nscount - left_out, end - start


def compose_refusal(octets: bytes, refusal: Refusal) -> bytes:
    """Returns the reply to a message that was not looked up, without its ID.

    ``octets`` is the message that scan_query refused: at least 12 octets.
    """
    asked = octets[2] << 8 | octets[3]
    word = QR | asked & _OPCODE_AND_RD_CD | refusal.rcode & 0xF
    question = octets[HEADER_OCTETS : refusal.question_end]
    opt = compose_opt(dnssec_ok=False, rcode=refusal.rcode) if refusal.has_edns else b""
    return _REST.pack(word, bool(question), 0, 0, bool(opt)) + question + opt


def compose_upstream_query(
    question: bytes,
    flags: int,
    dnssec_ok: bool,
    payload_octets: int = OUR_PAYLOAD_OCTETS,
    options: bytes = b"",
) -> bytes:
    """Returns the canonical query to an upstream, without its ID.

    Args:
        question: QNAME in lower case, QTYPE, QCLASS.
        flags: Of these RD and CD are passed on; AD is set, so that the answer shows whether the
            upstream validated it (RFC 6840 section 5.7).
        dnssec_ok: DO of our OPT record. No option of the stub is passed on.
        payload_octets: What the upstream may send over UDP.
        options: EDNS options of our own, in wire format.
    """
    word = flags & (RD | CD) | AD
    opt = compose_opt(dnssec_ok, payload_octets=payload_octets, options=options)
    return _REST.pack(word, 1, 0, 0, 1) + question + opt
