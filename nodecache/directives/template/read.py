"""The ``template`` directive: all that can be checked before the first question is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from nodecache.config.corefile import Directive
from nodecache.config.lexer import Word
from nodecache.config.model import ROOT, ServerBlock
from nodecache.config.reading import (
    Arguments,
    Option,
    Scope,
    Twice,
    one_of,
    parse_all_zones,
    read_options,
)
from nodecache.config.values import nearest, parse_integer, within
from nodecache.directives.template.model import TEMPLATES, AnswerTemplate
from nodecache.limits import Limit
from nodecache.patterns import Pattern, parse_pattern
from nodecache.printing import shown
from nodecache.templates import RecordText, Value, parse_record_text
from nodecache.wire.numbers import CLASSES, RCODES, TYPES

USAGE = "template CLASS TYPE [ZONES...]"

_Section = Literal["answer", "authority", "additional"]

_MAX_TEMPLATES = 100  # in one block
_MAX_STEPS = 10_000  # of all patterns of one block, that a name may have to go through
_MAX_PATTERNS = 100  # in one directive
_MAX_RECORDS = 100  # in one section of one directive
_MAX_REASON_OCTETS = 255
_ANY = 255
_NO_PATTERN = Pattern("", ("",), 0)  # for what is a fault by itself
_EDE_CODE = Limit(0, 0, 65_535, "as an extended error", "RFC 8914 section 2")


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with the template added; ZONES are the block's when none are named."""
    arguments = Arguments(directive, USAGE, scope)
    rclass = arguments.take("a CLASS such as IN", _number_in(CLASSES, "class"), _ANY)
    rtype = arguments.take("a TYPE such as A or ANY", _number_in(TYPES, "type"), _ANY)
    zones = parse_all_zones(arguments, arguments.rest()) or scope.zones
    template = AnswerTemplate(rclass, rtype, zones)
    template = read_options(directive, _OPTIONS, template, scope)
    _check_references(directive, template, scope)
    if len(draft.of(TEMPLATES)) >= _MAX_TEMPLATES:
        arguments.fault(directive.name, f"more than {_MAX_TEMPLATES} 'template' in one block")
        return draft
    templates = (*draft.of(TEMPLATES), template)
    steps = sum(pattern.steps for each in templates for pattern in each.patterns)
    if steps > _MAX_STEPS:
        text = f"all regular expressions after 'match' take {steps} steps, of {_MAX_STEPS} allowed"
        arguments.fault(directive.name, f"{text}: shorten them")
        return draft
    return draft.having(TEMPLATES, templates)


def _number_in(table: dict[str, int], what: str) -> Callable[[str], int]:
    def parse_number(text: str) -> int:
        if text not in table:
            hint = nearest(text.upper(), table)
            raise ValueError(f"{shown(text)} is no {what} that is known{hint}")
        return table[text]

    return parse_number


def _read_match(arguments: Arguments, template: AnswerTemplate) -> AnswerTemplate:
    words = arguments.rest("a REGEX")
    found = [arguments.parse(word, parse_pattern, _NO_PATTERN) for word in words]
    patterns = (*template.patterns, *found)
    if len(patterns) > _MAX_PATTERNS:
        arguments.fault(arguments.name, f"more than {_MAX_PATTERNS} regular expressions")
        return template
    return replace(template, patterns=patterns)


def _reads(section: _Section) -> Callable[[Arguments, AnswerTemplate], AnswerTemplate]:
    """Returns the reader of the records of one section."""

    def read_records(arguments: Arguments, template: AnswerTemplate) -> AnswerTemplate:
        words = arguments.rest("a record in quotes")
        if words and not any(map(str.isspace, words[0].text)):
            arguments.fault(words[0], "put quotes around the whole record")
            return template
        found = [arguments.parse(word, _parse_text, None) for word in words]
        records = (*getattr(template, section), *(text for text in found if text is not None))
        if len(records) > _MAX_RECORDS:
            arguments.fault(arguments.name, f"more than {_MAX_RECORDS} records")
            return template
        if section == "answer":
            return replace(template, answer=records)
        if section == "authority":
            return replace(template, authority=records)
        return replace(template, additional=records)

    return read_records


