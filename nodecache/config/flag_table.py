"""The table of flags: how each is written, what it is by default, and what help says of it."""

from __future__ import annotations

import re

from nodecache import limits
from nodecache.config.flag_reading import Flag, boolean, parse_truth
from nodecache.config.model import Address, LogFormat, NxdomainScope
from nodecache.config.names import parse_name
from nodecache.config.node import Backend
from nodecache.config.reading import one_of
from nodecache.config.values import (
    parse_duration_s,
    parse_integer,
    parse_ip,
    parse_listen_address,
    parse_octets,
    parse_port,
    within,
)
from nodecache.printing import shown

_MAX_LOCAL_ADDRESSES = 100
_MAX_FALLBACKS = 16
# A Service's name is a label of RFC 1035 section 2.3.1.
_SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_INTERFACE = re.compile(r"[A-Za-z0-9._-]{1,15}")


def _parse_localip(text: str) -> tuple[str, ...]:
    """A comma list; empty items, such as after a trailing comma, are left out."""
    hosts = [parse_ip(item.strip()) for item in text.split(",") if item.strip()]
    if len(hosts) > _MAX_LOCAL_ADDRESSES:
        raise ValueError(f"give at most {_MAX_LOCAL_ADDRESSES} addresses")
    return tuple(dict.fromkeys(hosts))


def _parse_fallback(text: str) -> tuple[str, ...] | None:
    if text in ("auto", "off"):
        return () if text == "auto" else None
    try:
        hosts = [parse_ip(item.strip()) for item in text.split(",") if item.strip()]
    except ValueError as error:
        raise ValueError(f"{error}; write auto, off, or addresses of the cluster's DNS") from None
    if not hosts or len(hosts) > _MAX_FALLBACKS or any("%" in host for host in hosts):
        raise ValueError(f"write auto, off, or 1 to {_MAX_FALLBACKS} addresses without a zone")
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


def _parse_stuck_after_s(text: str) -> float:
    return 0.0 if text == "0" else within(parse_duration_s, limits.STUCK_AFTER_S)(text)


def _parse_metrics_address(text: str) -> Address | None:
    return parse_listen_address(text) if text else None


def _parse_endpoint(text: str) -> str:
    parse_listen_address(text)
    return text


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
            "where the filled Corefile goes and imports begin; read if -basecorefile is missing",
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
        boolean(
            "watch", "watch", "true",
            "load changed files within 2 s, not only on SIGUSR1 and SIGHUP",
        ),
        boolean(
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
            ("nxdomain-scope",), "nxdomain_scope", "cluster|all|none", _SCOPES, "cluster",
            "names of which an NXDOMAIN for A answers every type",
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
        boolean(
            "setupinterface", "setup_interface", "true",
            "create the interface with the addresses of -localip, and look after it",
        ),
        Flag(
            ("interfacename",), "interface_name", "NAME", _parse_interface, "nodelocaldns",
            "name of the interface",
        ),
        boolean(
            "setupiptables", "setup_iptables", "true",
            "install the packet filter rules that steer queries here",
        ),
        Flag(
            ("rules",), "rules", "auto|nftables|iptables-nft|iptables-legacy", _BACKENDS, "auto",
            "who keeps the rules; auto takes nftables wherever the kernel has it",
        ),
        Flag(
            ("fallback",), "fallback", "auto|off|IP,...", _parse_fallback, "auto",
            "the cluster's DNS, which the kernel leads queries to while nobody serves here",
        ),
        boolean(
            "rules-conntrack", "rules_conntrack", "false",
            "connection tracking sees what is served, for policies that drop what it does not",
        ),
        Flag(
            ("syncinterval",), "sync_interval_s", "SECONDS", _parse_sync_interval_s, "60",
            "seconds between checks of both; 60s is understood too",
        ),
        boolean(
            "skipteardown", "skip_teardown", "false",
            "leave the interface in place at the end",
        ),
        boolean(
            "forwardonexit", "forward_on_exit", "false",
            "without effect, for ACK's arguments: the kernel leads elsewhere, see -fallback",
        ),
        Flag(
            ("health-port",), "health_port", "PORT", _PORT, "8080",
            "port of /health in the rules",
        ),
    ),
    "Process": (
        boolean(
            "keeper", "keeper", "true",
            "start as a small parent that holds the sockets and restarts who serves",
        ),
        Flag(
            ("stuckafter",), "stuck_after_s", "DURATION", _parse_stuck_after_s, "3s",
            "who serves is killed after so long without an answer, and started again; 0 for never",
        ),
        Flag(
            ("leavewait",), "leave_wait_s", "DURATION",
            within(parse_duration_s, limits.LEAVE_WAIT_S), "10s in a pod, else 0",
            "on SIGTERM, serve on so long, or until a successor takes over",
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
        boolean(
            "legacy-metrics", "legacy_metrics", "false",
            "also the coredns_forward_* series of images up to 1.23.1",
        ),
        boolean("quiet", "quiet", "false", "no start-up lines"),
        boolean("plugins", "plugins", "false", "list all directives and end"),
        boolean("version", "version", "false", "print the version and end"),
        Flag(("help", "h"), "help", "", parse_truth, "false", "print this and end"),
    ),
}  # fmt: skip
