"""An upstream's response, walked once: what the cache must know, and how to age it.

Knows the wire, not what may be kept (cache/lifetime.py decides that).
"""

from __future__ import annotations

from nodecache.wire.const import HEADER, HEADER_OCTETS, OPCODE_MASK, QR, RCODE_MASK, RR_FIXED, U32
from nodecache.wire.numbers import TYPE_A, TYPE_ANY, TYPE_NS, TYPE_OPT, TYPE_SOA
from nodecache.wire.rdata import READ_TYPES, is_sound_rdata
from nodecache.wire.records import Record, walk_records

_A_RR_OCTETS = RR_FIXED.size + 4  # behind the owner name
_TTL_MOST = 0x7FFFFFFF
_TTL_NONE = _TTL_MOST + 1
_NO_TTL = bytes(4)


class Response:
    """What one walk over a response found.

    Attributes:
        flags: The header's flag word.
        rcode: RCODE with the upper bits from the OPT record.
        counts: ANCOUNT, NSCOUNT, ARCOUNT without the OPT record.
        pieces: The octets behind the question, cut where a TTL was: joining them with four
            octets gives all records with that TTL.
        records_end: Offset behind the last record that ``pieces`` holds, or the question.
        odd_ttls: Offsets of the TTLs with the highest bit set, which count as 0 (RFC 2181
            section 8).
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
        "odd_ttls",
        "pieces",
        "rcode",
        "records_end",
    )

    def __init__(self, flags: int, counts: tuple[int, int, int], records_end: int) -> None:
        self.flags = flags
        self.rcode = flags & RCODE_MASK
        self.counts = counts
        self.pieces: tuple[bytes, ...] = (b"",)
        self.records_end = records_end
        self.odd_ttls: list[int] = []
        self.least_ttl_s: int | None = None
        self.negative_ttl_s: int | None = None
        self.answers_type = False
        self.is_referral = False

    def records(self, octets: bytes, start: int) -> bytes:
        """Returns the records as they are in the message, which begin at ``start``."""
        records = octets[start : self.records_end]
        if not self.odd_ttls:
            return records
        cleared = bytearray(records)
        for at in self.odd_ttls:
            cleared[at - start : at - start + 4] = _NO_TTL
        return bytes(cleared)


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

    Returns None if a record is broken, RDATA that stub resolvers read included, or an OPT record
    is misplaced; raises nothing. Octets behind the counted records are no part of the message.
    Records that follow the OPT record are left out: their names may point behind octets that are
    cut away, and the additional section is optional (RFC 2181 section 9).
    """
    _, flags, _, ancount, nscount, arcount = HEADER.unpack_from(octets)
    records = walk_records(octets, question_end, ancount + nscount + arcount)
    if records is None:
        return None
    types = [record[0] for record in records]
    opt = len(records)
    if TYPE_OPT in types:
        opt = types.index(TYPE_OPT)
        if opt < ancount + nscount or not _is_sound_opt(records[opt], types):
            return None
    counts = (ancount, nscount, opt - ancount - nscount)
    response = Response(flags, counts, records[opt - 1][4] if opt else question_end)
    if opt and not _take_records(response, octets, question_end, records[:opt]):
        return None
    if opt < len(records):
        response.rcode |= octets[records[opt][3] + 4] << 4
    if ancount:
        qtype = octets[question_end - 4] << 8 | octets[question_end - 3]
        response.answers_type = qtype == TYPE_ANY or qtype in types[:ancount]
    if nscount:
        _read_authority(response, octets, records[ancount : ancount + nscount])
    return response


def _take_records(response: Response, octets: bytes, start: int, records: list[Record]) -> bool:
    """Takes pieces and the least TTL of ``records``; False if RDATA of one is broken."""
    pieces, least = [], _TTL_NONE
    known: dict[int, int] = {}
    for rtype, ttl, _, fixed, end in records:
        pieces.append(octets[start : fixed + 4])
        start = fixed + 8
        if ttl < least:
            least = ttl
        elif ttl > _TTL_MOST:
            response.odd_ttls.append(fixed + 4)
        if rtype == TYPE_A and end - fixed == _A_RR_OCTETS:
            continue  # what most records are, without a call
        if rtype in READ_TYPES and not is_sound_rdata(octets, rtype, fixed + 10, end, known):
            return False
    pieces.append(octets[start : records[-1][4]])
    response.pieces = tuple(pieces)
    response.least_ttl_s = 0 if response.odd_ttls else least
    return True


def _is_sound_opt(record: Record, types: list[int]) -> bool:
    """Whether the OPT record belongs to the root and is the only one (RFC 6891 section 6.1.1)."""
    _, _, start, fixed, _ = record
    return fixed == start + 1 and types.count(TYPE_OPT) == 1


def _read_authority(response: Response, octets: bytes, authority: list[Record]) -> None:
    """Takes SOA or referral from the authority section."""
    has_ns = False
    for rtype, ttl, _, _, end in authority:
        if rtype == TYPE_SOA:
            minimum = U32.unpack_from(octets, end - 4)[0]
            response.negative_ttl_s = min(
                0 if ttl > _TTL_MOST else ttl, 0 if minimum > _TTL_MOST else minimum
            )
        elif rtype == TYPE_NS:
            has_ns = True
    response.is_referral = has_ns and response.negative_ttl_s is None and response.counts[0] == 0
