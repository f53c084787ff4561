"""Owns how each server is started: one thread on one core, cache on, forwarding to the upstream.

Every setting that differs from the server's default is there to make it faster or to confine it
to one core; bench/README.md gives the reasons that are measured.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.15"
UPSTREAM_HOST = "127.0.0.53"
COMPILED = Path(__file__).parent.parent / ".build" / "compiled"
NOT_COMPILED = "not translated: make compile"


@dataclass(frozen=True, slots=True)
class Site:
    """Where one server lives during one start.

    Attributes:
        directory: Its own empty folder, for configuration and log.
        port: UDP and TCP port on HOST.
        http_ports: Four more free ports on HOST, for servers that export metrics and health.
        upstream_port: UDP and TCP port of the upstream on UPSTREAM_HOST.
        names: How many names the cache must have room for.
    """

    directory: Path
    port: int
    http_ports: tuple[int, ...]
    upstream_port: int
    names: int


@dataclass(frozen=True, slots=True)
class Peer:
    """One server of the comparison.

    Attributes:
        name: The row's name.
        command: Writes the configuration and returns the command line.
        missing: Why it cannot run here and what to install; empty when it can.
        forwards_by: "tcp", "udp", or "" for the floor, which forwards nothing.
    """

    name: str
    command: Callable[[Site], list[str]]
    missing: str
    forwards_by: str = "tcp"


def known_peers(programs: Path, node_cache: str | None, config: str) -> list[Peer]:
    """Returns all servers in the order of the table; the last only if a binary is named.

    ``config`` names the Corefile of nodecache and node-cache, see COREFILES.
    """

    def floor(site: Site) -> list[str]:
        return [str(programs / "floor"), f"{HOST}:{site.port}"]

    missing_compiled = "" if COMPILED.exists() else NOT_COMPILED
    peers = [
        Peer("floor", floor, "", forwards_by=""),
        Peer("nodecache", _nodecache(config), ""),
        Peer("nodecache-compiled", _nodecache_compiled(config), missing_compiled),
        Peer("unbound", _unbound, _missing("unbound")),
        Peer("dnsdist", _dnsdist_one_by_one, _missing("dnsdist")),
        Peer("dnsdist-batch", _dnsdist_in_batches, _missing("dnsdist")),
        Peer("dnsmasq", _dnsmasq, _missing("dnsmasq", "dnsmasq-base"), forwards_by="udp"),
    ]
    if node_cache:
        path = shutil.which(node_cache) or ""

        def command(site: Site) -> list[str]:
            return command_like_node_cache([path], site, COREFILES[config].replace(READY, ""))

        peers.append(Peer("node-cache", command, "" if path else f"no program {node_cache}"))
    return peers


def _program(name: str) -> str | None:
    """Returns a program's path; servers of Debian live in sbin, which users may not have."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def _missing(name: str, package: str = "") -> str:
    """Returns what to install when the program is not there, or nothing."""
    return "" if _program(name) else f"not installed: apt-get install {package or name}"


def _write(site: Site, name: str, text: str) -> str:
    """Writes a configuration file into the server's folder; returns its path."""
    path = site.directory / name
    path.write_text(text)
    return str(path)


PLAIN = """\
.:{port} {{
    bind {host}
    errors
    cache 300
    forward . {upstream_host}:{upstream_port} {{
        force_tcp
    }}
    prometheus {host}:{metrics_port}
}}
"""
READY = "    ready {host}:{ready_port}\n"
# What every block of the stock manifest has; node-cache does not know ``ready``.
_EVERY_BLOCK = (
    """\
    errors
    reload
    loop
    bind {host}
    prometheus {host}:{metrics_port}
    forward . {upstream_host}:{upstream_port} {{
        force_tcp
    }}
"""
    + READY
)
STOCK = (
    "cluster.local:{port} {{\n"
    "    cache {{\n        success 9984 30\n        denial 9984 5\n    }}\n"
    "    health {host}:{health_port}\n"
    + _EVERY_BLOCK
    + "}}\n"
    + "".join(
        f"{zone}:{{port}} {{{{\n    cache 30\n{_EVERY_BLOCK}}}}}\n"
        for zone in ("in-addr.arpa", "ip6.arpa", ".")
    )
)
COREFILES = {"plain": PLAIN, "stock": STOCK}


