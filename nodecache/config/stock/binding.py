"""The ``bind`` directive: where a server block listens."""

from __future__ import annotations

from dataclasses import replace

from nodecache.config.corefile import Block, Directive
from nodecache.config.lexer import Word
from nodecache.config.model import ServerBlock
from nodecache.config.reading import Arguments, Option, Scope, read_options
from nodecache.config.values import parse_ip
from nodecache.printing import shown

USAGE = "bind IP|INTERFACE..."

_HOST = "an IP address or an interface"


def read_binds(block: Block, scope: Scope) -> tuple[str, ...]:
    """Returns the addresses of all ``bind`` lines of ``block``, each once."""
    draft = ServerBlock((), 0)
    for directive in block.directives:
        if directive.name.text == "bind":
            draft = read_bind(directive, scope, draft)
    return draft.bind


def read_bind(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with the addresses of one ``bind``, each once."""
    arguments = Arguments(directive, USAGE, scope)
    found = _hosts(arguments, arguments.rest(_HOST))
    left_out = read_options(directive, _OPTIONS, (), scope)
    bind = arguments.join(draft.bind, (host for host in found if host not in left_out))
    if found and not bind:
        arguments.fault(directive.name, "'except' leaves no address to bind")
    return replace(draft, bind=bind)


def _read_except(arguments: Arguments, _before: tuple[str, ...]) -> tuple[str, ...]:
    return _hosts(arguments, arguments.rest(_HOST))


def _hosts(arguments: Arguments, words: list[Word]) -> tuple[str, ...]:
    return tuple(host for word in words for host in _host_addresses(arguments, word))


def _host_addresses(arguments: Arguments, word: Word) -> tuple[str, ...]:
    """The IP address that ``word`` is, or the addresses of the interface that it names."""
    try:
        return (parse_ip(word.text),)
    except ValueError:
        resolve = arguments.scope.resolve_interface
    found = resolve(word.text) if resolve else ()
    if not found:
        text = f"{shown(word.text)} is neither an IP address nor an interface that has one"
        arguments.fault(word, text)
    return found


_OPTIONS = {"except": Option("except IP|INTERFACE...", _read_except)}
