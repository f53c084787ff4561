"""One forward walk over resource records; trusts no length and follows no pointer."""

from __future__ import annotations

from nodecache.wire.const import MAX_LABEL_OCTETS, MAX_NAME_OCTETS, RR_FIXED

_POINTER = 0xC0
_FAR_POINTER = 0xC1  # the first octet of pointers to 256 and beyond

# TYPE, TTL, and the offsets of the owner name, of TYPE, and behind the RDATA. A plain tuple,
# because a walk makes one for each record: a NamedTuple costs three times as much.
Record = tuple[int, int, int, int, int]


def owner_end(octets: bytes, start: int) -> int:
    """Returns the offset behind the owner name at ``start``, or 0 if it is broken.

    A pointer must lead backwards (RFC 1035 section 4.1.4: to a *prior* occurrence), so that no
    reader of a message that we pass on can be sent in a circle by an owner name.
    """
    end = min(len(octets), start + MAX_NAME_OCTETS)
    position = start
    while position < end:
        label = octets[position]
        if label == 0:
            return position + 1
        if label >= _POINTER:
            if position + 2 > len(octets):
                return 0
            target = (label & 0x3F) << 8 | octets[position + 1]
            return position + 2 if target < start else 0
        if label > MAX_LABEL_OCTETS:
            return 0
        position += label + 1
    return 0


def walk_records(octets: bytes, start: int, count: int) -> list[Record] | None:
    """Returns ``count`` records from offset ``start``, or None if one of them is broken."""
    records: list[Record] = []
    position, size = start, len(octets)
    for _ in range(count):
        if position + 2 < size and _POINTER <= octets[position] < _FAR_POINTER:
            # What nearly every record begins with, without a call: a pointer near the start.
            fixed = position + 2 if octets[position + 1] < position else 0
        else:
            fixed = owner_end(octets, position)
        if not fixed or fixed + 10 > size:
            return None
        rtype, _, ttl, rdlength = RR_FIXED.unpack_from(octets, fixed)
        end = fixed + 10 + rdlength
        if end > size:
            return None
        records.append((rtype, ttl, position, fixed, end))
        position = end
    return records
