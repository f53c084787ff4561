"""Server blocks: their zones and ports, where they listen, and where two of them overlap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nodecache.config.corefile import Block
from nodecache.config.flags import Flags
from nodecache.config.kubedns import kubedns_files
from nodecache.config.lexer import Report, Word
from nodecache.config.model import ROOT, Address, Name, ServerBlock
from nodecache.config.names import parse_zones
from nodecache.config.plugin import Plugin, read_directives
from nodecache.config.reading import MAX_ITEMS, Scope
from nodecache.config.stock.binding import read_binds
from nodecache.config.values import parse_port
from nodecache.limits import PORT
from nodecache.printing import shown

_MAX_PLACES = 100_000  # zones times addresses of all blocks
_OTHER_SCHEMES = frozenset({"tls", "https", "https3", "grpc", "quic", "unix"})


@dataclass(frozen=True, slots=True)
class _Key:
    """One zone of a block on one port."""

    zone: Name
    port: int
    word: Word


def with_plain_keys(tree: tuple[Block, ...], report: Report) -> Iterator[Block]:
    """Yields the blocks without the zones that are meant for other transports than DNS's own.

    A block without any other zone is left out with all that is in it.
    """
    for block in tree:
        others = [word for word in block.keys if _is_for_other_transport(word)]
        kept = tuple(word for word in block.keys if word not in others)
        for word in others:
            what = "is left out" if kept else "is left out with its whole block"
            text = f"{shown(word.text)} {what}: nodecache serves DNS over UDP and TCP only"
            report.warn(word, text)
        if kept or not others:
            yield replace(block, keys=kept)


def _is_for_other_transport(word: Word) -> bool:
    scheme, separator, _ = word.text.partition("://")
    return bool(separator) and scheme in _OTHER_SCHEMES


def read_blocks(
    tree: tuple[Block, ...], flags: Flags, scope: Scope, plugins: Mapping[str, Plugin]
) -> tuple[tuple[ServerBlock, ...], frozenset[Address]]:
    """Returns the server blocks, and where they listen on port 53."""
    keys = [_read_keys(block, flags.dns_port, scope, plugins) for block in tree]
    binds = [read_binds(block, scope) for block in tree]
    left_out = _check_overlaps(keys, binds, kubedns_files(flags), scope)
    scope = replace(scope, own_addresses=_own_addresses(flags, keys, binds))
    servers = tuple(
        server
        for index, (block, block_keys, bind) in enumerate(zip(tree, keys, binds, strict=True))
        if index not in left_out
        for server in _server_blocks(block, block_keys, bind, scope, plugins)
    )
    return servers, scope.own_addresses


def _own_addresses(
    flags: Flags, keys: list[list[_Key]], binds: list[tuple[str, ...]]
) -> frozenset[Address]:
    """Where we listen on the port that a resolv.conf means."""
    own = set(flags.localip) if flags.dns_port == PORT.default else set()
    for block_keys, bind in zip(keys, binds, strict=True):
        if not any(key.port == PORT.default for key in block_keys):
            continue
        own.update(bind)
        if not bind or "0.0.0.0" in bind or "::" in bind:  # noqa: S104
            # Of "every address of the machine" only loopback is known here.
            own.update(("127.0.0.1", "::1"))
    return frozenset(Address(host, int(PORT.default)) for host in own)


def _server_blocks(
    block: Block,
    keys: list[_Key],
    bind: tuple[str, ...],
    scope: Scope,
    plugins: Mapping[str, Plugin],
) -> Iterator[ServerBlock]:
    """One ServerBlock for each port among the keys."""
    by_port: dict[int, dict[Name, None]] = {}
    for key in keys:
        by_port.setdefault(key.port, {})[key.zone] = None
    zones = tuple(dict.fromkeys(key.zone for key in keys))
    draft = ServerBlock(zones, 0, bind, file=block.place.file, line=block.place.line)
    draft = read_directives(block, replace(scope, zones=zones), draft, plugins)
    for port, on_port in by_port.items():
        yield replace(draft, zones=tuple(on_port), port=port)


def _read_keys(
    block: Block, default_port: int, scope: Scope, plugins: Mapping[str, Plugin]
) -> list[_Key]:
    if not block.keys and block.place.opens():
        return [_Key(ROOT, default_port, block.place)]
    trouble = _trouble_with_keys(block, plugins)
    if trouble:
        scope.report.fault(block.place, trouble)
        return []
    keys = []
    for word in block.keys:
        try:
            zones, port = _parse_key(word.text, default_port)
        except ValueError as error:
            scope.report.fault(word, f"{shown(word.text)} is no zone: {error}")
            continue
        keys += [_Key(zone, port, word) for zone in zones]
        if len(keys) > MAX_ITEMS:
            scope.report.fault(word, f"more than {MAX_ITEMS} zones in one block are too many")
            return []
    return keys


def _trouble_with_keys(block: Block, plugins: Mapping[str, Plugin]) -> str:
    """Why the keys cannot be meant as they stand, or ""."""
    if not block.keys:
        return "no zone is left in this line: is an environment variable missing?"
    if block.has_braces:
        return ""
    if block.keys[0].text in plugins:
        return f"{shown(block.keys[0].text)} stands outside of a block: begin with '.:53 {{'"
    if not block.directives:
        return f"{shown(block.place.text)} begins no block: add '{{', directives and '}}'"
    return ""


def _parse_key(text: str, default_port: int) -> tuple[tuple[Name, ...], int]:
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "dns":
        raise ValueError(f"{shown(scheme + '://')} is not served; use dns:// or nothing")
    rest = rest if separator else text
    zone, colon, port = rest.rpartition(":")
    if colon and not port:
        raise ValueError("a port must follow the colon")
    if not colon or "/" in port:
        zone, port = rest, ""
    if "," in zone:
        raise ValueError("put a blank after the comma")
    return parse_zones(zone or "."), parse_port(port) if port else default_port


def _check_overlaps(
    keys: list[list[_Key]],
    binds: list[tuple[str, ...]],
    additions: tuple[str, ...],
    scope: Scope,
) -> set[int]:
    """Faults a zone that two blocks would serve on the same port of the same address.

    Returns the places of the stub domains that are left out, with a warning, for that reason.
    """
    left_out: set[int] = set()
    # Host "" stands for every address, and so does the second table for any address at all.
    by_host: dict[tuple[Name, int, str], _Key] = {}
    by_port: dict[tuple[Name, int], _Key] = {}
    for index, (block_keys, bind) in enumerate(zip(keys, binds, strict=True)):
        if block_keys and len(by_host) > _MAX_PLACES:
            scope.report.fault(block_keys[0].word, "too many blocks, zones and addresses")
            break
        for key in block_keys:
            place = (key.zone, key.port)
            hosts = (*bind, "")
            others = [by_host[(*place, host)] for host in hosts if (*place, host) in by_host]
            if not bind and place in by_port:
                others.append(by_port[place])
            if others and key.word.file in additions:
                left_out.add(index)
                text = _overlap(key, others[0])
                scope.report.warn(key.word, f"{text}: this stub domain is left out")
                break
            if others:
                text = f"{_overlap(key, others[0])}: merge the two, or bind different addresses"
                scope.report.fault(key.word, text)
            by_port.setdefault(place, key)
            for host in bind or ("",):
                by_host.setdefault((*place, host), key)
    return left_out


def _overlap(key: _Key, other: _Key) -> str:
    return (
        f"zone {key.zone.text} on port {key.port} is already served by the block in"
        f" {other.word.file}:{other.word.line}"
    )
