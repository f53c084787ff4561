"""The command line: one table of flags that parses, checks, and writes ``--help``.

Syntax is that of Go's flag package, as node-cache has it: one dash or two, ``-flag value`` or
``-flag=value``, and booleans as ``-flag`` or ``-flag=false``. Knows no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nodecache import limits
from nodecache.config.model import CLUSTER_DOMAIN, Address, LogFormat, Name, NxdomainScope
from nodecache.config.names import parse_name
from nodecache.config.node import Backend
from nodecache.config.reading import one_of
from nodecache.config.values import (
    nearest,
    parse_duration_s,
    parse_integer,
    parse_ip,
    parse_listen_address,
    parse_octets,
    parse_port,
    shown,
    within,
)
from nodecache.errors import Fault

_MAX_LOCAL_ADDRESSES = 100
# A Service's name is a label of RFC 1035 section 2.3.1.
_SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_INTERFACE = re.compile(r"[A-Za-z0-9._-]{1,15}")
_METRICS_DEFAULT = Address("0.0.0.0", 9353)  # noqa: S104 - node-cache's default


@dataclass(frozen=True, slots=True)
class Flags:
    """All flags as values; the defaults are node-cache's.

    Attributes:
        localip: Addresses of -localip, each once.
        corefile, reload_with_signal: Accepted and without effect.
        upstreamsvc: "" when the Corefile needs no Service.
        kubednscm: "" for /etc/kube-dns, which need not exist.
        watch: Changed files are loaded without a signal.
        sync_interval_s: Seconds between checks of interface and rules.
        skip_teardown: The interface stays at the end.
        keeper: A parent process holds the sockets and restarts the one that serves.
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
    sync_interval_s: float = 60.0
    skip_teardown: bool = False
    health_port: int = 8080
    reload_with_signal: bool = False
    keeper: bool = True
    rundir: str = "/run/nodecache"
    pidfile: str = ""
    log_format: LogFormat = LogFormat.TEXT
    legacy_metrics: bool = False
    quiet: bool = False
    plugins: bool = False
    version: bool = False
    help: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """One row of the table.

    Attributes:
        names: As written without dashes; the first is the one that help shows.
        field: Attribute of Flags.
        value: Placeholder for help; "" for a boolean.
        parse: Text to value; ValueError with a sentence.
        default: For help.
        text: What it does, for help.
    """

    names: tuple[str, ...]
    field: str
    value: str
    parse: Callable[[str], object]
    default: str
    text: str


_TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


def _parse_truth(text: str) -> bool:
    if text not in _TRUTHS:
        raise ValueError(f"{shown(text)} is neither true nor false")
    return _TRUTHS[text]


def _parse_localip(text: str) -> tuple[str, ...]:
    """A comma list; empty items, such as after a trailing comma, are left out."""
    hosts = [parse_ip(item.strip()) for item in text.split(",") if item.strip()]
    if len(hosts) > _MAX_LOCAL_ADDRESSES:
        raise ValueError(f"give at most {_MAX_LOCAL_ADDRESSES} addresses")
    return tuple(dict.fromkeys(hosts))


def _parse_service(text: str) -> str:
    if text and not _SERVICE.fullmatch(text):
        raise ValueError(f"{shown(text)} is no name of a Service: write one such as kube-dns")
    return text


def _parse_interface(text: str) -> str:
    # What the kernel's dev_valid_name() takes, and no wildcard of the packet filters.
    if not _INTERFACE.fullmatch(text) or text in (".", ".."):
        raise ValueError(f"{shown(text)} is no name of an interface: write up to 15 letters")
    return text


def _parse_sync_interval_s(text: str) -> float:
    # node-cache multiplies the duration it parses by seconds, and shows 60 s as "60ns".
    bare = text.removesuffix("ns")
    seconds = parse_integer(bare) if bare.isdecimal() else parse_duration_s(text)
    return within(float, limits.SYNC_INTERVAL_S)(str(seconds))


def _parse_metrics_address(text: str) -> Address | None:
    return parse_listen_address(text) if text else None


def _parse_endpoint(text: str) -> str:
    parse_listen_address(text)
    return text


def _boolean(name: str, field: str, default: str, text: str) -> Flag:
    return Flag((name,), field, "", _parse_truth, default, text)


_PORT = within(parse_integer, limits.PORT)
_SCOPES = one_of({scope.value: scope for scope in NxdomainScope})
_FORMATS = one_of({form.value: form for form in LogFormat})
_BACKENDS = one_of({backend.value: backend for backend in Backend})

