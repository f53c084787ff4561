"""Answers made of the question alone: the ``template`` directive.

Stands behind the cache, so one answer serves all who ask the same. Knows nothing of clients.
"""

from __future__ import annotations

from typing import NamedTuple

from nodecache.config.model import Name, ServerBlock
from nodecache.counters import Counters
from nodecache.directives.template.model import TEMPLATES, AnswerTemplate
from nodecache.directives.template.rendering import Facts, render
from nodecache.patterns import Expression
from nodecache.resolve.behind_cache import Responder
from nodecache.templates import RecordText
from nodecache.wire.const import AA, MAX_MESSAGE_OCTETS, QR, RA, TYPE_AND_CLASS
from nodecache.wire.numbers import CLASS_NAMES, SERVFAIL, TYPE_ANY, TYPE_NAMES
from nodecache.wire.query import is_below, name_end
from nodecache.wire.reply import compose_opt, extended_error
from nodecache.wire.rrs import RR, Contents
from nodecache.wire.text import name_text

_CLASS_ANY = 255
_MOST_SERIES = 1000
_OTHER = "other"
_RR_FIXED_OCTETS = 10

_Named = tuple[tuple[str, ...], Expression]  # with the names of its groups
Matched = tuple[str, str, str]  # zone, class, type: labels of the series
Failed = tuple[str, str, str, str, str]  # and section, template


def responder(block: ServerBlock, before: Responder | None) -> TemplateResponder:
    """Returns the ``template`` of ``block``, which goes on to count where ``before`` was."""
    counts = before.counts if isinstance(before, TemplateResponder) else TemplateCounts()
    return TemplateResponder(block.of(TEMPLATES), counts)


def hand_in(found: TemplateResponder, server: str, counters: Counters) -> None:
    """Copies what was counted to the series of ``server``."""
    counts = found.counts
    counters.template_matches |= {(server, *key): n for key, n in counts.matches.items()}
    counters.template_failures |= {(server, *key): n for key, n in counts.template_failures.items()}
    counters.template_rr_failures |= {(server, *key): n for key, n in counts.rr_failures.items()}


class TemplateCounts:
    """What the templates of one block did, by the labels of CoreDNS's series without server.

    Beyond 1000 series a new type counts as "other": types are what clients choose.

    Attributes:
        matches: (zone, class, type) -> questions answered.
        template_failures: (zone, class, type, section, template) -> records not filled.
        rr_failures: (zone, class, type, section, template) -> texts that were no record.
    """

    __slots__ = ("matches", "rr_failures", "template_failures")

    def __init__(self) -> None:
        self.matches: dict[Matched, int] = {}
        self.template_failures: dict[Failed, int] = {}
        self.rr_failures: dict[Failed, int] = {}

    def note_match(self, facts: Facts) -> None:
        """Counts an answer."""
        key = (facts.zone, facts.rclass, facts.rtype)
        if key not in self.matches and len(self.matches) >= _MOST_SERIES:
            key = (facts.zone, facts.rclass, _OTHER)
        self.matches[key] = self.matches.get(key, 0) + 1

    def note_template_failure(self, facts: Facts, section: str, label: str) -> None:
        """Counts a record that could not be filled."""
        _count(self.template_failures, facts, section, label)

    def note_rr_failure(self, facts: Facts, section: str, label: str) -> None:
        """Counts a text that was no record, or too long for the message."""
        _count(self.rr_failures, facts, section, label)


def _count(series: dict[Failed, int], facts: Facts, section: str, label: str) -> None:
    key = (facts.zone, facts.rclass, facts.rtype, section, label)
    if key not in series and len(series) >= _MOST_SERIES:
        key = (facts.zone, facts.rclass, _OTHER, section, label)
    series[key] = series.get(key, 0) + 1


class _Source(NamedTuple):
    """One record of a template; ``fixed`` when nothing in it depends on the question."""

    section: str
    text: RecordText
    fixed: RR | None


