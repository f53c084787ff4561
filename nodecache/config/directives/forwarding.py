"""The ``forward`` directive: upstreams, also out of a resolv.conf, and all options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nodecache import limits
from nodecache.config.corefile import Directive, reason
from nodecache.config.directives.caching import parse_all_zones
from nodecache.config.model import (
    ROOT,
    Address,
    ForwardPolicy,
    HealthCheck,
    Name,
    SelectionPolicy,
    TlsSettings,
    Transport,
    Upstream,
)
from nodecache.config.names import parse_name, parse_zones
from nodecache.config.reading import Arguments, Option, Scope, one_of, read_options
from nodecache.config.resolvconf import is_own, parse_nameservers
from nodecache.config.values import (
    parse_duration_s,
    parse_integer,
    parse_ip,
    parse_port,
    shown,
    split_port,
    within,
)
from nodecache.config.words import Word

USAGE = "forward FROM TO..."
# Scheme of a TO that stands for the upstream Service as long as its address is not known.
MISSING_SERVICE = "missing-service://"

_DNS_PORT = 53
_TLS_PORT = 853
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


@dataclass(frozen=True, slots=True)
class _Draft:
    """What the options say so far; ``upstream`` is the pattern for every upstream."""

    policy: ForwardPolicy
    upstream: Upstream
    server_name: Word | None = None


def read_forward(directive: Directive, scope: Scope) -> ForwardPolicy:
    """Returns the policy that the directive asks for.

    Without ``force_tcp`` an upstream is asked over UDP, and over TCP when the response is
    truncated, whatever the stub resolver used.
    """
    arguments = Arguments(directive, USAGE, scope)
    draft = _Draft(ForwardPolicy(_read_origin(arguments), ()), Upstream(Address("", _DNS_PORT)))
    destinations = arguments.rest("an upstream after FROM")
    draft = read_options(directive, _OPTIONS, draft, scope)
    upstreams = [
        upstream for word in destinations for upstream in _read_upstreams(word, draft, arguments)
    ]
    refusal = limits.UPSTREAM_COUNT.refusal(max(len(upstreams), 1))
    if refusal:
        arguments.fault(directive.name, refusal)
    return replace(draft.policy, upstreams=tuple(dict.fromkeys(upstreams)))


def _read_origin(arguments: Arguments) -> Name:
    fallback: tuple[Name, ...] = (ROOT,)
    zones = arguments.take("FROM, the zone to forward", parse_zones, fallback)
    if len(zones) > 1:
        text = f"only {zones[0].text} is forwarded: this address block is several reverse zones"
        arguments.scope.report.warn(arguments.name, text)
    return zones[0]


def _read_upstreams(word: Word, draft: _Draft, arguments: Arguments) -> tuple[Upstream, ...]:
    """The upstreams that one TO stands for."""
    if MISSING_SERVICE in word.text:
        return ()
    scheme, separator, rest = word.text.partition("://")
    if separator and scheme == "tls":
        return arguments.parse(word, lambda _: (_tls_upstream(rest, draft),), ())
    if separator and scheme != "dns":
        text = f"{shown(scheme + '://')} is no way to ask an upstream here: use dns:// or tls://"
        arguments.fault(word, text)
        return ()
    text = rest if separator else word.text
    if text.startswith("/") or arguments.scope.reader.exists(text):
        hosts = _read_nameservers(word, text, arguments.scope)
        return tuple(replace(draft.upstream, address=Address(host, _DNS_PORT)) for host in hosts)
    return arguments.parse(word, lambda _: (_plain_upstream(text, draft),), ())


def _plain_upstream(text: str, draft: _Draft) -> Upstream:
    address = _parse_destination(text, _DNS_PORT)
    return replace(draft.upstream, address=address)


def _tls_upstream(text: str, draft: _Draft) -> Upstream:
    """From ``IP[%NAME][:PORT]``, IPv6 with a port in brackets."""
    host, percent, name_and_port = text.partition("%")
    name = draft.server_name.text if draft.server_name else ""
    if percent:
        if draft.server_name:
            raise ValueError("a name after '%' and tls_servername exclude each other")
        name, colon, port = name_and_port.replace("]", "").partition(":")
        text = f"[{host.strip('[]')}]{colon}{port}"
        parse_name(name)
    address = _parse_destination(text, _TLS_PORT)
    return replace(draft.upstream, address=address, transport=Transport.TLS, server_name=name)


def _parse_destination(text: str, default_port: int) -> Address:
    host, port = split_port(text)
    try:
        ip = parse_ip(host)
    except ValueError:
        raise ValueError(f"{shown(text)} is neither IP[:PORT] nor a file that exists") from None
    return Address(ip, parse_port(port) if port else default_port)


def _read_nameservers(word: Word, path: str, scope: Scope) -> list[str]:
    """Nameservers of a resolv.conf-like file, without our own addresses: those would loop.

    Without any, the forward stands without upstreams; the file is watched like all others.
    """
    try:
        hosts, others = parse_nameservers(scope.reader.read_text(path))
    except (OSError, ValueError) as error:
        text = f"cannot read {shown(path)}: {reason(error)}; until then its queries are REFUSED"
        scope.report.warn(word, text)
        return []
    for other in others:
        scope.report.warn(word, f"{shown(path)} has a nameserver {shown(other)}: no IP address")
    hosts = [host for host in hosts if not is_own(Address(host, _DNS_PORT), scope.own_addresses)]
    if not hosts:
        text = f"{shown(path)} names no nameserver but this cache: its queries are REFUSED"
        scope.report.warn(word, text)
    return hosts


def _for_policy(
    field: str, what: str, parse: Callable[[str], object]
) -> Callable[[Arguments, _Draft], _Draft]:
    """An option of one argument that sets one field of the ForwardPolicy."""

    def read(arguments: Arguments, draft: _Draft) -> _Draft:
        value = arguments.take(what, parse, getattr(draft.policy, field))
        return replace(draft, policy=replace(draft.policy, **{field: value}))

    return read


def _for_upstream(
    field: str, what: str, parse: Callable[[str], object]
) -> Callable[[Arguments, _Draft], _Draft]:
    """An option of one argument that sets one field of every Upstream."""

    def read(arguments: Arguments, draft: _Draft) -> _Draft:
        value = arguments.take(what, parse, getattr(draft.upstream, field))
        return replace(draft, upstream=replace(draft.upstream, **{field: value}))

    return read


def _read_except(arguments: Arguments, draft: _Draft) -> _Draft:
    zones = parse_all_zones(arguments, arguments.rest("the zones to leave out"))
    together = arguments.join(draft.policy.except_zones, zones)
    return replace(draft, policy=replace(draft.policy, except_zones=together))


def _read_force_tcp(_arguments: Arguments, draft: _Draft) -> _Draft:
    return replace(draft, upstream=replace(draft.upstream, transport=Transport.TCP))


def _read_prefer_udp(_arguments: Arguments, draft: _Draft) -> _Draft:
    # What this option asks for is our default, and force_tcp takes precedence over it.
    return draft


def _read_failfast(_arguments: Arguments, draft: _Draft) -> _Draft:
    return replace(draft, policy=replace(draft.policy, failfast_all_unhealthy=True))


def _read_tls(arguments: Arguments, draft: _Draft) -> _Draft:
    """No file, CA, CERT KEY, or CERT KEY CA."""
    words = arguments.rest()
    for word in words[3:4]:
        arguments.fault(word, f"{shown(word.text)} is one argument too many")
    for word in words[:3]:
        if not arguments.scope.reader.exists(word.text):
            arguments.fault(word, f"there is no file {shown(word.text)}")
    paths = [word.text for word in words]
    certificate, key = paths[:2] if len(paths) > 1 else ("", "")
    authority = "" if len(paths) in (0, 2) else paths[-1]
    tls = TlsSettings(certificate, key, authority)
    return replace(draft, upstream=replace(draft.upstream, tls=tls))


def _read_tls_servername(arguments: Arguments, draft: _Draft) -> _Draft:
    word = arguments.take_word("the NAME in the certificate")
    if word:
        arguments.parse(word, parse_name, ROOT)
    return replace(draft, server_name=word)


def _read_health_check(arguments: Arguments, draft: _Draft) -> _Draft:
    parse = within(parse_duration_s, limits.HEALTH_INTERVAL_S)
    check = HealthCheck(arguments.take("a DURATION", parse, 0.5))
    while arguments:
        if arguments.take("", one_of({"no_rec": False, "domain": True}), fallback=False):
            check = replace(check, name=arguments.take("a name after domain", parse_name, ROOT))
        else:
            check = replace(check, recursion_desired=False)
    return replace(draft, upstream=replace(draft.upstream, health_check=check))


def _read_rcodes(field: str, known: dict[str, int]) -> Callable[[Arguments, _Draft], _Draft]:
    def read(arguments: Arguments, draft: _Draft) -> _Draft:
        words = arguments.rest("a response code such as SERVFAIL")
        codes = frozenset(arguments.parse(word, _parse_rcode(known), 0) for word in words)
        change: dict[str, Any] = {field: codes}
        return replace(draft, policy=replace(draft.policy, **change))

    return read


def _parse_rcode(known: dict[str, int]) -> Callable[[str], int]:
    parse = one_of(known)
    return lambda text: parse("NOTIMP" if text.upper() == "NOTIMPL" else text.upper())


_OPTIONS = {
    "except": Option("except ZONES...", _read_except, is_repeatable=True),
    "force_tcp": Option("force_tcp", _read_force_tcp),
    "prefer_udp": Option("prefer_udp", _read_prefer_udp),
    "expire": Option(
        "expire DURATION",
        _for_upstream("expire_s", "a DURATION", within(parse_duration_s, limits.CONNECTION_IDLE_S)),
    ),
    "max_age": Option(
        "max_age DURATION",
        _for_upstream("max_age_s", "a DURATION", within(parse_duration_s, limits.CONNECTION_AGE_S)),
    ),
    "max_idle_conns": Option(
        "max_idle_conns INTEGER",
        _for_upstream(
            "max_idle_connections", "an INTEGER", within(parse_integer, limits.IDLE_CONNECTIONS)
        ),
    ),
    "max_rate": Option(
        "max_rate INTEGER",
        _for_upstream("max_rate", "an INTEGER", within(parse_integer, limits.MAX_RATE)),
    ),
    "max_conns": Option(
        "max_conns INTEGER",
        _for_upstream("max_connections", "an INTEGER", within(parse_integer, limits.MAX_CONNS)),
    ),
    "max_fails": Option(
        "max_fails INTEGER",
        _for_upstream("max_fails", "an INTEGER", within(parse_integer, limits.MAX_FAILS)),
    ),
    "max_concurrent": Option(
        "max_concurrent MAX",
        _for_policy("max_concurrent", "a MAX", within(parse_integer, limits.MAX_CONCURRENT)),
    ),
    "tls": Option("tls [CERT KEY] [CA]", _read_tls),
    "tls_servername": Option("tls_servername NAME", _read_tls_servername),
    "policy": Option(
        "policy random|round_robin|sequential",
        _for_policy("selection", "a policy", one_of(_POLICIES)),
    ),
    "health_check": Option("health_check DURATION [no_rec] [domain NAME]", _read_health_check),
    "failover": Option("failover RCODE...", _read_rcodes("failover_rcodes", _RCODES)),
    "next": Option("next RCODE...", _read_rcodes("next_rcodes", _NEXT_RCODES)),
    "failfast_all_unhealthy_upstreams": Option("failfast_all_unhealthy_upstreams", _read_failfast),
    "max_connect_attempts": Option(
        "max_connect_attempts INTEGER",
        _for_policy(
            "max_connect_attempts", "an INTEGER", within(parse_integer, limits.CONNECT_ATTEMPTS)
        ),
    ),
    "read_timeout": Option(
        "read_timeout DURATION",
        _for_policy(
            "read_timeout_s", "a DURATION", within(parse_duration_s, limits.READ_TIMEOUT_S)
        ),
    ),
}
