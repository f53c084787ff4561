"""Flags, environment and files to one frozen Config, or one ConfigError with every fault.

Pure: files come through a Reader. What node-cache does with its Corefile template happens
here, and what no single block can see: own addresses, and blocks that overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from nodecache.config.corefile import Block, Reader, parse_corefile, reason
from nodecache.config.directives.table import DIRECTIVES, read_binds, read_directives
from nodecache.config.flags import Flags
from nodecache.config.kubedns import KubeDns, kubedns_files, read_kubedns
from nodecache.config.model import ROOT, Address, Config, Name, ServerBlock
from nodecache.config.names import parse_zones
from nodecache.config.node import NodePlan
from nodecache.config.reading import MAX_ITEMS, InterfaceResolver, Scope
from nodecache.config.service import describe_missing
from nodecache.config.values import parse_port, shown
from nodecache.config.variables import Filled, fill_variables
from nodecache.config.words import Report, Word
from nodecache.errors import ConfigError, Fault
from nodecache.limits import PORT

_COMMAND_LINE = "command line"
_MAX_PLACES = 100_000  # zones times addresses of all blocks
_OTHER_SCHEMES = frozenset({"tls", "https", "https3", "grpc", "quic"})


@dataclass(frozen=True, slots=True)
class CorefileText:
    """The Corefile with its variables filled, and what the kube-dns ConfigMap adds to it.

    Attributes:
        path: The file it was read from.
        source: As it stands there; columns of faults in ``path`` are columns of this.
        filled: The same with its variables filled.
        kubedns: Of the ConfigMap.
        faults: Why something could not be read or filled.
    """

    path: str
    source: str = ""
    filled: Filled = field(default_factory=Filled)
    kubedns: KubeDns = field(default_factory=KubeDns)
    faults: tuple[Fault, ...] = ()

    @property
    def text(self) -> str:
        """What -conf is to hold: everything that is in force."""
        text, more = self.filled.text, self.kubedns.text
        return f"{text}\n{more}" if more and not text.endswith("\n") else text + more


def read_template(
    flags: Flags, environ: Mapping[str, str], reader: Reader, with_kubedns: bool = True
) -> CorefileText:
    """Reads -basecorefile, or -conf where the former does not exist, and fills the variables.

    Without ``with_kubedns`` the ConfigMap counts as missing. Raises nothing: what is wrong
    stands in ``faults``.
    """
    path = flags.basecorefile
    if not reader.exists(path) and flags.conf and reader.exists(flags.conf):
        path = flags.conf
    kubedns = read_kubedns(flags, reader) if with_kubedns else KubeDns()
    try:
        source = reader.read_text(path).removeprefix("\ufeff")
    except (OSError, ValueError) as error:
        text = f"cannot read the Corefile: {reason(error)}; name one with -basecorefile FILE"
        faults = (Fault(path, 0, 0, text), *kubedns.faults)
        return CorefileText(path, kubedns=kubedns, faults=faults)
    filled = fill_variables(source, path, flags, environ, kubedns.upstreams)
    return CorefileText(path, source, filled, kubedns, (*filled.faults, *kubedns.faults))


@dataclass(slots=True)
class _SourceReport(Report):
    """Takes places in the filled text, and gives those in the text that the user wrote."""

    corefile: CorefileText = field(default_factory=lambda: CorefileText(""))

    def fault_at(self, file: str, line: int, column: int, text: str) -> None:
        Report.fault_at(self, file, line, self._column(file, line, column), text)

    def warn(self, word: Word, text: str) -> None:
        column = self._column(word.file, word.line, word.column)
        Report.warn(self, replace(word, column=column), text)

    def _column(self, file: str, line: int, column: int) -> int:
        if file != self.corefile.path:
            return column
        return self.corefile.filled.source_column(line, column)


def assemble(
    flags: Flags,
    environ: Mapping[str, str],
    reader: Reader,
    *,
    template: CorefileText | None = None,
    resolve_interface: InterfaceResolver | None = None,
    with_kubedns: bool = True,
) -> Config:
    """Returns the whole configuration.

    Args:
        flags: The parsed command line.
        environ: The process environment; a Service found later is added to it.
        reader: Reads the Corefile, imports, the ConfigMap and resolv.conf-like files.
        template: What read_template returned, if that was called already.
        resolve_interface: Turns interface names in ``bind`` into addresses.
        with_kubedns: As for read_template, where ``template`` is not given.

    Raises:
        ConfigError: With every fault, in file order. ``is_in_kubedns`` tells for each whether
            the kube-dns ConfigMap is to blame.
    """
    template = template or read_template(flags, environ, reader, with_kubedns=with_kubedns)
    filled, kubedns = template.filled, template.kubedns
    report = _SourceReport([*template.faults], corefile=template)
    scope = Scope(report, reader, resolve_interface)
    tree = parse_corefile(filled.text, template.path, environ, reader, report)
    blocks = _read_blocks((*tree, *kubedns.blocks), flags, scope)
    if not tree and not report.faults:
        report.fault_at(template.path, 0, 0, "no server block: begin with a line such as '.:53 {'")
    warnings = (*filled.warnings, *kubedns.warnings, *report.warnings)
    if report.faults:
        raise ConfigError(sorted_faults(report.faults, template.path), warnings)
    missing = filled.missing_service
    return replace(
        _config_of(flags),
        blocks=blocks,
        missing_service=describe_missing(missing, environ, reader) if missing else None,
        warnings=warnings,
    )


def _config_of(flags: Flags) -> Config:
    """What the command line alone decides."""
    return Config(
        (),
        setup_metrics=flags.metrics_listen,
        cache_octets=flags.cache_octets,
        cluster_domain=flags.cluster_domain,
        nxdomain_scope=flags.nxdomain_scope,
        max_inflight=flags.max_inflight,
        client_share=flags.client_share,
        quiet=flags.quiet,
        pidfile=flags.pidfile,
        log_format=flags.log_format,
        legacy_metrics=flags.legacy_metrics,
        is_watched=flags.watch,
        node=NodePlan(
            flags.interface_name,
            tuple(host for host in flags.localip if "%" not in host),
            flags.dns_port,
            flags.health_port,
            flags.rules,
            flags.setup_interface,
            flags.setup_iptables,
        ),
        sync_interval_s=flags.sync_interval_s,
        skip_teardown=flags.skip_teardown,
        rundir=flags.rundir,
    )


def sorted_faults(faults: list[Fault], main_file: str) -> list[Fault]:
    """Returns the faults in order: command line, Corefile, then imported files by name."""
    ranks = {_COMMAND_LINE: 0, main_file: 1}
    return sorted(faults, key=lambda f: (ranks.get(f.file, 2), f.file, f.line, f.column))


@dataclass(frozen=True, slots=True)
class _Key:
    """One zone of a block on one port."""

    zone: Name
    port: int
    word: Word


def _read_blocks(tree: tuple[Block, ...], flags: Flags, scope: Scope) -> tuple[ServerBlock, ...]:
    keys = [_read_keys(block, flags.dns_port, scope) for block in tree]
    binds = [read_binds(block, scope) for block in tree]
    _check_overlaps(keys, binds, kubedns_files(flags), scope)
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


def _check_overlaps(
    keys: list[list[_Key]],
    binds: list[tuple[str, ...]],
    additions: tuple[str, ...],
    scope: Scope,
) -> None:
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
                scope.report.fault(key.word, _overlap(key, others[0], additions))
            by_port.setdefault(place, key)
            for host in bind or ("",):
                by_host.setdefault((*place, host), key)


def _overlap(key: _Key, other: _Key, additions: tuple[str, ...]) -> str:
    way_out = "remove it here or there" if key.word.file in additions else "merge the two"
    return (
        f"zone {key.zone.text} on port {key.port} is already served by the block in"
        f" {other.word.file}:{other.word.line}: {way_out}, or bind different addresses"
    )
