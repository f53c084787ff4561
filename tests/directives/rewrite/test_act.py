from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.directives.rewrite.act import RuleRewriter, RuleRewritten
from nodecache.directives.rewrite.model import (
    AnswerPart,
    AnswerRewrite,
    EdnsAction,
    EdnsVariable,
    Match,
    NameTest,
    Rewrite,
    RewriteClass,
    RewriteEdns,
    RewriteName,
    RewriteRcode,
    RewriteTtl,
    RewriteType,
)
from nodecache.resolve.behind_cache import Rewriter


def question(name: str, rtype: str = "A", rclass: str = "IN") -> bytes:
    number = dns.rdatatype.from_text(rtype), dns.rdataclass.from_text(rclass)
    return dns.name.from_text(name).to_digestable() + struct.pack("!HH", *number)


def read_question(octets: bytes) -> tuple[str, str, str]:
    message = dns.message.from_wire(struct.pack("!6H", 0, 0, 1, 0, 0, 0) + octets)
    found = message.question[0]
    rtype = dns.rdatatype.to_text(found.rdtype)
    return found.name.to_text(), rtype, dns.rdataclass.to_text(found.rdclass)


def respond(asked: bytes, *answers: str, rcode: int = 0, **sections: list[str]) -> bytes:
    """A response as dnspython writes it, names compressed; records as in a zone file."""
    message = dns.message.from_wire(struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + asked)
    response = dns.message.make_response(message, recursion_available=True)
    response.flags |= dns.flags.AD
    response.set_rcode(dns.rcode.Rcode(rcode))
    for section, lines in (("answer", list(answers)), *sections.items()):
        for line in lines:
            owner, ttl, rtype, rdata = line.split(maxsplit=3)
            record = dns.rrset.from_text(owner, int(ttl), "IN", rtype, rdata)
            getattr(response, section).append(record)
    return response.to_wire()


def records(response: bytes | None, section: str = "answer") -> list[str]:
    assert response is not None
    message = dns.message.from_wire(response, one_rr_per_rrset=True)
    return [rrset.to_text().replace(" IN ", " ") for rrset in getattr(message, section)]


def rewrite(asked: bytes, *rules: Rewrite) -> RuleRewritten:
    rewritten = RuleRewriter(rules).rewrite(asked)
    assert rewritten is not None
    return rewritten


def asked_name(name: str, *rules: Rewrite) -> str:
    return read_question(rewrite(question(name), *rules).question)[0]


def name_rule(
    match: Match,
    before: str,
    to: str,
    *answers: AnswerRewrite,
    is_auto: bool = False,
    is_last: bool = True,
) -> RewriteName:
    return RewriteName(NameTest(match, before), to, is_last, is_auto, answers)


def answer_name(pattern: str, to: str) -> AnswerRewrite:
    return AnswerRewrite(AnswerPart.NAME, pattern, to)


def answer_value(pattern: str, to: str) -> AnswerRewrite:
    return AnswerRewrite(AnswerPart.VALUE, pattern, to)


def test_rewriter_is_what_the_chain_asks_for() -> None:
    rewriter: Rewriter = RuleRewriter(())
    assert rewriter.rewrite(question("a.")) is None


EXACT = name_rule(Match.EXACT, "red.shop.", "blue.zoo.", is_auto=True)
SUFFIX = name_rule(Match.SUFFIX, ".shop.", ".in.zoo.", is_auto=True)


