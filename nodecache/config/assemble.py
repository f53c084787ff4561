"""Flags, environment and files to one frozen Config, or one ConfigError with every fault.

Pure: files come through a Reader. What node-cache does with its Corefile template happens
here, and what no single block can see: own addresses, and blocks that overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nodecache.config.corefile import Block, Reader, parse_corefile, reason
from nodecache.config.directives import DIRECTIVES, read_binds, read_directives
from nodecache.config.flags import Flags
from nodecache.config.model import ROOT, Address, Config, Name, ServerBlock
from nodecache.config.names import parse_zones
from nodecache.config.reading import MAX_ITEMS, InterfaceResolver, Scope
from nodecache.config.values import nearest, parse_ip, parse_port, shown
from nodecache.config.words import Report, Word
from nodecache.errors import ConfigError, Fault
from nodecache.limits import PORT

_COMMAND_LINE = "command line"
_MAX_FAULTS = 100
_MAX_PLACES = 100_000  # zones times addresses of all blocks
_KUBE_DNS_FOLDER = "/etc/kube-dns"  # read by node-cache when -kubednscm is not given
_PLACEHOLDER = re.compile(r"__PILLAR__[A-Z_]{0,40}?__(?![A-Z_])|__PROMETHEUS__ENDPOINT__")
_CLUSTER_DNS = "__PILLAR__CLUSTER__DNS__"
_STAND_IN = "192.0.2.1"  # a documentation address, so that a line that lacks one still parses
_OTHER_SCHEMES = frozenset({"tls", "https", "https3", "grpc", "quic"})


@dataclass(frozen=True, slots=True)
class Template:
    """The Corefile with its variables filled.

    Attributes:
        path: The file it was read from.
        text: What is parsed.
        faults: Why it could not be read or filled.
    """

    path: str
    text: str
    faults: tuple[Fault, ...] = ()


def read_template(flags: Flags, environ: Mapping[str, str], reader: Reader) -> Template:
    """Reads -basecorefile, or -conf where the former does not exist, and fills the variables.

    Raises nothing: what is wrong stands in ``faults``.
    """
    path = flags.basecorefile
    if not reader.exists(path) and flags.conf and reader.exists(flags.conf):
        path = flags.conf
    try:
        text = reader.read_text(path)
    except (OSError, ValueError) as error:
        fault = f"cannot read the Corefile: {reason(error)}; name one with -basecorefile FILE"
        return Template(path, "", (Fault(path, 0, 0, fault),))
    return _Filler(path, flags, environ).fill(text)


class _Filler:
    """Fills the variables of node-cache's template, line by line."""

    def __init__(self, path: str, flags: Flags, environ: Mapping[str, str]) -> None:
        self._path = path
        self._flags = flags
        self._environ = environ
        self._faults: list[Fault] = []

    def fill(self, text: str) -> Template:
        lines = [self._fill_line(line, n) for n, line in enumerate(text.split("\n"), 1)]
        return Template(self._path, "\n".join(lines), tuple(self._faults))

    def _fill_line(self, text: str, number: int) -> str:
        return _PLACEHOLDER.sub(lambda match: self._value(match, number), text)

    def _value(self, match: re.Match[str], line: int) -> str:
        values = {
            "__PILLAR__LOCAL__DNS__": self._local_addresses(match),
            "__PILLAR__DNS__SERVER__": "",
            "__PILLAR__DNS__DOMAIN__": self._flags.cluster_domain.text.rstrip("."),
            "__PILLAR__UPSTREAM__SERVERS__": "/etc/resolv.conf",
            "__PROMETHEUS__ENDPOINT__": self._flags.prometheus_listen,
        }
        if match[0] in values:
            return values[match[0]]
        if match.string.lstrip().startswith("#"):
            return match[0]
        if match[0] == _CLUSTER_DNS:
            return self._cluster_dns(match, line)
        hint = nearest(match[0], (*values, _CLUSTER_DNS))
        self._fault(match, line, f"there is no variable {match[0]}{hint}")
        return _STAND_IN

    def _local_addresses(self, match: re.Match[str]) -> str:
        """All -localip values; where a port follows, the first one, since only one fits."""
        hosts = self._flags.localip
        if match.string[match.end() : match.end() + 1] != ":":
            return " ".join(hosts)
        return f"[{hosts[0]}]" if hosts and ":" in hosts[0] else "".join(hosts[:1])

    def _cluster_dns(self, match: re.Match[str], line: int) -> str:
        variable = self._flags.upstreamsvc.upper().replace("-", "_") + "_SERVICE_HOST"
        value = self._environ.get(variable, "")
        try:
            return parse_ip(value)
        except ValueError:
            found = f"is {shown(value)}, no IP address" if value else "is not set"
            text = (
                f"{match[0]} needs the environment variable {variable}, which {found}: create the"
                f" Service {shown(self._flags.upstreamsvc)} with a ClusterIP before this pod,"
                " name another one with -upstreamsvc, or write the address here"
            )
            self._fault(match, line, text)
            return _STAND_IN

    def _fault(self, match: re.Match[str], line: int, text: str) -> None:
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append(Fault(self._path, line, match.start() + 1, text))


