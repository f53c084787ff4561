"""Answers of ``template`` as dnspython reads them; templates come out of a Corefile's text."""

from __future__ import annotations

from collections.abc import Callable

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.corefile import parse_corefile
from nodecache.config.lexer import Report
from nodecache.config.model import ROOT, ServerBlock
from nodecache.config.reading import Scope
from nodecache.directives.template.act import TemplateCounts, TemplateResponder
from nodecache.directives.template.model import TEMPLATES, AnswerTemplate
from nodecache.directives.template.read import read as read_template


class NoFiles:
    """A reader for Corefiles that name no file."""

    def read_text(self, path: str) -> str:
        raise FileNotFoundError(2, "No such file or directory", path)

    def glob(self, _pattern: str) -> list[str]:
        return []

    def exists(self, _path: str) -> bool:
        return False


def read_templates(text: str) -> tuple[AnswerTemplate, ...]:
    report = Report()
    (block,) = parse_corefile(f". {{\n{text}\n}}\n", "Corefile", {}, NoFiles(), report)
    draft = ServerBlock((ROOT,), 53)
    for directive in block.directives:
        draft = read_template(directive, Scope(report, NoFiles(), zones=(ROOT,)), draft)
    assert report.faults == []
    return draft.of(TEMPLATES)


def question(name: str, rtype: str = "A", rclass: str = "IN") -> bytes:
    return dns.message.make_query(name, rtype, rclass).to_wire()[12:]


class Asked:
    """A responder for ``text``, asked with names."""

    def __init__(self, text: str) -> None:
        self.counts = TemplateCounts()
        self.responder = TemplateResponder(read_templates(text), self.counts)

    def __call__(
        self, name: str, rtype: str = "A", rclass: str = "IN"
    ) -> dns.message.Message | None:
        octets = self.responder.respond(question(name, rtype, rclass))
        return None if octets is None else dns.message.from_wire(octets)

    def texts(self, name: str, rtype: str = "A", rclass: str = "IN") -> list[list[str]]:
        """Answer, authority and additional section as texts."""
        response = self(name, rtype, rclass)
        assert response is not None
        return [[rrset.to_text() for rrset in section] for section in response.sections[1:]]

    def rcode(self, name: str, rtype: str = "A") -> str:
        response = self(name, rtype)
        return "passed" if response is None else dns.rcode.to_text(response.rcode())


ADDRESSES = """template IN A example {
    match "(^|[.])ip-(?P<a>[0-9]*)-(?P<b>[0-9]*)[.]example[.]$"
    answer "{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ .Group.b }}"
    fallthrough
}"""


def test_answer_is_made_of_named_groups() -> None:
    asked = Asked(ADDRESSES)
    assert asked.texts("x.ip-3-4.example.") == [["x.ip-3-4.example. 60 IN A 10.0.3.4"], [], []]
    assert asked.counts.matches == {("example.", "IN", "A"): 1}


def test_response_is_a_whole_message_like_an_upstream_s() -> None:
    asked_for = question("ip-3-4.example.")
    octets = TemplateResponder(read_templates(ADDRESSES), TemplateCounts()).respond(asked_for)
    assert octets is not None
    response = dns.message.from_wire(octets)
    assert response.id == 0
    assert response.flags == dns.flags.QR | dns.flags.AA | dns.flags.RA
    assert octets[12 : 12 + len(asked_for)] == asked_for


def test_what_no_pattern_matches_falls_through_or_fails() -> None:
    assert Asked(ADDRESSES).rcode("www.example.") == "passed"
    assert Asked(ADDRESSES.replace("fallthrough", "")).rcode("www.example.") == "SERVFAIL"
    some = Asked(ADDRESSES.replace("fallthrough", "fallthrough a.example"))
    assert some.rcode("www.a.example.") == "passed"
    assert some.rcode("www.b.example.") == "SERVFAIL"


def test_other_zone_type_or_class_passes() -> None:
    asked = Asked("template IN A example")
    assert asked.rcode("a.example.") == "NOERROR"
    assert asked.rcode("a.example.", "AAAA") == "passed"
    assert asked.rcode("a.example.org.") == "passed"
    assert asked.rcode("xexample.") == "passed"
    assert asked("a.example.", "A", "CH") is None


