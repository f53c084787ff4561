"""How ``rewrite`` is written: one rule a line, or one rule in braces."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from nodecache.config.corefile import Directive
from nodecache.config.lexer import Word
from nodecache.config.mnemonics import parse_class, parse_rcode, parse_type
from nodecache.config.model import ServerBlock
from nodecache.config.names import parse_name
from nodecache.config.reading import MAX_ITEMS, Arguments, Scope, one_of
from nodecache.config.values import nearest
from nodecache.directives.rewrite.model import (
    REWRITES,
    AnswerPart,
    AnswerRewrite,
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
from nodecache.directives.rewrite.read_edns0 import judge_option_rule, read_option_rule
from nodecache.patterns import parse_pattern
from nodecache.printing import shown

USAGE = "rewrite [continue|stop] name|type|class|ttl|rcode|edns0 ..."

MAX_TEXT_CHARACTERS = 4 * 255  # a name of which each octet is written as an escape
_MAX_ANSWERS = 100
_LONGEST_TTL_S = 2**31 - 1  # RFC 2181 section 8

_MATCHES = {match.value: match for match in Match}
_PARTS = {part.value: part for part in AnswerPart}
_GROUP = re.compile(r"\{([0-9]{1,3})\}")
_TTL_RANGE = re.compile(r"([0-9]{0,10})(-?)([0-9]{0,10})")
_MATCH_USAGE = "[exact|prefix|suffix|substring|regex]"
_HEAD = "rewrite [continue|stop]"


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with the rule of one ``rewrite`` added; at most 1000 are taken."""
    before = draft.of(REWRITES)
    if len(before) >= MAX_ITEMS:
        scope.report.fault(directive.name, f"more than {MAX_ITEMS} 'rewrite' in one block")
        return draft
    words = _words(directive, scope)
    is_last = True
    if words and words[0].text.lower() in ("continue", "stop"):
        is_last = words.pop(0).text.lower() == "stop"
    if not words:
        text = f"'rewrite' needs what is to be changed; write '{USAGE}'"
        scope.report.fault(directive.name, text)
        return draft
    rule = _read_rule(words, scope, before)
    if rule is None:
        return draft
    return draft.having(REWRITES, (*before, replace(rule, is_last=is_last)))


def _words(directive: Directive, scope: Scope) -> list[Word]:
    """The words of either form as those of one line."""
    words = list(directive.arguments)
    if directive.body is not None and len(words) > 1:
        text = f"a rule that stands on one line takes no braces; write '{USAGE}'"
        scope.report.fault(directive.name, text)
        return words
    for child in directive.body or ():
        if child.body is not None:
            scope.report.fault(child.name, f"{shown(child.name.text)} takes no braces: remove them")
        words += (child.name, *child.arguments)
    return words


def _read_rule(words: list[Word], scope: Scope, before: tuple[Rewrite, ...]) -> Rewrite | None:
    field = words[0].text.lower()
    if field not in _FIELDS:
        scope.report.fault(words[0], _unknown_field(words[0].text))
        return None
    usage, read = _FIELDS[field]
    arguments = Arguments(Directive(words[0], tuple(words[1:])), f"{_HEAD} {usage}", scope)
    rule = read(arguments)
    arguments.end()
    if isinstance(rule, RewriteEdns):
        judge_option_rule(rule, words[0], scope, before)
    return rule


def _unknown_field(text: str) -> str:
    if text.lower() == "cname":
        return (
            "'cname' would need a second look-up for each answer, which is not done here: remove"
            " the rule, or change names in answers with 'rewrite name ... answer value FROM TO'"
        )
    if text.lower() == "answer":
        return (
            "'answer' must stand behind the 'name' rule that it belongs to; write"
            f" '{_HEAD} {_FIELDS['name'][0]}'"
        )
    return f"'rewrite' cannot change {shown(text)}{nearest(text, _FIELDS)}; write '{USAGE}'"


def _read_name(arguments: Arguments) -> Rewrite:
    is_given = arguments.peek().lower() in _MATCHES
    test = _take_test(arguments)
    if test.match is Match.REGEX:
        to = arguments.take("TO", _replacement_for(test.text), ".")
    else:
        to = arguments.take("TO", _replacement_of(test.match), ".")
    rule = RewriteName(test, to, is_auto=test.match is Match.EXACT)
    if arguments.peek() != "answer":
        return rule  # what is left over is a fault
    if not is_given:
        text = "'answer' is one too many unless a kind of match such as 'exact' stands before FROM"
        arguments.fault(arguments.rest()[0], text)
        return rule
    return _read_answers(arguments, rule)


def _take_test(arguments: Arguments) -> NameTest:
    match = Match.EXACT
    if arguments.peek().lower() in _MATCHES:
        match = arguments.take("", lambda text: _MATCHES[text.lower()], match)
    return NameTest(match, arguments.take("FROM", _SUBJECTS[match], "."))


def _parse_exact(text: str) -> str:
    try:
        return parse_name(text).text
    except ValueError as error:
        raise ValueError(f"{shown(text)}: {error}") from None


def _parse_pattern(text: str) -> str:
    return parse_pattern(text).text


def _parse_literal(text: str) -> str:
    """Part of a name, as CoreDNS reads it: in lower case, and always with a final dot."""
    if not text or len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"{shown(text)} is no part of a domain name")
    is_complete = text.endswith(".") and not text.endswith("\\.")
    return text.lower() + ("" if is_complete else ".")


