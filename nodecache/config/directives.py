"""One table of all directives: what each does to a server block, or why it is refused.

Turns the tree of corefile.py into ServerBlocks. Directives act in the order of the table of
node-cache, not of the file, so their order in the file does not matter.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

from nodecache import limits
from nodecache.config.caching import USAGE as CACHE_USAGE
from nodecache.config.caching import read_cache
from nodecache.config.corefile import Block, Directive
from nodecache.config.forwarding import USAGE as FORWARD_USAGE
from nodecache.config.forwarding import read_forward
from nodecache.config.model import (
    Address,
    ErrorRule,
    ErrorsPolicy,
    HealthEndpoint,
    ServerBlock,
)
from nodecache.config.reading import Arguments, Option, Scope, is_first, one_of, read_options
from nodecache.config.values import (
    nearest,
    parse_duration_s,
    parse_ip,
    parse_listen_address,
    shown,
    within,
)
from nodecache.config.words import Word

_MAX_PATTERN_CHARACTERS = 1024
_MAX_FORWARDS = 100
_LEVELS = {level: level for level in ("warning", "error", "info", "debug")}

Reading = Callable[[Directive, Scope, ServerBlock], ServerBlock]


@dataclass(frozen=True, slots=True)
class Kind:
    """What nodecache does with a directive.

    Attributes:
        usage: How to write it.
        read: Applies it to the block; None when it has no effect or is refused.
        refusal: Why it is refused, or "".
        is_repeatable: Whether a block may hold it twice.
    """

    usage: str
    read: Reading | None = None
    refusal: str = ""
    is_repeatable: bool = False

    @property
    def effect(self) -> str:
        """What to tell users about the directive, in a few words."""
        if self.read:
            return "acts"
        return "refused in this release" if self.refusal else "no effect in this release"


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
        if kind.refusal:
            scope.report.fault(directive.name, kind.refusal)
        elif kind.read is None:
            scope.idle_directives.setdefault(name, []).append(directive.name)
        elif name != "bind":
            draft = kind.read(directive, scope, draft)
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
    arguments = Arguments(directive, "bind IP...", scope)
    found = _hosts(arguments, arguments.rest("an IP address"))
    left_out = read_options(directive, _BIND_OPTIONS, (), scope)
    bind = arguments.join(draft.bind, (host for host in found if host not in left_out))
    if found and not bind:
        arguments.fault(directive.name, "'except' leaves no address to bind")
    return replace(draft, bind=bind)


def _read_bind_except(arguments: Arguments, left_out: tuple[str, ...]) -> tuple[str, ...]:
    return arguments.join(left_out, _hosts(arguments, arguments.rest("an IP address")))


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
        text = "no interface that has one" if resolve else "interface names are not understood here"
        arguments.fault(word, f"{shown(word.text)} is no IP address, and {text}")
    return found


def _read_errors(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    arguments = Arguments(directive, "errors [stdout]", scope)
    arguments.maybe(one_of({"stdout": "stdout"}), "stdout")
    arguments.end()
    policy = read_options(directive, _ERRORS_OPTIONS, ErrorsPolicy(), scope)
    return replace(draft, errors=policy)


def _read_stacktrace(_arguments: Arguments, policy: ErrorsPolicy) -> ErrorsPolicy:
    return replace(policy, stacktrace=True)


def _read_consolidate(arguments: Arguments, policy: ErrorsPolicy) -> ErrorsPolicy:
    parse_interval_s = within(parse_duration_s, limits.CONSOLIDATE_S)
    rule = ErrorRule(
        arguments.take("a DURATION", parse_interval_s, 1.0),
        arguments.take("a REGEXP after DURATION", _parse_pattern, ""),
    )
    if arguments.peek() not in ("", "show_first"):
        rule = replace(rule, level=arguments.maybe(one_of(_LEVELS), "error"))
    show_first = arguments.maybe(one_of({"show_first": True}), fallback=False)
    rules = arguments.join(policy.consolidate, [replace(rule, show_first=show_first)])
    return replace(policy, consolidate=rules)


def _parse_pattern(text: str) -> str:
    if len(text) > _MAX_PATTERN_CHARACTERS:
        raise ValueError("a regular expression has at most 1024 characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{shown(text)} is no regular expression: {error}") from None
    return text


def _read_cache(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    return replace(draft, cache=read_cache(directive, scope))


def _read_forward(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    if len(draft.forwards) >= _MAX_FORWARDS:
        scope.report.fault(directive.name, f"more than {_MAX_FORWARDS} 'forward' in one block")
        return draft
    return replace(draft, forwards=(*draft.forwards, read_forward(directive, scope)))


def _read_prometheus(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    arguments = Arguments(directive, "prometheus [IP:PORT]", scope)
    address = arguments.maybe(parse_listen_address, Address("127.0.0.1", 9153))
    arguments.end()
    read_options(directive, {}, None, scope)
    return replace(draft, prometheus=address)


def _read_health(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    arguments = Arguments(directive, "health [IP:PORT]", scope)
    address = arguments.maybe(parse_listen_address, Address("", 8080))
    arguments.end()
    endpoint = read_options(directive, _HEALTH_OPTIONS, HealthEndpoint(address), scope)
    return replace(draft, health=endpoint)


def _read_lameduck(arguments: Arguments, endpoint: HealthEndpoint) -> HealthEndpoint:
    parse = within(parse_duration_s, limits.LAMEDUCK_S)
    return replace(endpoint, lameduck_s=arguments.take("a DURATION", parse, 0.0))


_BIND_OPTIONS = {"except": Option("except IP...", _read_bind_except, is_repeatable=True)}
_ERRORS_OPTIONS = {
    "stacktrace": Option("stacktrace", _read_stacktrace),
    "consolidate": Option(
        "consolidate DURATION REGEXP [warning|error|info|debug] [show_first]",
        _read_consolidate,
        is_repeatable=True,
    ),
}
_HEALTH_OPTIONS = {"lameduck": Option("lameduck DURATION", _read_lameduck)}


def _refused(usage: str) -> Kind:
    name = usage.partition(" ")[0]
    text = f"'{name}' changes answers and is not part of this release: remove it"
    return Kind(usage, refusal=text, is_repeatable=True)


def _idle(usage: str) -> Kind:
    return Kind(usage, is_repeatable=True)


# In node-cache's order of execution; ready and acl are CoreDNS's.
DIRECTIVES = {
    "timeouts": _idle("timeouts"),
    "reload": _idle("reload [INTERVAL] [JITTER]"),
    "bufsize": _idle("bufsize [SIZE]"),
    "bind": Kind("bind IP...", _read_bind, is_repeatable=True),
    "debug": _idle("debug"),
    "trace": _idle("trace [TYPE] [ENDPOINT]"),
    "ready": _idle("ready [IP:PORT]"),
    "health": Kind("health [IP:PORT]", _read_health),
    "pprof": _idle("pprof [IP:PORT]"),
    "prometheus": Kind("prometheus [IP:PORT]", _read_prometheus),
    "errors": Kind("errors [stdout]", _read_errors),
    "log": _idle("log [NAMES...] [FORMAT]"),
    "acl": _refused("acl [ZONES...]"),
    "dns64": _refused("dns64 [PREFIX]"),
    "loadbalance": _idle("loadbalance [POLICY]"),
    "cache": Kind(CACHE_USAGE, _read_cache),
    "rewrite": _refused("rewrite FROM TO"),
    "template": _refused("template CLASS TYPE [ZONES...]"),
    "hosts": _refused("hosts [FILE [ZONES...]]"),
    "loop": _idle("loop"),
    "forward": Kind(FORWARD_USAGE, _read_forward, is_repeatable=True),
    "whoami": _refused("whoami"),
}

_COREDNS_ONLY = {
    "any", "auto", "autopath", "azure", "cancel", "chaos", "clouddns", "dnssec", "dnstap",
    "erratic", "etcd", "file", "geoip", "grpc", "grpc_server", "header", "k8s_external",
    "kubernetes", "local", "metadata", "minimal", "multisocket", "nomad", "nsid", "quic",
    "root", "route53", "secondary", "sign", "tls", "transfer", "tsig", "view",
}  # fmt: skip