@pytest.mark.parametrize(
    ("rule", "name", "expected"),
    [
        (EXACT, "red.shop.", "blue.zoo."),
        (name_rule(Match.PREFIX, "red.", "blue."), "red.shop.", "blue.shop."),
        (name_rule(Match.PREFIX, "red.shop.", "blue."), "red.shop.", "blue."),
        (name_rule(Match.SUFFIX, ".shop.", ".zoo."), "a.b.shop.", "a.b.zoo."),
        (name_rule(Match.SUFFIX, "shop.", "zoo."), "eshop.", "ezoo."),
        (name_rule(Match.SUFFIX, ".in.shop.", "-zoo."), "a.in.shop.", "a-zoo."),
        (name_rule(Match.SUFFIX, ".", ".zoo."), "a.", "a.zoo."),
        (
            name_rule(Match.SUBSTRING, "cart.eu.shop.", "cart.zoo."),
            "ftp.cart.eu.shop.",
            "ftp.cart.zoo.",
        ),
        (name_rule(Match.SUBSTRING, "b.", "c.d."), "a.b.b.e.", "a.c.d.c.d.e."),
        (
            name_rule(Match.REGEX, r"(.*)-(eu-west)\.shop", "{1}.in.{2}.zoo."),
            "ftp-eu-west.shop.",
            "ftp.in.eu-west.zoo.",
        ),
        # The pattern may match anywhere; the whole name is replaced.
        (name_rule(Match.REGEX, "o", "x{0}."), "blue.shop.", "xo."),
        (name_rule(Match.REGEX, r"^(a)(b)?\.", "{1}{2}c."), "a.shop.", "ac."),
        # Octets stand in the text as CoreDNS writes them, but for the blank.
        (name_rule(Match.REGEX, r"^a\\;b\\032\\@(.*)$", "{1}"), r"a\;b\032\@c.shop.", "c.shop."),
    ],
)
def test_name_is_rewritten(rule: Rewrite, name: str, expected: str) -> None:
    assert asked_name(name, rule) == expected


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (EXACT, "a.red.shop."),
        (EXACT, "blue.shop."),
        (name_rule(Match.PREFIX, "red.", "blue."), "redder.shop."),
        (name_rule(Match.PREFIX, "red.", "blue."), "a.red.shop."),
        (name_rule(Match.SUFFIX, ".shop.", ".zoo."), "shop."),
        (name_rule(Match.SUFFIX, "shop.", "zoo."), "shop.a."),
        (name_rule(Match.SUBSTRING, "cart.", "x."), "carter.shop."),
        (name_rule(Match.REGEX, r"^red\.", "x."), "a.red.shop."),
        (name_rule(Match.EXACT, "same.", "same.", is_auto=True), "same."),
        (RewriteType(255, 13), "a."),
        (RewriteClass(3, 1), "a."),
    ],
)
def test_question_that_no_rule_changes_is_left_alone(rule: Rewrite, name: str) -> None:
    assert RuleRewriter((rule,)).rewrite(question(name)) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (r"a\.b.shop.", r"a\.b.zoo."),
        (r"a\000\255\\.shop.", r"a\000\255\\.zoo."),
        ("a_@$b.shop.", "a_@$b.zoo."),
    ],
)
def test_octets_that_need_an_escape_pass_unchanged(name: str, expected: str) -> None:
    asked = question(name)
    changed = rewrite(asked, name_rule(Match.SUFFIX, ".shop.", ".zoo.")).question
    assert changed == question(expected)


def test_type_and_class_are_rewritten() -> None:
    asked = question("a.shop.", "ANY", "CH")
    rules = RewriteType(255, 13, is_last=False), RewriteClass(3, 1)
    rewritten = rewrite(asked, *rules)
    assert read_question(rewritten.question) == ("a.shop.", "HINFO", "IN")
    response = rewritten.rewrite_response(respond(rewritten.question, 'a.shop. 9 HINFO "x" "y"'))
    assert response is not None
    assert response[12 : 12 + len(asked)] == asked
    assert records(response) == ['a.shop. 9 HINFO "x" "y"']


def test_rules_go_on_only_after_continue() -> None:
    first = name_rule(Match.EXACT, "a.", "b.", is_last=False)
    second = name_rule(Match.EXACT, "b.", "c.")
    third = name_rule(Match.EXACT, "c.", "d.")
    assert asked_name("a.", first, second, third) == "c."
    assert asked_name("a.", name_rule(Match.EXACT, "a.", "b."), second) == "b."


def test_rule_that_does_not_apply_stops_nothing() -> None:
    assert asked_name("a.", EXACT, name_rule(Match.EXACT, "a.", "b.")) == "b."


def test_exact_rule_changes_names_of_the_answer_back() -> None:
    rewritten = rewrite(question("red.shop."), EXACT)
    response = rewritten.rewrite_response(
        respond(
            rewritten.question,
            "BLUE.zoo. 60 CNAME sub.blue.zoo.",
            "sub.blue.zoo. 60 A 192.0.2.1",
            authority=["zoo. 60 NS blue.zoo."],
            additional=["blue.zoo. 60 A 192.0.2.2", "notblue.zoo. 60 A 192.0.2.3"],
        )
    )
    assert records(response) == [
        "red.shop. 60 CNAME sub.red.shop.",
        "sub.red.shop. 60 A 192.0.2.1",
    ]
    assert records(response, "authority") == ["zoo. 60 NS red.shop."]
    assert records(response, "additional") == [
        "red.shop. 60 A 192.0.2.2",
        "notblue.zoo. 60 A 192.0.2.3",
    ]


