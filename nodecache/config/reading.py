"""What all directives share: taking arguments one by one, and options by table.

A fault never stops the reading: a fallback stands in, and since any fault refuses the whole
configuration, the fallback is never used to serve.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nodecache.config.corefile import Directive, Reader, path_beside
from nodecache.config.kept import KeptTexts
from nodecache.config.lexer import Report, Word
from nodecache.config.model import Address, Name
from nodecache.config.names import parse_zones
from nodecache.config.values import nearest
from nodecache.printing import printable, shown

T = TypeVar("T")

# Addresses of the interface with the given name; empty when there is no such interface.
InterfaceResolver = Callable[[str], tuple[str, ...]]


@dataclass(slots=True)
class Scope:
    """What a directive may look at beside its own words.

    Attributes:
        report: Takes faults and warnings.
        reader: Reads resolv.conf-like files.
        resolve_interface: For ``bind`` with interface names; None refuses them.
        zones: All zones of the block.
        own_addresses: Where this daemon itself listens.
        kept: What files said before.
    """

    report: Report
    reader: Reader
    resolve_interface: InterfaceResolver | None = None
    zones: tuple[Name, ...] = ()
    own_addresses: frozenset[Address] = frozenset()
    kept: KeptTexts = field(default_factory=KeptTexts)


# Bound of every list in a block, so that a hostile Corefile cannot make reading quadratic.
MAX_ITEMS = 1000


class Arguments:
    """The arguments of one directive or option, taken from left to right."""

    def __init__(self, directive: Directive, usage: str, scope: Scope) -> None:
        self.name = directive.name
        self.scope = scope
        self._usage = usage
        self._is_short = False
        self._words = list(directive.arguments)

    def __bool__(self) -> bool:
        """Returns whether an argument is left."""
        return bool(self._words)

    def peek(self) -> str:
        """Returns the next argument's text without taking it, "" when none is left."""
        return self._words[0].text if self._words else ""

    def take(self, what: str, parse: Callable[[str], T], fallback: T) -> T:
        """Takes the next argument; its absence is a fault that calls it ``what``."""
        word = self.take_word(what)
        return self.parse(word, parse, fallback) if word else fallback

    def take_word(self, what: str) -> Word | None:
        """Takes the next argument as it stands; None, with a fault, when none is left."""
        if self._words:
            return self._words.pop(0)
        self._fault_short(what)
        return None

    def maybe(self, parse: Callable[[str], T], fallback: T) -> T:
        """Takes the next argument if there is one."""
        return self.parse(self._words.pop(0), parse, fallback) if self._words else fallback

    def rest(self, what: str = "") -> list[Word]:
        """Takes all that is left; with ``what``, at least one is needed."""
        words, self._words = self._words, []
        if what and not words:
            self._fault_short(what)
        return words

    def end(self) -> None:
        """Faults what is left over."""
        if self._words:
            self.fault(self._words[0], f"{shown(self._words[0].text)} is one argument too many")
            self._words = []

    def ignore_rest(self) -> None:
        """Takes what is left over with a warning, where node-cache does not look at it."""
        for word in self.rest():
            text = f"{shown(word.text)} has no effect: write '{self._usage}'"
            self.scope.report.warn(word, text)

    def join(self, before: tuple[T, ...], more: Iterable[T]) -> tuple[T, ...]:
        """Returns both lists as one, each item once; more than 1000 items are a fault."""
        joined = tuple(dict.fromkeys((*before, *more)))
        if len(joined) <= MAX_ITEMS:
            return joined
        self.fault(self.name, f"more than {MAX_ITEMS} items are too many")
        return before

    def _fault_short(self, what: str) -> None:
        """Faults a missing argument, once: the usage shows all of them."""
        if not self._is_short:
            self.fault(self.name, f"{shown(self.name.text)} needs {what}")
        self._is_short = True

    def parse(self, word: Word, parse: Callable[[str], T], fallback: T) -> T:
        """Returns what ``parse`` makes of ``word``; a ValueError becomes a fault there."""
        try:
            return parse(word.text)
        except ValueError as error:
            self.fault(word, str(error))
            return fallback

    def fault(self, word: Word, text: str) -> None:
        """Adds a fault that ends with the way to write the line."""
        self.scope.report.fault(word, f"{text}; write '{self._usage}'")


