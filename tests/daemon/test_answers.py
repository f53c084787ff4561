"""What stubs are told about a zone that knot, unbound and BIND serve, each in turn, over TCP."""

from __future__ import annotations

import uuid

import dns.flags
import dns.query
import dns.rcode
import pytest

from tests.daemon.conftest import Houses
from tests.daemon.processes import Daemon
from tests.daemon.stubs import addresses, ask, make_query, texts
from tests.daemon.zone import LONG_STRINGS, MANY, ORIGIN

PLAIN = f"plain.{ORIGIN}"


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_first_answer_and_its_repetition_are_the_same(served: Daemon, tcp: bool) -> None:
    replies = [ask(served, PLAIN, tcp=tcp) for _ in range(3)]
    assert [addresses(reply) for reply in replies] == [["192.0.2.1"]] * 3
    assert all(reply.rcode() == dns.rcode.NOERROR for reply in replies)
    assert all(reply.flags & dns.flags.QR for reply in replies)


def test_401_addresses_come_whole_over_tcp(served: Daemon) -> None:
    assert addresses(ask(served, f"many.{ORIGIN}", tcp=True)) == MANY


@pytest.mark.parametrize("payload", [0, 512, 1232, 4096])
def test_of_401_addresses_come_as_many_as_fit_over_udp(served: Daemon, payload: int) -> None:
    for _ in range(3):
        reply = ask(served, f"many.{ORIGIN}", payload=payload)
        assert reply.flags & dns.flags.TC
        octets = len(reply.to_wire())
        assert max(payload, 512) - 16 < octets <= max(payload, 512)
        assert set(addresses(reply)) < set(MANY)
    assert reply.edns == (0 if payload else -1)


def test_401_addresses_fit_a_stub_that_takes_64_kb(served: Daemon) -> None:
    reply = ask(served, f"many.{ORIGIN}", payload=65535)
    assert not reply.flags & dns.flags.TC
    assert addresses(reply) == MANY


def test_a_truncated_answer_sends_dnspython_to_tcp(served: Daemon) -> None:
    query = make_query(f"many.{ORIGIN}")
    reply, used_tcp = dns.query.udp_with_fallback(query, served.host, 20, served.port)
    assert used_tcp
    assert addresses(reply) == MANY


def test_60_kb_of_text_come_whole_over_tcp(served: Daemon) -> None:
    for _ in range(3):
        reply = ask(served, f"long.{ORIGIN}", "TXT", tcp=True)
        assert texts(reply, "TXT") == [f'"{text}"' for text in LONG_STRINGS]


def test_a_cname_chain_comes_in_order_with_its_end(served: Daemon) -> None:
    for _ in range(2):
        reply = ask(served, f"chain1.{ORIGIN}")
        owners = [rrset.name.to_text().split(".")[0] for rrset in reply.answer]
        assert owners == ["chain1", "chain2", "chain3", "chain4", "plain"]
        assert addresses(reply) == ["192.0.2.1"]


def test_all_records_of_a_chain_share_the_shortest_ttl(served: Daemon) -> None:
    reply = ask(served, f"chain1.{ORIGIN}")
    assert len({rrset.ttl for rrset in reply.answer}) == 1
    assert reply.answer[0].ttl <= 90


@pytest.mark.parametrize("name", ["bind", "knot"])  # unbound's auth-zone says NOERROR here
def test_a_chain_to_nowhere_is_nxdomain_with_the_alias(houses: Houses, name: str) -> None:
    for _ in range(2):
        reply = ask(houses.daemon(name), f"dangling.{ORIGIN}")
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert texts(reply, "CNAME") == [f"nowhere.{ORIGIN}."]


def test_an_alias_to_nowhere_hides_no_other_type_of_its_own(served: Daemon) -> None:
    ask(served, f"dangling.{ORIGIN}")
    reply = ask(served, f"dangling.{ORIGIN}", "CNAME")
    assert reply.rcode() == dns.rcode.NOERROR
    assert texts(reply, "CNAME") == [f"nowhere.{ORIGIN}."]


