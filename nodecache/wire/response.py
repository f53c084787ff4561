"""An upstream's response, walked once: what the cache must know, and how to age it.

Knows the wire, not what may be kept (cache/lifetime.py decides that).
"""

from __future__ import annotations

from nodecache.wire.const import (
    HEADER,
    HEADER_OCTETS,
    OPCODE_MASK,
    QR,
    RCODE_MASK,
    TYPE_ANY,
    TYPE_NS,
    TYPE_OPT,
    TYPE_SOA,
    U32,
)
from nodecache.wire.records import Record, walk_records

_SOA_LEAST_OCTETS = 22  # two root names and five 32-bit numbers, RFC 1035 section 3.3.13
_RR_FIXED_OCTETS = 10
_TTL_MOST = 0x7FFFFFFF
_TTL_NONE = _TTL_MOST + 1


class Response:
    """What one walk over a response found.

    Attributes:
        flags: The header's flag word.
        rcode: RCODE with the upper bits from the OPT record.
        counts: ANCOUNT, NSCOUNT, ARCOUNT without the OPT record.
        pieces: The octets behind the question, cut where a TTL was: joining them with four
            octets gives all records with that TTL.
        records_end: Offset behind the last record that ``pieces`` holds, or the question.
        least_ttl_s: Smallest TTL of all records, None without records.
        negative_ttl_s: min(TTL, MINIMUM) of the SOA in the authority section, None without SOA
            (RFC 2308 section 5).
        answers_type: The answer section holds an RR of QTYPE (or QTYPE is ANY).
        is_referral: NS and no SOA in the authority section, and no answer.
    """

    __slots__ = (
        "answers_type",
        "counts",
        "flags",
        "is_referral",
        "least_ttl_s",
        "negative_ttl_s",
        "pieces",
        "rcode",
        "records_end",
    )

    def __init__(
        self,
        flags: int,
        counts: tuple[int, int, int],
        pieces: tuple[bytes, ...],
        least_ttl_s: int | None,
    ) -> None:
        self.flags = flags
        self.rcode = flags & RCODE_MASK
        self.counts = counts
        self.pieces = pieces
        self.records_end = 0
        self.least_ttl_s = least_ttl_s
        self.negative_ttl_s: int | None = None
        self.answers_type = False
        self.is_referral = False


def matches_question(octets: bytes, question: bytes) -> bool:
    """Returns whether a message is a response to ``question`` (RFC 5452 section 4.2).

    ``question`` is QNAME in lower case, QTYPE and QCLASS as we sent them. Case may differ.
    """
    end = HEADER_OCTETS + len(question)
    return (
        len(octets) >= end
        and octets[2] & (QR | OPCODE_MASK) >> 8 == QR >> 8
        and octets[4:6] == b"\0\1"
        and octets[end - 4 : end] == question[-4:]
        and octets[HEADER_OCTETS : end - 4].lower() == question[:-4]
    )


def scan_response(octets: bytes, question_end: int) -> Response | None:
    """Walks a response whose question (up to ``question_end``) was found to match.

    Returns None if a record is broken, an OPT record is misplaced or octets are left over;
    raises nothing. Records that follow the OPT record are left out: their names may point
    behind octets that are cut away, and the additional section is optional (RFC 2181
    section 9).
    """
    _, flags, _, ancount, nscount, arcount = HEADER.unpack_from(octets)
    records = walk_records(octets, question_end, ancount + nscount + arcount)
    if records is None or (records[-1][4] if records else question_end) != len(octets):
        return None
    types = [record[0] for record in records]
    opt = len(records)
    if TYPE_OPT in types:
        opt = types.index(TYPE_OPT)
        if opt < ancount + nscount or not _is_sound_opt(records[opt], types):
            return None
    counts = (ancount, nscount, opt - ancount - nscount)
    response = Response(flags, counts, *_cut_at_ttls(octets, question_end, records[:opt]))
    response.records_end = records[opt - 1][4] if opt else question_end
    if opt < len(records):
        response.rcode |= octets[records[opt][3] + 4] << 4
    if ancount:
        qtype = octets[question_end - 4] << 8 | octets[question_end - 3]
        response.answers_type = qtype == TYPE_ANY or qtype in types[:ancount]
    if nscount and not _read_authority(response, octets, records[ancount : ancount + nscount]):
        return None
    return response


def _cut_at_ttls(
    octets: bytes, start: int, records: list[Record]
) -> tuple[tuple[bytes, ...], int | None]:
    """Returns the octets of ``records`` without their TTLs, in pieces, and the least TTL."""
    if not records:
        return (b"",), None
    pieces, least = [], _TTL_NONE
    for _, ttl, _, fixed, _ in records:
        pieces.append(octets[start : fixed + 4])
        start = fixed + 8
        # A TTL with the highest bit set counts as 0 (RFC 2181 section 8).
        if ttl < least or ttl > _TTL_MOST:
            least = ttl if ttl <= _TTL_MOST else 0
    pieces.append(octets[start : records[-1][4]])
    return tuple(pieces), least


def _is_sound_opt(record: Record, types: list[int]) -> bool:
    """Whether the OPT record belongs to the root and is the only one (RFC 6891 section 6.1.1)."""
    _, _, start, fixed, _ = record
    return fixed == start + 1 and types.count(TYPE_OPT) == 1


def _read_authority(response: Response, octets: bytes, authority: list[Record]) -> bool:
    """Takes SOA or referral from the authority section; False if the SOA is broken."""
    has_ns = False
    for rtype, ttl, _, fixed, end in authority:
        if rtype == TYPE_SOA:
            if end - fixed - _RR_FIXED_OCTETS < _SOA_LEAST_OCTETS:
                return False
            minimum = U32.unpack_from(octets, end - 4)[0]
            response.negative_ttl_s = min(
                0 if ttl > _TTL_MOST else ttl, 0 if minimum > _TTL_MOST else minimum
            )
        elif rtype == TYPE_NS:
            has_ns = True
    response.is_referral = has_ns and response.negative_ttl_s is None and response.counts[0] == 0
    return True
