from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from nodecache.config.model import ROOT, Address, Name
from nodecache.config.names import parse_name
from nodecache.directives.log.act import QueryLog
from nodecache.directives.log.line_format import COMBINED, COMMON, PLACEHOLDERS
from nodecache.directives.log.model import LogClass, LogRule
from nodecache.resolve.logged import LoggedQuery

Lines = Callable[..., list[str]]

SOA = "example.org. 30 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5"
NS = "example.org. 30 IN NS ns.example.org."
A = "example.org. 30 IN A 192.0.2.1"
CNAME = "example.org. 30 IN CNAME a.example.org."


def make_query(name: str = "example.org.", rtype: str = "A", **edns: Any) -> dns.message.Message:
    query = dns.message.make_query(name, rtype, **edns)
    query.id = 29008
    return query


def make_reply(
    query: dns.message.Message,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    answer: str = "",
    authority: str = "",
) -> bytes:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.RA
    reply.set_rcode(rcode)
    for section, text in ((reply.answer, answer), (reply.authority, authority)):
        if text:
            owner, ttl, rclass, rtype, rdata = text.split(" ", 4)
            section.append(dns.rrset.from_text(owner, int(ttl), rclass, rtype, rdata))
    return reply.to_wire()


def entry_of(
    query: bytes,
    reply: bytes,
    proto: str = "udp",
    remote: str = "127.0.0.1",
    server: str = "dns://169.254.20.10:53",
) -> LoggedQuery:
    return LoggedQuery(query, reply, Address(remote, 50759), server, proto, 0.037990251)


@pytest.fixture
def lines_of(caplog: pytest.LogCaptureFixture) -> Lines:
    """Template and entry -> the lines that come of them."""
    caplog.set_level("INFO", logger="nodecache.query")

    def log(template: str, entry: LoggedQuery, *classes: LogClass) -> list[str]:
        wanted = frozenset(classes or (LogClass.ALL,))
        QueryLog((LogRule((ROOT,), template, wanted),)).note(entry)
        return caplog.messages

    return log


def test_the_common_format_is_the_line_that_coredns_writes(lines_of: Lines) -> None:
    query = make_query(use_edns=0, payload=4096)
    entry = entry_of(query.to_wire(), make_reply(query, answer=A))
    assert lines_of(COMMON, entry) == [
        (
            '127.0.0.1:50759 - 29008 "A IN example.org. udp 40 false 4096"'
            f" NOERROR qr,rd,ra {len(entry.reply)} 0.037990251s"
        )
    ]


def test_the_combined_format_adds_the_opcode(lines_of: Lines) -> None:
    query = make_query()
    (line,) = lines_of(COMBINED, entry_of(query.to_wire(), make_reply(query)))
    assert line.endswith('0.037990251s "0"')


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{name} {type} {class}", "example.org. A IN"),
        ("{remote} {port} {local} {proto}", "127.0.0.1 50759 169.254.20.10 udp"),
        ("{size} {>id} {>opcode} {>do} {>bufsize}", "29 29008 0 false 512"),
        ("{rcode} {>rflags} {rsize} {duration}", "NOERROR qr,rd,ra 45 0.037990251s"),
        ("{/log/class} {/log/type}", "success NOERROR"),
        ('{"name": "{name}"} 100%', '{"name": "example.org."} 100%'),
        ("{ {name} }}", "{ example.org. }}"),
        ("{}", "{}"),
    ],
)
def test_each_placeholder(template: str, line: str, lines_of: Lines) -> None:
    query = make_query()
    assert lines_of(template, entry_of(query.to_wire(), make_reply(query, answer=A))) == [line]


def test_ipv6_addresses_stand_in_brackets(lines_of: Lines) -> None:
    query = make_query()
    entry = entry_of(query.to_wire(), make_reply(query), "tcp", "fd00::7", "dns://[::1]:53")
    assert lines_of("{remote}:{port} {local}", entry) == ["[fd00::7]:50759 [::1]"]


def test_the_address_of_a_listener_on_all_addresses_is_unspecified(lines_of: Lines) -> None:
    query = make_query()
    entry = entry_of(query.to_wire(), make_reply(query), server="dns://:53")
    assert lines_of("{local}", entry) == ["[::]"]


@pytest.mark.parametrize(
    ("edns", "proto", "text"),
    [
        ({"use_edns": 0, "payload": 1232, "want_dnssec": True}, "udp", "true 1232"),
        ({"use_edns": 0, "payload": 100}, "udp", "false 512"),
        ({"use_edns": 0, "payload": 1232}, "tcp", "false 65535"),
        ({}, "tcp", "false 65535"),
    ],
)
def test_do_and_size_are_those_of_the_query(
    edns: dict[str, Any], proto: str, text: str, lines_of: Lines
) -> None:
    query = make_query(**edns)
    entry = entry_of(query.to_wire(), make_reply(query), proto)
    assert lines_of("{>do} {>bufsize}", entry) == [text]


def test_every_flag_has_its_name_in_the_order_of_coredns(lines_of: Lines) -> None:
    query = make_query()
    reply = bytearray(make_reply(query))
    reply[2:4] = b"\x87\xf0"
    assert lines_of("{>rflags}", entry_of(query.to_wire(), bytes(reply))) == [
        "qr,aa,tc,rd,ra,z,ad,cd"
    ]


