"""What ``template`` answers, as values."""

from __future__ import annotations

from dataclasses import dataclass

from nodecache.config.model import Name, Setting
from nodecache.patterns import Pattern
from nodecache.templates import RecordText


@dataclass(frozen=True, slots=True)
class AnswerTemplate:
    """One ``template`` directive.

    Attributes:
        rclass, rtype: CLASS and TYPE that it answers, 255 for any.
        zones: Names below these are answered for, at least one.
        patterns: The first one that matches the QNAME counts; empty matches everything.
        answer, authority, additional: The records to make, by section.
        rcode: 0 to 15.
        extended_error: RFC 8914 code and text, None for none.
        fallthrough: None: what no pattern matches gets SERVFAIL; else zones whose names go on.
    """

    rclass: int
    rtype: int
    zones: tuple[Name, ...]
    patterns: tuple[Pattern, ...] = ()
    answer: tuple[RecordText, ...] = ()
    authority: tuple[RecordText, ...] = ()
    additional: tuple[RecordText, ...] = ()
    rcode: int = 0
    extended_error: tuple[int, str] | None = None
    fallthrough: tuple[Name, ...] | None = None


TEMPLATES: Setting[tuple[AnswerTemplate, ...]] = Setting("template", ())
