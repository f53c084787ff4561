"""Splits Corefile text into lines of words, and collects what is wrong with them.

Knows blanks, quotes, comments, braces and the environment; knows no directive. Every word
remembers its file, line and column. Nothing here raises on any text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodecache.errors import Fault
from nodecache.printing import shown

MAX_TEXT_CHARACTERS = 1024 * 1024  # a Kubernetes ConfigMap holds no more
_MAX_WORD_CHARACTERS = 4096
_MAX_FAULTS = 100

_LEXEME = re.compile(
    r"""(?P<end>\n)
    | (?P<skipped>[^\S\n]+|\#[^\n]*)
    | (?P<quoted>"(?:[^"\\]|\\.)*+")
    | (?P<word>[^\s#]+)""",
    re.VERBOSE | re.DOTALL,
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_ENVIRONMENT = re.compile(r"\{\$([^{}\s]+)\}|\{%([^%{}\s]+)%\}")


@dataclass(frozen=True, slots=True)
class Word:
    """One word and where it stood.

    Attributes:
        text: Without quotes, environment filled in.
        file: Path as given.
        line: From 1.
        column: From 1, in characters.
        is_literal: Quoted or changed by the environment, so never a brace or an import.
    """

    text: str
    file: str
    line: int
    column: int
    is_literal: bool = False

    def opens(self) -> bool:
        """Returns whether this is the ``{`` that opens a block."""
        return self.text == "{" and not self.is_literal

    def closes(self) -> bool:
        """Returns whether this is the ``}`` that closes a block."""
        return self.text == "}" and not self.is_literal


Line = tuple[Word, ...]  # never empty; ``{`` only as its last word, ``}`` only alone


@dataclass(slots=True)
class Report:
    """Faults and warnings found so far; at most 100 faults are kept."""

    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def fault(self, word: Word, text: str) -> None:
        """Adds a fault at ``word``."""
        self.fault_at(word.file, word.line, word.column, text)

    def fault_at(self, file: str, line: int, column: int, text: str) -> None:
        """Adds a fault at a place that has no word."""
        fault = Fault(file, line, column, text)
        if len(self.faults) < _MAX_FAULTS and fault not in self.faults:
            self.faults.append(fault)

    def warn(self, word: Word, text: str) -> None:
        """Adds a warning at ``word``, once."""
        warning = f"{word.file}:{word.line}:{word.column}: {text}"
        if len(self.warnings) < _MAX_FAULTS and warning not in self.warnings:
            self.warnings.append(warning)


def split_lines(
    text: str, file: str, environ: Mapping[str, str], report: Report
) -> tuple[Line, ...]:
    """Returns the lines of ``text`` that hold words, braces in their proper places.

    Args:
        text: At most 1 Mi characters are read; more is a fault.
        file: Path for faults.
        environ: Fills ``{$NAME}`` and ``{%NAME%}``; what is missing becomes "" with a warning.
        report: Takes the faults.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        report.fault_at(file, 0, 0, "longer than 1 MiB; split it up or remove what is not needed")
        return ()
    lexer = _Lexer(text, file, environ, report)
    return tuple(part for line in lexer.lines() for part in _place_braces(line, report) if part)


class _Lexer:
    """One pass over one text."""

    def __init__(self, text: str, file: str, environ: Mapping[str, str], report: Report) -> None:
        self._text = text
        self._file = file
        self._environ = environ
        self._report = report
        self._line = 1
        self._line_start = 0

    def lines(self) -> list[list[Word]]:
        lines: list[list[Word]] = [[]]
        resume_at = 0
        for match in _LEXEME.finditer(self._text):
            if match.start() < resume_at or match.lastgroup == "skipped":
                continue
            if match.lastgroup == "end":
                lines.append([])
                self._start_line(1, match.end())
            elif match.lastgroup == "word" and match[0].startswith('"'):
                self._report.fault(self._word(match, ""), "this quote is never closed: add '\"'")
                resume_at = self._end_of_line(match.end())
            else:
                lines[-1].append(self._read_word(match))
        return lines

    def _start_line(self, count: int, offset: int) -> None:
        self._line += count
        self._line_start = offset

    def _end_of_line(self, offset: int) -> int:
        end = self._text.find("\n", offset)
        return len(self._text) if end < 0 else end

    def _word(self, match: re.Match[str], text: str, *, is_literal: bool = False) -> Word:
        column = match.start() - self._line_start + 1
        return Word(text, self._file, self._line, column, is_literal)

    def _read_word(self, match: re.Match[str]) -> Word:
        raw = match[0]
        if match.lastgroup == "quoted":
            raw = raw[1:-1].replace('\\"', '"')
        text = self._fill_environment(self._bounded(match, raw), match)
        is_literal = match.lastgroup == "quoted" or text != raw
        # What is not UTF-8 becomes what Go makes of it, so that a word can always be encoded.
        text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", self._bounded(match, text))
        word = self._word(match, text, is_literal=is_literal)
        breaks = match[0].count("\n")
        if breaks:
            self._start_line(breaks, match.start() + match[0].rindex("\n") + 1)
        return word

    def _bounded(self, match: re.Match[str], text: str) -> str:
        if len(text) <= _MAX_WORD_CHARACTERS:
            return text
        self._report.fault(self._word(match, ""), "a word has at most 4096 characters")
        return text[:_MAX_WORD_CHARACTERS]

    def _fill_environment(self, text: str, match: re.Match[str]) -> str:
        def value(reference: re.Match[str]) -> str:
            name = reference[1] or reference[2]
            if name not in self._environ:
                text = f"environment variable {shown(name)} is not set and counts as empty"
                self._report.warn(self._word(match, ""), text)
            return self._environ.get(name, "")[: _MAX_WORD_CHARACTERS + 1]

        return _ENVIRONMENT.sub(value, text)


def _place_braces(words: list[Word], report: Report) -> list[Line]:
    """Cuts a line so that ``{`` ends one and ``}`` stands alone; one fault if that was needed."""
    words = _part_glued_brace(words, report)
    parts: list[list[Word]] = [[]]
    is_faulty = False
    for index, word in enumerate(words):
        before = words[index - 1] if index else None
        trouble = _misplaced(word, before, is_last=index == len(words) - 1)
        if trouble and not is_faulty:
            report.fault(word, trouble)
            is_faulty = True
        if before and (before.opens() or before.closes() or word.closes()):
            parts.append([])
        parts[-1].append(word)
    return [tuple(part) for part in parts]


def _misplaced(word: Word, before: Word | None, *, is_last: bool) -> str:
    """Why ``word`` may not follow ``before`` on the same line, or ""."""
    if before is None or (before.opens() and (is_last or not word.closes())):
        return ""  # what follows a '{' on its line begins the body, as in CoreDNS
    if before.opens() or before.closes():
        return (
            f"{shown(word.text)} must begin a new line:"
            f" nothing may follow '{before.text}' on its line"
        )
    return "'}' must stand on a line of its own" if word.closes() else ""


def _part_glued_brace(words: list[Word], report: Report) -> list[Word]:
    """Parts ``zone{`` into two words, with a fault; CoreDNS would take it for one name."""
    last = words[-1] if words else None
    if last is None or last.is_literal or len(last.text) == 1:
        return words
    if last.text == "{}":
        report.fault(last, "put a blank between '{' and '}'")
        brace, end = Word("{", *_place(last, 0)), Word("}", *_place(last, 1))
        return [*words[:-1], brace, end]
    if last.text.endswith("{"):
        report.fault(last, f"put a blank before the '{{' of {shown(last.text)}")
        stem = Word(last.text[:-1], *_place(last, 0))
        return [*words[:-1], stem, Word("{", *_place(last, len(stem.text)))]
    return words


def _place(word: Word, offset: int) -> tuple[str, int, int]:
    return word.file, word.line, word.column + offset
