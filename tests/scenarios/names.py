"""What the backends of a scenario answer, so that a client knows without asking."""

from __future__ import annotations

import ipaddress
import struct
import zlib

A, AAAA = 1, 28
POISON = 0xCB007142  # 203.0.113.66: in everything that a client must never see
BIG_RECORDS = 70
LOAD_BALANCER_OCTETS = 1500  # what fits into one datagram on the way

_HEADER = 12
_RECORD = struct.Struct("!HHHIH")
_POINTER = 0xC00C


def wire_name(name: str) -> bytes:
    """Returns the name in wire format."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question(name: str, rdtype: int) -> bytes:
    """Returns a query without its ID: RD set, no EDNS."""
    return b"\x01\0\0\1\0\0\0\0\0\0" + wire_name(name) + struct.pack("!HH", rdtype, 1)


def question_end(message: bytes) -> int:
    """Returns where the only, uncompressed question of a message ends."""
    return message.index(b"\0", _HEADER) + 5


def right_data(asked: bytes) -> bytes:
    """Returns the address that a question (QNAME, QTYPE, QCLASS in lower case) has."""
    number = zlib.crc32(asked[:-4]) & 0xFFFF
    if asked[-3] == AAAA:
        return ipaddress.IPv6Address((0x20010DB8 << 96) | number).packed
    return bytes((198, 18)) + number.to_bytes(2, "big")


def response(query: bytes, ttl_s: int, *, poison: bool = False) -> bytes:
    """Returns the response to a query for A or AAAA; ``big...`` names have 70 addresses."""
    end = question_end(query)
    asked = query[_HEADER:end].lower()
    datas = [right_data(asked)]
    if poison:
        datas = [POISON.to_bytes(4, "big")]
    elif asked[1:4] == b"big":
        datas = [datas[0][:-1] + bytes([number]) for number in range(BIG_RECORDS)]
    rdtype = A if poison else asked[-3]
    records = b"".join(_RECORD.pack(_POINTER, rdtype, 1, ttl_s, len(data)) + data for data in datas)
    counts = struct.pack("!HHHH", 1, len(datas), 0, 0)
    return query[:2] + b"\x81\x80" + counts + query[_HEADER:end] + records


def bare(query: bytes, flags: int) -> bytes:
    """Returns a response without records."""
    end = question_end(query)
    counts = b"\0\1\0\0\0\0\0\0"
    return query[:2] + (0x8180 | flags).to_bytes(2, "big") + counts + query[_HEADER:end]


def is_right(reply: bytes) -> bool:
    """Tells whether a reply is the whole, right, untruncated answer to its question."""
    if len(reply) < _HEADER or reply[3] & 0xF or reply[2] & 2 or not int.from_bytes(reply[6:8]):
        return False
    asked = reply[_HEADER : question_end(reply)].lower()
    data = right_data(asked)
    start = question_end(reply) + _RECORD.size
    if asked[1:4] == b"big":
        return int.from_bytes(reply[6:8]) == BIG_RECORDS
    return reply[start : start + len(data)] == data
