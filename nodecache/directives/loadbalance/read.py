"""How ``loadbalance`` is written, and the file of its weights."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from nodecache import limits
from nodecache.config.corefile import Directive
from nodecache.config.entries import (
    MAX_ENTRIES,
    check_reload,
    parse_address_octets,
    parse_host_name,
    read_file,
)
from nodecache.config.lexer import Word
from nodecache.config.model import ServerBlock
from nodecache.config.reading import Arguments, Option, Scope, Twice, one_of, read_options
from nodecache.config.values import parse_integer, within
from nodecache.directives.loadbalance.model import LOADBALANCE, LoadBalance
from nodecache.printing import shown

USAGE = "loadbalance [round_robin|weighted WEIGHTFILE]"

_POLICIES = {"round_robin": False, "weighted": True}
_BITS = re.compile(r"[0-9]{1,3}")
_parse_weight = within(parse_integer, limits.LOADBALANCE_WEIGHT)

Weights = dict[bytes, dict[bytes, int]]


def read(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with ``loadbalance`` and the weights that its file holds.

    Without the file all addresses weigh the same until it appears; what is wrong in it is a
    fault there.
    """
    arguments = Arguments(directive, USAGE, scope)
    policy = LoadBalance(is_weighted=arguments.maybe(one_of(_POLICIES), fallback=False))
    before = draft.of(LOADBALANCE)
    if before is not None and not policy.is_weighted:
        policy = replace(policy, prefer=before.prefer)
    file = arguments.take_word("a WEIGHTFILE") if policy.is_weighted else None
    arguments.end()
    weights = _read_weights(file, scope) if file else {}
    pairs = ((name, tuple(found.items())) for name, found in weights.items() if found)
    policy = replace(policy, weights=tuple(pairs))
    return draft.having(LOADBALANCE, read_options(directive, _OPTIONS, policy, scope))


def _read_weights(file: Word, scope: Scope) -> Weights:
    """Returns name -> address -> weight; the first weight of an address counts, as in CoreDNS."""
    path = file.text
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
    address, weight = parse_address_octets(fields[0]), _parse_weight(fields[1])
    if current is None:
        raise ValueError("a name must stand above the first address")
    current.setdefault(address, weight)
    return current


def _is_address(text: str) -> bool:
    try:
        return bool(parse_address_octets(text))
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


_OPTIONS = {
    "reload": Option("reload DURATION", _read_reload),
    "prefer": Option("prefer CIDR...", _read_prefer, twice=Twice.BOTH),
}
