"""When AAAA records are made of A records, and what becomes of a reply."""

from __future__ import annotations

import ipaddress

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nodecache.directives.dns64.act import Synthesizer, embed_address
from nodecache.directives.dns64.model import Dns64
from nodecache.wire.query import Query, scan_query
from tests.cache.building import AAAA, TXT, A, opt, query
from tests.reference.messages import parse
from tests.strategies import MadeResponse, mutated, names, responses

IPV4, IPV6 = "1", "2"
CD = 0x0010
DEFAULT = Synthesizer(Dns64())


def query_of(qtype: int = AAAA, flags: int = 0x0100, do: bool = False, qclass: int = 1) -> Query:
    found = scan_query(query("a.test", qtype, flags=flags, edns=opt(do=do), qclass=qclass))
    assert isinstance(found, Query)
    return found


def reply(
    answer: str = "",
    authority: str = "",
    additional: str = "",
    *,
    qtype: str = "AAAA",
    rcode: int = dns.rcode.NOERROR,
    flags: int = dns.flags.RA,
    qname: str = "a.test.",
    edns: bool = True,
) -> bytes:
    asked = dns.message.make_query(qname, qtype, use_edns=0 if edns else -1, id=0xBEEF)
    message = dns.message.make_response(asked)
    message.flags |= flags
    message.set_rcode(dns.rcode.Rcode(rcode))
    sections = (message.answer, message.authority, message.additional)
    for section, text in zip(sections, (answer, authority, additional), strict=True):
        for line in filter(None, text.split("\n")):
            owner, ttl, rtype, rdata = line.split(maxsplit=3)
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, rdata))
    return message.to_wire()


def lines(octets: bytes) -> list[str]:
    message = dns.message.from_wire(octets)
    return [line for rrset in message.answer for line in rrset.to_text().split("\n")]


SOA = "test. 50 SOA ns.test. admin.test. 1 2 3 4 5"
NODATA = reply(authority=SOA)
FOUND = reply("a.test. 300 A 192.0.2.33", qtype="A")


def test_only_aaaa_over_ipv6_is_wanted() -> None:
    assert DEFAULT.wants(query_of(), IPV6)
    assert not DEFAULT.wants(query_of(), IPV4)
    assert not DEFAULT.wants(query_of(A), IPV6)
    assert not DEFAULT.wants(query_of(TXT), IPV6)
    assert not DEFAULT.wants(query_of(qclass=3), IPV6)
    assert Synthesizer(Dns64(allow_ipv4=True)).wants(query_of(), IPV4)


def test_rfc6147_section_5_5_client_with_do_and_cd_translates_itself() -> None:
    assert not DEFAULT.wants(query_of(flags=0x0100 | CD, do=True), IPV6)
    assert DEFAULT.wants(query_of(flags=0x0100 | CD), IPV6)
    assert DEFAULT.wants(query_of(do=True), IPV6)


@pytest.mark.parametrize(
    ("octets", "needed"),
    [
        (NODATA, True),
        (reply(), True),
        (reply("a.test. 9 CNAME b.test.", SOA), True),
        (reply("a.test. 9 AAAA 2001:db8::1"), False),
        (reply("a.test. 9 CNAME b.test.\nb.test. 9 AAAA 2001:db8::1"), False),
        (reply(rcode=dns.rcode.NXDOMAIN, authority=SOA), False),
        (reply("a.test. 9 CNAME b.test.", SOA, rcode=dns.rcode.NXDOMAIN), False),
        (reply(rcode=dns.rcode.SERVFAIL), True),
        (reply(rcode=dns.rcode.REFUSED), True),
        (reply(rcode=dns.rcode.NOTIMP), True),
        (b"", False),
        (NODATA[:11], False),
        (reply("a.test. 9 CNAME b.test.", edns=False)[:-1], False),
    ],
)
def test_a_records_are_needed_without_aaaa_records(octets: bytes, needed: bool) -> None:
    assert DEFAULT.needs(octets) is needed


def test_translate_all_needs_a_records_in_any_case_but_nxdomain() -> None:
    all_of_them = Synthesizer(Dns64(translate_all=True))
    assert all_of_them.needs(reply("a.test. 9 AAAA 2001:db8::1"))
    assert not all_of_them.needs(reply(rcode=dns.rcode.NXDOMAIN, authority=SOA))


@given(names(), st.binary(max_size=40).map(lambda octets: opt(options=b"")))
def test_address_query_differs_in_its_type_alone(qname: bytes, edns: bytes) -> None:
    octets = b"\x12\x34\1\0\0\1\0\0\0\0\0\1" + qname + b"\0\x1c\0\1" + edns
    asked = DEFAULT.address_query(octets, 12 + len(qname) + 4)
    expected = dns.message.from_wire(octets)
    found = dns.message.from_wire(asked)
    assert found.question[0].rdtype == A
    assert found.question[0].name == expected.question[0].name
    assert len(asked) == len(octets)
    assert [a for a, b in zip(asked, octets, strict=True) if a != b] == [A]