@pytest.mark.parametrize(
    "rule",
    [
        name_rule(Match.PREFIX, "red.", "blue."),
        name_rule(Match.SUFFIX, ".shop.", ".zoo."),
        name_rule(Match.SUBSTRING, "shop.", "zoo."),
        name_rule(Match.REGEX, "red", "blue.zoo."),
    ],
)
def test_other_rules_change_nothing_back_unless_told(rule: RewriteName) -> None:
    asked = question("red.shop.")
    rewritten = rewrite(asked, rule)
    target = read_question(rewritten.question)[0]
    response = rewritten.rewrite_response(respond(rewritten.question, f"{target} 60 A 192.0.2.1"))
    assert response is not None
    assert response[12 : 12 + len(asked)] == asked
    assert records(response) == [f"{target} 60 A 192.0.2.1"]


@pytest.mark.parametrize(
    "rule",
    [
        name_rule(Match.PREFIX, "red.", "blue.", is_auto=True),
        name_rule(Match.SUFFIX, ".shop.", ".zoo.", is_auto=True),
        name_rule(Match.SUBSTRING, "shop.", "zoo.", is_auto=True),
        name_rule(Match.REGEX, "red", "blue.zoo.", is_auto=True),
    ],
)
def test_auto_changes_owners_and_values_back(rule: RewriteName) -> None:
    rewritten = rewrite(question("red.shop."), rule)
    target = read_question(rewritten.question)[0]
    response = respond(rewritten.question, f"{target} 60 CNAME a.{target}", f"a.{target} 5 NS b.")
    assert records(rewritten.rewrite_response(response)) == [
        "red.shop. 60 CNAME a.red.shop.",
        "a.red.shop. 5 NS b.",
    ]


def test_suffix_is_put_back_wherever_it_stands() -> None:
    rewritten = rewrite(question("red.shop."), SUFFIX)
    assert read_question(rewritten.question)[0] == "red.in.zoo."
    response = respond(
        rewritten.question, "red.in.zoo. 60 CNAME other.in.zoo.", "other.in.zoo. 5 A 192.0.2.1"
    )
    assert records(rewritten.rewrite_response(response)) == [
        "red.shop. 60 CNAME other.shop.",
        "other.shop. 5 A 192.0.2.1",
    ]


def test_answer_names_are_made_of_groups() -> None:
    rule = name_rule(
        Match.REGEX,
        r"(.*)-(eu-west)\.shop",
        "{1}.in.{2}.zoo.",
        answer_name(r"(.*)\.in\.(eu-west)\.zoo", "{1}-{2}.shop."),
    )
    rewritten = rewrite(question("ftp-eu-west.shop."), rule)
    response = respond(
        rewritten.question,
        "ftp.in.eu-west.zoo. 0 A 192.0.2.1",
        "ftp.in.eu-west.zoo. 0 A 192.0.2.2",
    )
    assert records(rewritten.rewrite_response(response)) == [
        "ftp-eu-west.shop. 0 A 192.0.2.1",
        "ftp-eu-west.shop. 0 A 192.0.2.2",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("CNAME a.zoo.", "CNAME a.shop."),
        ("DNAME a.zoo.", "DNAME a.shop."),
        (
            "SOA a.zoo. root.zoo. 1 2 3 4 5",
            "SOA a.shop. root.zoo. 1 2 3 4 5",
        ),
        ("SRV 1 2 53 a.zoo.", "SRV 1 2 53 a.shop."),
        ("MX 10 a.zoo.", "MX 10 a.shop."),
        ('NAPTR 1 2 "S" "SIP+D2U" "" a.zoo.', 'NAPTR 1 2 "S" "SIP+D2U" "" a.shop.'),
        ("NS a.zoo.", "NS a.shop."),
        ("PTR a.zoo.", "PTR a.shop."),
        ('TXT "a.zoo."', 'TXT "a.zoo."'),
        ("HTTPS 1 a.zoo.", "HTTPS 1 a.zoo."),
    ],
)
def test_answer_values_are_changed_in_all_sections(before: str, after: str) -> None:
    # The README's form for PTR: the question stays, only values change.
    rule = name_rule(
        Match.SUFFIX, ".arpa.", ".arpa.", answer_value(r"(.*)\.zoo\.", "{1}.shop."), is_auto=True
    )
    asked = question("1.2.0.192.in-addr.arpa.", "PTR")
    rewritten = rewrite(asked, rule)
    assert rewritten.question == asked
    line = f"1.2.0.192.in-addr.arpa. 60 {before}"
    expected = [f"1.2.0.192.in-addr.arpa. 60 {after}"]
    response = rewritten.rewrite_response(respond(asked, line, authority=[line], additional=[line]))
    for section in ("answer", "authority", "additional"):
        assert records(response, section) == expected


