"""Records in presentation format against octets written by hand, and against dnslib."""

from __future__ import annotations

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.directives.template.record import Record, parse_record

ADDRESS = b"\xc0\0\2\1"
A_EXAMPLE = b"\1a\7example\0"


@pytest.mark.parametrize(
    ("head", "owner", "ttl_s"),
    [
        ("a.example. 60 IN A", A_EXAMPLE, 60),
        ("a.example. IN 60 A", A_EXAMPLE, 60),
        ("a.example. A", A_EXAMPLE, 3600),
        ("a.example 60 A", A_EXAMPLE, 60),
        ("a.example IN A", A_EXAMPLE, 3600),
        ("a.example. 1h30m A", A_EXAMPLE, 5400),
        ("EXAMPLE. 60 in a", b"\7EXAMPLE\0", 60),
        ("*.example. A", b"\1*\7example\0", 3600),
        ("@ 60 IN A", b"\0", 60),
        (". A", b"\0", 3600),
        ("\n\na. A", b"\1a\0", 3600),
        (r"a\.b\032c\200. A", b"\6a.b c\xc8\0", 3600),
        (r"a\.b\ c\@\;\(\)\"\\.x. A", b'\x0ba.b c@;()"\\\1x\0', 3600),
    ],
)
def test_ttl_and_class_may_lack_and_change_places(head: str, owner: bytes, ttl_s: int) -> None:
    assert parse_record(f"{head} 192.0.2.1 ; why") == Record(owner, 1, 1, ttl_s, ADDRESS)


@pytest.mark.parametrize(
    ("name", "number"),
    [("CH", 3), ("ch", 3), ("HS", 4), ("NONE", 254), ("ANY", 255), ("CLASS7", 7)],
)
def test_class_is_taken_by_name_or_number(name: str, number: int) -> None:
    assert parse_record(f"a. 60 {name} MX 1 b.").rclass == number


@pytest.mark.parametrize(
    ("text", "rtype", "rdata"),
    [
        ("AAAA ::ffff:192.0.2.1", 28, bytes(10) + b"\xff\xff" + ADDRESS),
        ("CNAME b", 5, b"\1b\0"),
        ("CNAME B.example.", 5, b"\1B\7example\0"),
        ('TXT "a b" "c;d" e ""', 16, b"\3a b\3c;d\1e\0"),
        (r'TXT "a\"b\\ \065"', 16, b'\6a"b\\ A'),
        ('TXT ( "a"\n "b" ) ; end\n\n', 16, b"\1a\1b"),
        ("SOA n. h. (1 1h 60\n60 60)", 6, b"\1n\0\1h\0\0\0\0\1\0\0\x0e\x10" + b"\0\0\0\x3c" * 3),
        ("HTTPS 1 . port=8443 alpn=h2", 65, b"\0\1\0\0\1\0\3\2h2\0\3\0\2\x20\xfb"),
        ('CAA 0 issue "ca"', 257, b"\0\5issueca"),
        ("LOC 0 0 0 N 0 0 0 E 0m", 29, b"\0\x12\x16\x13" + b"\x80\0\0\0" * 2 + b"\0\x98\x96\x80"),
        (r"TYPE65280 \# 4 01020304", 65280, b"\1\2\3\4"),
        (r"TYPE65280 \# 0", 65280, b""),
    ],
)
def test_data_are_in_wire_format(text: str, rtype: int, rdata: bytes) -> None:
    assert parse_record(f"a. {text}") == Record(b"\1a\0", rtype, 1, 3600, rdata)


@pytest.mark.parametrize(
    "text",
    [
        "a.example. 60 IN MX 10 m.example.",
        "_a._tcp.example. 60 IN SRV 1 2 3 t.example.",
        "1.2.0.192.in-addr.arpa. 60 IN PTR h.example.",
        "example. 60 IN NS ns.example.",
        'example. 60 IN NAPTR 10 20 "s" "SIP" "" a.',
        "example. 60 IN DS 1 8 2 " + "aa" * 32,
        "example. 60 IN DNSKEY 257 3 13 aGFsbG8=",
        "example. 60 IN TLSA 3 1 0 aabbcc",
    ],
)
def test_record_is_dnslib_s(text: str) -> None:
    (expected,) = dnslib.RR.fromZone(text)
    packed = dnslib.DNSBuffer()
    expected.rdata.pack(packed)
    record = parse_record(text)
    assert (record.rtype, record.rclass, record.ttl_s) == (expected.rtype, 1, 60)
    assert dnslib.DNSBuffer(record.owner).decode_name() == expected.rname
    kind = type(expected.rdata)
    assert kind.parse(dnslib.DNSBuffer(record.rdata), len(record.rdata)) == expected.rdata


@pytest.mark.parametrize(
    "text",
    [
        "", "  ; only a comment", "a.", "a. 60", "a. 60 IN", "a. 60 IN A", "a. IN A 192.0.2.256",
        "a. IN A 192.0.2.1 5", "a. IN AAAA 192.0.2.1", "a. IN AAAA fe80::1%eth0", "a. IN FOO x",
        "a. -1 IN A 192.0.2.1", "a. 2147483648 IN A 192.0.2.1", "a. MX 65536 b.", "a. MX b.",
        "a..b. A 192.0.2.1", f"{'x' * 64}. A 192.0.2.1", f"{'x.' * 128} A 192.0.2.1",
        "a. SOA b. c. 1 2 3 4", "a. SOA b. c. (1 2 3 4 5", "a. A ) 192.0.2.1", 'a. TXT "x',
        "a. TXT x\\", r"a. TXT \999", f"a. TXT {'x' * 256}", "$TTL 3", "a. ANY x", "a. OPT x",
        "a. NULL x", r"a. ANY ANY \# 0", r"a. TYPE5 \# 1 ff", r"a. TYPE65280 \# 3 01",
        "a. TYPE65536 \\# 0", "a. CLASS65536 A 192.0.2.1", f"a. {'9' * 5000} A 192.0.2.1",
        f"a. TXT {'x ' * 40_000}", "<no value> A 192.0.2.1",
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{3,200}$"):
        parse_record(text)


@pytest.mark.parametrize("second", ["b. A 192.0.2.2", "a. A 192.0.2.1", "x", '"'])
def test_second_record_is_refused(second: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_record(f"a. A 192.0.2.1\n\n{second}")


_WORDS = st.sampled_from(
    [
        "a.", "60", "IN", "ANY", "A", "AAAA", "TXT", "SVCB", "HTTPS", "CAA", "SOA", "MX", "\\#",
        "4", "01020304", "(", ")", '"', ";", "\n", "@", ".", "192.0.2.1", "::1", "alpn=h2", "\\",
        "mandatory=alpn", "key0=x", "ipv4hint=", "\\032", "\\.", "x..y", "$TTL", "1h2m", "9" * 11,
        "LOC", "NSEC", "APL", "1:192.0.2.0/24", "RRSIG", "HIP", "IPSECKEY", "TSIG", "NSAP-PTR",
    ]
)  # fmt: skip


@given(st.lists(_WORDS, max_size=12).map(" ".join) | st.text(max_size=60))
def test_any_text_is_a_record_or_refused(text: str) -> None:
    try:
        record = parse_record(text)
    except ValueError:
        return
    assert record.owner.endswith(b"\0")
    assert 0 <= record.ttl_s < 2**31
    assert type(record.rtype) is type(record.rclass) is int