def test_any_agrees_with_everything_on_both_sides() -> None:
    asked = Asked(
        'template IN A example {\nanswer "{{ .Name }} {{ .Class }} {{ .Type }} 192.0.2.1"\n}'
    )
    assert asked.texts("a.example.", "ANY")[0] == ["a.example. 3600 IN A 192.0.2.1"]
    assert asked.texts("a.example.", "A", "ANY")[0] == ["a.example. 3600 IN A 192.0.2.1"]
    everything = Asked("template ANY ANY {\nrcode NXDOMAIN\n}")
    assert everything.rcode("a.", "TYPE65280") == "NXDOMAIN"
    assert everything.counts.matches == {(".", "IN", ""): 1}


def test_templates_are_tried_in_order() -> None:
    asked = Asked(
        ADDRESSES + '\ntemplate IN ANY example {\nanswer "{{ .Name }} TXT \\"{{ .Type }}\\""\n}'
    )
    assert asked.texts("ip-1-2.example.")[0] == ["ip-1-2.example. 60 IN A 10.0.1.2"]
    assert asked.texts("www.example.")[0] == ['www.example. 3600 IN TXT "A"']


def test_first_matching_pattern_counts_and_longest_zone() -> None:
    asked = Asked(
        """template IN A example b.example {
            match ^(?P<x>1)[.] ^(?P<x>.)[.]
            answer "{{ .Zone }} A 192.0.2.{{ index .Group \\"x\\" }}"
        }"""
    )
    assert asked.texts("1.b.example.")[0] == ["b.example. 3600 IN A 192.0.2.1"]
    assert asked.texts("7.c.example.")[0] == ["example. 3600 IN A 192.0.2.7"]


def test_all_sections_are_filled() -> None:
    asked = Asked(
        """template ANY ANY invalid {
            rcode NXDOMAIN
            authority "invalid. 60 {{ .Class }} SOA ns.invalid. h.invalid. (1 60 60 60 60)"
            additional "ns.invalid. 60 IN A 192.0.2.1"
        }"""
    )
    soa = "invalid. 60 IN SOA ns.invalid. h.invalid. 1 60 60 60 60"
    assert asked.texts("a.invalid.") == [[], [soa], ["ns.invalid. 60 IN A 192.0.2.1"]]


def test_hexadecimal_digits_become_numbers() -> None:
    asked = Asked(
        """template IN A example {
            match ^ip(?P<b>[0-9a-z]+)-([0-9a-f]*)[.]
            answer "{{.Name}} A 10.0.{{parseInt .Group.b 16 8}}.{{parseInt (index .Match 2) 16 8}}"
        }"""
    )
    assert asked.texts("ipff-00a.example.")[0] == ["ipff-00a.example. 3600 IN A 10.0.255.10"]
    assert asked.rcode("ip100-1.example.") == "SERVFAIL"  # needs nine bits
    assert asked.rcode("ip0x1-1.example.") == "SERVFAIL"
    assert asked.rcode("ip1-.example.") == "SERVFAIL"
    label = "{{.Name}} A 10.0.{{parseInt .Group.b 16 8}}.{{parseInt (index .Match 2) 16 8}}"
    assert asked.counts.template_failures == {("example.", "IN", "A", "answer", label): 3}
    assert asked.counts.rr_failures == {}


def test_text_that_is_no_record_is_servfail_and_counted() -> None:
    asked = Asked(ADDRESSES)
    response = asked("ip-300-1.example.")
    assert response is not None
    assert response.rcode() == dns.rcode.SERVFAIL
    assert response.flags & dns.flags.AA == 0
    label = "{{.Name}} 60 IN A 10.0.{{.Group.a}}.{{.Group.b}}"
    assert asked.counts.rr_failures == {("example.", "IN", "A", "answer", label): 1}


def test_group_of_another_pattern_is_go_s_no_value() -> None:
    asked = Asked('template IN TXT {\nmatch ^a ^(?P<x>b)\nanswer "x. TXT \\"{{ .Group.x }}\\""\n}')
    assert asked.texts("a.", "TXT")[0] == ['x. 3600 IN TXT "<no value>"']


def test_index_that_the_matching_pattern_lacks_is_a_failure() -> None:
    asked = Asked('template IN A {\nmatch ^a ^(b)\nanswer "x. TXT {{ index .Match 1 }}"\n}')
    assert asked.rcode("a.") == "SERVFAIL"
    assert sum(asked.counts.template_failures.values()) == 1
    assert asked.texts("b.")[0] == ['x. 3600 IN TXT "b"']