def _parse_text(text: str) -> RecordText | None:
    """A record's template; one without actions must be a record as it stands."""
    template = parse_record_text(text)
    if template.fixed is not None:
        from nodecache.directives.template.record import parse_record  # noqa: PLC0415 (see there)

        try:
            parse_record(template.fixed)
        except ValueError as error:
            raise ValueError(f"{shown(text)} is no record: {error}") from None
    return template


def _read_rcode(arguments: Arguments, template: AnswerTemplate) -> AnswerTemplate:
    return replace(template, rcode=arguments.take("a CODE", one_of(RCODES), 0))


def _read_ederror(arguments: Arguments, template: AnswerTemplate) -> AnswerTemplate:
    code = arguments.take("a CODE of RFC 8914", within(parse_integer, _EDE_CODE), 0)
    return replace(template, extended_error=(code, arguments.maybe(_parse_reason, "")))


def _parse_reason(text: str) -> str:
    if len(text.encode()) > _MAX_REASON_OCTETS:
        raise ValueError(f"the reason has more than {_MAX_REASON_OCTETS} octets")
    return text


def _read_fallthrough(arguments: Arguments, template: AnswerTemplate) -> AnswerTemplate:
    zones = parse_all_zones(arguments, arguments.rest())
    return replace(template, fallthrough=zones or (ROOT,))


def _read_upstream(arguments: Arguments, template: AnswerTemplate) -> AnswerTemplate:
    arguments.rest()
    text = "'upstream' has no effect in 'template', as in CoreDNS: remove it"
    arguments.scope.report.warn(arguments.name, text)
    return template


def _read_expression(arguments: Arguments, template: AnswerTemplate) -> AnswerTemplate:
    words = arguments.rest()
    text = "expressions are no part of node-cache: remove them, or use groups of a regex instead"
    arguments.fault(words[0] if words else arguments.name, text)
    return template


def _check_references(directive: Directive, template: AnswerTemplate, scope: Scope) -> None:
    """Faults a group that no regular expression of the directive has."""
    known = [pattern.groups for pattern in template.patterns] or [("",)]
    for child in directive.body or ():
        if child.name.text in ("answer", "authority", "additional"):
            for word in child.arguments:
                _check_record(word, known, scope)


def _check_record(word: Word, known: list[tuple[str, ...]], scope: Scope) -> None:
    try:
        text = parse_record_text(word.text)
    except ValueError:
        return
    for value in _values(text):
        if value.kind == "match" and all(value.place >= len(groups) for groups in known):
            scope.report.fault(word, f"no 'match' has a group {value.place}: add '(...)' to it")
        if value.kind in ("group", "index") and not any(_has(groups, value) for groups in known):
            name = shown(value.word)
            scope.report.fault(word, f"no 'match' has a group {name}: write '(?P<NAME>...)' in it")


def _has(groups: tuple[str, ...], value: Value) -> bool:
    return value.word in groups[1:] or value.word in map(str, range(len(groups)))


def _values(text: RecordText) -> Iterator[Value]:
    for part in text.parts:
        value = None if isinstance(part, str) else part
        while value is not None:
            yield value
            value = value.of[0] if value.of else None


_OPTIONS = {
    "match": Option("match REGEX...", _read_match, twice=Twice.BOTH),
    "answer": Option('answer "NAME TTL CLASS TYPE DATA"', _reads("answer"), twice=Twice.BOTH),
    "additional": Option(
        'additional "NAME TTL CLASS TYPE DATA"', _reads("additional"), twice=Twice.BOTH
    ),
    "authority": Option(
        'authority "NAME TTL CLASS TYPE DATA"', _reads("authority"), twice=Twice.BOTH
    ),
    "rcode": Option("rcode CODE", _read_rcode),
    "ederror": Option("ederror CODE [REASON]", _read_ederror),
    "fallthrough": Option("fallthrough [ZONES...]", _read_fallthrough),
    "upstream": Option("template without upstream", _read_upstream, twice=Twice.BOTH),
    "var": Option("match REGEX...", _read_expression, twice=Twice.BOTH),
    "expr": Option("match REGEX...", _read_expression, twice=Twice.BOTH),
}
