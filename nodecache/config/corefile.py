"""The Caddyfile grammar: text in, a tree of blocks and directives out.

Resolves imports and snippets; knows no directive's meaning. Nothing here raises on any text:
every fault goes to the report, and parsing goes on at the next line or block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Protocol

from nodecache.config.lexer import Line, Report, Word, split_lines
from nodecache.printing import printable, shown

# Bounds against a Corefile that imports itself: depth, then lines in all.
_MAX_IMPORT_DEPTH = 10
_MAX_LINES = 20_000
_MAX_BRACE_DEPTH = 8

_UNCLOSED = "this '{' is never closed: add a line with '}'"
_WILDCARD = re.compile(r"[*?\[]")
_ARGUMENT = re.compile(r"\{args\[([0-9]{1,3})\]\}")


class Reader(Protocol):
    """How the configuration reads files; tests and reloads bring their own."""

    def read_text(self, path: str) -> str:
        """Returns the whole text as ``decode_text`` does; raises OSError, or ValueError."""

    def glob(self, pattern: str) -> list[str]:
        """Returns the paths that match, sorted, without hidden files."""

    def exists(self, path: str) -> bool:
        """Returns whether there is such a file or directory."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive or option; ``body`` is None when no braces follow it."""

    name: Word
    arguments: tuple[Word, ...]
    body: tuple[Directive, ...] | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """One server block.

    Attributes:
        place: Its first word, for faults.
        keys: Zones as written, without commas; none means the root zone.
        directives: In file order.
        has_braces: False for a file that is one block without braces.
    """

    place: Word
    keys: tuple[Word, ...]
    directives: tuple[Directive, ...]
    has_braces: bool = True


def parse_corefile(
    text: str,
    file: str,
    environ: Mapping[str, str],
    reader: Reader,
    report: Report,
    folder: str | None = None,
) -> tuple[Block, ...]:
    """Returns the server blocks of a Corefile, imports and snippets resolved.

    Args:
        text: The Corefile, untrusted.
        file: Its path.
        environ: Fills ``{$NAME}`` and ``{%NAME%}``.
        reader: Reads imported files.
        report: Takes faults and warnings.
        folder: Where relative imports of ``file`` begin, None for its own folder. Those of an
            imported file begin at its own.

    Raises nothing. Work is bounded: 20,000 lines in all, 10 imports and 8 braces deep.
    """
    source = _Source(split_lines(text, file, environ, report), environ, reader, report)
    if folder is not None:
        source.folders[file] = folder
    return tuple(_Parser(source, report).blocks())


