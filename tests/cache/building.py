"""Queries, responses and caches for the tests of cache/ and engine/, made octet by octet."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from nodecache.cache.lifetime import Kind
from nodecache.cache.message import PIECE_OVERHEAD_OCTETS, Message
from nodecache.cache.shared import SET_OVERHEAD_OCTETS
from nodecache.cache.store import Budget, MessageCache
from nodecache.config.model import CLUSTER_DOMAIN, CachePolicy
from nodecache.wire.key import QUESTION_END
from nodecache.wire.response import Response, scan_response

A, NS, CNAME, SOA, TXT, AAAA, DS, ANY = 1, 2, 5, 6, 16, 28, 43, 255
NOW = 5000.25
POINTER = b"\xc0\x0c"
QUERY_FLAGS = 0x0100
RESPONSE_FLAGS = 0x8180


def name(text: str) -> bytes:
    labels = [label.encode() for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def opt(size: int = 1232, do: bool = False, options: bytes = b"") -> bytes:
    return struct.pack("!BHHIH", 0, 41, size, 0x8000 if do else 0, len(options)) + options


def query(
    text: str = "a.cluster.local",
    qtype: int = A,
    ident: int = 0x1234,
    flags: int = QUERY_FLAGS,
    edns: bytes = b"",
    qclass: int = 1,
) -> bytes:
    header = struct.pack("!6H", ident, flags, 1, 0, 0, bool(edns))
    return header + name(text) + struct.pack("!HH", qtype, qclass) + edns


def key(text: str = "a.cluster.local", qtype: int = A, bits: int = 1, qclass: int = 1) -> bytes:
    """The message cache's key; ``bits``: RD 1, CD 2, DO 4."""
    return name(text).lower() + struct.pack("!HHB", qtype, qclass, bits)


def record(rtype: int, ttl: int, rdata: bytes, owner: bytes = POINTER) -> bytes:
    return owner + struct.pack("!HHIH", rtype, 1, ttl, len(rdata)) + rdata


def a(ttl: int = 30, address: bytes = b"\x0a\0\0\1") -> bytes:
    return record(A, ttl, address)


def soa(ttl: int = 30, minimum: int = 30) -> bytes:
    return record(
        SOA, ttl, b"\0\0" + struct.pack("!5I", 1, 2, 3, 4, minimum), name("cluster.local")
    )


def cname(ttl: int = 30, target: str = "b.cluster.local") -> bytes:
    return record(CNAME, ttl, name(target))


def response(
    for_key: bytes,
    answer: Sequence[bytes] = (),
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    rcode: int = 0,
    flags: int = RESPONSE_FLAGS,
) -> bytes:
    counts = (1, len(answer), len(authority), len(additional))
    records = b"".join([*answer, *authority, *additional])
    return struct.pack("!6H", 0, flags | rcode, *counts) + for_key[:QUESTION_END] + records


def scanned(for_key: bytes, octets: bytes) -> Response:
    found = scan_response(octets, 12 + len(for_key) - 1)
    assert found is not None
    return found


def cache(policy: CachePolicy | None = None, octets: int = 1 << 20) -> MessageCache:
    return MessageCache(policy or CachePolicy(), Budget(octets), CLUSTER_DOMAIN.wire)


def message(
    for_key: bytes,
    now: float = NOW,
    kind: Kind = Kind.SUCCESS,
    ttl_s: float = 30.0,
    octets: int = 12,
) -> Message:
    """A message whose records are one piece before and one behind a TTL."""
    rcode = {Kind.NXDOMAIN: 3, Kind.FAILURE: 2}.get(kind, 0)
    pieces = (b"\xc0\x0c\0\1\0\1", bytes(octets))
    return Message(for_key, kind, RESPONSE_FLAGS | rcode, (1, 0, 0), pieces, ttl_s, now)


def denial(
    for_key: bytes, now: float = NOW, kind: Kind = Kind.NXDOMAIN, ttl_s: float = 30.0
) -> Message:
    """An NXDOMAIN or NODATA with the SOA of cluster.local, as an upstream sends it."""
    rcode = 3 if kind is Kind.NXDOMAIN else 0
    found = scanned(for_key, response(for_key, [], [soa()], rcode=rcode))
    flags = RESPONSE_FLAGS | rcode
    return Message(for_key, kind, flags, found.counts, found.pieces, ttl_s, now)


def budgeted_octets(messages: Iterable[Message]) -> int:
    """What a budget counts for these messages: records that several share only once."""
    apart, shared = 0, {}
    for each in messages:
        apart += each.size_octets
        if each.kind in (Kind.NXDOMAIN, Kind.NODATA) and not each.counts[0]:
            pieces = PIECE_OVERHEAD_OCTETS * len(each.pieces)
            shared[each.pieces] = SET_OVERHEAD_OCTETS + each.records_octets + pieces
    return apart + sum(shared.values())


def ttls(reply: bytes, from_offset: int) -> list[int]:
    """The TTLs of all records but OPT behind ``from_offset`` of a whole reply."""
    found, position = [], from_offset
    while position < len(reply):
        while reply[position] and reply[position] < 0xC0:
            position += reply[position] + 1
        position += 2 if reply[position] else 1
        rtype, _, ttl, length = struct.unpack_from("!HHIH", reply, position)
        if rtype != 41:
            found.append(ttl)
        position += 10 + length
    return found