def command_like_node_cache(program: list[str], site: Site, corefile: str) -> list[str]:
    """Returns a command line with node-cache's flags; it may rewrite the -conf file itself."""
    text = corefile.format(
        host=HOST,
        port=site.port,
        upstream_host=UPSTREAM_HOST,
        upstream_port=site.upstream_port,
        metrics_port=site.http_ports[0],
        health_port=site.http_ports[2],
        ready_port=site.http_ports[3],
    )
    return [
        *program,
        *("-localip", HOST),
        "-setupinterface=false",
        "-setupiptables=false",
        *("-conf", _write(site, "Corefile", text)),
        *("-basecorefile", _write(site, "Corefile.base", text)),
        *("-metrics-listen-address", f"{HOST}:{site.http_ports[1]}"),
    ]


def _nodecache(config: str) -> Callable[[Site], list[str]]:
    # Byte code is kept, as where it is installed: some machines for development turn that off.
    program = ["env", "-u", "PYTHONDONTWRITEBYTECODE", sys.executable, "-m", "nodecache"]
    return lambda site: [*command_like_node_cache(program, site, COREFILES[config]), "-rundir="]


def _nodecache_compiled(config: str) -> Callable[[Site], list[str]]:
    # -P: the sources in the current folder must not come first.
    program = ["env", f"PYTHONPATH={COMPILED}", sys.executable, "-P", "-m", "nodecache"]
    return lambda site: [*command_like_node_cache(program, site, COREFILES[config]), "-rundir="]


UNBOUND = """\
server:
    verbosity: 0
    directory: ""
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    do-ip6: no
    interface: {host}@{port}
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    num-threads: 1
    so-reuseport: no
    module-config: "iterator"
    tcp-upstream: yes
    outgoing-num-tcp: 64
    max-reuse-tcp-queries: 1000000
    outgoing-range: 4096
    num-queries-per-thread: 4096
    msg-cache-size: {octets}
    rrset-cache-size: {octets}
    msg-cache-slabs: 1
    rrset-cache-slabs: 1
    infra-cache-slabs: 1
    key-cache-slabs: 1
    qname-minimisation: no
    rrset-roundrobin: no
    minimal-responses: yes
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: {upstream_host}@{upstream_port}
"""
UNBOUND_OCTETS_PER_NAME = 600  # more than it uses for one A record in either cache


def _unbound(site: Site) -> list[str]:
    text = UNBOUND.format(
        host=HOST,
        port=site.port,
        upstream_host=UPSTREAM_HOST,
        upstream_port=site.upstream_port,
        octets=max(4 << 20, site.names * UNBOUND_OCTETS_PER_NAME),
    )
    return [_program("unbound") or "unbound", "-d", "-p", "-c", _write(site, "unbound.conf", text)]


# The security poll would ask the Internet. With maxInFlight one backend connection is pipelined;
# without, each query waits for a connection of its own.
DNSDIST = """\
setSecurityPollSuffix("")
addLocal("{host}:{port}", {{doTCP=true, reusePort=false}})
setACL({{"127.0.0.0/8"}})
setMaxTCPClientThreads(1)
setRingBuffersSize(1, 1)
setUDPMultipleMessagesVectorSize({batch})
newServer({{address="{upstream_host}:{upstream_port}", tcpOnly=true, maxInFlight=64}}):setUp()
getPool(""):setCache(newPacketCache({names}, {{minTTL=0, numberOfShards=1}}))
"""


def _dnsdist(site: Site, batch: int) -> list[str]:
    text = DNSDIST.format(
        host=HOST,
        port=site.port,
        upstream_host=UPSTREAM_HOST,
        upstream_port=site.upstream_port,
        batch=batch,
        names=site.names + site.names // 5,
    )
    config = _write(site, "dnsdist.conf", text)
    return [_program("dnsdist") or "dnsdist", "--supervised", "--disable-syslog", "-C", config]


def _dnsdist_one_by_one(site: Site) -> list[str]:
    """As it is without tuning: one recvmsg a query."""
    return _dnsdist(site, 1)


def _dnsdist_in_batches(site: Site) -> list[str]:
    """With recvmmsg and sendmmsg for up to 64 queries."""
    return _dnsdist(site, 64)


def _dnsmasq(site: Site) -> list[str]:
    # It slows down by an order of magnitude once the cache is full of living names, so the cache
    # gets room for all; it can forward by UDP only.
    return [
        _program("dnsmasq") or "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=",
        "--no-resolv",
        "--no-hosts",
        "--no-poll",
        "--bind-interfaces",
        f"--listen-address={HOST}",
        f"--port={site.port}",
        f"--cache-size={site.names + site.names // 5}",
        "--dns-forward-max=1000",
        f"--server={UPSTREAM_HOST}#{site.upstream_port}",
    ]