class _Source:
    """Hands out lines one by one; imports are replaced by what they name."""

    def __init__(
        self, lines: tuple[Line, ...], environ: Mapping[str, str], reader: Reader, report: Report
    ) -> None:
        self.snippets: dict[str, tuple[Line, ...]] = {}
        self.folders: dict[str, str] = {}  # file -> where its relative imports begin
        self.is_cut = False  # a bound was met, so that what is missing is no further fault
        self._frames: list[Iterator[Line]] = [iter(lines)]
        self._held: Line | None = None
        self._line_count = 0
        self._files: dict[str, tuple[Line, ...]] = {}
        self._environ = environ
        self._reader = reader
        self._report = report

    def next_line(self) -> Line | None:
        """Returns the next line with imports resolved, or None at the end."""
        while True:
            line = self.next_raw()
            if line is None or line[0].text != "import" or line[0].is_literal:
                return line
            self._import(line)

    def next_raw(self) -> Line | None:
        """Returns the next line as it stands, or None at the end."""
        if self._held:
            line, self._held = self._held, None
            return line
        while self._frames:
            found = next(self._frames[-1], None)
            if found is not None:
                return self._counted(found)
            self._frames.pop()
        return None

    def hold(self, line: Line) -> None:
        """Takes back the line handed out last."""
        self._held = line

    def _counted(self, line: Line) -> Line | None:
        self._line_count += 1
        if self._line_count <= _MAX_LINES:
            return line
        self._cut(line[0], "more than 20,000 lines with all imports; the rest is not read")
        return None

    def _cut(self, word: Word, text: str) -> None:
        self._report.fault(word, text)
        self._frames.clear()
        self.is_cut = True

    def _import(self, line: Line) -> None:
        if len(line) == 1 or line[-1].opens():
            self._report.fault(line[0], "import needs a name: write 'import SNIPPET|FILE|GLOB'")
        elif len(self._frames) > _MAX_IMPORT_DEPTH:
            self._cut(line[0], "imports nest more than 10 deep, or in a circle")
        else:
            lines = self._named_lines(line[1])
            self._frames.append(iter(self._with_arguments(lines, line[1], line[2:])))

    def _named_lines(self, name: Word) -> tuple[Line, ...]:
        """Lines of the snippet or the files that ``name`` names."""
        if name.text in self.snippets:
            return self.snippets[name.text]
        if "\0" in name.text or not name.text:
            self._report.fault(name, "import needs the name of a snippet or a file")
            return ()
        folder = self.folders.get(name.file) or folder_of(name.file)
        path = str(PurePosixPath(folder) / name.text)
        if not _WILDCARD.search(name.text):
            return self._file_lines(path, name)
        paths = self._reader.glob(path)
        if not paths:
            self._report.warn(name, f"no file matches {shown(path)}{self._hint(name, path)}")
        return tuple(line for match in paths for line in self._file_lines(match, name))

    def _hint(self, name: Word, path: str) -> str:
        """What to do if there is something beside the file itself, and nothing at ``path``."""
        beside = path_beside(name)
        if beside == path or not self._reader.glob(beside):
            return ""
        return (
            "; imports begin at the folder of -conf, as in node-cache: for what lies beside"
            f" {shown(name.file)} write 'import {printable(beside)}'"
        )

    def _file_lines(self, path: str, name: Word) -> tuple[Line, ...]:
        if path not in self._files:
            self._files[path] = self._read_lines(path, name)
        return self._files[path]

    def _read_lines(self, path: str, name: Word) -> tuple[Line, ...]:
        if not self._reader.exists(path):
            text = f"there is no snippet and no file {shown(name.text)} (looked for {shown(path)})"
            self._report.fault(name, text + self._hint(name, path))
            return ()
        try:
            text = self._reader.read_text(path)
        except (OSError, ValueError) as error:
            self._report.fault(name, f"cannot read {shown(path)}: {reason(error)}")
            return ()
        return split_lines(text, path, self._environ, self._report)

    def _with_arguments(
        self, lines: tuple[Line, ...], name: Word, arguments: Line
    ) -> Iterator[Line]:
        """Fills ``{args[N]}``; lazily, so that lines never asked for cost nothing."""

        def value(reference: re.Match[str]) -> str:
            index = int(reference[1])
            if index < len(arguments):
                return arguments[index].text
            text = f"{shown(name.text)} uses {reference[0]}: give import {index + 1} arguments"
            self._report.fault(name, text)
            return reference[0]

        for line in lines:
            yield tuple(
                replace(word, text=_ARGUMENT.sub(value, word.text)[:4096], is_literal=True)
                if "{args[" in word.text
                else word
                for word in line
            )


