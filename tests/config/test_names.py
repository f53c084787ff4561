"""Domain names and address blocks as zones."""

from __future__ import annotations

import dns.exception
import dns.name
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nodecache.config.model import CLUSTER_DOMAIN, ROOT
from nodecache.config.names import parse_name, parse_zones


def test_name_is_kept_in_lower_case_as_text_and_wire() -> None:
    assert parse_name("Cluster.LOCAL") == parse_name("cluster.local.") == CLUSTER_DOMAIN


def test_single_dot_is_the_root() -> None:
    assert parse_name(".") == ROOT


def test_escapes_are_octets() -> None:
    name = parse_name(r"a\.b.\097\000c")
    assert name.wire == b"\3a.b\3a\0c\0"
    assert name.text == r"a\046b.a\000c."


def test_longest_label_and_name_fit() -> None:
    text = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(parse_name(text).wire) == 255


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        ".a",
        "a..b",
        "a" * 64,
        ".".join(["a" * 63] * 4),
        "a b",
        "a\tb",
        "ü.de",
        "a\\",
        "a\\300",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="domain name"):
        parse_name(text)


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=80))
def test_names_agree_with_dnspython(text: str) -> None:
    # dnspython reads '@' and blanks by rules of its own.
    assume(text not in ("@", ""))
    assume(all("!" <= c <= "~" for c in text))
    try:
        expected = dns.name.from_text(text).to_wire()
    except (dns.exception.DNSException, UnicodeError):
        with pytest.raises(ValueError, match="domain name"):
            parse_name(text)
        return
    assert parse_name(text).wire == (expected or b"").lower()


@given(st.binary(min_size=1, max_size=63))
def test_text_form_reads_back_as_the_same_name(label: bytes) -> None:
    name = parse_name("".join(f"\\{octet:03d}" for octet in label))
    assert parse_name(name.text) == name


@pytest.mark.parametrize(
    ("block", "zones"),
    [
        ("10.0.0.0/8", ["10.in-addr.arpa."]),
        ("10.1.2.3/24", ["2.1.10.in-addr.arpa."]),
        ("10.1.2.3/32", ["3.2.1.10.in-addr.arpa."]),
        ("10.0.2.0/23", ["2.0.10.in-addr.arpa.", "3.0.10.in-addr.arpa."]),
        ("0.0.0.0/0", ["in-addr.arpa."]),
        ("2001:db8::/32", ["8.b.d.0.1.0.0.2.ip6.arpa."]),
        ("fd00::/7", ["c.f.ip6.arpa.", "d.f.ip6.arpa."]),
        ("::/0", ["ip6.arpa."]),
    ],
)
def test_address_block_becomes_reverse_zones(block: str, zones: list[str]) -> None:
    assert [zone.text for zone in parse_zones(block)] == zones


def test_block_off_the_octet_boundary_becomes_all_its_zones() -> None:
    zones = parse_zones("10.0.0.0/25")
    assert len(zones) == 128
    assert zones[127].text == "127.0.0.10.in-addr.arpa."


@pytest.mark.parametrize("text", ["10.0.0.0/33", "a/b", "/", "10.0.0/8", "::/129"])
def test_what_is_no_block_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address block"):
        parse_zones(text)
