"""How ``log`` is written: names, a format, and classes of responses in the braces."""

from __future__ import annotations

from nodecache.config.corefile import Directive
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
from nodecache.directives.log.line_format import COMMON, parse_template
from nodecache.directives.log.model import LOGS, LogClass, LogRule

USAGE = "log [NAMES...] [FORMAT]"

_CLASSES = {log_class.value: log_class for log_class in LogClass}
_EVERYTHING = frozenset((LogClass.ALL,))


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Applies ``log``: as in CoreDNS, a last word with a brace in it is the format."""
    arguments = Arguments(directive, USAGE, scope)
    words = arguments.rest()
    template = COMMON
    if words and "{" in words[-1].text:
        template = arguments.parse(words.pop(), parse_template, COMMON)
    zones = parse_all_zones(arguments, words) or (ROOT,)
    nothing: frozenset[LogClass] = frozenset()
    classes = read_options(directive, _OPTIONS, nothing, scope)
    rule = LogRule(zones, template, classes or _EVERYTHING)
    return draft.having(LOGS, arguments.join(draft.of(LOGS), [rule]))


def _read_class(arguments: Arguments, classes: frozenset[LogClass]) -> frozenset[LogClass]:
    words = arguments.rest("a CLASS")
    return classes.union(arguments.parse(word, one_of(_CLASSES), LogClass.ALL) for word in words)


_OPTIONS = {"class": Option("class all|success|denial|error...", _read_class, twice=Twice.BOTH)}