def assemble(
    flags: Flags,
    environ: Mapping[str, str],
    reader: Reader,
    *,
    template: Template | None = None,
    resolve_interface: InterfaceResolver | None = None,
) -> Config:
    """Returns the whole configuration.

    Args:
        flags: The parsed command line.
        environ: The process environment.
        reader: Reads the Corefile, imports and resolv.conf-like files.
        template: What read_template returned, if that was called already.
        resolve_interface: Turns interface names in ``bind`` into addresses.

    Raises:
        ConfigError: With every fault, in file order.
    """
    template = template or read_template(flags, environ, reader)
    scope = Scope(report := Report(list(template.faults)), reader, resolve_interface)
    _check_kubedns(flags, scope)
    tree = parse_corefile(template.text, template.path, environ, reader, report)
    blocks = _read_blocks(tree, flags, scope)
    if not blocks and not report.faults:
        report.fault_at(template.path, 0, 0, "no server block: begin with a line such as '.:53 {'")
    if report.faults:
        raise ConfigError(sorted_faults(report.faults, template.path))
    return Config(
        blocks,
        setup_metrics=flags.metrics_listen,
        cache_octets=flags.cache_octets,
        cluster_domain=flags.cluster_domain,
        nxdomain_scope=flags.nxdomain_scope,
        max_inflight=flags.max_inflight,
        quiet=flags.quiet,
        pidfile=flags.pidfile,
        warnings=(*report.warnings, *_idle_warnings(scope)),
    )


def sorted_faults(faults: list[Fault], main_file: str) -> list[Fault]:
    """Returns the faults in order: command line, Corefile, then imported files by name."""
    ranks = {_COMMAND_LINE: 0, main_file: 1}
    return sorted(faults, key=lambda f: (ranks.get(f.file, 2), f.file, f.line, f.column))


def _check_kubedns(flags: Flags, scope: Scope) -> None:
    """Refuses a kube-dns ConfigMap: this release does not read it, and it would matter."""
    folder = flags.kubednscm or _KUBE_DNS_FOLDER
    if scope.reader.glob(f"{folder}/*"):
        text = (
            f"the kube-dns ConfigMap in {shown(folder)} is not read by this release: move its stub"
            " domains into the Corefile and give -kubednscm a folder that is empty or missing"
        )
        scope.report.fault_at(_COMMAND_LINE, 0, 0, text)


def _idle_warnings(scope: Scope) -> Iterator[str]:
    for name, words in scope.idle_directives.items():
        places = ", ".join(f"{word.file}:{word.line}" for word in words[:10])
        yield f"'{name}' is recognised and has no effect in this release ({places})"


@dataclass(frozen=True, slots=True)
class _Key:
    """One zone of a block on one port."""

    zone: Name
    port: int
    word: Word


