"""Malformed RDATA and names are not handed on; sound ones are, in every form that servers use."""

from __future__ import annotations

import struct
import time

import dns.exception
import dns.name
import dns.rdata
import dns.rdatatype
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodecache.wire.rdata import READ_TYPES, _sound_soas, expand_rdata, is_sound_rdata
from nodecache.wire.records import behind_name, expand_name, walk_records
from nodecache.wire.response import Response, scan_response
from tests.strategies import names, wire_name

QNAME = wire_name([b"www", b"example", b"org"])
HEADER = struct.pack("!6H", 7, 0x8180, 1, 1, 0, 0)
FIXED_OCTETS = 10
NAME = b"\1a\0"
POINTER = b"\xc0\x0c"

# What stands in front of the names, how many there are, and what follows.
FORMS = {
    "NS": (2, b"", 1, b""),
    "MD": (3, b"", 1, b""),
    "MF": (4, b"", 1, b""),
    "CNAME": (5, b"", 1, b""),
    "SOA": (6, b"", 2, bytes(20)),
    "MB": (7, b"", 1, b""),
    "MG": (8, b"", 1, b""),
    "MR": (9, b"", 1, b""),
    "PTR": (12, b"", 1, b""),
    "MINFO": (14, b"", 2, b""),
    "MX": (15, b"\0\x0a", 1, b""),
    "RP": (17, b"", 2, b""),
    "AFSDB": (18, b"\0\1", 1, b""),
    "RT": (21, b"\0\1", 1, b""),
    "PX": (26, b"\0\1", 2, b""),
    "SRV": (33, b"\0\0\0\0\0\x50", 1, b""),
    "NAPTR": (35, b"\0\1\0\2\1u\3E2U\0", 1, b""),
    "KX": (36, b"\0\1", 1, b""),
    "DNAME": (39, b"", 1, b""),
}
UNCOMPRESSED = {
    "RRSIG": (46, bytes(18), 1, b"signature"),
    "NSEC": (47, b"", 1, b"\0\1\x40"),
    "SVCB": (64, b"\0\1", 1, b""),
    "HTTPS": (65, b"\0\1", 1, b"\0\1\0\3\2h3"),
}
ALL = {**FORMS, **UNCOMPRESSED}
# By dnspython, which knows neither the obsolete ones nor the rule about compression; of NXT and
# the like what is behind the name is opaque to us.
STRICTLY_READ = [1, 2, 5, 6, 12, 15, 17, 18, 21, 26, 28, 33, 35, 36, 39]


def scan(rtype: int, rdata: bytes, rclass: int = 1, owner: bytes = POINTER) -> Response | None:
    """What becomes of a response with one record, to a question for its type."""
    fixed = owner + struct.pack("!HHIH", rtype, rclass, 30, len(rdata))
    question = QNAME + struct.pack("!HH", rtype, rclass)
    # What follows must not be taken for the rest of the RDATA: an OPT record, which is left out.
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
    header = HEADER[:10] + b"\0\1"
    return scan_response(header + question + fixed + rdata + opt, 12 + len(question))


def rdata_at() -> int:
    """Where the RDATA of ``scan`` begins in the message."""
    return 12 + len(QNAME) + 4 + len(POINTER) + FIXED_OCTETS


def filled(form: tuple[int, bytes, int, bytes], *rdata_names: bytes) -> bytes:
    _, front, count, behind = form
    assert len(rdata_names) == count
    return front + b"".join(rdata_names) + behind


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_sound_rdata_is_taken(form: tuple[int, bytes, int, bytes]) -> None:
    for name in (b"\0", NAME, QNAME, b"\1a" * 127 + b"\0", (b"\x3f" + b"a" * 63) * 3 + b"\0"):
        assert scan(form[0], filled(form, *[name] * form[2])) is not None


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_names_may_be_compressed_where_somebody_does(form: tuple[int, bytes, int, bytes]) -> None:
    for name in (POINTER, b"\1a\xc0\x0c", b"\xc0\x10"):
        assert scan(form[0], filled(form, *[name] * form[2])) is not None