# Group title -> rows, in the order of --help.
TABLE: dict[str, tuple[Flag, ...]] = {
    "Addresses": (
        Flag(
            ("localip",), "localip", "IP,...", _parse_localip, "none, must be given",
            "addresses of this cache on the node; IPv4 and IPv6 may be mixed",
        ),
        Flag(
            ("dns.port", "p"), "dns_port", "PORT", parse_port, "53",
            "port of server blocks that name none",
        ),
        Flag(
            ("metrics-listen-address",), "metrics_listen", "IP:PORT", _parse_metrics_address,
            "0.0.0.0:9353", "where the set-up metrics answer; \"\" for nowhere",
        ),
        Flag(
            ("prometheus-listen-address",), "prometheus_listen", "IP:PORT", _parse_endpoint,
            ":9253", "fills __PROMETHEUS__ENDPOINT__ in the Corefile",
        ),
    ),
    "Configuration": (
        Flag(
            ("basecorefile",), "basecorefile", "FILE", str, "/etc/coredns/Corefile.base",
            "the Corefile; its __PILLAR__ variables are filled",
        ),
        Flag(
            ("conf",), "conf", "FILE", str, "none",
            "where the filled Corefile is written; read when -basecorefile does not exist",
        ),
        Flag(
            ("corefile",), "corefile", "FILE", str, "/etc/Corefile",
            "without effect: -conf overrides it, as in node-cache",
        ),
        Flag(
            ("cluster-domain",), "cluster_domain", "NAME", parse_name, "cluster.local",
            "names below it are cluster names; fills __PILLAR__DNS__DOMAIN__",
        ),
        Flag(
            ("upstreamsvc",), "upstreamsvc", "SERVICE", _parse_service, "kube-dns",
            "Service whose <NAME>_SERVICE_HOST fills __PILLAR__CLUSTER__DNS__",
        ),
        Flag(
            ("kubednscm",), "kubednscm", "FOLDER", str, "/etc/kube-dns if it exists",
            "kube-dns ConfigMap: stubDomains and upstreamNameservers",
        ),
        _boolean(
            "watch", "watch", "true",
            "load changed files within 2 s, not only on SIGUSR1 and SIGHUP",
        ),
        _boolean(
            "reloadwithsignal", "reload_with_signal", "false",
            "without effect: changed files are loaded anyway, see -watch",
        ),
    ),
    "Cache and load": (
        Flag(
            ("cache-size",), "cache_octets", "SIZE", within(parse_octets, limits.CACHE_OCTETS),
            "32MiB", "octets for all caches together, 1MiB to 64GiB",
        ),
        Flag(
            ("nxdomain-scope",), "nxdomain_scope", "cluster|all", _SCOPES, "cluster",
            "names for which one NXDOMAIN answers every type",
        ),
        Flag(
            ("max-inflight",), "max_inflight", "N", within(parse_integer, limits.MAX_INFLIGHT),
            "10000", "upstream exchanges at a time; misses above it are REFUSED",
        ),
        Flag(
            ("client-share",), "client_share", "PERCENT",
            within(parse_integer, limits.CLIENT_SHARE), "20",
            "with 500 misses in flight, what one client may add, in per cent of 1,000",
        ),
    ),
    "Node": (
        _boolean(
            "setupinterface", "setup_interface", "true",
            "create the interface with the addresses of -localip, and look after it",
        ),
        Flag(
            ("interfacename",), "interface_name", "NAME", _parse_interface, "nodelocaldns",
            "name of the interface",
        ),
        _boolean(
            "setupiptables", "setup_iptables", "true",
            "install the packet filter rules that steer queries here",
        ),
        Flag(
            ("rules",), "rules", "auto|nftables|iptables-nft|iptables-legacy", _BACKENDS, "auto",
            "who keeps the rules; auto takes what the node uses already",
        ),
        Flag(
            ("syncinterval",), "sync_interval_s", "SECONDS", _parse_sync_interval_s, "60",
            "seconds between checks of both; 60s is understood too",
        ),
        _boolean(
            "skipteardown", "skip_teardown", "false",
            "leave the interface in place at the end; the rules are taken away all the same",
        ),
        Flag(
            ("health-port",), "health_port", "PORT", _PORT, "8080",
            "port of /health in the rules",
        ),
    ),
    "Process": (
        _boolean(
            "keeper", "keeper", "true",
            "start as a small parent that holds the sockets and restarts who serves",
        ),
        Flag(
            ("rundir",), "rundir", "FOLDER", str, "/run/nodecache",
            "where a successor and a restart find sockets and cache; \"\" for nowhere",
        ),
        Flag(
            ("pidfile",), "pidfile", "FILE", str, "none",
            "written once all listeners are up",
        ),
        Flag(
            ("log-format",), "log_format", "text|json", _FORMATS, "text",
            "how lines of the log are written",
        ),
        _boolean(
            "legacy-metrics", "legacy_metrics", "false",
            "also the coredns_forward_* series of images up to 1.23.1",
        ),
        _boolean("quiet", "quiet", "false", "no start-up lines"),
        _boolean("plugins", "plugins", "false", "list all directives and end"),
        _boolean("version", "version", "false", "print the version and end"),
        Flag(("help", "h"), "help", "", _parse_truth, "false", "print this and end"),
    ),
}  # fmt: skip

