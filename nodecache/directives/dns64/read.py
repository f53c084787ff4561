"""How ``dns64`` is written."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from nodecache.config.corefile import Directive
from nodecache.config.model import ServerBlock
from nodecache.config.reading import Arguments, Option, Scope, read_options
from nodecache.directives.dns64.model import DNS64, Dns64
from nodecache.printing import shown

USAGE = "dns64 [PREFIX]"

_PREFIX_LENGTHS = (32, 40, 48, 56, 64, 96)  # RFC 6052 section 2.2


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with ``dns64``; a prefix in the braces wins over the argument."""
    arguments = Arguments(directive, USAGE, scope)
    before = draft.of(DNS64) or Dns64()
    policy = replace(before, prefix=arguments.maybe(_parse_prefix, before.prefix))
    arguments.end()
    return draft.having(DNS64, read_options(directive, _OPTIONS, policy, scope))


def _parse_prefix(text: str) -> str:
    try:
        network = ipaddress.IPv6Network(text, strict=False)
    except ValueError:
        raise ValueError(f"{shown(text)} is no IPv6 prefix such as 64:ff9b::/96") from None
    if network.prefixlen not in _PREFIX_LENGTHS:
        raise ValueError(
            f"{shown(text)} has {network.prefixlen} bits: RFC 6052 knows 32, 40, 48, 56, 64 and 96"
        )
    return str(network)


def _read_prefix(arguments: Arguments, policy: Dns64) -> Dns64:
    return replace(policy, prefix=arguments.take("a PREFIX", _parse_prefix, policy.prefix))


def _read_translate_all(_arguments: Arguments, policy: Dns64) -> Dns64:
    return replace(policy, translate_all=True)


def _read_allow_ipv4(_arguments: Arguments, policy: Dns64) -> Dns64:
    return replace(policy, allow_ipv4=True)


_OPTIONS = {
    "prefix": Option("prefix PREFIX", _read_prefix),
    "translate_all": Option("translate_all", _read_translate_all),
    "allow_ipv4": Option("allow_ipv4", _read_allow_ipv4),
}
