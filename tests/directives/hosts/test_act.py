"""What a hosts table answers, and what it lets pass."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.names import parse_name, parse_zones
from nodecache.directives.hosts.act import HostsResponder
from nodecache.directives.hosts.model import HostsTable
from tests.cache.building import AAAA, ANY, CNAME, DS, NS, SOA, TXT, A, name
from tests.strategies import U16, names

PTR, HTTPS = 12, 65
IN, CH = 1, 3


def table(
    entries: Mapping[str, Sequence[str]],
    zones: Sequence[str] = (".",),
    fallthrough: Sequence[str] | None = None,
    passes_other_types: bool = False,
) -> HostsTable:
    """Name -> addresses, with a reverse entry for each."""
    backwards: dict[bytes, list[bytes]] = {}
    for host, addresses in entries.items():
        for address in addresses:
            reverse = dns.reversename.from_address(address).to_wire()
            assert reverse is not None
            backwards.setdefault(reverse, []).append(name(host))
    return HostsTable(
        zones=tuple(zone for text in zones for zone in parse_zones(text)),
        addresses=tuple(
            (name(host), tuple(ipaddress.ip_address(address).packed for address in addresses))
            for host, addresses in entries.items()
        ),
        names=tuple((reverse, tuple(hosts)) for reverse, hosts in backwards.items()),
        ttl_s=77,
        fallthrough=None if fallthrough is None else tuple(map(parse_name, fallthrough)),
        passes_other_types=passes_other_types,
    )


SITE = {
    "db.site.test": ["10.0.0.1", "10.0.0.2", "2001:db8::1"],
    "v4.site.test": ["10.0.0.4"],
    "*.apps.site.test": ["10.0.0.7", "2001:db8::7"],
    "own.apps.site.test": ["10.0.0.8"],
}


def ask(hosts: HostsTable, qname: str, qtype: int, qclass: int = IN) -> dns.message.Message | None:
    question = name(qname) + qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big")
    response = HostsResponder(hosts).respond(question)
    if response is None:
        return None
    message = dns.message.from_wire(response)
    assert (message.id, message.edns, len(message.authority)) == (0, -1, 0)
    assert (
        message.question[0].to_text()
        == dns.message.make_query(
            qname, dns.rdatatype.RdataType(qtype), dns.rdataclass.RdataClass(qclass)
        )
        .question[0]
        .to_text()
    )
    return message


def answers(message: dns.message.Message | None) -> list[str]:
    assert message is not None
    assert message.rcode() == dns.rcode.NOERROR
    assert message.flags == dns.flags.QR | dns.flags.AA
    return [line for rrset in message.answer for line in rrset.to_text().split("\n")]


def test_addresses_are_answered_by_type() -> None:
    assert answers(ask(table(SITE), "db.site.test", A)) == [
        "db.site.test. 77 IN A 10.0.0.1",
        "db.site.test. 77 IN A 10.0.0.2",
    ]
    assert answers(ask(table(SITE), "db.site.test", AAAA)) == [
        "db.site.test. 77 IN AAAA 2001:db8::1"
    ]


def test_reverse_names_are_answered_also_outside_of_the_zones() -> None:
    hosts = table({**SITE, "alias.site.test": ["10.0.0.1"]}, zones=["site.test"])
    assert answers(ask(hosts, "1.0.0.10.in-addr.arpa", PTR)) == [
        "1.0.0.10.in-addr.arpa. 77 IN PTR db.site.test.",
        "1.0.0.10.in-addr.arpa. 77 IN PTR alias.site.test.",
    ]
    reverse = dns.reversename.from_address("2001:db8::1").to_text()
    assert answers(ask(hosts, reverse, PTR)) == [f"{reverse} 77 IN PTR db.site.test."]


@pytest.mark.parametrize("qtype", [AAAA, TXT, HTTPS, NS, SOA, CNAME, DS, ANY])
def test_known_name_without_the_type_is_nodata_whatever_falls_through(qtype: int) -> None:
    assert answers(ask(table(SITE, fallthrough=["."]), "v4.site.test", qtype)) == []


def test_unknown_name_is_servfail_for_want_of_a_soa() -> None:
    for qtype in (A, AAAA, TXT):
        message = ask(table(SITE), "no.site.test", qtype)
        assert message is not None
        assert message.rcode() == dns.rcode.SERVFAIL
        assert message.flags == dns.flags.QR | dns.rcode.SERVFAIL
        assert message.answer == []


def test_unknown_name_falls_through_where_told() -> None:
    hosts = table(SITE, fallthrough=["site.test"])
    assert ask(hosts, "no.site.test", A) is None
    other = ask(hosts, "no.other.test", A)
    assert other is not None
    assert other.rcode() == dns.rcode.SERVFAIL


def test_other_types_pass_with_fallthrough_unsupported() -> None:
    hosts = table(SITE, fallthrough=["site.test"], passes_other_types=True)
    assert ask(hosts, "v4.site.test", TXT) is None
    assert answers(ask(hosts, "v4.site.test", AAAA)) == []
    elsewhere = table({"v4.other.test": ["10.0.0.4"]}, ["."], ["site.test"], True)
    assert answers(ask(elsewhere, "v4.other.test", TXT)) == []


def test_names_outside_of_the_zones_pass() -> None:
    hosts = table(SITE, zones=["apps.site.test", "two.test"])
    assert ask(hosts, "db.site.test", A) is None
    assert ask(hosts, "xapps.site.test", A) is None
    assert len(answers(ask(hosts, "own.apps.site.test", A))) == 1


@pytest.mark.parametrize("fallthrough", [None, ["."]])
def test_unknown_reverse_names_always_pass(fallthrough: list[str] | None) -> None:
    hosts = table(SITE, fallthrough=fallthrough)
    assert ask(hosts, "9.0.0.10.in-addr.arpa", PTR) is None
    assert ask(hosts, "0.0.10.in-addr.arpa", PTR) is None
    assert ask(hosts, "db.site.test", PTR) is None


def test_reverse_zone_without_ptr_is_treated_as_any_name() -> None:
    message = ask(table(SITE), "1.0.0.10.in-addr.arpa", A)
    assert message is not None
    assert message.rcode() == dns.rcode.SERVFAIL


def test_other_classes_pass() -> None:
    assert ask(table(SITE), "db.site.test", A, CH) is None


def test_wildcard_stands_for_one_label() -> None:
    hosts = table(SITE, fallthrough=["."])
    assert answers(ask(hosts, "any.apps.site.test", AAAA)) == [
        "any.apps.site.test. 77 IN AAAA 2001:db8::7"
    ]
    assert answers(ask(hosts, "any.apps.site.test", TXT)) == []
    assert ask(hosts, "apps.site.test", A) is None
    assert ask(hosts, "deep.any.apps.site.test", A) is None


def test_wildcard_does_not_stand_for_a_name_with_an_entry() -> None:
    hosts = table(SITE)
    assert answers(ask(hosts, "own.apps.site.test", A)) == ["own.apps.site.test. 77 IN A 10.0.0.8"]
    assert answers(ask(hosts, "own.apps.site.test", AAAA)) == []


def test_wildcard_of_the_root_stands_for_nothing() -> None:
    assert ask(table({"*": ["10.0.0.1"]}, fallthrough=["."]), "com", A) is None
    assert ask(table({"*": ["10.0.0.1"]}, fallthrough=["."]), "", A) is None


def test_as_many_entries_as_the_configuration_admits_fit_into_one_message() -> None:
    long = ".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 57])
    addresses = [str(ipaddress.IPv6Address(number)) for number in range(1000)]
    response = HostsResponder(table({long: addresses})).respond(name(long) + b"\0\x1c\0\1")
    assert response is not None
    assert len(response) <= 65535
    many = {f"{number:03}{long}": ["10.0.0.1"] for number in range(100)}
    reverse = name("1.0.0.10.in-addr.arpa")
    response = HostsResponder(table(many)).respond(reverse + b"\0\x0c\0\1")
    assert response is not None
    assert len(response) <= 65535


@given(names(), U16, U16)
def test_any_question_is_answered_or_passes(qname: bytes, qtype: int, qclass: int) -> None:
    question = qname.lower() + qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big")
    response = HostsResponder(table(SITE, ["site.test", "test"])).respond(question)
    assert response is None or response[12 : 12 + len(question)] == question


@given(st.ip_addresses())
def test_reverse_names_are_those_of_dnspython(address: ipaddress.IPv4Address) -> None:
    hosts = table({"a.test": [str(address)]})
    reverse = dns.reversename.from_address(str(address)).to_text()
    assert answers(ask(hosts, reverse, PTR)) == [f"{reverse} 77 IN PTR a.test."]