_BY_NAME = {name: flag for group in TABLE.values() for flag in group for name in flag.names}

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
    parts = [_EXAMPLES]
    for title, rows in TABLE.items():
        parts.append(f"\n{title}:\n")
        parts += [_help_row(row) for row in rows]
    return "".join(parts)


def _help_row(row: Flag) -> str:
    names = ", ".join(f"-{name}" for name in row.names)
    value = f" {row.value}" if row.value else ""
    return f"  {names}{value}\n        {row.text} (default {row.default})\n"


def parse_flags(argv: Sequence[str]) -> tuple[Flags, list[Fault]]:
    """Returns the flags and every fault of the command line; raises nothing.

    A faulty flag keeps its default, so that the caller can go on to look for more faults.
    """
    reading = _Reading(list(argv))
    flags = replace(Flags(), **reading.values)  # type: ignore[arg-type] # TABLE pairs the types
    is_to_serve = not (flags.help or flags.version or flags.plugins)
    if is_to_serve and not flags.localip and "localip" not in reading.faulty:
        reading.faults.append("-localip is missing: add for instance -localip 169.254.20.10")
    return flags, [Fault("command line", 0, 0, text) for text in dict.fromkeys(reading.faults)]


class _Reading:
    """One pass over the command line.

    Attributes:
        values: Field -> value; the last one counts when a flag is given twice.
        faults: One sentence each.
        faulty: Fields whose flag was given a value that is none.
    """

    def __init__(self, words: list[str]) -> None:
        self.values: dict[str, object] = {}
        self.faults: list[str] = []
        self.faulty: set[str] = set()
        self._words = words[::-1]
        while self._words:
            self._read(self._words.pop())

    def _read(self, word: str) -> None:
        name, equals, text = _without_dashes(word).partition("=")
        if word in ("-", "--") or not word.startswith("-"):
            self.faults.append(f"{shown(word)} belongs to no flag{_hint_for_truth(word)}")
        elif name not in _BY_NAME:
            self.faults.append(f"unknown flag {shown('-' + name)}{_hint_for_name(name)}")
            self._skip_value()
        elif equals or not _BY_NAME[name].value:
            self._set(name, text if equals else "true")
        elif not self._words or self._is_flag(self._words[-1]):
            self.faulty.add(_BY_NAME[name].field)
            self.faults.append(f"-{name} needs a value: write -{name} {_BY_NAME[name].value}")
        else:
            self._set(name, self._words.pop())

    def _set(self, name: str, text: str) -> None:
        flag = _BY_NAME[name]
        try:
            self.values[flag.field] = flag.parse(text)
        except ValueError as error:
            self.faulty.add(flag.field)
            self.faults.append(f"-{name}: {error}")

    def _skip_value(self) -> None:
        """Leaves out the value of an unknown flag, so that one slip is one fault."""
        if self._words and not self._words[-1].startswith("-"):
            self._words.pop()

    @staticmethod
    def _is_flag(word: str) -> bool:
        return word.startswith("-") and _without_dashes(word).partition("=")[0] in _BY_NAME


def _without_dashes(word: str) -> str:
    return word[2:] if word.startswith("--") else word[1:]


def _hint_for_truth(word: str) -> str:
    return f"; write booleans as -flag={word}" if word in _TRUTHS else ""


def _hint_for_name(name: str) -> str:
    return nearest(name, _BY_NAME).replace("'", "'-", 1) or "; see -help"
