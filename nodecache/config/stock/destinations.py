"""Whom a ``forward`` names: addresses, files such as /etc/resolv.conf, and hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from nodecache.config.corefile import reason
from nodecache.config.lexer import Word
from nodecache.config.model import (
    Address,
    ForwardPolicy,
    HostName,
    NamedUpstream,
    Transport,
    Upstream,
)
from nodecache.config.names import parse_name
from nodecache.config.reading import Arguments, Scope
from nodecache.config.resolvconf import is_own, parse_nameservers
from nodecache.config.values import parse_ip, parse_port, split_port
from nodecache.printing import shown

# Scheme of a TO that stands for the upstream Service as long as its address is not known.
MISSING_SERVICE = "missing-service://"
DNS_PORT = 53

_TLS_PORT = 853
_RESOLV_CONF = "/etc/resolv.conf"
# No label of digits at the end: that is a mistyped address. No underscores: those are no hosts.
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\.?$){_LABEL}\.?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Draft:
    """What the options of one ``forward`` say so far.

    ``upstream`` is the pattern for every upstream.
    """

    policy: ForwardPolicy
    upstream: Upstream
    server_name: Word | None = None
    resolvers: tuple[Address, ...] = ()


Destination = Upstream | NamedUpstream


def read_destinations(word: Word, draft: Draft, arguments: Arguments) -> tuple[Destination, ...]:
    """Returns what one TO stands for, made of the pattern in ``draft``."""
    if MISSING_SERVICE in word.text:
        return ()
    scheme, separator, rest = word.text.partition("://")
    if separator and scheme == "tls":
        return arguments.parse(word, lambda _: (_tls_destination(rest, draft),), ())
    if separator and scheme != "dns":
        text = f"{shown(scheme + '://')} is no way to ask an upstream here: use dns:// or tls://"
        arguments.fault(word, text)
        return ()
    text = rest if separator else word.text
    scope = arguments.scope
    if text.startswith("/") or scope.reader.exists(text) or scope.kept.recall(text):
        hosts = _read_nameservers(word, text, scope)
        return tuple(replace(draft.upstream, address=Address(host, DNS_PORT)) for host in hosts)
    return arguments.parse(word, lambda _: (_destination(text, draft.upstream, draft),), ())


def _tls_destination(text: str, draft: Draft) -> Destination:
    """From ``IP[%NAME][:PORT]``, IPv6 with a port in brackets; a host's certificate names it."""
    host, percent, name_and_port = text.partition("%")
    name = draft.server_name.text if draft.server_name else ""
    if percent:
        if draft.server_name:
            raise ValueError("a name after '%' and tls_servername exclude each other")
        name, colon, port = name_and_port.replace("]", "").partition(":")
        text = f"[{host.strip('[]')}]{colon}{port}"
        parse_name(name)
    address = Address("", _TLS_PORT)
    pattern = replace(draft.upstream, address=address, transport=Transport.TLS, server_name=name)
    found = _destination(text, pattern, draft)
    if isinstance(found, Upstream) or name:
        return found
    return replace(found, pattern=replace(found.pattern, server_name=found.host.name.text))


def _destination(text: str, pattern: Upstream, draft: Draft) -> Destination:
    """From ``HOST[:PORT]``: ``pattern`` at its address, if it is one."""
    host, port_text = split_port(text)
    try:
        ip = parse_ip(host)
    except ValueError:
        ip = ""
        if not _HOST_NAME.fullmatch(host):
            reading = "neither IP[:PORT], nor a file that exists, nor a host name"
            raise ValueError(f"{shown(text)} is {reading}") from None
    port = parse_port(port_text) if port_text else pattern.address.port
    there = replace(pattern, address=Address(ip, port))
    return there if ip else NamedUpstream(HostName(parse_name(host), draft.resolvers), there)


def _read_nameservers(
    word: Word, path: str, scope: Scope, without: str = "its queries are REFUSED"
) -> list[str]:
    """Nameservers of a resolv.conf-like file, without our own addresses: those would loop.

    Without any, those of before go on; without those, there are none, and ``without`` says what
    that means. The file is watched like all others.
    """
    trouble = f"{shown(path)} names no nameserver but this cache"
    try:
        text = scope.reader.read_text(path)
    except (OSError, ValueError) as error:
        text, trouble = "", f"cannot read {shown(path)} ({reason(error)})"
    hosts, others = _usable_nameservers(text, scope)
    for other in others:
        scope.report.warn(word, f"{shown(path)} has a nameserver {shown(other)}: no IP address")
    if hosts:
        scope.kept.keep(path, text)
        return hosts
    hosts, _ = _usable_nameservers(scope.kept.recall(path) or "", scope)
    if hosts:
        scope.kept.stand_in(path)
        without = "those that it named before go on"
    scope.report.warn(word, f"{trouble}: {without}")
    return hosts


def _usable_nameservers(text: str, scope: Scope) -> tuple[list[str], list[str]]:
    """Returns the addresses that are not our own, and the words that are no addresses."""
    hosts, others = parse_nameservers(text)
    own = scope.own_addresses
    return [host for host in hosts if not is_own(Address(host, DNS_PORT), own)], others


def with_servers(found: list[Destination], place: Word, scope: Scope) -> list[Destination]:
    """Returns ``found``, each host with somebody to ask: the system's nameservers by default."""
    named = [each for each in found if isinstance(each, NamedUpstream)]
    for each in named:
        if each.host.name.text.count(".") == 1:
            text = f"the host {each.host.name.text} is looked up as it stands, in no search list"
            scope.report.warn(place, text)
    if named[0].host.servers:
        return found  # ``resolver`` holds for all of them
    without = "nobody can be asked for host names; write 'resolver IP'"
    hosts = _read_nameservers(place, _RESOLV_CONF, scope, without)
    servers = tuple(Address(host, DNS_PORT) for host in hosts)
    return [
        replace(each, host=replace(each.host, servers=servers))
        if isinstance(each, NamedUpstream)
        else each
        for each in found
    ]
