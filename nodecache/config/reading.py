"""What all directives share: taking arguments one by one, and options by table.

A fault never stops the reading: a fallback stands in, and since any fault refuses the whole
configuration, the fallback is never used to serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from nodecache.config.corefile import Directive, Reader
from nodecache.config.model import Address, Name
from nodecache.config.values import nearest, shown
from nodecache.config.words import Report, Word

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
    """

    report: Report
    reader: Reader
    resolve_interface: InterfaceResolver | None = None
    zones: tuple[Name, ...] = ()
    own_addresses: frozenset[Address] = frozenset()


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


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One option in the braces of a directive.

    Attributes:
        usage: How to write it.
        read: Arguments and the value so far -> the value with the option applied.
        is_repeatable: Whether it may stand twice.
    """

    usage: str
    read: Callable[[Arguments, T], T]
    is_repeatable: bool = False


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
        if not option.is_repeatable and not is_first(child.name, seen, scope):
            continue
        arguments = Arguments(child, option.usage, scope)
        value = option.read(arguments, value)
        arguments.end()
    return value


def is_first(name: Word, seen: dict[str, Word], scope: Scope) -> bool:
    """Returns whether ``name`` was not seen before; a second one is a fault."""
    first = seen.setdefault(name.text, name)
    if first is not name:
        text = f"{shown(name.text)} already stands in line {first.line}: keep one of the two"
        scope.report.fault(name, text)
    return first is name


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
