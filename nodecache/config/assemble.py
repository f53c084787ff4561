"""Flags, environment and files to one frozen Config, or one ConfigError with every fault.

Pure: files come through a Reader. What node-cache does with its Corefile template happens here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from nodecache.config.blocks import read_blocks, with_plain_keys
from nodecache.config.corefile import Block, Reader, folder_of, parse_corefile, reason
from nodecache.config.flags import Flags
from nodecache.config.kept import KeptTexts
from nodecache.config.kubedns import (
    KubeDns,
    corefile_text,
    is_of_kubedns,
    read_kubedns,
)
from nodecache.config.lexer import Report, Word
from nodecache.config.model import Config, ServerBlock
from nodecache.config.node import NodePlan
from nodecache.config.plugin import Plugin
from nodecache.config.reading import InterfaceResolver, Scope
from nodecache.config.service import CLUSTER_DNS, describe_missing, find_service_ip
from nodecache.config.variables import Filled, fill_variables
from nodecache.errors import ConfigError, Fault
from nodecache.limits import LEAVE_WAIT_S, PORT

_COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class CorefileText:
    """The Corefile with its variables filled, and what the kube-dns ConfigMap adds to it.

    Attributes:
        path: The file it was read from.
        folder: Where its relative imports begin.
        source: As it stands there; columns of faults in ``path`` are columns of this.
        filled: The same with its variables filled.
        kubedns: Of the ConfigMap.
        faults: Why something could not be read or filled.
    """

    path: str
    folder: str = "."
    source: str = ""
    filled: Filled = field(default_factory=Filled)
    kubedns: KubeDns = field(default_factory=KubeDns)
    faults: tuple[Fault, ...] = ()

    def text_for(self, config: Config) -> str:
        """Returns what -conf is to hold: everything that is in force by ``config``."""
        text, more = self.filled.text, corefile_text(self._stubs_for(config))
        return f"{text}\n{more}" if more and not text.endswith("\n") else text + more

    def has_left_out(self, config: Config) -> bool:
        """Returns whether ``config`` lacks something that the kube-dns ConfigMap asks for."""
        is_short = len(self._stubs_for(config)) < len(self.kubedns.blocks)
        return self.kubedns.has_left_out or is_short

    def _stubs_for(self, config: Config) -> list[Block]:
        stubs = (block for block in config.blocks if is_of_kubedns(block.file))
        zones = {zone.text for block in stubs for zone in block.zones}
        return [block for block in self.kubedns.blocks if block.place.text in zones]


def read_template(
    flags: Flags,
    environ: Mapping[str, str],
    reader: Reader,
    *,
    with_kubedns: bool = True,
    folder: str = "",
) -> CorefileText:
    """Reads -basecorefile, or -conf where the former does not exist, and fills the variables.

    Without ``with_kubedns`` the ConfigMap counts as missing. Relative imports begin at ``folder``,
    else at that of -conf, which is the file that node-cache reads. Raises nothing: what is wrong
    stands in ``faults``.
    """
    path = flags.basecorefile
    if not reader.exists(path) and flags.conf and reader.exists(flags.conf):
        path = flags.conf
    folder = folder or folder_of(flags.conf or path)
    kubedns = read_kubedns(flags, reader) if with_kubedns else KubeDns()
    try:
        source = reader.read_text(path)
    except (OSError, ValueError) as error:
        text = f"cannot read the Corefile: {reason(error)}; name one with -basecorefile FILE"
        faults = (Fault(path, 0, 0, text), *kubedns.faults)
        return CorefileText(path, folder, kubedns=kubedns, faults=faults)
    filled = fill_variables(source, path, flags, environ, kubedns.upstreams)
    return CorefileText(path, folder, source, filled, kubedns, (*filled.faults, *kubedns.faults))


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
    plugins: Mapping[str, Plugin],
    *,
    template: CorefileText | None = None,
    resolve_interface: InterfaceResolver | None = None,
    with_kubedns: bool = True,
    kept: KeptTexts | None = None,
) -> Config:
    """Returns the whole configuration.

    Args:
        flags: The parsed command line.
        environ: The process environment; a Service found later is added to it.
        reader: Reads the Corefile, imports, the ConfigMap and resolv.conf-like files.
        plugins: What becomes of each directive (directives/table.py).
        template: What read_template returned, if that was called already.
        resolve_interface: Turns interface names in ``bind`` into addresses.
        with_kubedns: As for read_template, where ``template`` is not given.
        kept: What files said before, where something is in force already.

    Raises:
        ConfigError: With every fault, in file order. ``is_in_kubedns`` tells for each whether
            the kube-dns ConfigMap is to blame.
    """
    template = template or read_template(flags, environ, reader, with_kubedns=with_kubedns)
    filled, kubedns = template.filled, template.kubedns
    report = _SourceReport([*template.faults], corefile=template)
    scope = Scope(report, reader, resolve_interface, kept=kept or KeptTexts())
    tree = parse_corefile(filled.text, template.path, environ, reader, report, template.folder)
    served = tuple(with_plain_keys(tree, report))
    blocks, own_addresses = read_blocks((*served, *kubedns.blocks), flags, scope, plugins)
    if not served and not report.faults:
        what = "no server block is left" if tree else "no server block"
        text = f"{what}: begin with a line such as '.:53 {{'"
        report.fault_at(template.path, 0, 0, text)
    warnings = (*filled.warnings, *kubedns.warnings, *report.warnings)
    if report.faults:
        raise ConfigError(sorted_faults(report.faults, template.path), warnings)
    missing = filled.missing_service
    return replace(
        _config_of(flags),
        blocks=blocks,
        node=_plan_of(flags, environ, blocks),
        leave_wait_s=_leave_wait_s(flags, environ),
        missing_service=describe_missing(missing, environ, reader) if missing else None,
        own_addresses=own_addresses,
        kept_files=tuple(scope.kept.stood_in),
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
        sync_interval_s=flags.sync_interval_s,
        skip_teardown=flags.skip_teardown,
        stuck_after_s=flags.stuck_after_s,
        rundir=flags.rundir,
    )


def _leave_wait_s(flags: Flags, environ: Mapping[str, str]) -> float:
    """Returns for how long a successor is waited for: elsewhere than in a pod none comes."""
    if flags.leave_wait_s is not None:
        return flags.leave_wait_s
    return LEAVE_WAIT_S.default if "KUBERNETES_SERVICE_HOST" in environ else 0.0


def _plan_of(flags: Flags, environ: Mapping[str, str], blocks: tuple[ServerBlock, ...]) -> NodePlan:
    ours = tuple(host for host in flags.localip if "%" not in host)
    bound = {
        host for block in blocks if block.port == flags.dns_port for host in block.bind or ("",)
    }
    is_wildcard = not bound.isdisjoint(("", "0.0.0.0", "::"))  # noqa: S104 # not bound to
    plan = NodePlan(
        flags.interface_name,
        ours,
        flags.dns_port,
        flags.health_port,
        flags.rules,
        flags.setup_interface,
        flags.setup_iptables,
        flags.fallback is not None,
        flags.fallback or (),
        flags.rules_conntrack,
        is_wildcard,
        () if is_wildcard else tuple(host for host in ours if host not in bound),
    )
    if plan.fails_over and not plan.cluster_dns:
        return replace(plan, cluster_dns=_find_cluster_dns(plan, flags, environ, blocks))
    return plan


def _find_cluster_dns(
    plan: NodePlan, flags: Flags, environ: Mapping[str, str], blocks: tuple[ServerBlock, ...]
) -> tuple[str, ...]:
    """Returns one address of the cluster's DNS for each family, as far as known here.

    The Service of -localip; else kube-dns as the kubelet names it; else whom cluster names are
    forwarded to, which may go together with us (kube-dns-upstream).
    """
    forwards = (
        upstream.address.host
        for block in blocks
        if flags.cluster_domain in block.zones
        for policy in block.forwards
        for upstream in policy.upstreams
        if upstream.address.port == PORT.default and "%" not in upstream.address.host
    )
    known = [*plan.redirected, find_service_ip(CLUSTER_DNS, environ), *forwards]
    found: dict[bool, str] = {}
    for host in known:
        is_ours = host in plan.addresses and host not in plan.redirected
        if host and not is_ours and not ip_address(host).is_loopback:
            found.setdefault(":" in host, host)
    return tuple(found.values())


def sorted_faults(faults: list[Fault], main_file: str) -> list[Fault]:
    """Returns the faults in order: command line, Corefile, then imported files by name."""
    ranks = {_COMMAND_LINE: 0, main_file: 1}
    return sorted(faults, key=lambda f: (ranks.get(f.file, 2), f.file, f.line, f.column))
