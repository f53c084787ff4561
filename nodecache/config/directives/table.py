"""One table of all directives: what each does to a server block, or why it is refused.

Turns the tree of corefile.py into ServerBlocks. Directives act in the order of the table of
node-cache, not of the file, so their order in the file does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nodecache.config.corefile import Block, Directive
from nodecache.config.directives import hosting, observing, rewriting, shaping, templating
from nodecache.config.directives.caching import USAGE as CACHE_USAGE
from nodecache.config.directives.caching import check_cuts, read_cache
from nodecache.config.directives.forwarding import USAGE as FORWARD_USAGE
from nodecache.config.directives.forwarding import read_forward
from nodecache.config.model import ServerBlock
from nodecache.config.reading import Arguments, Option, Scope, is_first, read_options
from nodecache.config.values import nearest, parse_ip, shown
from nodecache.config.words import Word

_MAX_FORWARDS = 100
_HOST = "an IP address or an interface"

Reading = Callable[[Directive, Scope, ServerBlock], ServerBlock]


@dataclass(frozen=True, slots=True)
class Kind:
    """What nodecache does with a directive.

    Attributes:
        usage: How to write it.
        read: Applies it to the block; None when it is refused.
        refusal: Why it is refused, or "".
        is_repeatable: Whether a block may hold it twice.
    """

    usage: str
    read: Reading | None = None
    refusal: str = ""
    is_repeatable: bool = False

    @property
    def effect(self) -> str:
        """What to tell users about the directive, in a word."""
        return "acts" if self.read else "refused"


def read_directives(block: Block, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with all directives of ``block`` but ``bind`` applied."""
    seen: dict[str, Word] = {}
    for directive in block.directives:
        name = directive.name.text
        kind = DIRECTIVES.get(name)
        if kind is None:
            scope.report.fault(directive.name, _unknown(name))
            continue
        draft = _with_name(draft, name)
        if not kind.is_repeatable and not is_first(directive.name, seen, scope):
            continue
        if kind.read is None:
            scope.report.fault(directive.name, kind.refusal)
        elif name != "bind":
            draft = kind.read(directive, scope, draft)
    check_cuts(block, scope, draft)
    return draft


def read_binds(block: Block, scope: Scope) -> tuple[str, ...]:
    """Returns the addresses of all ``bind`` lines of ``block``, each once."""
    draft = ServerBlock((), 0)
    for directive in block.directives:
        if directive.name.text == "bind":
            draft = _read_bind(directive, scope, draft)
    return draft.bind


def _with_name(draft: ServerBlock, name: str) -> ServerBlock:
    return replace(draft, directives=tuple(dict.fromkeys((*draft.directives, name))))


def _unknown(name: str) -> str:
    if name in _COREDNS_ONLY:
        return f"{shown(name)} is part of CoreDNS, but not of node-cache nor nodecache: remove it"
    return f"unknown directive {shown(name)}{nearest(name, DIRECTIVES) or '; see -plugins'}"


def _read_bind(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    arguments = Arguments(directive, "bind IP|INTERFACE...", scope)
    found = _hosts(arguments, arguments.rest(_HOST))
    left_out = read_options(directive, _BIND_OPTIONS, (), scope)
    bind = arguments.join(draft.bind, (host for host in found if host not in left_out))
    if found and not bind:
        arguments.fault(directive.name, "'except' leaves no address to bind")
    return replace(draft, bind=bind)


def _read_bind_except(arguments: Arguments, left_out: tuple[str, ...]) -> tuple[str, ...]:
    return arguments.join(left_out, _hosts(arguments, arguments.rest(_HOST)))


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


def _read_cache(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    return replace(draft, cache=read_cache(directive, scope))


def _read_forward(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    if len(draft.forwards) >= _MAX_FORWARDS:
        scope.report.fault(directive.name, f"more than {_MAX_FORWARDS} 'forward' in one block")
        return draft
    return replace(draft, forwards=(*draft.forwards, read_forward(directive, scope)))


_BIND_OPTIONS = {"except": Option("except IP|INTERFACE...", _read_bind_except, is_repeatable=True)}


# In node-cache's order of execution; ready is CoreDNS's.
DIRECTIVES = {
    "timeouts": Kind(observing.TIMEOUTS_USAGE, observing.read_timeouts),
    "reload": Kind(observing.RELOAD_USAGE, observing.read_reload),
    "bufsize": Kind(observing.BUFSIZE_USAGE, observing.read_bufsize),
    "bind": Kind("bind IP|INTERFACE...", _read_bind, is_repeatable=True),
    "debug": Kind(observing.DEBUG_USAGE, observing.read_debug),
    "trace": Kind(observing.TRACE_USAGE, refusal=observing.TRACE_REFUSAL, is_repeatable=True),
    "ready": Kind(observing.READY_USAGE, observing.read_ready),
    "health": Kind(observing.HEALTH_USAGE, observing.read_health),
    "pprof": Kind(observing.PPROF_USAGE, observing.read_pprof),
    "prometheus": Kind(observing.PROMETHEUS_USAGE, observing.read_prometheus),
    "errors": Kind(observing.ERRORS_USAGE, observing.read_errors),
    "log": Kind(observing.LOG_USAGE, observing.read_log, is_repeatable=True),
    "dns64": Kind(shaping.DNS64_USAGE, shaping.read_dns64),
    "loadbalance": Kind(shaping.LOADBALANCE_USAGE, shaping.read_loadbalance),
    "cache": Kind(CACHE_USAGE, _read_cache),
    "rewrite": Kind(rewriting.USAGE, rewriting.read_rewrite, is_repeatable=True),
    "template": Kind(templating.USAGE, templating.read_template, is_repeatable=True),
    "hosts": Kind(hosting.HOSTS_USAGE, hosting.read_hosts),
    "loop": Kind(observing.LOOP_USAGE, observing.read_loop),
    "forward": Kind(FORWARD_USAGE, _read_forward, is_repeatable=True),
    "whoami": Kind(hosting.WHOAMI_USAGE, hosting.read_whoami),
}

_COREDNS_ONLY = {
    "acl", "any", "auto", "autopath", "azure", "cancel", "chaos", "clouddns", "dnssec", "dnstap",
    "erratic", "etcd", "file", "geoip", "grpc", "grpc_server", "header", "k8s_external",
    "kubernetes", "local", "metadata", "minimal", "multisocket", "nomad", "nsid", "quic",
    "root", "route53", "secondary", "sign", "tls", "transfer", "tsig", "view",
}  # fmt: skip