def parse_all_zones(arguments: Arguments, words: list[Word]) -> tuple[Name, ...]:
    """Returns the zones of all words, each once."""
    none: tuple[Name, ...] = ()
    found = (zone for word in words for zone in arguments.parse(word, parse_zones, none))
    return arguments.join((), found)


class Twice(enum.Enum):
    """What counts of two equal directives of a block, or options of a directive, in node-cache."""

    REFUSED = "neither"
    FIRST = "first"
    LAST = "last"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One option in the braces of a directive.

    Attributes:
        usage: How to write it.
        read: Arguments and the value so far -> the value with the option applied.
        twice: What counts if it stands twice.
    """

    usage: str
    read: Callable[[Arguments, T], T]
    twice: Twice = Twice.LAST


def read_options(
    directive: Directive, options: Mapping[str, Option[T]], value: T, scope: Scope
) -> T:
    """Applies all options in the braces of ``directive`` to ``value``, in file order."""
    seen: dict[str, Word] = {}
    for child in directive.body or ():
        option = options.get(child.name.text)
        if option is None:
            scope.report.fault(child.name, _unknown_option(child.name, directive.name, options))
            continue
        if child.body is not None:
            scope.report.fault(child.name, f"{shown(child.name.text)} takes no braces")
        if not does_count(child.name, option.twice, seen, scope):
            continue
        arguments = Arguments(child, option.usage, scope)
        value = option.read(arguments, value)
        arguments.end()
    return value


def read_value(
    directive: Directive, usage: str, scope: Scope, parse: Callable[[str], T], default: T
) -> T:
    """Returns the one argument of a directive, ``default`` where it is left out."""
    arguments = Arguments(directive, usage, scope)
    value = arguments.maybe(parse, default)
    arguments.end()
    return value


def read_nothing(directive: Directive, usage: str, scope: Scope) -> None:
    """Faults what stands behind a directive that takes neither arguments nor options."""
    Arguments(directive, usage, scope).end()
    read_options(directive, {}, None, scope)


def hint_beside(word: Word, reader: Reader) -> str:
    """Returns what to do if what ``word`` names lies beside the file that the word stands in.

    "" unless it does: relative paths begin at the working directory, as in node-cache.
    """
    beside = path_beside(word)
    if not word.text or beside == word.text or not reader.exists(beside):
        return ""
    return (
        "; relative paths begin at the working directory: for the one beside"
        f" {shown(word.file)} write '{printable(beside)}'"
    )


def does_count(name: Word, twice: Twice, seen: dict[str, Word], scope: Scope) -> bool:
    """Returns whether ``name`` is to be read; a second one may be a fault or a warning."""
    first = seen.setdefault(name.text, name)
    if first is name or twice is Twice.BOTH:
        return True
    place = f"line {first.line}" if first.file == name.file else f"{first.file}:{first.line}"
    text = f"{shown(name.text)} already stands in {place}"
    if twice is Twice.REFUSED:
        scope.report.fault(name, f"{text}: keep one of the two")
    else:
        scope.report.warn(name, f"{text}: the {twice.value} one counts; keep one of the two")
    return twice is Twice.LAST


def _unknown_option(name: Word, directive: Word, options: Mapping[str, Option[T]]) -> str:
    if not options:
        return f"{shown(directive.text)} takes no options: remove the braces"
    hint = nearest(name.text, options) or f"; there are: {', '.join(options)}"
    return f"{shown(directive.text)} has no option {shown(name.text)}{hint}"


def one_of(choices: Mapping[str, T]) -> Callable[[str], T]:
    """Returns a parser for one word out of ``choices``."""

    def parse_choice(text: str) -> T:
        if text not in choices:
            known = ", ".join(choices)
            raise ValueError(f"{shown(text)} is {'none of' if len(choices) > 1 else 'not'} {known}")
        return choices[text]

    return parse_choice
