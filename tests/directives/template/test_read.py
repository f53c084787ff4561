from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nodecache.config.corefile import parse_corefile
from nodecache.config.lexer import Report
from nodecache.config.model import ROOT, ServerBlock
from nodecache.config.names import parse_name
from nodecache.config.reading import Scope
from nodecache.directives.template.model import TEMPLATES, AnswerTemplate
from nodecache.directives.template.read import read as read_template
from nodecache.templates import UNDERSTOOD

Read = Callable[[str], tuple[tuple[AnswerTemplate, ...], list[str]]]
RECORD_USAGE = '"NAME TTL CLASS TYPE DATA"'


@pytest.fixture(scope="session")
def read(make_reader: Callable[..., Any]) -> Read:
    """Directives of one block for example.org. -> its templates, and faults as users see them."""

    def read_block(text: str) -> tuple[tuple[AnswerTemplate, ...], list[str]]:
        report = Report()
        reader = make_reader({})
        (block,) = parse_corefile(f". {{\n{text}\n}}\n", "Corefile", {}, reader, report)
        zones = (parse_name("example.org"),)
        scope = Scope(report, reader, zones=zones)
        draft = ServerBlock(zones, 53)
        for directive in block.directives:
            draft = read_template(directive, scope, draft)
        return draft.of(TEMPLATES), [*map(str, report.faults), *report.warnings]

    return read_block


def test_everything_is_read(read: Read) -> None:
    templates, faults = read(
        """template IN A a.example 10.0.0.0/8 {
            match "^ip-(?P<a>[0-9]+)[.]" ^x$
            answer "{{ .Name }} 60 IN A 10.0.0.{{ .Group.a }}"
            authority "{{ .Zone }} 60 IN NS ns.example."
            additional "ns.example. 60 IN A 192.0.2.1" "ns.example. 60 IN AAAA ::1"
            rcode NXDOMAIN
            ederror 21 "not here"
            fallthrough b.example
        }"""
    )
    assert faults == []
    (template,) = templates
    assert (template.rclass, template.rtype, template.rcode) == (1, 1, 3)
    assert [zone.text for zone in template.zones] == ["a.example.", "10.in-addr.arpa."]
    assert [pattern.text for pattern in template.patterns] == ["^ip-(?P<a>[0-9]+)[.]", "^x$"]
    assert template.extended_error == (21, "not here")
    assert template.fallthrough == (parse_name("b.example"),)
    assert [len(s) for s in (template.answer, template.authority, template.additional)] == [1, 1, 2]


def test_zones_are_the_block_s_when_none_are_named(read: Read) -> None:
    templates, faults = read("template ANY ANY")
    assert faults == []
    assert templates == (AnswerTemplate(255, 255, (parse_name("example.org"),)),)


def test_fallthrough_without_zones_is_for_all_names(read: Read) -> None:
    ((template,), _) = read("template ANY ANY {\nfallthrough\n}")
    assert template.fallthrough == (ROOT,)


def test_templates_keep_their_order(read: Read) -> None:
    templates, _ = read("template IN A\ntemplate IN MX\ntemplate CH TXT")
    assert [(each.rclass, each.rtype) for each in templates] == [(1, 1), (1, 15), (3, 16)]


def test_label_is_written_as_go_writes_a_template(read: Read) -> None:
    ((template,), faults) = read(
        """template IN A {
            match (?P<b>..)
            answer "{{.Name}} 6{{- /* */ -}} A {{  .Zone }}.{{ parseInt ( index .Match 1 ) 16 8}}"
        }"""
    )
    assert faults == []
    label = "{{.Name}} 6A {{.Zone}}.{{parseInt (index .Match 1) 16 8}}"
    assert template.answer[0].label == label


def test_old_upstream_option_is_taken_with_a_warning(read: Read) -> None:
    templates, warnings = read("template IN A {\nupstream 192.0.2.1\n}")
    assert len(templates) == 1
    text = "'upstream' has no effect in 'template', as in CoreDNS: remove it"
    assert warnings == [f"Corefile:3:1: {text}"]