def test_answer_values_do_not_touch_owners_nor_names_values() -> None:
    rule = name_rule(
        Match.EXACT,
        "red.shop.",
        "red.zoo.",
        answer_value("^a.zoo.", "v.shop."),
        answer_name("^b.zoo.", "n.shop."),
    )
    rewritten = rewrite(question("red.shop."), rule)
    response = respond(rewritten.question, "a.zoo. 1 CNAME b.zoo.", "b.zoo. 1 CNAME a.zoo.")
    assert records(rewritten.rewrite_response(response)) == [
        "a.zoo. 1 CNAME b.zoo.",
        "n.shop. 1 CNAME v.shop.",
    ]


def test_answers_are_changed_in_reverse_order() -> None:
    one = name_rule(
        Match.EXACT,
        "a.",
        "b.",
        answer_name("^3", "4."),
        answer_name("^2", "3."),
        is_last=False,
    )
    two = name_rule(Match.EXACT, "b.", "c.", answer_name("^1", "2."))
    rewritten = rewrite(question("a."), one, two)
    assert records(rewritten.rewrite_response(respond(rewritten.question, "1. 9 A 192.0.2.1"))) == [
        "4. 9 A 192.0.2.1"
    ]


def test_chain_of_exact_rules_is_undone_step_by_step() -> None:
    one = name_rule(Match.EXACT, "a.", "b.", is_auto=True, is_last=False)
    two = name_rule(Match.EXACT, "b.", "c.", is_auto=True)
    rewritten = rewrite(question("a."), one, two)
    assert records(rewritten.rewrite_response(respond(rewritten.question, "c. 9 A 192.0.2.1"))) == [
        "a. 9 A 192.0.2.1"
    ]


def test_name_that_would_become_too_long_stays_as_it_is() -> None:
    long = ".".join(["x" * 62] * 4) + "."
    rewritten = rewrite(question("a.b.c."), name_rule(Match.EXACT, "a.b.c.", "z.", is_auto=True))
    response = respond(rewritten.question, "z. 9 CNAME " + long[:-1] + ".z.", "z. 9 A 192.0.2.1")
    assert records(rewritten.rewrite_response(response)) == [
        f"a.b.c. 9 CNAME {long[:-1]}.z.",
        "a.b.c. 9 A 192.0.2.1",
    ]


def test_root_is_changed_back_without_all_names_below_it() -> None:
    rewritten = rewrite(question("a."), name_rule(Match.EXACT, "a.", ".", is_auto=True))
    response = respond(rewritten.question, ". 9 NS b.", "b. 9 A 192.0.2.1")
    assert records(rewritten.rewrite_response(response)) == ["a. 9 NS b.", "b. 9 A 192.0.2.1"]