@pytest.mark.parametrize("form", UNCOMPRESSED.values(), ids=UNCOMPRESSED)
def test_names_are_not_compressed_where_nobody_may(form: tuple[int, bytes, int, bytes]) -> None:
    assert scan(form[0], filled(form, POINTER)) is None
    assert scan(form[0], filled(form, b"\1a\xc0\x0c")) is None


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_a_broken_name_in_rdata_is_refused(form: tuple[int, bytes, int, bytes]) -> None:
    start = rdata_at() + len(form[1]) + len(NAME) * (form[2] - 1)
    broken = [
        struct.pack("!H", 0xC000 | start),  # a pointer to itself
        struct.pack("!H", 0xC000 | start + 2),  # forward
        b"\1a" + struct.pack("!H", 0xC000 | start),  # a loop
        b"\xff\xff",
        b"\xc0\x00",  # into the header
        b"\xc0\x0b",
        b"\x3f",  # a label that the RDATA cuts off
        b"\1",
        b"\x40" + b"a" * 64 + b"\0",
        b"\x80\0",
        b"\2aa" + b"\1a" * 126 + b"\0",  # 256 octets
        (b"\x3f" + b"a" * 63) * 3 + b"\x2e" + b"a" * 46 + POINTER,  # the same by a pointer
    ]
    for name in broken:
        assert scan(form[0], filled(form, *[NAME] * (form[2] - 1), name)) is None


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_no_part_of_rdata_with_a_name_is_taken_for_the_whole(
    form: tuple[int, bytes, int, bytes],
) -> None:
    whole = filled(form, *[QNAME] * form[2])
    names_end = len(whole) - (len(form[3]) if form[0] in (46, 47, 65) else 0)
    for end in range(names_end):
        assert scan(form[0], whole[:end]) is None


@pytest.mark.parametrize("form", [f for f in ALL.values() if f[0] not in (46, 47, 64, 65)])
def test_octets_behind_the_names_and_numbers_are_refused(
    form: tuple[int, bytes, int, bytes],
) -> None:
    assert scan(form[0], filled(form, *[NAME] * form[2]) + b"\0") is None


@pytest.mark.parametrize(("rtype", "size"), [(1, 4), (28, 16)])
def test_an_address_has_the_octets_of_its_type(rtype: int, size: int) -> None:
    for octets in range(40):
        assert (scan(rtype, bytes(octets)) is not None) == (octets == size)


def test_what_is_no_address_in_another_class_is_opaque() -> None:
    chaos = NAME + b"\0\1"  # RFC 1035 section 3.4.1 is for IN; Chaosnet has a name and 16 bits
    assert scan(1, chaos, rclass=3) is not None
    assert scan(28, chaos, rclass=3) is None


@pytest.mark.parametrize("rtype", [0, 10, 13, 16, 43, 48, 50, 52, 99, 257, 65280])
def test_all_other_types_are_opaque(rtype: int) -> None:
    for rdata in (b"", b"\xc0\xff", b"\x3f", bytes(300)):
        assert scan(rtype, rdata) is not None


@pytest.mark.parametrize(
    "inside",
    [
        b"\xff\xff",  # no pointer can lead there
        b"\xc0\x40",  # forward, to the owner name that points here
        b"\x40a\0",
        b"\1a" * 127 + b"\1b\0",
        b"\3ab",
    ],
)
def test_an_owner_name_may_not_lead_to_what_is_no_name(inside: bytes) -> None:
    """Through the RDATA of an opaque type, where names begin that nobody wrote."""
    question = QNAME + b"\0\1\0\1"
    text = POINTER + struct.pack("!HHIH", 16, 1, 30, len(inside)) + inside
    at = 12 + len(question) + len(text) - len(inside)
    answer = struct.pack("!H", 0xC000 | at) + struct.pack("!HHIH", 1, 1, 30, 4) + bytes(4)
    for owner in (b"", b"\1a"):
        octets = HEADER[:6] + b"\0\2\0\0\0\0" + question + text + owner + answer
        assert scan_response(octets, 12 + len(question)) is None


def test_a_pointer_to_the_question_is_followed_when_it_ends_a_longer_name() -> None:
    qname = (b"\x3f" + b"a" * 63) * 3 + b"\0"
    question = qname + b"\0\1\0\1"
    for labels, fits in ((b"\x3d" + b"b" * 61, True), (b"\x3e" + b"b" * 62, False)):
        record = labels + POINTER + struct.pack("!HHIH", 1, 1, 30, 4) + bytes(4)
        found = scan_response(HEADER + question + record, 12 + len(question))
        assert (found is not None) == fits


@given(
    st.sampled_from(STRICTLY_READ),
    st.binary(max_size=60)
    | st.tuples(st.binary(max_size=8), names(), st.binary(max_size=24)).map(b"".join),
)
@example(6, bytes(22))
def test_rdata_is_taken_exactly_when_a_strict_reader_takes_it(rtype: int, rdata: bytes) -> None:
    # A header that no reader takes for a name, though some let pointers lead there.
    octets = b"\xff" * 12 + QNAME + struct.pack("!HH", rtype, 1) + POINTER
    octets += struct.pack("!HHIH", rtype, 1, 30, len(rdata)) + rdata
    start = len(octets) - len(rdata)
    try:
        dns.rdata.from_wire("IN", dns.rdatatype.RdataType.make(rtype), octets, start, len(rdata))
        is_sound = True
    except dns.exception.DNSException:
        is_sound = False
    assert is_sound_rdata(octets, rtype, start, len(octets), {}) == is_sound