FAULTS = [
    ("match", "'match' needs a REGEX; write 'match REGEX...'"),
    (
        "match (a",
        "'(a' is no regular expression: missing ): '(a'; write 'match REGEX...'",
    ),
    (
        "match a(?=b)",
        (
            "'a(?=b)' is no regular expression: '(?=' begins nothing that RE2 knows:"
            " no look-around and no back-reference; write 'match REGEX...'"
        ),
    ),
    (
        "match a{1000}a{1000}a{1000}a{1000}",
        (
            "'a{1000}a{1000}a{1000}a{1000}' is no regular expression: it takes more than 4000"
            " steps: shorten it or its repetitions; write 'match REGEX...'"
        ),
    ),
    (
        "rcode nxdomain",
        (
            "'nxdomain' is none of NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, NOTIMPL, REFUSED,"
            " YXDOMAIN, YXRRSET, NXRRSET, NOTAUTH, NOTZONE; write 'rcode CODE'"
        ),
    ),
    (
        "ederror 65536",
        (
            "65536 is out of range: give 0 to 65535 as an extended error (RFC 8914 section 2);"
            " write 'ederror CODE [REASON]'"
        ),
    ),
    ("ederror blocked", "'blocked' is no whole number; write 'ederror CODE [REASON]'"),
    ("ederror 1 a b", "'b' is one argument too many; write 'ederror CODE [REASON]'"),
    ("answer", f"'answer' needs a record in quotes; write 'answer {RECORD_USAGE}'"),
    (
        "answer a. 60 IN A 192.0.2.1",
        f"put quotes around the whole record; write 'answer {RECORD_USAGE}'",
    ),
    (
        'answer "a. 60 IN A 192.0.2"',
        (
            "'a. 60 IN A 192.0.2' is no record: Text input is malformed;"
            f" write 'answer {RECORD_USAGE}'"
        ),
    ),
    (
        'authority "a. 60 IN FOO 1"',
        f"'a. 60 IN FOO 1' is no record: there is no type 'FOO'; write 'authority {RECORD_USAGE}'",
    ),
    (
        'additional "{{ .Name }} IN A {{ .Remote }}"',
        (
            ".Remote is not understood, because the answer is kept for all clients: remove it;"
            f" {UNDERSTOOD}; write 'additional {RECORD_USAGE}'"
        ),
    ),
    (
        'answer "{{ .Group.x }} IN A 192.0.2.1"',
        "no 'match' has a group 'x': write '(?P<NAME>...)' in it",
    ),
    (
        'answer "{{ index .Match 1 }} IN A 192.0.2.1"',
        "no 'match' has a group 1: add '(...)' to it",
    ),
    (
        "expr true",
        (
            "expressions are no part of node-cache: remove them, or use groups of a regex instead;"
            " write 'match REGEX...'"
        ),
    ),
    (
        "answers x",
        "'template' has no option 'answers'; did you mean 'answer'?",
    ),
]


@pytest.mark.parametrize(("option", "text"), FAULTS, ids=[option for option, _ in FAULTS])
def test_fault_is_found_at_start(read: Read, option: str, text: str) -> None:
    _, faults = read(f"template IN A {{\n{option}\n}}")
    assert [fault.split(": ", 1)[1] for fault in faults] == [text]
    assert faults[0].startswith("Corefile:3:")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("template", "'template' needs a CLASS such as IN"),
        ("template IN", "'template' needs a TYPE such as A or ANY"),
        ("template in A", "'in' is no class that is known; did you mean 'IN'?"),
        ("template IN AAAAA", "'AAAAA' is no type that is known; did you mean 'AAAA'?"),
    ],
)
def test_wrong_head_is_found(read: Read, line: str, text: str) -> None:
    _, faults = read(line)
    assert faults[0].split(": ", 1)[1] == f"{text}; write 'template CLASS TYPE [ZONES...]'"


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("{{ if .Name }}x{{ end }}", "the control structure 'if' is not understood"),
        ("{{ range .Match }}{{ end }}", "the control structure 'range' is not understood"),
        ("{{ $x }}", "variables are not understood"),
        ("{{ printf .Name }}", "'printf' is not understood"),
        ("{{ .Message.Id }}", ".Message is not understood, because the answer is kept"),
        ('{{ .Meta "a/b" }}', ".Meta is not understood, because the answer is kept"),
        ("{{ .Var.x }}", ".Var is not understood: 'var' is no part of node-cache"),
        ("{{ .Match }}", ".Match alone is not understood: write index .Match N"),
        ("{{ .Nmae }}", "there is no .Nmae"),
        ("{{ .Name .Zone }}", "'.Zone' is too much here"),
        ("{{ }}", "a value is missing between '{{' and '}}'"),
        ("{{ .Name", "a '{{' is never closed: add '}}'"),
        ('{{ parseInt "a" 1 8 }}', "parseInt takes a text, a base of 2 to 36 and 0 to 64 bits"),
        ("{{ parseInt index .Match 0 16 8 }}", "parseInt takes a text first: put parentheses"),
    ],
)
def test_what_is_not_understood_is_named(read: Read, action: str, text: str) -> None:
    quoted = action.replace('"', '\\"')
    _, faults = read(f'template IN A {{\nanswer "x {quoted}"\n}}')
    assert len(faults) == 1
    assert faults[0].split(": ", 1)[1].startswith(text)


def test_pipeline_is_refused(read: Read) -> None:
    _, faults = read('template IN A {\nanswer "{{ .Name | print }} 60"\n}')
    assert faults == [
        f"Corefile:3:8: pipelines are not understood; {UNDERSTOOD}; write 'answer {RECORD_USAGE}'"
    ]


def test_lists_are_bounded(read: Read) -> None:
    record = ' "a. A 192.0.2.1"'
    _, records = read(f"template IN A {{\nanswer {record * 101}\n}}")
    _, patterns = read(f"template IN A {{\nmatch {'a ' * 101}\n}}")
    _, templates = read("template IN A\n" * 101)
    _, steps = read("template IN A {\nmatch a{1000}\n}\n" * 10)
    assert "more than 100 records" in records[0]
    assert "more than 100 regular expressions" in patterns[0]
    assert "more than 100 'template' in one block" in templates[0]
    assert "steps, of 10000 allowed" in steps[0]