@pytest.mark.parametrize(
    ("rule", "ttls"),
    [
        (RewriteTtl(NameTest(Match.EXACT, "red.shop."), 15, 15), [15, 15, 15]),
        (RewriteTtl(NameTest(Match.PREFIX, "red."), 30, 300), [30, 100, 300]),
        (RewriteTtl(NameTest(Match.SUFFIX, ".shop."), 0, 30), [5, 30, 30]),
        (RewriteTtl(NameTest(Match.SUBSTRING, "shop."), 30, 2**31 - 1), [30, 100, 900]),
        (RewriteTtl(NameTest(Match.REGEX, r"(.*)\.shop"), 0, 0), [0, 0, 0]),
    ],
)
def test_ttls_are_brought_into_range_in_all_sections(rule: RewriteTtl, ttls: list[int]) -> None:
    asked = question("red.shop.")
    rewritten = rewrite(asked, rule)
    assert rewritten.question == asked
    response = rewritten.rewrite_response(
        respond(
            asked,
            "red.shop. 5 A 192.0.2.1",
            authority=["shop. 100 NS a."],
            additional=["a. 900 A 192.0.2.2"],
        )
    )
    assert response is not None
    assert dns.message.from_wire(response).flags & dns.flags.AD
    sections = ("answer", "authority", "additional")
    found = [records(response, section)[0].split()[1] for section in sections]
    assert found == [str(ttl) for ttl in ttls]


def test_ttl_rule_does_not_touch_the_opt_record() -> None:
    asked = question("a.")
    message = dns.message.from_wire(respond(asked, "a. 5 A 192.0.2.1"))
    message.use_edns(0, dns.flags.DO, 1232)
    rule = RewriteTtl(NameTest(Match.EXACT, "a."), 60, 60)
    response = rewrite(asked, rule).rewrite_response(message.to_wire())
    assert response is not None
    assert dns.message.from_wire(response).ednsflags == dns.flags.DO


@pytest.mark.parametrize(
    ("match", "text"), [(Match.REGEX, r"(.*)\.shop"), (Match.EXACT, "a.shop."), (Match.PREFIX, "a")]
)
def test_rcode_is_changed_where_it_is_the_one(match: Match, text: str) -> None:
    asked = question("a.shop.")
    rewritten = rewrite(asked, RewriteRcode(NameTest(match, text), 2, 0))
    for before, after in ((2, 0), (3, 3), (0, 0)):
        response = rewritten.rewrite_response(respond(asked, rcode=before))
        assert response is not None
        assert dns.message.from_wire(response).rcode() == after


def test_rcode_rules_apply_to_responses_with_records_once() -> None:
    asked = question("a.")
    test = NameTest(Match.EXACT, "a.")
    rules = RewriteRcode(test, 0, 3, is_last=False), RewriteRcode(test, 3, 0)
    response = rewrite(asked, *rules).rewrite_response(
        respond(asked, "a. 5 A 192.0.2.1", "a. 5 A 192.0.2.2", rcode=3)
    )
    assert response is not None
    assert dns.message.from_wire(response).rcode() == 3  # 3 became 0, and that became 3


def test_extended_rcode_is_no_plain_one() -> None:
    asked = question("a.")
    message = dns.message.from_wire(respond(asked))
    message.use_edns(0)
    message.set_rcode(dns.rcode.Rcode(16))
    rule = RewriteRcode(NameTest(Match.EXACT, "a."), 0, 3)
    response = rewrite(asked, rule).rewrite_response(message.to_wire())
    assert response is not None
    assert dns.message.from_wire(response).rcode() == 16


@pytest.mark.parametrize("rule", [EXACT, name_rule(Match.SUFFIX, ".shop.", ".zoo.")])
def test_changed_question_is_not_validated_data(rule: Rewrite) -> None:
    rewritten = rewrite(question("red.shop."), rule)
    response = rewritten.rewrite_response(respond(rewritten.question))
    assert response is not None
    assert not dns.message.from_wire(response).flags & dns.flags.AD


# EDNS options of the query to the upstream.


def edns(
    action: EdnsAction,
    code: int,
    data: bytes | EdnsVariable = b"",
    *,
    is_last: bool = False,
) -> RewriteEdns:
    return RewriteEdns(action, code, data, is_last)


def options(*rules: Rewrite, asked: bytes = question("a.shop.", "AAAA")) -> list[tuple[int, bytes]]:
    rewritten = RuleRewriter(rules).rewrite(asked)
    octets = rewritten.options if rewritten is not None else b""
    found = []
    while octets:
        code, length = struct.unpack_from("!HH", octets)
        found.append((code, octets[4 : 4 + length]))
        octets = octets[4 + length :]
    return found