def test_the_name_is_written_in_lower_case_and_on_one_line(lines_of: Lines) -> None:
    query = make_query("ExAmPlE.ORG.")
    octets = query.to_wire().replace(b"ExA", b'\n"\xff')
    entry = entry_of(octets, make_reply(query))
    assert lines_of('"{name}"', entry) == ['"\\010\\"\\255mple.org."']


@pytest.mark.parametrize(
    ("rcode", "answer", "authority", "kind", "log_class"),
    [
        (dns.rcode.NOERROR, A, "", "NOERROR", "success"),
        (dns.rcode.NOERROR, CNAME, SOA, "NOERROR", "success"),
        (dns.rcode.NOERROR, "", "", "NOERROR", "success"),
        (dns.rcode.NOERROR, "", NS, "DELEGATION", "success"),
        (dns.rcode.NOERROR, "", SOA, "NODATA", "denial"),
        (dns.rcode.NXDOMAIN, "", SOA, "NXDOMAIN", "denial"),
        (dns.rcode.NXDOMAIN, "", "", "NXDOMAIN", "denial"),
        (dns.rcode.NXDOMAIN, CNAME, SOA, "OTHERERROR", "error"),
        (dns.rcode.SERVFAIL, "", "", "SERVERERROR", "error"),
        (dns.rcode.SERVFAIL, A, "", "SERVERERROR", "error"),
        (dns.rcode.NOTIMP, "", "", "SERVERERROR", "error"),
        (dns.rcode.REFUSED, "", "", "OTHERERROR", "error"),
    ],
)
def test_responses_are_classified_as_coredns_does(
    rcode: dns.rcode.Rcode, answer: str, authority: str, kind: str, log_class: str, lines_of: Lines
) -> None:
    query = make_query(use_edns=0)
    entry = entry_of(query.to_wire(), make_reply(query, rcode, answer, authority))
    assert lines_of("{/log/type} {/log/class}", entry) == [f"{kind} {log_class}"]


def test_a_transfer_is_an_error(lines_of: Lines) -> None:
    query = make_query(rtype="AXFR")
    entry = entry_of(query.to_wire(), make_reply(query, dns.rcode.REFUSED))
    assert lines_of("{type} {/log/type} {/log/class}", entry) == ["AXFR META error"]


def test_the_upper_bits_of_the_rcode_are_read(lines_of: Lines) -> None:
    query = make_query(use_edns=0)
    entry = entry_of(query.to_wire(), make_reply(query, dns.rcode.BADCOOKIE))
    assert lines_of("{rcode}", entry) == ["BADCOOKIE"]


@pytest.mark.parametrize(
    ("classes", "is_logged"),
    [
        ((LogClass.DENIAL,), True),
        ((LogClass.SUCCESS, LogClass.DENIAL), True),
        ((LogClass.ERROR, LogClass.ALL), True),
        ((LogClass.SUCCESS, LogClass.ERROR), False),
    ],
)
def test_only_the_classes_of_a_rule_are_logged(
    classes: tuple[LogClass, ...], is_logged: bool, lines_of: Lines
) -> None:
    query = make_query()
    entry = entry_of(query.to_wire(), make_reply(query, dns.rcode.NXDOMAIN))
    assert bool(lines_of(COMMON, entry, *classes)) is is_logged


def rule(zone: Name, template: str, log_class: LogClass = LogClass.ALL) -> LogRule:
    return LogRule((zone,), template, frozenset((log_class,)))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("www.Example.org.", ["first"]),
        ("example.net.", ["second"]),
        ("notexample.org.", []),
    ],
)
def test_the_first_rule_whose_zone_holds_the_name_decides(
    name: str, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="nodecache.query")
    log = QueryLog(
        (
            rule(parse_name("example.org"), "first"),
            rule(parse_name("www.example.org"), "never"),
            rule(parse_name("example.net"), "second"),
            rule(ROOT, "no error", LogClass.ERROR),
            rule(ROOT, "never"),
        )
    )
    query = make_query(name)
    log.note(entry_of(query.to_wire(), make_reply(query)))
    assert caplog.messages == lines


def test_octets_of_any_kind_make_one_line(lines_of: Lines) -> None:
    query = make_query(use_edns=0, payload=4096)
    whole_query, whole_reply = query.to_wire(), make_reply(query, authority=SOA)
    everything = " ".join(PLACEHOLDERS)
    for size in range(len(whole_query)):
        lines_of(everything, entry_of(whole_query[:size], whole_reply))
    for size in range(len(whole_reply)):
        lines_of(everything, entry_of(whole_query, whole_reply[:size]))
    for octet in range(256):
        broken = bytes([octet]) * 40
        lines_of(everything, entry_of(broken, broken))
    lines = lines_of(everything, entry_of(b"", b""))
    assert len(lines) == len(whole_query) + len(whole_reply) + 257
    assert all(line.isprintable() for line in lines)


def test_without_octets_there_are_dashes(lines_of: Lines) -> None:
    assert lines_of(COMMON, entry_of(b"", b"")) == [
        '127.0.0.1:50759 - 0 "- - . udp 0 false 512" - - 0 0.037990251s'
    ]
