"""The ``rewrite`` directive at work: changes a question, and later the response to it.

Names are compared in lower case and presentation format, as the rules are written. What would
be no domain name is never asked for: such a question is answered with SERVFAIL.
"""

from __future__ import annotations

from nodecache.config.model import ServerBlock
from nodecache.config.names import parse_name
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
from nodecache.directives.rewrite.rewrite_response import (
    ChangeRcode,
    ClampTtl,
    PatternRenaming,
    Rename,
    Repair,
    SuffixRenaming,
    TreeRenaming,
    compose_failure,
    compose_restored,
    substitute,
    wire_of,
)
from nodecache.patterns import Expression
from nodecache.wire.const import TYPE_AND_CLASS, U16
from nodecache.wire.text import name_text


def rewriter(block: ServerBlock) -> RuleRewriter:
    """Returns the ``rewrite`` of ``block``."""
    return RuleRewriter(block.of(REWRITES))


class RuleRewritten:
    """What rules made of one question; see Rewritten in resolve/behind_cache.py.

    Attributes:
        question: What is asked instead; the original one if ``is_illegal``.
        options: EDNS options in wire format.
        is_illegal: The rules made no domain name: nobody needs to be asked, since
            ``rewrite_response`` makes SERVFAIL of any response.
    """

    __slots__ = ("_original", "_repairs", "is_illegal", "options", "question")

    def __init__(
        self,
        original: bytes,
        question: bytes,
        repairs: list[Repair],
        options: bytes = b"",
        *,
        is_illegal: bool = False,
    ) -> None:
        self.question = question
        self.options = options
        self.is_illegal = is_illegal
        self._original = original
        self._repairs = repairs

    def rewrite_response(self, response: bytes) -> bytes | None:
        """Returns the response to the original question; None if ``response`` is broken.

        Raises nothing. AD goes where more than TTLs was changed: nobody validated that.
        """
        if self.is_illegal:
            return compose_failure(self._original, response)
        if not self._repairs and self.question == self._original:
            return response
        return compose_restored(self._original, response, self._repairs)


class RuleRewriter:
    """All rules of one server block, in the order of the Corefile."""

    def __init__(self, rules: tuple[Rewrite, ...]) -> None:
        self._rules = [_compile(rule) for rule in rules]

    def rewrite(self, question: bytes) -> RuleRewritten | None:
        """Returns what to ask instead, None if no rule changes anything. Raises nothing.

        Args:
            question: QNAME in lower case, QTYPE and QCLASS in wire format.
        """
        draft = _Draft(question)
        for rule in self._rules:
            if not rule.apply(draft):
                continue
            if draft.is_illegal:
                return RuleRewritten(question, question, [], is_illegal=True)
            if rule.is_last:
                break
        asked = draft.qname + TYPE_AND_CLASS.pack(draft.qtype, draft.qclass)
        if asked == question and not draft.repairs and not draft.options:
            return None
        return RuleRewritten(question, asked, draft.repairs, _compose_options(draft.options))


class _Draft:
    """A question on its way through the rules."""

    def __init__(self, question: bytes) -> None:
        self.qname = question[:-4]
        self.qtype, self.qclass = TYPE_AND_CLASS.unpack(question[-4:])
        self.options: dict[int, bytes] = {}
        self.repairs: list[Repair] = []
        self.is_illegal = False
        self._text = ""

    @property
    def text(self) -> str:
        """The QNAME in presentation format."""
        if not self._text:
            self._text = name_text(self.qname)
        return self._text

    def rename(self, text: str) -> None:
        """Goes over to the name that ``text`` writes, if it is one."""
        qname = wire_of(text)
        if qname is None:
            self.is_illegal = True
        else:
            self.qname = qname
            self._text = ""


class _Matcher:
    """A NameTest, ready to be used."""

    def __init__(self, test: NameTest) -> None:
        self._match = test.match
        self._text = test.text
        self._expression: Expression | None = None
        if test.match is Match.REGEX:
            self._expression = Expression(test.text)
        elif test.match is Match.EXACT:
            self._text = name_text(parse_name(test.text).wire)

    def substitute(self, text: str, to: str) -> str | None:
        """Returns ``text`` with what matches replaced by ``to``, None if nothing does."""
        if self._expression is not None:
            return substitute(self._expression, text, to)
        literal = self._text
        if self._match is Match.EXACT:
            return to if text == literal else None
        if self._match is Match.PREFIX:
            return to + text[len(literal) :] if text.startswith(literal) else None
        if self._match is Match.SUFFIX:
            return text[: -len(literal)] + to if text.endswith(literal) else None
        return text.replace(literal, to) if literal in text else None