SET = edns(EdnsAction.SET, 0xFFEE, b"abcd")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([SET], [(0xFFEE, b"abcd")]),
        ([edns(EdnsAction.SET, 3)], [(3, b"")]),
        ([edns(EdnsAction.APPEND, 3, b"x")], [(3, b"x")]),
        ([SET, edns(EdnsAction.APPEND, 0xFFEE, b"x")], [(0xFFEE, b"abcd")]),
        ([SET, edns(EdnsAction.SET, 0xFFEE, b"x")], [(0xFFEE, b"x")]),
        ([SET, edns(EdnsAction.REPLACE, 0xFFEE, b"x")], [(0xFFEE, b"x")]),
        ([SET, edns(EdnsAction.REPLACE, 9, b"x")], [(0xFFEE, b"abcd")]),
        ([SET, edns(EdnsAction.UNSET, 0xFFEE)], []),
        ([edns(EdnsAction.UNSET, 0xFFEE)], []),
        ([edns(EdnsAction.SET, 9, EdnsVariable.QNAME)], [(9, b"a.shop.")]),
        ([edns(EdnsAction.SET, 9, EdnsVariable.QTYPE)], [(9, b"\0\x1c")]),
        ([SET, edns(EdnsAction.SET, 3)], [(0xFFEE, b"abcd"), (3, b"")]),
    ],
)
def test_options_of_the_upstream_query(
    rules: list[Rewrite], expected: list[tuple[int, bytes]]
) -> None:
    assert options(*rules) == expected


def test_variables_are_those_of_the_question_as_it_is_then() -> None:
    rule = name_rule(Match.EXACT, "a.shop.", "b.zoo.", is_last=False)
    assert options(rule, edns(EdnsAction.SET, 9, EdnsVariable.QNAME)) == [(9, b"b.zoo.")]
    assert options(edns(EdnsAction.SET, 9, EdnsVariable.QNAME), rule) == [(9, b"a.shop.")]


def test_option_rule_that_does_nothing_does_not_stop() -> None:
    last = edns(EdnsAction.REPLACE, 9, b"x", is_last=True)
    assert options(last, SET) == [(0xFFEE, b"abcd")]
    assert options(edns(EdnsAction.UNSET, 9, is_last=True), SET) == []


def test_options_leave_question_and_response_as_they_are() -> None:
    asked = question("a.shop.")
    rewritten = rewrite(asked, SET)
    assert rewritten.question == asked
    response = respond(asked, "a.shop. 9 A 192.0.2.1")
    assert rewritten.rewrite_response(response) == response


# Hostile rules, questions and responses.


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (name_rule(Match.SUFFIX, ".", ".zoo."), ".".join(["x" * 62] * 4) + "."),
        (name_rule(Match.SUFFIX, "a.", "x" * 60 + "."), "bbbba."),
        (name_rule(Match.PREFIX, "a.b.", "."), "a.b.c."),
        (name_rule(Match.REGEX, "(.*)", "{1}."), "a.b.c."),
        (name_rule(Match.REGEX, "(.*)", "{1}" * 1000), "a" * 60 + "."),
        (name_rule(Match.SUBSTRING, ".", "x" * 60 + "."), "a" * 10 + "."),
    ],
)
def test_what_becomes_no_domain_name_is_answered_with_servfail(rule: Rewrite, name: str) -> None:
    asked = question(name)
    rewritten = rewrite(asked, edns(EdnsAction.SET, 3), rule, EXACT)
    assert rewritten.is_illegal
    assert (rewritten.question, rewritten.options) == (asked, b"")
    response = rewritten.rewrite_response(respond(asked, f"{name} 9 A 192.0.2.1"))
    assert response is not None
    message = dns.message.from_wire(response)
    assert (message.id, message.rcode()) == (7, dns.rcode.SERVFAIL)
    assert message.flags & dns.flags.RD
    assert response[12:] == asked


def test_response_that_would_become_too_long_is_none() -> None:
    asked = question("a.")
    rewritten = rewrite(asked, RewriteTtl(NameTest(Match.EXACT, "a."), 1, 1))
    head = struct.pack("!6H", 0, 0x8000, 1, 1, 0, 0) + asked
    rdata = b"\xc0\x0c" + bytes(0xFFFF - 2)  # NXT: a name of a pointer, and then any octets
    record = b"\xc0\x0c" + struct.pack("!HHIH", 30, 1, 9, len(rdata)) + rdata
    assert rewritten.rewrite_response(head + record) is None


