"""The directives that work on replies in front of the cache: ``dns64`` and ``loadbalance``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from nodecache import limits
from nodecache.config.corefile import Directive
from nodecache.config.directives.hosting import (
    MAX_ENTRIES,
    check_reload,
    parse_address,
    parse_host_name,
    path_beside,
    read_file,
)
from nodecache.config.model import Dns64, LoadBalance, ServerBlock
from nodecache.config.reading import Arguments, Option, Scope, one_of, read_options
from nodecache.config.values import parse_integer, shown, within
from nodecache.config.words import Word

DNS64_USAGE = "dns64 [PREFIX]"
LOADBALANCE_USAGE = "loadbalance [round_robin|weighted WEIGHTFILE]"

_PREFIX_LENGTHS = (32, 40, 48, 56, 64, 96)  # RFC 6052 section 2.2
_POLICIES = {"round_robin": False, "weighted": True}
_BITS = re.compile(r"[0-9]{1,3}")
_parse_weight = within(parse_integer, limits.LOADBALANCE_WEIGHT)

Weights = dict[bytes, dict[bytes, int]]


def read_dns64(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with ``dns64``; a prefix in the braces wins over the argument."""
    arguments = Arguments(directive, DNS64_USAGE, scope)
    default = Dns64()
    policy = replace(default, prefix=arguments.maybe(_parse_prefix, default.prefix))
    arguments.end()
    return replace(draft, dns64=read_options(directive, _DNS64_OPTIONS, policy, scope))


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


def read_loadbalance(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with ``loadbalance`` and the weights that its file holds.

    Without the file all addresses weigh the same until it appears; what is wrong in it is a
    fault there.
    """
    arguments = Arguments(directive, LOADBALANCE_USAGE, scope)
    policy = LoadBalance(is_weighted=arguments.maybe(one_of(_POLICIES), fallback=False))
    file = arguments.take_word("a WEIGHTFILE") if policy.is_weighted else None
    arguments.end()
    weights = _read_weights(file, scope) if file else {}
    pairs = ((name, tuple(found.items())) for name, found in weights.items() if found)
    policy = replace(policy, weights=tuple(pairs))
    return replace(draft, loadbalance=read_options(directive, _BALANCE_OPTIONS, policy, scope))


def _read_weights(file: Word, scope: Scope) -> Weights:
    """Returns name -> address -> weight; the first weight of an address counts, as in CoreDNS."""
    path = path_beside(file)
    text = read_file(file, path, scope) or ""
    weights: Weights = {}
    current: dict[bytes, int] | None = None
    count = 0
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        count += 1
        try:
            current = _read_weight_line(fields, weights, current)
        except ValueError as error:
            scope.report.fault_at(path, number, 1, f"{error}; write 'NAME' or 'IP WEIGHT'")
        if count > MAX_ENTRIES:
            scope.report.fault_at(path, number, 1, f"more than {MAX_ENTRIES} lines are too many")
            break
    return weights


def _read_weight_line(
    fields: list[str], weights: Weights, current: dict[bytes, int] | None
) -> dict[bytes, int] | None:
    """Takes one line, and returns the addresses of the name that the next one is about."""
    if len(fields) == 1:
        if _is_address(fields[0]):
            raise ValueError(f"{shown(fields[0])} lacks its weight")
        return weights.setdefault(parse_host_name(fields[0]), {})
    if len(fields) > 2:
        raise ValueError(f"{shown(fields[2])} is one word too many")
    address, weight = parse_address(fields[0]), _parse_weight(fields[1])
    if current is None:
        raise ValueError("a name must stand above the first address")
    current.setdefault(address, weight)
    return current


def _is_address(text: str) -> bool:
    try:
        return bool(parse_address(text))
    except ValueError:
        return False


def _read_reload(arguments: Arguments, policy: LoadBalance) -> LoadBalance:
    check_reload(arguments)
    return policy


def _read_prefer(arguments: Arguments, policy: LoadBalance) -> LoadBalance:
    words = arguments.rest("a CIDR such as 10.0.0.0/8")
    found = [arguments.parse(word, _parse_network, "") for word in words]
    return replace(policy, prefer=arguments.join(policy.prefer, found))


def _parse_network(text: str) -> str:
    address, _, bits = text.partition("/")
    try:
        if not _BITS.fullmatch(bits):
            raise ValueError
        return str(ipaddress.ip_network((address, int(bits)), strict=False))
    except ValueError:
        raise ValueError(f"{shown(text)} is no network such as 10.0.0.0/8") from None


_DNS64_OPTIONS = {
    "prefix": Option("prefix PREFIX", _read_prefix),
    "translate_all": Option("translate_all", _read_translate_all),
    "allow_ipv4": Option("allow_ipv4", _read_allow_ipv4),
}
_BALANCE_OPTIONS = {
    "reload": Option("reload DURATION", _read_reload),
    "prefer": Option("prefer CIDR...", _read_prefer, is_repeatable=True),
}