class _NameRule:
    """Changes the QNAME, and names in the response."""

    def __init__(self, rule: RewriteName) -> None:
        self.is_last = rule.is_last
        self._matcher = _Matcher(rule.test)
        self._to = rule.to
        self._repairs: list[Repair] = []
        # A suffix is put back wherever it stands; the other kinds know only what they replaced.
        self._puts_tree_back = rule.is_auto and rule.test.match is not Match.SUFFIX
        if rule.is_auto and not self._puts_tree_back:
            back = SuffixRenaming(rule.to, rule.test.text)
            self._repairs.append(Rename(back, owners=True, values=True))
        self._repairs += map(_compile_answer, rule.answers)

    def apply(self, draft: _Draft) -> bool:
        text = self._matcher.substitute(draft.text, self._to)
        if text is None:
            return False
        before = draft.qname
        draft.rename(text)
        if self._puts_tree_back and draft.qname != before:
            back = TreeRenaming(draft.qname, before)
            draft.repairs.append(Rename(back, owners=True, values=True))
        draft.repairs += self._repairs
        return True


class _TypeRule:
    """Changes the QTYPE."""

    def __init__(self, rule: RewriteType) -> None:
        self.is_last = rule.is_last
        self._before = rule.before
        self._after = rule.after

    def apply(self, draft: _Draft) -> bool:
        if draft.qtype != self._before:
            return False
        draft.qtype = self._after
        return True


class _ClassRule:
    """Changes the QCLASS."""

    def __init__(self, rule: RewriteClass) -> None:
        self.is_last = rule.is_last
        self._before = rule.before
        self._after = rule.after

    def apply(self, draft: _Draft) -> bool:
        if draft.qclass != self._before:
            return False
        draft.qclass = self._after
        return True


class _ResponseRule:
    """Changes only the response."""

    def __init__(self, rule: RewriteTtl | RewriteRcode) -> None:
        self.is_last = rule.is_last
        self._matcher = _Matcher(rule.test)
        self._repair: Repair
        if isinstance(rule, RewriteTtl):
            self._repair = ClampTtl(rule.least_s, rule.most_s)
        else:
            self._repair = ChangeRcode(rule.before, rule.after)

    def apply(self, draft: _Draft) -> bool:
        if self._matcher.substitute(draft.text, "") is None:
            return False
        draft.repairs.append(self._repair)
        return True


class _OptionRule:
    """Changes the EDNS options of the query to the upstream, which begins without any."""

    def __init__(self, rule: RewriteEdns) -> None:
        self.is_last = rule.is_last
        self._action = rule.action
        self._code = rule.code
        self._data = rule.data

    def apply(self, draft: _Draft) -> bool:
        is_present = self._code in draft.options
        if self._action is EdnsAction.UNSET:
            draft.options.pop(self._code, None)
            return True
        if self._action is (EdnsAction.APPEND if is_present else EdnsAction.REPLACE):
            return False
        draft.options[self._code] = self._octets(draft)
        return True

    def _octets(self, draft: _Draft) -> bytes:
        if isinstance(self._data, bytes):
            return self._data
        if self._data is EdnsVariable.QNAME:
            return draft.text.encode()
        return U16.pack(draft.qtype)


_Rule = _NameRule | _TypeRule | _ClassRule | _ResponseRule | _OptionRule


def _compile(rule: Rewrite) -> _Rule:
    if isinstance(rule, RewriteName):
        return _NameRule(rule)
    if isinstance(rule, RewriteType):
        return _TypeRule(rule)
    if isinstance(rule, RewriteClass):
        return _ClassRule(rule)
    if isinstance(rule, RewriteEdns):
        return _OptionRule(rule)
    return _ResponseRule(rule)


def _compile_answer(answer: AnswerRewrite) -> Repair:
    is_value = answer.part is AnswerPart.VALUE
    renaming = PatternRenaming(Expression(answer.pattern), answer.to)
    return Rename(renaming, owners=not is_value, values=is_value)


def _compose_options(options: dict[int, bytes]) -> bytes:
    return b"".join(TYPE_AND_CLASS.pack(code, len(data)) + data for code, data in options.items())