@pytest.mark.parametrize(("count", "is_taken"), [(200, True), (300, False)])
def test_response_with_more_names_than_it_could_write_out_is_none(
    count: int, *, is_taken: bool
) -> None:
    asked = question(".".join(["x" * 60] * 4) + ".")
    rewritten = rewrite(asked, name_rule(Match.REGEX, "x", "z.", answer_name("(y.*)z", "{1}.")))
    owner = struct.pack("!6H", 0, 0x8000, 1, 0, count, 0) + rewritten.question
    first = asked[:-4] + struct.pack("!HHIH", 16, 1, 9, 0)
    target = struct.pack("!H", 0xC000 | len(owner))
    others = [
        b"\2" + struct.pack("!H", index) + target + struct.pack("!HHIH", 16, 1, 9, 0)
        for index in range(0x6161, 0x6160 + count)
    ]
    restored = rewritten.rewrite_response(owner + first + b"".join(others))
    assert (restored is not None) is is_taken


ALL_RULES: tuple[Rewrite, ...] = (
    RewriteTtl(NameTest(Match.SUBSTRING, "."), 1, 60, is_last=False),
    RewriteRcode(NameTest(Match.REGEX, ""), 2, 0, is_last=False),
    RewriteType(1, 28, is_last=False),
    edns(EdnsAction.SET, 3, EdnsVariable.QNAME),
    name_rule(Match.PREFIX, "a.", "b.", is_auto=True, is_last=False),
    name_rule(Match.SUFFIX, ".", ".zoo.", is_auto=True, is_last=False),
    name_rule(
        Match.REGEX,
        r"(.*)b(.*)\.zoo\.",
        "{2}c{1}.",
        answer_name("(.*)c", "{1}."),
        answer_value("(.+)z", "x.{1}"),
    ),
)
LABELS = st.binary(min_size=1, max_size=8) | st.sampled_from([b"a", b"b", b"zoo"])
NAMES = st.lists(LABELS, max_size=6).map(
    lambda labels: b"".join(bytes([len(label)]) + label.lower() for label in labels) + b"\0"
)
QUESTIONS = st.builds(
    lambda name, rtype: name + struct.pack("!HH", rtype, 1), NAMES, st.sampled_from([1, 28, 255])
)


@given(asked=QUESTIONS, response=st.binary(max_size=200))
def test_restore_never_raises_on_any_octets(asked: bytes, response: bytes) -> None:
    rewritten = rewrite(asked, *ALL_RULES)
    restored = rewritten.rewrite_response(response)
    assert restored is None or restored[12 : 12 + len(asked)] == asked


@given(
    asked=QUESTIONS,
    owner=NAMES,
    value=NAMES,
    rtype=st.sampled_from([1, 2, 5, 6, 12, 15, 16, 33, 35, 39, 65280]),
    front=st.binary(max_size=8),
    ttl=st.integers(0, 2**32 - 1),
    where=st.integers(0, 2),
    pointer=st.sampled_from([b"", b"\xc0\x0c", b"\xc0\xff"]),
)
def test_restored_response_has_the_original_question(
    asked: bytes,
    owner: bytes,
    value: bytes,
    rtype: int,
    front: bytes,
    ttl: int,
    where: int,
    pointer: bytes,
) -> None:
    rewritten = rewrite(asked, *ALL_RULES)
    counts = [int(where == section) for section in range(3)]
    rdata = front + value + pointer
    record = owner + struct.pack("!HHIH", rtype, 1, ttl, len(rdata)) + rdata
    head = struct.pack("!4H", 7, 0x8180, 1, counts[0]) + struct.pack("!2H", *counts[1:])
    restored = rewritten.rewrite_response(head + rewritten.question + record)
    if restored is not None:
        assert restored[12 : 12 + len(asked)] == asked
        assert restored[:2] == b"\0\7"
        assert rewritten.is_illegal or restored[4:12] == head[4:12]
    else:
        assert rtype not in (16, 65280)


@given(asked=QUESTIONS)
def test_rewritten_question_is_sound_and_in_lower_case(asked: bytes) -> None:
    rewritten = rewrite(asked, *ALL_RULES)
    name = dns.name.from_wire(rewritten.question, 0)[0]
    assert name.to_digestable() + rewritten.question[-4:] == rewritten.question
    assert name.canonicalize() == name
    assert rewritten.question[:-4].lower() == rewritten.question[:-4]