class _Parser:
    """Lines to blocks, by recursive descent; recursion is bounded by _MAX_BRACE_DEPTH."""

    def __init__(self, source: _Source, report: Report) -> None:
        self._source = source
        self._report = report

    def blocks(self) -> Iterator[Block]:
        while line := self._source.next_line():
            if line[0].closes():
                self._judge_surplus(line[0])
            elif _snippet_name(line):
                self._define_snippet(line)
            else:
                yield self._block(line)

    def _judge_surplus(self, brace: Word) -> None:
        """Faults a ``}`` that closes nothing; at the very end node-cache takes it."""
        following = self._source.next_line()
        while following and following[0].closes():
            following = self._source.next_line()
        judge = self._report.fault if following else self._report.warn
        judge(brace, "this '}' closes nothing: remove it")
        if following:
            self._source.hold(following)

    def _define_snippet(self, line: Line) -> None:
        name = _snippet_name(line)
        if name in self._source.snippets:
            self._report.fault(line[0], f"snippet {shown(name)} is defined twice: rename one")
        lines: list[Line] = []
        depth = 1
        while found := self._source.next_raw():
            depth += found[-1].opens() - found[0].closes()
            if not depth:
                break
            lines.append(found)
        else:
            self._fault_unclosed(line[-1])
        self._source.snippets.setdefault(name, tuple(lines))

    def _block(self, line: Line) -> Block:
        keys, opener = self._keys(line)
        if opener is None:
            return Block(line[0], keys, self._bare_body(line[0]), has_braces=False)
        return Block(line[0], keys, self._body(opener, 1))

    def _keys(self, line: Line) -> tuple[tuple[Word, ...], Word | None]:
        """Keys up to the ``{``, and that brace; a comma lets the keys go on in the next line."""
        keys: list[Word] = []
        while True:
            opener = line[-1] if line[-1].opens() else None
            keys += line[:-1] if opener else line
            comma = keys[-1] if keys and keys[-1].text.endswith(",") else None
            following = self._source.next_line() if comma and not opener else None
            if following is None or following[0].closes():
                break
            line = following
        if comma:
            self._report.fault(comma, "another zone must follow this comma")
        parted = [replace(word, text=word.text.removesuffix(",")) for word in keys]
        return tuple(word for word in parted if word.text), opener or self._brace_below()

    def _brace_below(self) -> Word | None:
        """The ``{`` that stands alone on the next line, if it does."""
        line = self._source.next_line()
        if line is None or (len(line) == 1 and line[0].opens()):
            return line[0] if line else None
        self._source.hold(line)
        return None

    def _bare_body(self, place: Word) -> tuple[Directive, ...]:
        """Directives up to the end of the file, for a single block without braces."""
        directives: list[Directive] = []
        while line := self._source.next_line():
            if line[0].closes():
                text = f"this '}}' closes nothing that was opened: line {place.line} lacks its '{{'"
                self._report.warn(line[0], text)
                break
            self._add_directive(directives, line, 1)
        return tuple(directives)

    def _body(self, opener: Word, depth: int) -> tuple[Directive, ...]:
        directives: list[Directive] = []
        while line := self._source.next_line():
            if line[0].closes():
                return tuple(directives)
            self._add_directive(directives, line, depth)
        if depth == 1 and directives and directives[-1].body is not None:
            # For CoreDNS the last '}' of the file closes this block, too.
            self._report.warn(opener, _UNCLOSED)
        else:
            self._fault_unclosed(opener)
        return tuple(directives)

    def _fault_unclosed(self, opener: Word) -> None:
        if not self._source.is_cut:
            self._report.fault(opener, _UNCLOSED)

    def _add_directive(self, directives: list[Directive], line: Line, depth: int) -> None:
        if not line[0].opens():
            directives.append(self._directive(line, depth))
            return
        self._report.fault(line[0], "put this '{' at the end of the line above")
        body = self._directive(line, depth).body
        if directives:
            directives[-1] = replace(directives[-1], body=body)

    def _directive(self, line: Line, depth: int) -> Directive:
        opener = line[-1] if line[-1].opens() else None
        if opener is None:
            return Directive(line[0], line[1:])
        if depth >= _MAX_BRACE_DEPTH:
            self._report.fault(opener, "braces nest more than 8 deep")
            self._skip_body()
            return Directive(line[0], line[1:-1], ())
        return Directive(line[0], line[1:-1], self._body(opener, depth + 1))

    def _skip_body(self) -> None:
        depth = 1
        while depth and (line := self._source.next_line()):
            depth += line[-1].opens() - line[0].closes()


def _snippet_name(line: Line) -> str:
    """The NAME of ``(NAME) {``, or "" when the line starts something else."""
    text = line[0].text
    is_snippet = len(line) == 2 and line[1].opens() and text.startswith("(") and text.endswith(")")
    return text[1:-1] if is_snippet else ""


def decode_text(octets: bytes) -> str:
    """Returns the text of any file, without byte order marks; raises nothing.

    What counts is ASCII, and comments may be in any encoding: octets that are not UTF-8 become
    surrogate escapes (PEP 383), which encoding turns back into the same octets.
    """
    return octets.decode("utf-8", "surrogateescape").replace("\ufeff", "")


def encode_text(text: str) -> bytes:
    """Returns the octets that ``decode_text`` made ``text`` of, but for byte order marks."""
    return text.encode("utf-8", "surrogateescape")


def folder_of(file: str) -> str:
    """Returns the folder that a file lies in, "." for the working directory."""
    return str(PurePosixPath(file).parent)


def path_beside(word: Word) -> str:
    """Returns the path that ``word`` names if that begins at the folder of the word's own file."""
    return str(PurePosixPath(word.file).parent / word.text)


def reason(error: Exception) -> str:
    """Returns why a file could not be read, as part of a sentence."""
    return str(getattr(error, "strerror", None) or error)