@given(st.binary(max_size=80), st.integers(0, 90))
def test_a_name_is_sound_exactly_when_it_can_be_expanded(octets: bytes, start: int) -> None:
    known: dict[int, int] = {}
    end = behind_name(octets, start, known)
    name = expand_name(octets, start)
    assert (name is not None) == bool(end)
    if name is not None:
        assert dns.name.from_wire(octets, start)[0].to_wire() == name
        assert start < end <= len(octets)
        assert behind_name(octets, start, known) == end  # by what is known now
        assert all(len(expand_name(octets, at) or b"") == size for at, size in known.items())


@given(st.sampled_from(sorted(FORMS)), st.lists(names(), min_size=2, max_size=2))
def test_expanded_rdata_has_the_names_that_were_compressed(name: str, written: list[bytes]) -> None:
    form = FORMS[name]
    prefix, first = bytes(12) + written[0], b"\xc0\x0c"
    rdata = filled(form, *[first, written[1]][: form[2]])
    expected = filled(form, *written[: form[2]])
    octets = prefix + rdata
    assert expand_rdata(octets, form[0], len(prefix), len(octets)) == expected


@given(st.integers(0, 300), st.binary(max_size=120))
def test_expanding_trusts_no_octets(rtype: int, rdata: bytes) -> None:
    octets = bytes(12) + rdata
    found = expand_rdata(octets, rtype, 12, len(octets))
    assert rtype in READ_TYPES or found == rdata


def _pointers_to(targets: list[int]) -> bytes:
    """Records of 12 octets whose owner names lead there."""
    return b"".join(struct.pack("!HHHIH", 0xC000 | target, 65280, 1, 30, 0) for target in targets)


def test_a_message_full_of_pointers_costs_no_more_than_others() -> None:
    """Each pointer that leads somewhere new is followed, but only so many of them."""
    question = QNAME + b"\0\1\0\1"
    start = 12 + len(question)
    # Names of 127 labels, in the RDATA of one record; each label begins a name of its own.
    area = (b"\1a" * 127 + b"\0") * 30
    text = POINTER + struct.pack("!HHIH", 16, 1, 30, len(area)) + area
    at = start + len(text) - len(area)
    targets = [at + name * 255 + label * 2 for name in range(30) for label in range(127)]
    octets = bytes(12) + question + text + _pointers_to(targets)
    began = time.process_time()
    assert walk_records(octets, start, 1 + len(targets)) is None
    assert walk_records(octets, start, 1 + 1000) is not None
    assert time.process_time() - began < 0.5


def test_a_chain_of_pointers_ends() -> None:
    question = QNAME + b"\0\1\0\1"
    start = 12 + len(question)
    chain = b"\xc0\x0c" + b"".join(
        struct.pack("!H", 0xC000 | at) for at in range(start + 12, start + 12 + 2 * 300, 2)
    )
    text = POINTER + struct.pack("!HHIH", 16, 1, 30, len(chain)) + chain
    for hops, is_sound in ((1, True), (200, True), (290, False)):
        octets = bytes(12) + question + text + _pointers_to([start + 12 + 2 * hops])
        assert (walk_records(octets, start, 2) is not None) == is_sound


def test_a_soa_that_was_sound_once_is_so_only_where_it_means_the_same() -> None:
    whole = filled(FORMS["SOA"], b"\2ns\0", NAME)
    for _ in range(2):
        assert scan(6, whole) is not None
        assert scan(6, whole[:-1]) is None
    # Compressed, with pointers to what is a name in one message and none in the other.
    pointers = struct.pack("!HH", 0xC00C, 0xC00C + 4) + bytes(20)
    for _ in range(2):
        for qname, is_sound in ((QNAME, True), (b"\3www\3org\0", True), (b"\7www.org\0", False)):
            question = qname + b"\0\6\0\1"
            record = POINTER + struct.pack("!HHIH", 6, 1, 30, len(pointers)) + pointers
            found = scan_response(HEADER + question + record, 12 + len(question))
            assert (found is not None) == is_sound


def test_soas_without_end_are_not_all_remembered() -> None:
    for serial in range(1000):
        soa = filled((6, b"", 2, struct.pack("!5I", serial, 0, 0, 0, 0)), NAME, NAME)
        assert scan(6, soa) is not None
    assert len(_sound_soas) <= 64