def test_https_and_svcb_records_pass(served: Daemon) -> None:
    for _ in range(2):
        assert texts(ask(served, f"https.{ORIGIN}", "HTTPS"), "HTTPS") == [
            '1 . alpn="h2,h3" ipv4hint="192.0.2.7"'
        ]
    assert texts(ask(served, f"_dns.{ORIGIN}", "SVCB"), "SVCB") == [f'1 ns.{ORIGIN}. alpn="dot"']


def test_a_type_that_nobody_knows_passes(served: Daemon) -> None:
    for _ in range(2):
        reply = ask(served, f"odd.{ORIGIN}", "TYPE65280")
        assert texts(reply, "TYPE65280") == ["\\# 4 0a000001"]


def test_srv_and_mx_records_pass(served: Daemon) -> None:
    assert texts(ask(served, f"_http._tcp.{ORIGIN}", "SRV"), "SRV") == [f"10 5 80 plain.{ORIGIN}."]
    assert texts(ask(served, f"mail.{ORIGIN}", "MX"), "MX") == [f"10 plain.{ORIGIN}."]


def test_ipv6_addresses_pass(served: Daemon) -> None:
    for _ in range(2):
        assert texts(ask(served, f"ipv6.{ORIGIN}", "AAAA"), "AAAA") == ["2001:db8::6"]


def test_both_families_of_one_name_are_kept_apart(served: Daemon) -> None:
    for _ in range(2):
        assert addresses(ask(served, f"dual.{ORIGIN}")) == ["192.0.2.2"]
        assert texts(ask(served, f"dual.{ORIGIN}", "AAAA"), "AAAA") == ["2001:db8::2"]


def test_nxdomain_comes_with_its_soa_from_upstream_and_from_the_cache(served: Daemon) -> None:
    name = f"{uuid.uuid4().hex}.{ORIGIN}"
    for _ in range(2):
        reply = ask(served, name)
        assert reply.rcode() == dns.rcode.NXDOMAIN
        assert [rrset.rdtype.name for rrset in reply.authority] == ["SOA"]
        assert reply.authority[0].ttl <= 60


def test_nodata_comes_with_its_soa_and_hides_no_other_type(served: Daemon) -> None:
    for _ in range(2):
        reply = ask(served, f"ipv6.{ORIGIN}")
        assert reply.rcode() == dns.rcode.NOERROR
        assert reply.answer == []
        assert [rrset.rdtype.name for rrset in reply.authority] == ["SOA"]
    assert texts(ask(served, f"ipv6.{ORIGIN}", "AAAA"), "AAAA") == ["2001:db8::6"]


def test_nxdomain_for_one_type_hides_no_other_outside_the_cluster_domain(served: Daemon) -> None:
    name = f"{uuid.uuid4().hex}.{ORIGIN}"
    assert ask(served, name, "A").rcode() == dns.rcode.NXDOMAIN
    assert ask(served, name, "AAAA").rcode() == dns.rcode.NXDOMAIN


def test_a_wildcard_answers_every_name_below_it_under_that_name(served: Daemon) -> None:
    for name in (f"{uuid.uuid4().hex}.wild.{ORIGIN}", f"a.b.c.wild.{ORIGIN}"):
        for _ in range(2):
            reply = ask(served, name)
            assert addresses(reply) == ["192.0.2.77"]
            assert reply.answer[0].name.to_text() == f"{name}."


def test_the_cap_of_the_corefile_holds_for_a_longer_ttl(served: Daemon) -> None:
    assert 0 < ask(served, PLAIN).answer[0].ttl <= 300


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_the_question_is_echoed_in_the_case_it_came_in(served: Daemon, tcp: bool) -> None:
    for spelling in ("PLAIN", "pLaIn", "plain", "PlAiN"):
        name = f"{spelling}.{ORIGIN.title()}"
        for _ in range(3):
            query = make_query(name)
            send = dns.query.tcp if tcp else dns.query.udp
            reply = send(query, served.host, 20, served.port)
            asked, echoed = query.to_wire()[12:], reply.to_wire()[12:]
            assert echoed.startswith(asked)
            assert addresses(reply) == ["192.0.2.1"]


def test_what_the_upstream_refuses_is_refused(served: Daemon) -> None:
    assert ask(served, "elsewhere.invalid-zone").rcode() == dns.rcode.REFUSED