def test_servfail_has_no_records() -> None:
    asked = Asked('template IN A {\nrcode SERVFAIL\nanswer "x. A 192.0.2.1"\n}')
    assert asked.rcode("a.") == "SERVFAIL"
    assert asked.texts("a.") == [[], [], []]


def test_extended_error_is_sent() -> None:
    response = Asked('template IN A {\nrcode NXDOMAIN\nederror 21 "blocked"\n}')("a.")
    assert response is not None
    (option,) = response.options
    assert isinstance(option, dns.edns.EDEOption)
    assert (option.code, option.text) == (21, "blocked")


def test_odd_octets_of_a_name_come_back() -> None:
    asked = Asked('template IN A {\nmatch .*\nanswer "{{ .Name }} A 192.0.2.1"\n}')
    name = r"a\.b\032\@\;\(\)\"\\\'$\200.example."
    response = asked(name)
    assert response is not None
    assert response.answer[0].name == response.question[0].name


def test_patterns_see_names_as_rewrite_s_do() -> None:
    asked = Asked("template IN A {\nmatch ^a.;b.032.@c[.]$\nrcode NXDOMAIN\nfallthrough\n}")
    assert asked.rcode(r"a\;b\032\@c.") == "NXDOMAIN"
    assert asked.rcode("abc.") == "passed"


def test_message_that_would_be_too_long_is_servfail() -> None:
    text = " ".join(["x" * 250] * 16)
    asked = Asked("template IN A {\n" + f'answer "x. TXT {text}"\n' * 17 + "}")
    assert asked.rcode("a.") == "SERVFAIL"
    assert sum(asked.counts.rr_failures.values()) == 1


def test_series_are_bounded() -> None:
    counts = TemplateCounts()
    responder = TemplateResponder(
        read_templates("\n".join(f"template IN ANY z{n}" for n in range(100))), counts
    )
    types = ["A", "NS", "CNAME", "SOA", "PTR", "HINFO", "MX", "TXT", "RP", "AAAA", "SRV", "NAPTR"]
    for n in range(100):
        for rtype in types:
            responder.respond(question(f"z{n}.", rtype))
    assert len(counts.matches) <= 1100
    assert sum(counts.matches.values()) == 1200
    assert counts.matches["z99.", "IN", "other"] == len(types)


EVERYTHING = """
template IN A a {
    match (?P<x>[^.]*)[.](?P<y>.*)$
    answer "{{ .Name }} {{ .Class }} {{ .Type }} {{ .Group.x }}" "{{ .Group.y }} CNAME {{ .Name }}"
    fallthrough
}
template ANY TXT {
    answer "{{ .Name }} TXT \\"{{ .Name }}\\" {{ .Question.Qtype }} {{ .Question.Name }}"
    authority "{{ .Zone }} 60 {{ .Class }} SOA {{ .Name }} {{ .Name }} (1 2 3 4 5)"
    ederror 5
}
template IN MX {
    match ^(.)
    answer "{{ index .Match 1 }} MX {{ parseInt (index .Match 1) 36 16 }} {{ .Name }}"
    fallthrough b
}
"""
_LABEL = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.sampled_from([b"a", b"b", b"192.0.2.1", b"x y", b"\"'()@;$\\", b"0"]),
)
_NAMES = st.lists(_LABEL, max_size=8).map(
    lambda labels: b"".join(bytes([len(label)]) + label for label in labels).lower() + b"\0"
)
_ENDS = st.sampled_from([b"\0\1\0\1", b"\0\x10\0\1", b"\0\x0f\0\1", b"\0\xff\0\xff"]) | st.binary(
    min_size=4, max_size=4
)


@pytest.fixture(scope="module")
def respond() -> Callable[[bytes], bytes | None]:
    return TemplateResponder(read_templates(EVERYTHING), TemplateCounts()).respond


@given(_NAMES, _ENDS)
def test_any_question_is_answered_readably_or_passed(
    respond: Callable[[bytes], bytes | None], name: bytes, end: bytes
) -> None:
    octets = respond(name + end)
    if octets is not None:
        assert octets[12 : 12 + len(name) + 4] == name + end
        assert dns.message.from_wire(octets).flags & dns.flags.QR


@given(st.binary(max_size=300))
def test_junk_is_passed_or_answered(
    respond: Callable[[bytes], bytes | None], octets: bytes
) -> None:
    response = respond(octets)
    assert response is None or response[12 : 12 + len(octets)] == octets