class TemplateResponder:
    """The ``template`` directives of one block, in the order of the Corefile.

    Attributes:
        name: The directive's name.
        counts: What it did.
    """

    def __init__(self, templates: tuple[AnswerTemplate, ...], counts: TemplateCounts) -> None:
        self.name = "template"
        self.counts = counts
        self._templates = [
            (template, _expressions_of(template), _sources_of(template)) for template in templates
        ]

    def respond(self, question: bytes) -> bytes | None:
        """Returns the response of the first template that takes ``question``, None to pass.

        Args:
            question: QNAME in lower case, QTYPE and QCLASS in wire format.

        The response has ID 0. It is SERVFAIL where no pattern matches and nothing falls through,
        and where a record cannot be made. Raises nothing.
        """
        end = name_end(question, 0)
        if not end or end + 4 != len(question):
            return None
        qname = question[:end]
        qtype, qclass = TYPE_AND_CLASS.unpack_from(question, end)
        text = ""
        for template, expressions, sources in self._templates:
            zone = _longest_zone(qname, template.zones)
            if zone is None or not _takes(template, qtype, qclass):
                continue
            text = text or name_text(qname)
            match = _find_match(expressions, text)
            if match is not None:
                facts = _facts(template, text, zone.text, qtype, qclass, match)
                self.counts.note_match(facts)
                return self._compose(template, sources, question, facts)
            if not template.fallthrough or not _longest_zone(qname, template.fallthrough):
                return _failure(question)
        return None

    def _compose(
        self, template: AnswerTemplate, sources: list[_Source], question: bytes, facts: Facts
    ) -> bytes:
        if template.rcode == SERVFAIL:
            return _failure(question)
        contents = Contents(QR | AA | RA | template.rcode, question)
        if template.extended_error is not None:
            code, reason = template.extended_error
            option = extended_error(code, reason.encode("utf-8", "replace"))
            contents.opt = compose_opt(dnssec_ok=False, options=option)
        sections = {
            "answer": contents.answer,
            "authority": contents.authority,
            "additional": contents.additional,
        }
        room = MAX_MESSAGE_OCTETS - len(contents.compose())
        for source in sources:
            record = source.fixed if source.fixed is not None else self._make(source, facts)
            if record is None:
                return _failure(question)
            room -= len(record.owner) + _RR_FIXED_OCTETS + len(record.rdata)
            if room < 0:
                self.counts.note_rr_failure(facts, source.section, source.text.label)
                return _failure(question)
            sections[source.section].append(record)
        return contents.compose()

    def _make(self, source: _Source, facts: Facts) -> RR | None:
        """The record for one question; None, counted, when there is none."""
        text = render(source.text, facts)
        if text is None:
            self.counts.note_template_failure(facts, source.section, source.text.label)
            return None
        try:
            return _parse_record(text)
        except ValueError:
            self.counts.note_rr_failure(facts, source.section, source.text.label)
            return None


def _parse_record(text: str) -> RR:
    from nodecache.directives.template.record import parse_record  # noqa: PLC0415 (see there)

    return RR(*parse_record(text))


def _expressions_of(template: AnswerTemplate) -> list[_Named]:
    return [(pattern.groups, Expression(pattern.text)) for pattern in template.patterns]


def _sources_of(template: AnswerTemplate) -> list[_Source]:
    """The records in CoreDNS's order of making them, which decides what is counted."""
    return [
        _Source(section, text, None if text.fixed is None else _parse_record(text.fixed))
        for section, texts in (
            ("answer", template.answer),
            ("additional", template.additional),
            ("authority", template.authority),
        )
        for text in texts
    ]


def _longest_zone(qname: bytes, zones: tuple[Name, ...]) -> Name | None:
    found: Name | None = None
    for zone in zones:
        if is_below(qname, zone.wire) and (found is None or len(zone.wire) > len(found.wire)):
            found = zone
    return found


def _takes(template: AnswerTemplate, qtype: int, qclass: int) -> bool:
    """Whether type and class agree; ANY agrees with everything on both sides."""
    return (template.rclass in (_CLASS_ANY, qclass) or qclass == _CLASS_ANY) and (
        template.rtype in (TYPE_ANY, qtype) or qtype == TYPE_ANY
    )


def _find_match(expressions: list[_Named], text: str) -> tuple[tuple[str, ...], list[str]] | None:
    """Group names and groups of the first one that matches, or of none; None if none does."""
    if not expressions:
        return ("",), [text]
    for names, expression in expressions:
        found = expression.find_groups(text)
        if found is not None:
            return names, found
    return None


def _facts(
    template: AnswerTemplate,
    text: str,
    zone: str,
    qtype: int,
    qclass: int,
    match: tuple[tuple[str, ...], list[str]],
) -> Facts:
    names, found = match
    groups = {str(index): part for index, part in enumerate(found)}
    groups.update({name: part for name, part in zip(names, found, strict=True) if name})
    return Facts(
        name=text,
        zone=zone,
        rclass=CLASS_NAMES.get(template.rclass if qclass == _CLASS_ANY else qclass, ""),
        rtype=TYPE_NAMES.get(template.rtype if qtype == TYPE_ANY else qtype, ""),
        qclass=str(qclass),
        qtype=str(qtype),
        match=found,
        groups=groups,
    )


def _failure(question: bytes) -> bytes:
    return Contents(QR | RA | SERVFAIL, question).compose()
