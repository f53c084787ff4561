"""What nodecache does with each directive, and the directives of one server block read by that.

Turns the tree of corefile.py into ServerBlocks. The table of all plugins, directives/table.py, is
an argument. Directives act in its order, not in that of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from nodecache.config.corefile import Block, Directive
from nodecache.config.lexer import Word
from nodecache.config.model import ServerBlock
from nodecache.config.reading import Scope, Twice, does_count
from nodecache.config.stock.caching import check_cuts
from nodecache.config.values import nearest
from nodecache.printing import shown

Reading = Callable[[Directive, Scope, ServerBlock], ServerBlock]

_COREDNS_ONLY = {
    "acl", "any", "auto", "autopath", "azure", "cancel", "chaos", "clouddns", "dnssec",
    "erratic", "etcd", "file", "geoip", "grpc", "grpc_server", "header", "k8s_external",
    "kubernetes", "local", "minimal", "multisocket", "nomad", "quic",
    "root", "route53", "secondary", "sign", "tls", "transfer", "tsig", "view",
}  # fmt: skip


class Syntax(NamedTuple):
    """How a directive is written, and what applies it to a block; None when it is refused."""

    usage: str
    read: Reading | None


@dataclass(frozen=True, slots=True)
class Plugin:
    """What nodecache does with a directive.

    Attributes:
        usage, read: See ``syntax``.
        refusal: Why it is refused, or "".
        twice: What counts if a block holds it twice.
        is_about_queries: A block that has nothing of that kind REFUSES all, as in CoreDNS.
        answers: It answers questions itself, or changes them.
    """

    usage: str = ""
    read: Reading | None = None
    refusal: str = ""
    twice: Twice = Twice.REFUSED
    is_about_queries: bool = True
    answers: bool = False

    @property
    def syntax(self) -> Syntax:
        """How it is written and read."""
        return Syntax(self.usage, self.read)

    @property
    def effect(self) -> str:
        """What to tell users about the directive, in a word."""
        return "refused" if self.refusal else "acts"


def read_directives(
    block: Block, scope: Scope, draft: ServerBlock, plugins: Mapping[str, Plugin]
) -> ServerBlock:
    """Returns ``draft`` with all directives of ``block`` but ``bind`` applied."""
    seen: dict[str, Word] = {}
    for directive in block.directives:
        name = directive.name.text
        plugin = plugins.get(name)
        if plugin is None:
            scope.report.fault(directive.name, _unknown(name, plugins))
            continue
        draft = _with_name(draft, name, plugin)
        if not does_count(directive.name, plugin.twice, seen, scope):
            continue
        read = plugin.syntax.read
        if read is None:
            scope.report.fault(directive.name, plugin.refusal)
        elif name != "bind":
            draft = read(directive, scope, draft)
    present = {name for name, _ in draft.settings}
    answering = [n for n, plugin in plugins.items() if plugin.answers and n in present]
    check_cuts(block, scope, draft, answering)
    return draft


def _with_name(draft: ServerBlock, name: str, plugin: Plugin) -> ServerBlock:
    return replace(
        draft,
        directives=tuple(dict.fromkeys((*draft.directives, name))),
        takes_queries=draft.takes_queries or plugin.is_about_queries,
    )


def _unknown(name: str, plugins: Mapping[str, Plugin]) -> str:
    if name in _COREDNS_ONLY:
        return f"{shown(name)} is part of CoreDNS, but not of node-cache nor nodecache: remove it"
    return f"unknown directive {shown(name)}{nearest(name, plugins) or '; see -plugins'}"
