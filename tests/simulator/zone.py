"""What the zone of the simulated upstreams says, and who said what.

Each response bears a number of its own in its records, so that a reply can be traced to the
response that it was made of. The first letters of a name say what there is.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from math import inf

from nodecache.wire.query import name_end
from tests.cache.building import AAAA, POINTER, SOA, A, name, record

ORIGIN = "sim"
RESPONSE_FLAGS = 0x8180
TC_FLAG = 0x0200
FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 1, 2, 3, 4, 5, 16
NODATA_TYPES = {"four": AAAA}  # names with IPv4 addresses only
RECORDS = {"big": 45, "huge": 110}  # more than 512 octets, more than 1,232
TTLS_S = (1, 4, 10, 30)
_FIRST_OCTET = 10


class Sense(enum.Enum):
    """What a message that answers a query is worth."""

    TRUE = "well-formed, and as the zone has it"
    ERROR = "an error code"
    TRUNCATED = "TC, so ask over TCP"
    WRONG = "malformed, or not what was asked"


@dataclass(slots=True)
class Saying:
    """One response of an upstream.

    Attributes:
        question: What it answers: QNAME, QTYPE and QCLASS in wire format.
        rcode: Its response code; 16 is BADVERS.
        sense: What it is worth.
        ttl_s: Of its records.
        asked_at: When the node sent the query.
        arrived_at: When its last octet reached the node; infinity before.
    """

    question: bytes
    rcode: int
    sense: Sense
    ttl_s: int
    asked_at: float
    arrived_at: float = inf


class Zone:
    """The truth, and the ledger of what was said."""

    def __init__(self) -> None:
        self.said: dict[int, Saying] = {}

    def say(
        self, question: bytes, asked_at: float, sense: Sense = Sense.TRUE
    ) -> tuple[Saying, bytes, int]:
        """Returns a new response: its entry, its records, and how many of them are answers."""
        label, qtype = first_label(question), question[-3]
        number = len(self.said) + 1
        ttl_s = TTLS_S[int(label.lstrip("abcdefghijklmnopqrstuvwxyz") or "0") % len(TTLS_S)]
        rcode = NXDOMAIN if label.startswith("none") else 0
        saying = self.said[number] = Saying(question, rcode, sense, ttl_s, asked_at)
        count = records_for(question)
        if not count:
            return saying, _soa(ttl_s, number), 0
        return saying, b"".join(_address(qtype, ttl_s, number, i) for i in range(count)), count


def records_for(question: bytes) -> int:
    """Returns how many records the zone has for a question."""
    label = first_label(question)
    if label.startswith("none") or NODATA_TYPES.get(kind_of(label)) == question[-3]:
        return 0
    return RECORDS.get(kind_of(label), 2)


def first_label(question: bytes) -> str:
    """Returns the first label of a QNAME."""
    return question[1 : 1 + question[0]].decode()


def kind_of(label: str) -> str:
    """Returns the letters in front of the number."""
    return label.rstrip("0123456789")


def question_for(label: str, qtype: int) -> bytes:
    """Returns the question in wire format."""
    return name(f"{label}.{ORIGIN}") + struct.pack("!HH", qtype, 1)


def _address(qtype: int, ttl_s: int, number: int, index: int) -> bytes:
    if qtype == A:
        return record(A, ttl_s, struct.pack("!I", (_FIRST_OCTET + index) << 24 | number))
    rdata = bytes([0xFD, index]) + bytes(10) + number.to_bytes(4, "big")
    return record(AAAA, ttl_s, rdata)


def _soa(ttl_s: int, number: int) -> bytes:
    return record(SOA, ttl_s, b"\0\0" + struct.pack("!5I", number, 2, 3, 4, ttl_s), name(ORIGIN))


def compose(
    message_id: bytes, question: bytes, flags: int, counts: tuple[int, int], records: bytes
) -> bytes:
    """Returns a response; ``counts`` are those of answer and authority."""
    header = message_id + struct.pack("!5H", flags, 1, *counts, 0)
    return header + question + records


@dataclass(slots=True)
class Reply:
    """What a stub resolver reads in a reply.

    Attributes:
        answers: Records in the answer section.
        numbers: Of the responses that its records were made of.
        longest_ttl_s: The largest TTL.
    """

    rcode: int
    is_truncated: bool
    answers: int
    numbers: set[int]
    longest_ttl_s: int


def read_reply(octets: bytes) -> Reply:
    """Reads a whole reply. Raises IndexError or struct.error if it is malformed."""
    flags, _, *counts = struct.unpack_from("!5H", octets, 2)
    position = name_end(octets, 12) + 4
    reply = Reply(flags & 15, bool(flags & TC_FLAG), counts[0], set(), 0)
    for _ in range(sum(counts)):
        start = _behind_owner(octets, position)
        rtype, _, ttl_s, length = struct.unpack_from("!HHIH", octets, start)
        position = start + 10 + length
        rdata = octets[start + 10 : position]
        if rtype in (A, AAAA, SOA):
            reply.longest_ttl_s = max(reply.longest_ttl_s, ttl_s)
            reply.numbers.add(_number(rtype, rdata))
    return reply


def _behind_owner(octets: bytes, position: int) -> int:
    if octets[position : position + 2] == POINTER:
        return position + 2
    while octets[position] and octets[position] < 0xC0:
        position += octets[position] + 1
    return position + (2 if octets[position] else 1)


def _number(rtype: int, rdata: bytes) -> int:
    if rtype == SOA:
        return int.from_bytes(rdata[-20:-16], "big")
    return int.from_bytes(rdata[-3:], "big")