def test_synthesis_takes_id_and_question_of_one_reply_and_all_else_of_the_other() -> None:
    found = reply(
        "A.test. 300 CNAME b.test.\nb.test. 200 A 192.0.2.33\nb.test. 10 A 192.0.2.1",
        "test. 90 NS ns.test.",
        "ns.test. 80 A 198.51.100.1",
        qtype="A",
        flags=dns.flags.RA | dns.flags.AD,
    )
    octets = DEFAULT.synthesize(NODATA, found)
    whole = dns.message.from_wire(octets)
    assert whole.id == 0xBEEF
    assert whole.question[0].to_text() == "a.test. IN AAAA"
    assert whole.flags == dns.flags.QR | dns.flags.RA | dns.flags.RD
    assert whole.edns == 0
    assert lines(octets) == [
        "a.test. 300 IN CNAME b.test.",
        "b.test. 10 IN AAAA 64:ff9b::c000:221",
        "b.test. 10 IN AAAA 64:ff9b::c000:201",
    ]
    assert [rrset.to_text() for rrset in whole.authority] == ["test. 90 IN NS ns.test."]
    assert [rrset.to_text() for rrset in whole.additional] == ["ns.test. 80 IN A 198.51.100.1"]


@pytest.mark.parametrize(
    ("authority", "ttl", "expected"),
    [
        ("test. 50 SOA ns.test. admin.test. 1 2 3 4 5", 300, 50),
        ("test. 500 SOA ns.test. admin.test. 1 2 3 4 5", 300, 300),
        ("", 300, 300),
        ("", 900, 600),
    ],
)
def test_rfc6147_section_5_1_7_ttl_is_the_lesser_one(
    authority: str, ttl: int, expected: int
) -> None:
    found = reply(f"a.test. {ttl} A 192.0.2.33", qtype="A")
    assert lines(DEFAULT.synthesize(reply(authority=authority), found)) == [
        f"a.test. {expected} IN AAAA 64:ff9b::c000:221"
    ]


def test_failed_aaaa_query_is_mended_by_a_records() -> None:
    whole = DEFAULT.synthesize(reply(rcode=dns.rcode.SERVFAIL), FOUND)
    assert dns.message.from_wire(whole).rcode() == dns.rcode.NOERROR
    assert lines(whole) == ["a.test. 300 IN AAAA 64:ff9b::c000:221"]


@pytest.mark.parametrize(
    "a_reply",
    [
        reply(qtype="A", authority=SOA),
        reply("a.test. 9 CNAME b.test.", qtype="A"),
        reply(qtype="A", rcode=dns.rcode.SERVFAIL),
        reply("a.test. 300 A 192.0.2.33", qtype="A", rcode=dns.rcode.NXDOMAIN),
        FOUND[:-20],
        b"",
    ],
)
def test_without_a_records_the_first_reply_stays_the_same_object(a_reply: bytes) -> None:
    assert DEFAULT.synthesize(NODATA, a_reply) is NODATA


def test_existing_aaaa_records_stay_if_there_is_nothing_to_translate() -> None:
    first = reply("a.test. 9 AAAA 2001:db8::1")
    policy = Synthesizer(Dns64(translate_all=True))
    assert policy.synthesize(first, reply(qtype="A", authority=SOA)) is first
    assert lines(policy.synthesize(first, FOUND)) == ["a.test. 300 IN AAAA 64:ff9b::c000:221"]


def test_names_keep_the_case_of_the_query() -> None:
    asked = reply(qname="A.tEsT.", authority=SOA)
    whole = DEFAULT.synthesize(asked, reply("A.tEsT. 30 A 10.0.0.1", qtype="A", qname="A.tEsT."))
    assert b"\1A\4tEsT\0" in whole
    assert dns.message.from_wire(whole).question[0].to_text() == "A.tEsT. IN AAAA"


@pytest.mark.parametrize("length", [32, 40, 48, 56, 64, 96])
@given(st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1))
def test_rfc6052_section_2_2_addresses(length: int, bits: int, ipv4: int) -> None:
    network = ipaddress.IPv6Network((bits, length), strict=False)
    # The four octets stand behind the prefix, and step over bits 64 to 71.
    number = int(network.network_address)
    position = length
    for octet in ipv4.to_bytes(4, "big"):
        position += 8 if position == 64 else 0
        number |= octet << (128 - position - 8)
        position += 8
    prefix = network.network_address.packed[: length // 8]
    assert embed_address(prefix, ipv4.to_bytes(4, "big")) == number.to_bytes(16, "big")


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
        ("64:ff9b::/96", "64:ff9b::c000:221"),
    ],
)
def test_rfc6052_section_2_4_examples(prefix: str, expected: str) -> None:
    whole = Synthesizer(Dns64(prefix)).synthesize(NODATA, FOUND)
    address = ipaddress.IPv6Address(expected)
    assert lines(whole) == [f"a.test. 50 IN AAAA {address}"]


@given(responses())
def test_only_a_records_of_the_answer_change(made: MadeResponse) -> None:
    whole = DEFAULT.synthesize(NODATA, made.octets)
    if whole is NODATA:
        return
    found, before = parse(whole), parse(made.octets)
    assume(before is not None)  # dnspython checks the RDATA of all types that it knows
    assert found is not None
    assert before is not None
    assert [rrset.rdtype for rrset in found.answer if rrset.rdtype == A] == []
    kept = [rrset for rrset in before.answer if rrset.rdtype not in (A, AAAA)]
    assert [rrset for rrset in found.answer if rrset.rdtype != AAAA] == kept
    assert found.authority == before.authority
    assert found.additional == before.additional


@given(
    mutated(responses().map(lambda made: made.octets)) | st.binary(max_size=60),
    mutated(responses().map(lambda made: made.octets)) | st.binary(max_size=60),
)
def test_any_octets_are_taken(first: bytes, second: bytes) -> None:
    assert DEFAULT.needs(first) in (True, False)
    whole = DEFAULT.synthesize(first, second)
    assert whole is first or whole[:2] == first[:2]
