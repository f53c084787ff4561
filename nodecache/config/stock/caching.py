"""The ``cache`` directive: both forms, all options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from nodecache import limits
from nodecache.config.corefile import Block, Directive
from nodecache.config.model import (
    ROOT,
    CachePolicy,
    Lifetime,
    Prefetch,
    ServerBlock,
    ServeStale,
    StaleMode,
)
from nodecache.config.reading import (
    Arguments,
    Option,
    Scope,
    Twice,
    one_of,
    parse_all_zones,
    read_options,
)
from nodecache.config.values import parse_duration_s, parse_integer, within
from nodecache.printing import shown

USAGE = "cache [TTL] [ZONES...]"

_parse_ttl = within(parse_integer, limits.CACHE_TTL_S)
_parse_stale_s = within(parse_duration_s, limits.STALE_S)
_LEAST_CAPACITY = 1024  # what CoreDNS makes of 0: 4 entries in each of 256 parts
_INTEGER = re.compile(r"[+-]?[0-9]+")
_STALE_MODES = {mode.value: mode for mode in StaleMode}


def read_cache(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with the policy that the directive asks for.

    ``cache N`` caps positive and negative responses at N seconds; ``success`` and ``denial``
    in the braces override that. Durations are in seconds or Go's syntax as CoreDNS has it.
    """
    arguments = Arguments(directive, USAGE, scope)
    policy = CachePolicy()
    if _INTEGER.fullmatch(arguments.peek()):
        ttl_s = arguments.take("TTL", _parse_ttl, 1)
        policy = replace(
            policy,
            success=replace(policy.success, max_ttl_s=ttl_s),
            denial=replace(policy.denial, max_ttl_s=ttl_s),
        )
    policy = replace(policy, zones=parse_all_zones(arguments, arguments.rest()))
    return replace(draft, cache=read_options(directive, _OPTIONS, policy, scope))


def _read_lifetime(arguments: Arguments, lifetime: Lifetime) -> Lifetime:
    parse_min_ttl = within(parse_integer, limits.CACHE_MIN_TTL_S)
    capacity = arguments.take("a CAPACITY in entries", _parse_capacity, lifetime.capacity)
    if not capacity:
        kind = arguments.name.text
        text = f"'{kind} 0' keeps {_LEAST_CAPACITY}, as in node-cache; 'disable {kind}' keeps none"
        arguments.scope.report.warn(arguments.name, text)
    found = Lifetime(
        capacity or _LEAST_CAPACITY,
        arguments.maybe(_parse_ttl, lifetime.max_ttl_s),
        arguments.maybe(parse_min_ttl, lifetime.min_ttl_s),
    )
    arguments.ignore_rest()
    return found


def _parse_capacity(text: str) -> int:
    """Returns 0 for what stands for the least capacity."""
    if parse_integer(text) <= 0:
        return 0
    return within(parse_integer, limits.CACHE_CAPACITY)(text)


def _read_success(arguments: Arguments, policy: CachePolicy) -> CachePolicy:
    return replace(policy, success=_read_lifetime(arguments, policy.success))


def _read_denial(arguments: Arguments, policy: CachePolicy) -> CachePolicy:
    return replace(policy, denial=_read_lifetime(arguments, policy.denial))


def _read_prefetch(arguments: Arguments, policy: CachePolicy) -> CachePolicy:
    default = policy.prefetch or Prefetch()
    parse_amount = within(parse_integer, limits.PREFETCH_AMOUNT)
    parse_gap_s = within(parse_duration_s, limits.PREFETCH_DURATION_S)
    amount = arguments.take("an AMOUNT of queries", parse_amount, default.amount)
    duration_s = arguments.maybe(parse_gap_s, default.duration_s)
    percentage = arguments.maybe(_parse_percentage, default.percentage)
    return replace(policy, prefetch=Prefetch(amount, duration_s, percentage) if amount else None)


def _parse_percentage(text: str) -> int:
    if not text.endswith("%"):
        raise ValueError(f"{shown(text)} lacks its per cent sign")
    return within(parse_integer, limits.PREFETCH_PERCENTAGE)(text[:-1])


