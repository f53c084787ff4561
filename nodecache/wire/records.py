"""One forward walk over resource records; trusts no length and no pointer."""

from __future__ import annotations

from nodecache.wire.const import HEADER_OCTETS, MAX_LABEL_OCTETS, MAX_NAME_OCTETS, RR_FIXED

_POINTER = 0xC0
_NO_OCTET = -1
# Different pointers that are followed in one message: more than an answer of 64 KiB needs, and
# what a hostile one may cost (20 ms).
_MOST_POINTERS = 1024
_MOST_STEPS = 254  # the longest name has 127 labels, with a pointer in front of each

# TYPE, TTL, and the offsets of the owner name, of TYPE, and behind the RDATA. A plain tuple,
# because a walk makes one for each record: a NamedTuple costs three times as much.
Record = tuple[int, int, int, int, int]


def behind_name(octets: bytes, start: int, known: dict[int, int]) -> int:
    """Returns the offset behind the possibly compressed name at ``start``, or 0 if it is broken.

    Each pointer must lead before the part of the name that it ends (RFC 1035 section 4.1.4: to a
    *prior* occurrence), to no header, and the whole may have 255 octets: so no reader of a message
    that we pass on is sent in a circle.

    Args:
        octets: The message.
        start: Where the name begins.
        known: Where pointers of this message led -> octets of the sound name there. One dict for
            all names saves following the same pointer twice, and bounds how many are followed.
    """
    end = min(len(octets), start + MAX_NAME_OCTETS)
    position = start
    while position < end:
        label = octets[position]
        if label == 0:
            return position + 1
        if label > MAX_LABEL_OCTETS:
            target = _target(octets, position, start)
            rest = known.get(target) or _follow(octets, target, known)
            return position + 2 if 0 < rest <= MAX_NAME_OCTETS - (position - start) else 0
        position += label + 1
    return 0


def _target(octets: bytes, position: int, before: int) -> int:
    """Returns where the pointer at ``position`` leads, 0 unless that is a name ``before``."""
    if octets[position] < _POINTER or position + 2 > len(octets):
        return 0
    target = (octets[position] & 0x3F) << 8 | octets[position + 1]
    return target if HEADER_OCTETS <= target < before else 0


def _follow(octets: bytes, start: int, known: dict[int, int]) -> int:
    """Returns the octets of the name at ``start`` without compression, 0 if it is broken."""
    length, position, before = 0, start, start
    if not start or len(known) >= _MOST_POINTERS:
        return 0
    for _ in range(_MOST_STEPS):
        if position >= len(octets):
            return 0
        label = octets[position]
        if label == 0:
            known[start] = length + 1
            return length + 1
        if label <= MAX_LABEL_OCTETS:
            length += label + 1
            position += label + 1
        else:
            position = before = _target(octets, position, before)
            if not position:
                return 0
    return 0


def expand_name(octets: bytes, start: int) -> bytes | None:
    """Returns the name at ``start`` without compression, None if it is broken."""
    if not behind_name(octets, start, {}):
        return None
    name, position = bytearray(), start
    while label := octets[position]:
        if label >= _POINTER:
            position = (label & 0x3F) << 8 | octets[position + 1]
        else:
            name += octets[position : position + 1 + label]
            position += 1 + label
    return bytes(name) + b"\0"


def walk_records(octets: bytes, start: int, count: int) -> list[Record] | None:
    """Returns ``count`` records from offset ``start``, or None if one of them is broken.

    What stands between the header and ``start``, if anything, is a question whose name is sound.
    """
    records: list[Record] = []
    known: dict[int, int] = {}
    position, size = start, len(octets)
    # The pointer that nearly every record begins with: to the QNAME, then to what the last owner
    # name was, so that it is followed once.
    high, low = _POINTER, HEADER_OCTETS if start > HEADER_OCTETS else _NO_OCTET
    for _ in range(count):
        if position + 2 < size and octets[position + 1] == low and octets[position] == high:
            fixed = position + 2
        else:
            fixed = behind_name(octets, position, known)
            if fixed == position + 2:
                high, low = octets[position], octets[position + 1]
        if not fixed or fixed + 10 > size:
            return None
        rtype, _, ttl, rdlength = RR_FIXED.unpack_from(octets, fixed)
        end = fixed + 10 + rdlength
        if end > size:
            return None
        records.append((rtype, ttl, position, fixed, end))
        position = end
    return records
