from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.corefile import Reader, parse_corefile
from nodecache.config.lexer import Report
from nodecache.config.model import ServerBlock
from nodecache.config.reading import MAX_ITEMS, Scope
from nodecache.directives.rewrite.model import (
    REWRITES,
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
from nodecache.directives.rewrite.read import USAGE
from nodecache.directives.rewrite.read import read as read_rewrite

NAME_USAGE = (
    "rewrite [continue|stop] name [exact|prefix|suffix|substring|regex] FROM TO"
    " [answer auto|name FROM TO|value FROM TO]..."
)
EDNS_USAGE = (
    "rewrite [continue|stop] edns0 local|nsid set|append|replace|unset [CODE] [DATA] [revert]"
)

Reads = Callable[[str], tuple[tuple[Rewrite, ...], Report]]


@pytest.fixture(scope="session")
def read(make_reader: Callable[..., Reader]) -> Reads:
    """Lines of a block -> its rules, and what was reported."""

    def read_lines(text: str) -> tuple[tuple[Rewrite, ...], Report]:
        report = Report()
        reader = make_reader({})
        blocks = parse_corefile(f". {{\n{text}\n}}\n", "Corefile", {}, reader, report)
        draft = ServerBlock((), 53)
        for directive in blocks[0].directives:
            draft = read_rewrite(directive, Scope(report, reader), draft)
        return draft.of(REWRITES), report

    return read_lines


@pytest.fixture
def rule(read: Reads) -> Callable[[str], Rewrite]:
    """One sound line -> its rule."""

    def read_rule(text: str) -> Rewrite:
        rules, report = read(text)
        assert report.faults == []
        assert len(rules) == 1
        return rules[0]

    return read_rule


def exact(name: str) -> NameTest:
    return NameTest(Match.EXACT, name)


ANSWER_BACK = AnswerRewrite(AnswerPart.NAME, r"(.*)\.zoo\.", "{1}.shop.")

SOUND = [
    # The name field, all kinds of match; exact is what stands without one.
    ("name red.shop blue.shop", RewriteName(exact("red.shop."), "blue.shop.", is_auto=True)),
    ("name exact RED blue.", RewriteName(exact("red."), "blue.", is_auto=True)),
    ("name EXACT red blue", RewriteName(exact("red."), "blue.", is_auto=True)),
    ("name prefix red blue", RewriteName(NameTest(Match.PREFIX, "red."), "blue.")),
    ("name suffix .shop .zoo.", RewriteName(NameTest(Match.SUFFIX, ".shop."), ".zoo.")),
    ("name suffix . .zoo", RewriteName(NameTest(Match.SUFFIX, "."), ".zoo.")),
    (
        "name substring cart.eu.shop cart.zoo",
        RewriteName(NameTest(Match.SUBSTRING, "cart.eu.shop."), "cart.zoo."),
    ),
    (
        r"name regex (.*)-(eu)\.shop {1}.in.{2}.zoo",
        RewriteName(NameTest(Match.REGEX, r"(.*)-(eu)\.shop"), "{1}.in.{2}.zoo."),
    ),
    ("name regex .* {0}x", RewriteName(NameTest(Match.REGEX, ".*"), "{0}x.")),
    # Answers.
    (
        "name suffix .shop .zoo answer auto",
        RewriteName(NameTest(Match.SUFFIX, ".shop."), ".zoo.", is_auto=True),
    ),
    (
        "name suffix .shop .zoo answer name auto",
        RewriteName(NameTest(Match.SUFFIX, ".shop."), ".zoo.", is_auto=True),
    ),
    (
        "name prefix a b answer name auto c",
        RewriteName(
            NameTest(Match.PREFIX, "a."),
            "b.",
            answers=(AnswerRewrite(AnswerPart.NAME, "auto", "c."),),
        ),
    ),
    (
        r"name suffix .arpa .arpa answer name auto answer value (.*)\.zoo\. {1}.shop.",
        RewriteName(
            NameTest(Match.SUFFIX, ".arpa."),
            ".arpa.",
            is_auto=True,
            answers=(AnswerRewrite(AnswerPart.VALUE, r"(.*)\.zoo\.", "{1}.shop."),),
        ),
    ),
    (
        r"name regex (.*)\.shop {1}.zoo answer name (.*)\.zoo\. {1}.shop value zoo shop",
        RewriteName(
            NameTest(Match.REGEX, r"(.*)\.shop"),
            "{1}.zoo.",
            answers=(ANSWER_BACK, AnswerRewrite(AnswerPart.VALUE, "zoo", "shop.")),
        ),
    ),
    (
        "name exact red blue answer auto answer value zoo shop",
        RewriteName(
            exact("red."),
            "blue.",
            is_auto=True,
            answers=(AnswerRewrite(AnswerPart.VALUE, "zoo", "shop."),),
        ),
    ),
    (
        r"name exact red blue answer name (.*)\.zoo\. {1}.shop",
        RewriteName(exact("red."), "blue.", is_auto=True, answers=(ANSWER_BACK,)),
    ),
    # Other fields.
    ("type ANY HINFO", RewriteType(255, 13)),
    ("TYPE any type65280", RewriteType(255, 65280)),
    ("class ch IN", RewriteClass(3, 1)),
    ("ttl shop.example. 30-300", RewriteTtl(exact("shop.example."), 30, 300)),
    ("ttl shop.example. -30", RewriteTtl(exact("shop.example."), 0, 30)),
    ("ttl shop.example. 30-", RewriteTtl(exact("shop.example."), 30, 2**31 - 1)),
    ("ttl shop.example. 30", RewriteTtl(exact("shop.example."), 30, 30)),
    (r"ttl regex (.*)\.shop 15", RewriteTtl(NameTest(Match.REGEX, r"(.*)\.shop"), 15, 15)),
    ("ttl prefix a 0", RewriteTtl(NameTest(Match.PREFIX, "a."), 0, 0)),
    ("ttl suffix .a 1", RewriteTtl(NameTest(Match.SUFFIX, ".a."), 1, 1)),
    ("ttl substring a 1", RewriteTtl(NameTest(Match.SUBSTRING, "a."), 1, 1)),
    (
        r"rcode regex (.*)\.shop SERVFAIL NOERROR",
        RewriteRcode(NameTest(Match.REGEX, r"(.*)\.shop"), 2, 0),
    ),
    ("rcode shop 2 0", RewriteRcode(exact("shop."), 2, 0)),
    ("rcode suffix .shop notimpl 15", RewriteRcode(NameTest(Match.SUFFIX, ".shop."), 4, 15)),
    # EDNS options.
    ("edns0 nsid set", RewriteEdns(EdnsAction.SET, 3)),
    ("edns0 nsid append revert", RewriteEdns(EdnsAction.APPEND, 3)),
    ("edns0 local set 0xffee 0x61626364", RewriteEdns(EdnsAction.SET, 0xFFEE, b"abcd")),
    ("edns0 local set 0xffee abcd", RewriteEdns(EdnsAction.SET, 0xFFEE, b"abcd")),
    ("edns0 local set 65518 abcd revert", RewriteEdns(EdnsAction.SET, 0xFFEE, b"abcd")),
    ("edns0 local append 7 {qname}", RewriteEdns(EdnsAction.APPEND, 7, EdnsVariable.QNAME)),
    ("edns0 local set 7 {qtype}", RewriteEdns(EdnsAction.SET, 7, EdnsVariable.QTYPE)),
    ("edns0 local replace 7 x", RewriteEdns(EdnsAction.REPLACE, 7, b"x")),
    ("edns0 local unset 0xffee", RewriteEdns(EdnsAction.UNSET, 0xFFEE)),
    ("edns0 nsid unset", RewriteEdns(EdnsAction.UNSET, 3)),
    ("edns0 subnet unset", RewriteEdns(EdnsAction.UNSET, 8)),
]


@pytest.mark.parametrize(("text", "expected"), SOUND)
def test_rule_is_read(rule: Callable[[str], Rewrite], text: str, expected: Rewrite) -> None:
    assert rule(f"rewrite {text}") == expected


@pytest.mark.parametrize(("text", "expected"), SOUND[::5])
def test_rule_in_braces_is_the_same(
    rule: Callable[[str], Rewrite], text: str, expected: Rewrite
) -> None:
    lines = text.replace(" answer", "\nanswer")
    assert rule(f"rewrite {{\n{lines}\n}}") == expected
    assert rule(f"rewrite continue {{\n{lines}\n}}") == replace(expected, is_last=False)


def test_stop_is_the_default_and_continue_is_not(rule: Callable[[str], Rewrite]) -> None:
    assert rule("rewrite type A AAAA").is_last
    assert rule("rewrite stop type A AAAA").is_last
    assert not rule("rewrite Continue type A AAAA").is_last


def test_rules_keep_their_order(read: Reads) -> None:
    rules, _ = read("rewrite type A NS\nrewrite continue type NS MX\nrewrite type A NS")
    assert rules == (RewriteType(1, 2), RewriteType(2, 15, is_last=False), RewriteType(1, 2))


BROKEN = [
    ("rewrite", f"'rewrite' needs what is to be changed; write '{USAGE}'"),
    ("rewrite stop", f"'rewrite' needs what is to be changed; write '{USAGE}'"),
    ("rewrite nmae a b", f"'rewrite' cannot change 'nmae'; did you mean 'name'?; write '{USAGE}'"),
    (
        "rewrite cname a b",
        (
            "'cname' would need a second look-up for each answer, which is not done here: remove"
            " the rule, or change names in answers with 'rewrite name ... answer value FROM TO'"
        ),
    ),
    (
        "rewrite stop {\nanswer name a b\nname regex a b\n}",
        f"'answer' must stand behind the 'name' rule that it belongs to; write '{NAME_USAGE}'",
    ),
    ("rewrite name", f"'name' needs FROM; write '{NAME_USAGE}'"),
    ("rewrite name a", f"'name' needs TO; write '{NAME_USAGE}'"),
    ("rewrite name suffix .a", f"'name' needs TO; write '{NAME_USAGE}'"),
    (
        "rewrite name a b answer auto",
        (
            "'answer' is one too many unless a kind of match such as 'exact' stands before FROM;"
            f" write '{NAME_USAGE}'"
        ),
    ),
    ("rewrite name exact a b c", f"'c' is one argument too many; write '{NAME_USAGE}'"),
    (
        "rewrite name exact a b answer",
        f"'name' needs auto, name or value behind 'answer'; write '{NAME_USAGE}'",
    ),
    (
        "rewrite name exact a b answer other",
        f"'other' is none of auto, name, value; write '{NAME_USAGE}'",
    ),
    ("rewrite name suffix a b answer name", f"'name' needs FROM; write '{NAME_USAGE}'"),
    ("rewrite name suffix a b answer value x", f"'name' needs TO; write '{NAME_USAGE}'"),
    (
        "rewrite name suffix a b answer auto name x y",
        f"'answer auto' and 'answer name FROM TO' exclude each other; write '{NAME_USAGE}'",
    ),
    (
        "rewrite name regex [bad[ b",
        f"'[bad[' is no regular expression: missing ]: '[bad['; write '{NAME_USAGE}'",
    ),
    (
        "rewrite name regex (a) {1}.{2}",
        f"the pattern has 1 groups, so there is no {{2}}; write '{NAME_USAGE}'",
    ),
    (
        "rewrite name prefix a {1}",
        f"'{{1}}' holds a group, which only 'regex' has; write '{NAME_USAGE}'",
    ),
    (
        "rewrite name a..b c",
        f"'a..b': a domain name has no empty label; remove the surplus dot; write '{NAME_USAGE}'",
    ),
    (
        "rewrite name prefix a. .",
        (
            "'.' makes no domain name: a domain name has no empty label; remove the surplus dot;"
            f" write '{NAME_USAGE}'"
        ),
    ),
    ("rewrite type A", "'type' needs TO, a type such as HINFO; write"),
    ("rewrite type A B", "'B' is no record type"),
    ("rewrite type A NS C", "'C' is one argument too many; write"),
    (
        "rewrite type TYPE65536 A",
        "'TYPE65536' is no record type; write TYPE and its number, 0 to 65535",
    ),
    ("rewrite type A TYPE41", "nobody asks a cache for 'TYPE41'; write"),
    ("rewrite class IN ANY", "'ANY' is none of IN, CH, HS; write"),
    ("rewrite ttl a -", "'-' is no TTL: give seconds, or a range as in 30-300 or 30-; write"),
    ("rewrite ttl a 9-8", "'9-8' is no range within 0-2147483647 seconds (RFC 2181 section 8)"),
    ("rewrite ttl a 2147483648", "'2147483648' is no range within 0-2147483647 seconds"),
    ("rewrite ttl a 30s", "'30s' is no TTL: give seconds, or a range as in 30-300 or 30-; write"),
    ("rewrite ttl a", "'ttl' needs SECONDS or a range of them; write"),
    ("rewrite rcode a 2", "'rcode' needs TO, a response code; write"),
    (
        "rewrite rcode a BADKEY NOERROR",
        (
            "'BADKEY' speaks about one hop's EDNS or TSIG (RFC 6891) and never passes the cache:"
            " give a code from 0 to 15; write"
        ),
    ),
    ("rewrite rcode a 23 0", "'23' speaks about one hop's EDNS or TSIG"),
    ("rewrite rcode a 24 0", "'24' is none of NOERROR, FORMERR"),
    (
        "rewrite edns0 local set 0xffee {client_ip}",
        (
            "{client_ip} differs between clients: answers are kept and shared by all clients, so"
            f" they cannot depend on one; write '{EDNS_USAGE}'"
        ),
    ),
    ("rewrite edns0 local set 0xffee {client_port}", "{client_port} differs between clients: ans"),
    ("rewrite edns0 local set 0xffee {protocol}", "{protocol} differs between clients: answers"),
    ("rewrite edns0 local set 0xffee {server_ip}", "{server_ip} differs between clients: answers"),
    ("rewrite edns0 local set 1 {server_port}", "{server_port} differs between clients: answers"),
    (
        "rewrite edns0 local set 1 {geoip/city}",
        "'{geoip/city}' is metadata, which node-cache does not have; write",
    ),
    ("rewrite edns0 local set 1 {name}", "'{name}' is none of {qname}, {qtype}; write"),
    (
        "rewrite edns0 subnet set 24 56",
        (
            "no client's subnet is sent along: answers are kept and shared by all clients, so"
            f" they cannot depend on one; write '{EDNS_USAGE}'"
        ),
    ),
    ("rewrite edns0 local set 65536 x", "'65536' is no option code: give 0 to 65535 or 0x0"),
    ("rewrite edns0 local set 010 x", "'010' is no option code: give 0 to 65535 or 0x0"),
    ("rewrite edns0 local set 1 0x1", "'0x1' needs two hexadecimal digits for each octet; write"),
    ("rewrite edns0 local set 1", f"'edns0' needs DATA; write '{EDNS_USAGE}'"),
    ("rewrite edns0 local set 1 a b", "'b' is one argument too many; write"),
    ("rewrite edns0 local unset 1 revert", "'revert' is one argument too many; write"),
    ("rewrite edns0 nsid drop", "'drop' is none of set, append, replace, unset; write"),
    ("rewrite edns0 cookie set", "'cookie' is none of local, nsid, subnet; write"),
    (f"rewrite edns0 local set 1 {'x' * 256}", "the data of an option has at most 255 octets"),
    (
        "rewrite name a b {\nanswer auto\n}",
        f"a rule that stands on one line takes no braces; write '{USAGE}'",
    ),
    ("rewrite {\nname a b {\n}\n}", "'name' takes no braces"),
]


@pytest.mark.parametrize(("text", "fault"), BROKEN)
def test_broken_rule_is_one_fault_that_says_what_to_write(
    read: Reads, text: str, fault: str
) -> None:
    _, report = read(text)
    assert len(report.faults) == 1
    assert report.faults[0].text.startswith(fault)
    assert "write" in report.faults[0].text or ":" in report.faults[0].text


@pytest.mark.parametrize(
    ("text", "has_warning"),
    [
        ("rewrite edns0 local replace 7 x", True),
        ("rewrite edns0 local unset 7", True),
        ("rewrite edns0 subnet unset", True),
        ("rewrite edns0 local unset 7\nrewrite edns0 local set 7 x", True),
        ("rewrite continue edns0 local set 7 x\nrewrite edns0 local replace 7 y", False),
        ("rewrite continue edns0 local append 7 x\nrewrite edns0 local unset 7", False),
        ("rewrite edns0 nsid set", False),
    ],
)
def test_rule_that_never_finds_its_option_is_warned_of(
    read: Reads, text: str, has_warning: bool
) -> None:
    _, report = read(text)
    assert report.faults == []
    assert [("never pass the cache" in warning) for warning in report.warnings] == (
        [True] if has_warning else []
    )


def test_number_of_rules_is_bounded(read: Reads) -> None:
    rules, report = read("rewrite type A NS\n" * (MAX_ITEMS + 1))
    assert len(rules) == MAX_ITEMS
    assert [fault.text for fault in report.faults] == [
        f"more than {MAX_ITEMS} 'rewrite' in one block"
    ]


def test_number_of_option_rules_is_bounded(read: Reads) -> None:
    _, report = read("rewrite continue edns0 nsid set\n" * 17)
    assert [fault.text for fault in report.faults] == ["more than 16 'edns0' rules in one block"]


def test_number_of_answers_is_bounded(read: Reads) -> None:
    _, report = read("rewrite name suffix a b answer" + " value x y" * 101)
    assert [fault.text.partition(";")[0] for fault in report.faults] == [
        "'value' is one argument too many"
    ]


WORDS = st.one_of(
    st.sampled_from(" ".join(text for text, _ in SOUND).split()),
    st.sampled_from(["", "continue", "stop", "answer", "name", "value", "auto", "regex", "{"]),
    st.text(max_size=12).map(lambda text: text.replace('"', "").replace("\\", "")),
)


@given(words=st.lists(WORDS, max_size=10), is_long=st.booleans())
def test_any_words_are_read_or_reported(read: Reads, words: list[str], is_long: bool) -> None:
    line = " ".join(f'"{word}"' for word in words)
    text = f"rewrite {{\n{line}\n}}" if is_long else f"rewrite {line}"
    rules, report = read(text)
    assert len(rules) == 1 or report.faults