def _read_serve_stale(arguments: Arguments, policy: CachePolicy) -> CachePolicy:
    default = ServeStale()
    duration_s = arguments.maybe(_parse_stale_s, default.duration_s)
    mode = arguments.maybe(_parse_stale_mode, default.mode)
    verify_s = default.verify_timeout_s
    if mode is StaleMode.VERIFY:
        verify_s = arguments.maybe(within(parse_duration_s, limits.VERIFY_TIMEOUT_S), verify_s)
    return replace(policy, serve_stale=ServeStale(duration_s, mode, verify_s))


def _parse_stale_mode(text: str) -> StaleMode:
    return one_of(_STALE_MODES)(text.lower())


def _read_servfail(arguments: Arguments, policy: CachePolicy) -> CachePolicy:
    parse = within(parse_duration_s, limits.SERVFAIL_S)
    return replace(policy, servfail_s=arguments.take("a DURATION", parse, 0.0))


def _read_disable(arguments: Arguments, policy: CachePolicy) -> CachePolicy:
    kinds = {"success": "disable_success", "denial": "disable_denial"}
    field = arguments.take("success or denial", one_of(kinds), "disable_success")
    zones = parse_all_zones(arguments, arguments.rest()) or policy.zones or arguments.scope.zones
    zones = arguments.join((), zones)
    if getattr(policy, field):
        kind = field.removeprefix("disable_")
        text = f"a second 'disable {kind}' replaces the first: name all ZONES in one"
        arguments.scope.report.warn(arguments.name, text)
    return (
        replace(policy, disable_success=zones)
        if field == "disable_success"
        else replace(policy, disable_denial=zones)
    )


def _read_nxdomain_cut(arguments: Arguments, policy: CachePolicy) -> CachePolicy:
    zones = parse_all_zones(arguments, arguments.rest("at least one ZONE"))
    served = {zone.text for zone in arguments.scope.zones}
    for zone in zones:
        if served.isdisjoint(_zones_above(zone.text)):
            arguments.fault(arguments.name, f"{shown(zone.text)} is in no zone of this block")
    return replace(policy, nxdomain_cut=arguments.join(policy.nxdomain_cut, zones))


def _zones_above(text: str) -> Iterator[str]:
    """Yields a zone, with its final dot, and all zones that it lies in."""
    while text:
        yield text
        text = text.partition(".")[2]
    yield ROOT.text


def check_cuts(block: Block, scope: Scope, draft: ServerBlock, answering: list[str]) -> None:
    """Faults ``nxdomain_cut`` where another answers for names below than for the name itself.

    Args:
        block: The lines.
        scope: Takes the faults.
        draft: What they came to.
        answering: Directives in it that answer or change questions.
    """
    if draft.cache is None or not draft.cache.nxdomain_cut:
        return
    others = [
        *answering,
        *(["a second forward"] if len(draft.forwards) > 1 else []),
        *(["an except of forward"] if any(each.except_zones for each in draft.forwards) else []),
    ]
    if not others:
        return
    text = f"'nxdomain_cut' would hide what {others[0]} of this block says of names below"
    for directive in block.directives:
        for child in directive.body or ():
            if directive.name.text == "cache" and child.name.text == "nxdomain_cut":
                scope.report.fault(child.name, f"{text}: remove one of the two")


def _read_keepttl(_arguments: Arguments, policy: CachePolicy) -> CachePolicy:
    return replace(policy, keep_ttl=True)


_OPTIONS = {
    "success": Option("success CAPACITY [TTL] [MINTTL]", _read_success),
    "denial": Option("denial CAPACITY [TTL] [MINTTL]", _read_denial),
    "prefetch": Option("prefetch AMOUNT [DURATION [PERCENTAGE%]]", _read_prefetch),
    "serve_stale": Option("serve_stale [DURATION [immediate|verify [TIMEOUT]]]", _read_serve_stale),
    "servfail": Option("servfail DURATION", _read_servfail),
    "disable": Option("disable success|denial [ZONES...]", _read_disable, twice=Twice.BOTH),
    "keepttl": Option("keepttl", _read_keepttl),
    "nxdomain_cut": Option("nxdomain_cut ZONE...", _read_nxdomain_cut, twice=Twice.BOTH),
}
