"""The command line, parsed and checked by the table of flags, and what ``--help`` says.

Knows no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nodecache.config.flag_reading import Reading, help_rows
from nodecache.config.flag_table import TABLE
from nodecache.config.model import CLUSTER_DOMAIN, Address, LogFormat, Name, NxdomainScope
from nodecache.config.node import Backend
from nodecache.errors import Fault

_METRICS_DEFAULT = Address("0.0.0.0", 9353)  # noqa: S104 - node-cache's default


@dataclass(frozen=True, slots=True)
class Flags:
    """All flags as values; the defaults are node-cache's.

    Attributes:
        localip: Addresses of -localip, each once.
        corefile, reload_with_signal, forward_on_exit: Accepted and without effect.
        upstreamsvc: "" when the Corefile needs no Service.
        kubednscm: "" for /etc/kube-dns, which need not exist.
        watch: Changed files are loaded without a signal.
        fallback: Where queries go while nobody serves; empty to find that out, None for nowhere.
        rules_conntrack: Connection tracking sees what is served.
        sync_interval_s: Seconds between checks of interface and rules.
        skip_teardown: The interface stays at the end.
        keeper: A parent process holds the sockets and restarts the one that serves.
        stuck_after_s: Seconds without an answer after which the keeper kills who serves; 0 never.
        leave_wait_s: Seconds to serve on for a successor when asked to end; None for 10 in a pod.
        rundir: Where a successor and a restarted worker find us; "" for nowhere.
        metrics_listen: None when -metrics-listen-address is empty.
        prometheus_listen: Text for __PROMETHEUS__ENDPOINT__.
        cache_octets: Budget of all caches together.
        max_inflight: Upstream exchanges in flight, over all blocks.
        client_share: Per cent for one client once much is in flight.
    """

    localip: tuple[str, ...] = ()
    dns_port: int = 53
    metrics_listen: Address | None = _METRICS_DEFAULT
    prometheus_listen: str = ":9253"
    basecorefile: str = "/etc/coredns/Corefile.base"
    conf: str = ""
    corefile: str = "/etc/Corefile"
    cluster_domain: Name = CLUSTER_DOMAIN
    upstreamsvc: str = "kube-dns"
    kubednscm: str = ""
    cache_octets: int = 32 * 1024 * 1024
    watch: bool = True
    nxdomain_scope: NxdomainScope = NxdomainScope.CLUSTER
    max_inflight: int = 10_000
    client_share: int = 20
    setup_interface: bool = True
    interface_name: str = "nodelocaldns"
    setup_iptables: bool = True
    rules: Backend = Backend.AUTO
    fallback: tuple[str, ...] | None = ()
    rules_conntrack: bool = False
    sync_interval_s: float = 60.0
    skip_teardown: bool = False
    forward_on_exit: bool = False
    health_port: int = 8080
    reload_with_signal: bool = False
    keeper: bool = True
    stuck_after_s: float = 3.0
    leave_wait_s: float | None = None
    rundir: str = "/run/nodecache"
    pidfile: str = ""
    log_format: LogFormat = LogFormat.TEXT
    legacy_metrics: bool = False
    quiet: bool = False
    plugins: bool = False
    version: bool = False
    help: bool = False


_EXAMPLES = """\
nodecache answers DNS queries of the pods on one node from its cache, and forwards the rest.
It takes node-cache's command line, Corefile and environment.

Usage: nodecache -localip IP,... [FLAGS]

Examples:
  On a node, as root:
    nodecache -localip 169.254.20.10,10.96.0.10 -conf /etc/Corefile \\
        -upstreamsvc kube-dns-upstream
  On a workstation, without root, with the Corefile of this folder:
    nodecache -localip 127.0.0.15 -setupinterface=false -setupiptables=false \\
        -conf Corefile -basecorefile Corefile -metrics-listen-address 127.0.0.15:9353

One dash or two; -flag value or -flag=value; booleans only as -flag or -flag=false.
"""


def help_text() -> str:
    """Returns what ``--help`` prints: examples, then all flags in groups."""
    return _EXAMPLES + help_rows(TABLE)


def parse_flags(argv: Sequence[str]) -> tuple[Flags, list[Fault]]:
    """Returns the flags and every fault of the command line; raises nothing.

    A faulty flag keeps its default, so that the caller can go on to look for more faults.
    """
    reading = Reading(argv, TABLE)
    flags = replace(Flags(), **reading.values)  # type: ignore[arg-type] # TABLE pairs the types
    is_to_serve = not (flags.help or flags.version or flags.plugins)
    if is_to_serve and not flags.localip and "localip" not in reading.faulty:
        reading.faults.append("-localip is missing: add for instance -localip 169.254.20.10")
    return flags, reading.all_faults()
