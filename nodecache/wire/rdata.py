"""RDATA that stub resolvers read: is it sound, and what it is without compression.

That is addresses, and what has names in it that a reader follows. All other types are opaque
(RFC 3597): nothing in them refers to the rest of the message.
"""

from __future__ import annotations

from nodecache.wire.const import MAX_MESSAGE_OCTETS, RR_FIXED, U16
from nodecache.wire.numbers import CLASS_IN, TYPE_A, TYPE_SOA, TYPES
from nodecache.wire.query import name_end
from nodecache.wire.records import behind_name, expand_name

_ANY = -1
# In this order: octets, character strings, names, and how many octets follow.
_ONE_NAME = (0, 0, 1, 0)
_TWO_NAMES = (0, 0, 2, 0)
_NUMBER_AND_NAME = (2, 0, 1, 0)
_SIGNATURE = (18, 0, 1, _ANY)
# RFC 1035 and RFC 3597 section 4: names in these may be compressed, or were by somebody once.
_MAY_BE_COMPRESSED = {
    "NS": _ONE_NAME,
    "MD": _ONE_NAME,
    "MF": _ONE_NAME,
    "CNAME": _ONE_NAME,
    "SOA": (0, 0, 2, 20),
    "MB": _ONE_NAME,
    "MG": _ONE_NAME,
    "MR": _ONE_NAME,
    "PTR": _ONE_NAME,
    "MINFO": _TWO_NAMES,
    "MX": _NUMBER_AND_NAME,
    "RP": _TWO_NAMES,
    "AFSDB": _NUMBER_AND_NAME,
    "RT": _NUMBER_AND_NAME,
    "SIG": _SIGNATURE,
    "PX": (2, 0, 2, 0),
    "NXT": (0, 0, 1, _ANY),
    "SRV": (6, 0, 1, 0),
    "NAPTR": (4, 3, 1, 0),
    "KX": _NUMBER_AND_NAME,
    "DNAME": _ONE_NAME,
}
# RFC 4034 sections 3.1.7 and 4.1.1, RFC 9460 section 2.2: names in these are never compressed.
_NEVER_COMPRESSED = {
    "RRSIG": _SIGNATURE,
    "NSEC": (0, 0, 1, _ANY),
    "SVCB": (2, 0, 1, _ANY),
    "HTTPS": (2, 0, 1, _ANY),
}
_ADDRESSES = {"A": (4, 0, 0, 0), "AAAA": (16, 0, 0, 0)}
_LAYOUTS = {
    TYPES[name]: layout
    for name, layout in {**_MAY_BE_COMPRESSED, **_NEVER_COMPRESSED, **_ADDRESSES}.items()
}
_WITHOUT_COMPRESSION = frozenset(TYPES[name] for name in _NEVER_COMPRESSED)
READ_TYPES = frozenset(_LAYOUTS)
_CLASS_IN = U16.pack(CLASS_IN)
# A zone's SOA comes with each of its denials: to look up that it was sound costs 0.2 us, not 1.
_sound_soas: set[bytes] = set()
_MOST_SOAS = 64
_FROM_RDATA_TO_CLASS = U16.size - RR_FIXED.size


def is_sound_rdata(octets: bytes, rtype: int, start: int, end: int, known: dict[int, int]) -> bool:
    """Whether RDATA of one of READ_TYPES is just what its type says.

    Args:
        octets: The message.
        rtype: Its type.
        start: Where the RDATA begins.
        end: Where it ends, inside the message.
        known: See ``behind_name``.
    """
    if rtype != TYPE_SOA:
        return _has_form(octets, rtype, start, end, known)
    if octets[start:end] in _sound_soas:
        return True
    is_sound = _has_form(octets, rtype, start, end, known)
    second = name_end(octets, start) if is_sound else 0
    if second and name_end(octets, second):  # without compression it means the same elsewhere
        if len(_sound_soas) >= _MOST_SOAS:
            _sound_soas.clear()
        _sound_soas.add(octets[start:end])
    return is_sound


def _has_form(octets: bytes, rtype: int, start: int, end: int, known: dict[int, int]) -> bool:
    """As ``is_sound_rdata``, without memory."""
    front, strings, names, behind = _LAYOUTS[rtype]
    position = start + front
    while strings:
        if position >= end:
            return False
        position += 1 + octets[position]
        strings -= 1
    while names:
        # A name that reaches behind the RDATA is found out at the end.
        position = behind_name(octets, position, known)
        if not position:
            return False
        names -= 1
    if rtype in _WITHOUT_COMPRESSION and not name_end(octets, start + front):
        return False
    if behind == _ANY:
        return position <= end
    return position + behind == end or (rtype == TYPE_A and not _is_internet(octets, start))


def _is_internet(octets: bytes, rdata_start: int) -> bool:
    """Whether a record is of class IN; A of other classes is something else, and opaque."""
    at = rdata_start + _FROM_RDATA_TO_CLASS
    return octets[at : at + 2] == _CLASS_IN


def expand_rdata(octets: bytes, rtype: int, start: int, end: int) -> bytes | None:
    """Returns RDATA with the names in it uncompressed, opaque types as they are; None if broken."""
    layout = _LAYOUTS.get(rtype)
    if layout is None:
        return octets[start:end]
    if not is_sound_rdata(octets, rtype, start, end, {}):
        return None
    front, strings, names, _ = layout
    position = min(start + front, end)
    for _ in range(strings):
        position += 1 + octets[position]
    rdata = octets[start:position]
    for _ in range(names):
        rdata += expand_name(octets, position) or b""
        position = behind_name(octets, position, {})
    rdata += octets[position:end]
    return rdata if len(rdata) <= MAX_MESSAGE_OCTETS else None
