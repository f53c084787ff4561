"""The ``forward`` directive: upstreams, also out of a resolv.conf or by name, and all options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nodecache import limits
from nodecache.config.corefile import Directive
from nodecache.config.model import (
    ROOT,
    Address,
    ForwardPolicy,
    Name,
    SelectionPolicy,
    ServerBlock,
    TlsSettings,
    Transport,
    Upstream,
)
from nodecache.config.names import parse_name, parse_zones
from nodecache.config.reading import (
    Arguments,
    Option,
    Scope,
    Twice,
    hint_beside,
    one_of,
    parse_all_zones,
    read_options,
)
from nodecache.config.stock.destinations import DNS_PORT, Draft, read_destinations, with_servers
from nodecache.config.values import (
    parse_duration_s,
    parse_integer,
    parse_ip,
    parse_port,
    split_port,
    within,
)
from nodecache.printing import shown

USAGE = "forward FROM TO..."

_MAX_FORWARDS = 100
# Names of IANA's registry as CoreDNS spells them; the codes that a response header can carry.
_RCODES = {
    "FORMERR": 1,
    "SERVFAIL": 2,
    "NXDOMAIN": 3,
    "NOTIMP": 4,
    "REFUSED": 5,
    "YXDOMAIN": 6,
    "YXRRSET": 7,
    "NXRRSET": 8,
    "NOTAUTH": 9,
    "NOTZONE": 10,
}
_NEXT_RCODES = {"NOERROR": 0, **_RCODES}
_POLICIES = {policy.value: policy for policy in SelectionPolicy}


def read_forward(directive: Directive, scope: Scope, draft: ServerBlock) -> ServerBlock:
    """Returns ``draft`` with one more ``forward``, of 100 at most."""
    if len(draft.forwards) >= _MAX_FORWARDS:
        scope.report.fault(directive.name, f"more than {_MAX_FORWARDS} 'forward' in one block")
        return draft
    return replace(draft, forwards=(*draft.forwards, _read_policy(directive, scope)))


def _read_policy(directive: Directive, scope: Scope) -> ForwardPolicy:
    """Returns the policy that the directive asks for.

    Without ``force_tcp`` an upstream is asked over UDP, and over TCP when the response is
    truncated, whatever the stub resolver used.
    """
    arguments = Arguments(directive, USAGE, scope)
    draft = Draft(ForwardPolicy(_read_origin(arguments), ()), Upstream(Address("", DNS_PORT)))
    words = arguments.rest("an upstream after FROM")
    draft = read_options(directive, _OPTIONS, draft, scope)
    found = [each for word in words for each in read_destinations(word, draft, arguments)]
    refusal = limits.UPSTREAM_COUNT.refusal(max(len(found), 1))
    if refusal:
        arguments.fault(directive.name, refusal)
    upstreams = dict.fromkeys(each for each in found if isinstance(each, Upstream))
    policy = replace(draft.policy, upstreams=tuple(upstreams))
    if all(isinstance(each, Upstream) for each in found):
        return policy
    destinations = dict.fromkeys(with_servers(found, directive.name, scope))
    return replace(policy, destinations=tuple(destinations))


def _read_origin(arguments: Arguments) -> Name:
    fallback: tuple[Name, ...] = (ROOT,)
    zones = arguments.take("FROM, the zone to forward", parse_zones, fallback)
    if len(zones) > 1:
        text = f"only {zones[0].text} is forwarded: this address block is several reverse zones"
        arguments.scope.report.warn(arguments.name, text)
    return zones[0]


def _sets(
    part: str, field: str, what: str, parse: Callable[[str], object]
) -> Callable[[Arguments, Draft], Draft]:
    """An option of one argument that sets one field of a part of the draft."""

    def read(arguments: Arguments, draft: Draft) -> Draft:
        before = getattr(draft, part)
        value = arguments.take(what, parse, getattr(before, field))
        changed = {part: replace(before, **{field: value})}
        return replace(draft, **changed)

    return read


def _read_except(arguments: Arguments, draft: Draft) -> Draft:
    zones = parse_all_zones(arguments, arguments.rest("the zones to leave out"))
    together = arguments.join(draft.policy.except_zones, zones)
    return replace(draft, policy=replace(draft.policy, except_zones=together))


def _read_force_tcp(_arguments: Arguments, draft: Draft) -> Draft:
    return replace(draft, upstream=replace(draft.upstream, transport=Transport.TCP))


def _read_prefer_udp(_arguments: Arguments, draft: Draft) -> Draft:
    # What this option asks for is our default, and force_tcp takes precedence over it.
    return draft


def _read_failfast(_arguments: Arguments, draft: Draft) -> Draft:
    return replace(draft, policy=replace(draft.policy, failfast_all_unhealthy=True))


def _read_no_edns(_arguments: Arguments, draft: Draft) -> Draft:
    return replace(draft, policy=replace(draft.policy, has_edns=False))


def _read_tls(arguments: Arguments, draft: Draft) -> Draft:
    """No file, CA, CERT KEY, or CERT KEY CA."""
    words = arguments.rest()
    for word in words[3:4]:
        arguments.fault(word, f"{shown(word.text)} is one argument too many")
    for word in words[:3]:
        if not arguments.scope.reader.exists(word.text):
            hint = hint_beside(word, arguments.scope.reader)
            arguments.fault(word, f"there is no file {shown(word.text)}{hint}")
    paths = [word.text for word in words]
    certificate, key = paths[:2] if len(paths) > 1 else ("", "")
    authority = "" if len(paths) in (0, 2) else paths[-1]
    tls = TlsSettings(certificate, key, authority)
    return replace(draft, upstream=replace(draft.upstream, tls=tls))


def _read_tls_servername(arguments: Arguments, draft: Draft) -> Draft:
    word = arguments.take_word("the NAME in the certificate")
    if word:
        arguments.parse(word, parse_name, ROOT)
    return replace(draft, server_name=word)


def _read_resolver(arguments: Arguments, draft: Draft) -> Draft:
    words = arguments.rest("an IP[:PORT] to ask for host names")
    fallback = Address("", DNS_PORT)
    found = [arguments.parse(word, _parse_resolver, fallback) for word in words]
    refusal = limits.UPSTREAM_COUNT.refusal(max(len(found), 1))
    if refusal:
        arguments.fault(arguments.name, refusal)
    return replace(draft, resolvers=tuple(dict.fromkeys(found)))


def _parse_resolver(text: str) -> Address:
    host, port = split_port(text)
    return Address(parse_ip(host), parse_port(port) if port else DNS_PORT)


def _read_health_check(arguments: Arguments, draft: Draft) -> Draft:
    parse = within(parse_duration_s, limits.HEALTH_INTERVAL_S)
    interval_s = arguments.take("a DURATION", parse, 0.5)
    # Of an equal option above, 'no_rec' stays, as in CoreDNS.
    check = replace(draft.upstream.health_check, interval_s=interval_s, name=ROOT)
    while arguments:
        if arguments.take("", one_of({"no_rec": False, "domain": True}), fallback=False):
            check = replace(check, name=arguments.take("a name after domain", parse_name, ROOT))
        else:
            check = replace(check, recursion_desired=False)
    return replace(draft, upstream=replace(draft.upstream, health_check=check))


def _read_rcodes(field: str, known: dict[str, int]) -> Callable[[Arguments, Draft], Draft]:
    def read(arguments: Arguments, draft: Draft) -> Draft:
        words = arguments.rest("a response code such as SERVFAIL")
        codes = frozenset(arguments.parse(word, _parse_rcode(known), 0) for word in words)
        change: dict[str, Any] = {field: codes | getattr(draft.policy, field)}
        return replace(draft, policy=replace(draft.policy, **change))

    return read


def _parse_rcode(known: dict[str, int]) -> Callable[[str], int]:
    parse = one_of(known)
    return lambda text: parse("NOTIMP" if text.upper() == "NOTIMPL" else text.upper())


_OPTIONS = {
    "except": Option("except ZONES...", _read_except, twice=Twice.BOTH),
    "force_tcp": Option("force_tcp", _read_force_tcp),
    "prefer_udp": Option("prefer_udp", _read_prefer_udp),
    "expire": Option(
        "expire DURATION",
        _sets(
            "upstream", "expire_s", "a DURATION", within(parse_duration_s, limits.CONNECTION_IDLE_S)
        ),
    ),
    "max_age": Option(
        "max_age DURATION",
        _sets(
            "upstream", "max_age_s", "a DURATION", within(parse_duration_s, limits.CONNECTION_AGE_S)
        ),
    ),
    "max_idle_conns": Option(
        "max_idle_conns INTEGER",
        _sets(
            "upstream",
            "max_idle_connections",
            "an INTEGER",
            within(parse_integer, limits.IDLE_CONNECTIONS),
        ),
    ),
    "max_rate": Option(
        "max_rate INTEGER",
        _sets("upstream", "max_rate", "an INTEGER", within(parse_integer, limits.MAX_RATE)),
    ),
    "max_conns": Option(
        "max_conns INTEGER",
        _sets("upstream", "max_connections", "an INTEGER", within(parse_integer, limits.MAX_CONNS)),
    ),
    "max_fails": Option(
        "max_fails INTEGER",
        _sets("upstream", "max_fails", "an INTEGER", within(parse_integer, limits.MAX_FAILS)),
    ),
    "max_concurrent": Option(
        "max_concurrent MAX",
        _sets("policy", "max_concurrent", "a MAX", within(parse_integer, limits.MAX_CONCURRENT)),
    ),
    "resolver": Option("resolver IP[:PORT]...", _read_resolver),
    "tls": Option("tls [CERT KEY] [CA]", _read_tls),
    "tls_servername": Option("tls_servername NAME", _read_tls_servername),
    "policy": Option(
        "policy random|round_robin|sequential",
        _sets("policy", "selection", "a policy", one_of(_POLICIES)),
    ),
    "health_check": Option("health_check DURATION [no_rec] [domain NAME]", _read_health_check),
    "failover": Option(
        "failover RCODE...", _read_rcodes("failover_rcodes", _RCODES), twice=Twice.BOTH
    ),
    "next": Option("next RCODE...", _read_rcodes("next_rcodes", _NEXT_RCODES), twice=Twice.BOTH),
    "failfast_all_unhealthy_upstreams": Option("failfast_all_unhealthy_upstreams", _read_failfast),
    "max_connect_attempts": Option(
        "max_connect_attempts INTEGER",
        _sets(
            "policy",
            "max_connect_attempts",
            "an INTEGER",
            within(parse_integer, limits.CONNECT_ATTEMPTS),
        ),
    ),
    "no_edns": Option("no_edns", _read_no_edns),
    "read_timeout": Option(
        "read_timeout DURATION",
        _sets(
            "policy",
            "read_timeout_s",
            "a DURATION",
            within(parse_duration_s, limits.READ_TIMEOUT_S),
        ),
    ),
}