def _read_blocks(tree: tuple[Block, ...], flags: Flags, scope: Scope) -> tuple[ServerBlock, ...]:
    keys = [_read_keys(block, flags.dns_port, scope) for block in tree]
    binds = [read_binds(block, scope) for block in tree]
    _check_overlaps(keys, binds, scope)
    scope = replace(scope, own_addresses=_own_addresses(flags, keys, binds))
    return tuple(
        server
        for block, block_keys, bind in zip(tree, keys, binds, strict=True)
        for server in _server_blocks(block, block_keys, bind, scope)
    )


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
    block: Block, keys: list[_Key], bind: tuple[str, ...], scope: Scope
) -> Iterator[ServerBlock]:
    """One ServerBlock for each port among the keys."""
    by_port: dict[int, dict[Name, None]] = {}
    for key in keys:
        by_port.setdefault(key.port, {})[key.zone] = None
    zones = tuple(dict.fromkeys(key.zone for key in keys))
    draft = ServerBlock(zones, 0, bind, file=block.place.file, line=block.place.line)
    draft = read_directives(block, replace(scope, zones=zones), draft)
    for port, on_port in by_port.items():
        yield replace(draft, zones=tuple(on_port), port=port)


def _read_keys(block: Block, default_port: int, scope: Scope) -> list[_Key]:
    if not block.keys and block.place.opens():
        return [_Key(ROOT, default_port, block.place)]
    trouble = _trouble_with_keys(block)
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


def _trouble_with_keys(block: Block) -> str:
    """Why the keys cannot be meant as they stand, or ""."""
    if not block.keys:
        return "no zone is left in this line: is an environment variable missing?"
    if block.has_braces:
        return ""
    if block.keys[0].text in DIRECTIVES:
        return f"{shown(block.keys[0].text)} stands outside of a block: begin with '.:53 {{'"
    if not block.directives:
        return f"{shown(block.place.text)} begins no block: add '{{', directives and '}}'"
    return ""


def _parse_key(text: str, default_port: int) -> tuple[tuple[Name, ...], int]:
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "dns":
        known = " here: nodecache serves plain DNS" if scheme in _OTHER_SCHEMES else ""
        raise ValueError(f"{shown(scheme + '://')} is not served{known}; use dns:// or nothing")
    rest = rest if separator else text
    zone, colon, port = rest.rpartition(":")
    if colon and not port:
        raise ValueError("a port must follow the colon")
    if not colon or "/" in port:
        zone, port = rest, ""
    if "," in zone:
        raise ValueError("put a blank after the comma")
    return parse_zones(zone or "."), parse_port(port) if port else default_port


def _check_overlaps(keys: list[list[_Key]], binds: list[tuple[str, ...]], scope: Scope) -> None:
    """Faults a zone that two blocks would serve on the same port of the same address."""
    # Host "" stands for every address, and so does the second table for any address at all.
    by_host: dict[tuple[Name, int, str], _Key] = {}
    by_port: dict[tuple[Name, int], _Key] = {}
    for block_keys, bind in zip(keys, binds, strict=True):
        if block_keys and len(by_host) > _MAX_PLACES:
            scope.report.fault(block_keys[0].word, "too many blocks, zones and addresses")
            return
        for key in block_keys:
            place = (key.zone, key.port)
            hosts = (*bind, "")
            others = [by_host[(*place, host)] for host in hosts if (*place, host) in by_host]
            if not bind and place in by_port:
                others.append(by_port[place])
            if others:
                scope.report.fault(key.word, _overlap(key, others[0]))
            by_port.setdefault(place, key)
            for host in bind or ("",):
                by_host.setdefault((*place, host), key)


def _overlap(key: _Key, other: _Key) -> str:
    return (
        f"zone {key.zone.text} on port {key.port} is already served by the block in"
        f" {other.word.file}:{other.word.line}: merge the two, or bind different addresses"
    )
