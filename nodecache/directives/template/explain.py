"""What ``nodecache explain`` says of ``template``."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import MOST_ROWS, Row, below
from nodecache.directives.template.model import TEMPLATES, AnswerTemplate
from nodecache.wire.text import class_text, rcode_text, type_text


def rows(block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in ``block``."""
    templates = block.of(TEMPLATES)
    for number, template in enumerate(templates[:MOST_ROWS]):
        yield "" if number else "template", _text(template)
    left = len(templates) - MOST_ROWS
    if left > 0:
        yield "", f"and {left} more"


def _text(template: AnswerTemplate) -> str:
    count = len(template.answer) + len(template.authority) + len(template.additional)
    reply = f"{rcode_text(template.rcode)} with {count} records"
    patterns = f" that match one of {len(template.patterns)} patterns" if template.patterns else ""
    others = ""
    if template.patterns and template.fallthrough is None:
        others = ", others SERVFAIL (default)"
    elif template.fallthrough is not None:
        others = f"; what does not match and is {below(template.fallthrough)} goes on"
    about = f"{class_text(template.rclass)} {type_text(template.rtype)}"
    return f"{about} of {below(template.zones)}{patterns} get {reply}{others}"