_SUBJECTS: dict[Match, Callable[[str], str]] = {
    Match.EXACT: _parse_exact,
    Match.PREFIX: _parse_literal,
    Match.SUFFIX: _parse_literal,
    Match.SUBSTRING: _parse_literal,
    Match.REGEX: _parse_pattern,
}
# Match -> what a replacement may at best become.
_BEST_NAMES = {
    Match.EXACT: "{}",
    Match.PREFIX: "{}x.",
    Match.SUFFIX: "x{}",
    Match.SUBSTRING: "x{}x.",
    Match.REGEX: "{}",
}


def _replacement_of(match: Match) -> Callable[[str], str]:
    """Returns a parser for TO of a rule without groups."""

    def parse(text: str) -> str:
        if _GROUP.search(text):
            raise ValueError(f"{shown(text)} holds a group, which only 'regex' has")
        literal = _parse_literal(text)
        _check_name(text, _BEST_NAMES[match].replace("{}", literal))
        return literal

    return parse


def _replacement_for(pattern: str) -> Callable[[str], str]:
    """Returns a parser for TO of a regular expression."""

    def parse(text: str) -> str:
        literal = _parse_literal(text)
        try:
            groups = len(parse_pattern(pattern).groups) - 1
        except ValueError:
            return literal  # a fault by itself
        for number in map(int, _GROUP.findall(text)):
            if number > groups:
                raise ValueError(f"the pattern has {groups} groups, so there is no {{{number}}}")
        _check_name(text, _GROUP.sub("x", literal))
        return literal

    return parse


def _check_name(text: str, name: str) -> None:
    """Refuses what could never become a domain name."""
    try:
        parse_name(name)
    except ValueError as error:
        raise ValueError(f"{shown(text)} makes no domain name: {error}") from None


def _read_answers(arguments: Arguments, rule: RewriteName) -> RewriteName:
    """``answer auto|name FROM TO|value FROM TO``; 'answer' may lack from the second one on."""
    answers: list[AnswerRewrite] = []
    is_auto = False
    arguments.take_word("answer")
    while len(answers) < _MAX_ANSWERS:
        answer = _read_answer(arguments)
        if answer is None:
            is_auto = True
        else:
            answers.append(answer)
        if not arguments:
            break
        if arguments.peek() == "answer":
            arguments.take_word("")
    if is_auto and any(answer.part is AnswerPart.NAME for answer in answers):
        arguments.fault(
            arguments.name, "'answer auto' and 'answer name FROM TO' exclude each other"
        )
    return replace(rule, is_auto=rule.is_auto or is_auto, answers=tuple(answers))


def _read_answer(arguments: Arguments) -> AnswerRewrite | None:
    """Returns None for ``auto``, which may also be written ``name auto``."""
    part = arguments.take("auto, name or value behind 'answer'", one_of(_ANSWERS), None)
    if part is None:
        return None
    pattern = arguments.take("FROM", _parse_pattern, "")
    if part is AnswerPart.NAME and pattern == "auto" and arguments.peek() in _BEHIND_AUTO:
        return None
    return AnswerRewrite(part, pattern, arguments.take("TO", _replacement_for(pattern), "."))


def _read_type(arguments: Arguments) -> Rewrite:
    before = arguments.take("FROM, a type such as ANY", parse_type, 0)
    return RewriteType(before, arguments.take("TO, a type such as HINFO", parse_type, 0))


def _read_class(arguments: Arguments) -> Rewrite:
    before = arguments.take("FROM, a class such as CH", parse_class, 1)
    return RewriteClass(before, arguments.take("TO, a class such as IN", parse_class, 1))


def _read_ttl(arguments: Arguments) -> Rewrite:
    test = _take_test(arguments)
    least_s, most_s = arguments.take("SECONDS or a range of them", _parse_ttl_range, (0, 0))
    return RewriteTtl(test, least_s, most_s)


def _parse_ttl_range(text: str) -> tuple[int, int]:
    found = _TTL_RANGE.fullmatch(text)
    if not found or not (found[1] or found[3]):
        raise ValueError(f"{shown(text)} is no TTL: give seconds, or a range as in 30-300 or 30-")
    least_s = int(found[1] or 0)
    most_s = int(found[3] or _LONGEST_TTL_S) if found[2] else least_s
    if not least_s <= most_s <= _LONGEST_TTL_S:
        raise ValueError(
            f"{shown(text)} is no range within 0-{_LONGEST_TTL_S} seconds (RFC 2181 section 8)"
        )
    return least_s, most_s


def _read_rcode(arguments: Arguments) -> Rewrite:
    test = _take_test(arguments)
    before = arguments.take("FROM, a response code", parse_rcode, 0)
    return RewriteRcode(test, before, arguments.take("TO, a response code", parse_rcode, 0))


_ANSWERS: dict[str, AnswerPart | None] = {"auto": None, **_PARTS}
_BEHIND_AUTO = frozenset(("", "answer", *_ANSWERS))
# Field -> how to write it, and its reader.
_FIELDS: dict[str, tuple[str, Callable[[Arguments], Rewrite]]] = {
    "name": (
        f"name {_MATCH_USAGE} FROM TO [answer auto|name FROM TO|value FROM TO]...",
        _read_name,
    ),
    "type": ("type FROM TO", _read_type),
    "class": ("class FROM TO", _read_class),
    "ttl": (f"ttl {_MATCH_USAGE} NAME SECONDS|MIN-MAX", _read_ttl),
    "rcode": (f"rcode {_MATCH_USAGE} NAME FROM TO", _read_rcode),
    "edns0": ("edns0 local|nsid set|append|replace|unset [CODE] [DATA] [revert]", read_option_rule),
}
