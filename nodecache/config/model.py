"""The configuration as values: what the rest of nodecache is told, and nothing else.

Everything here is frozen and comparable, so that a reload can tell what changed.
Durations are seconds, sizes are octets, names are both text and wire format.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, cast

from nodecache import limits
from nodecache.config.node import NO_NODE, NodePlan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Name:
    """A domain name in the two forms that nodecache needs.

    Attributes:
        text: Presentation format in lower case with the final dot ("cluster.local.", ".").
        wire: Wire format in lower case, uncompressed, with the final zero octet.
    """

    text: str
    wire: bytes


ROOT = Name(".", b"\0")
CLUSTER_DOMAIN = Name("cluster.local.", b"\7cluster\5local\0")


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address literal and a port.

    ``host`` may carry a zone ("fe80::1%eth0"). Where an endpoint listens it may be "": every
    address of the machine.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """Returns ``host:port``, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Transport(enum.Enum):
    """How an upstream is asked. UDP retries over TCP when the response is truncated."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class SelectionPolicy(enum.Enum):
    """Which upstream is tried first."""

    RANDOM = "random"
    ROUND_ROBIN = "round_robin"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How an upstream that failed is probed until it answers.

    Attributes:
        interval_s: Seconds between probes.
        recursion_desired: RD in the probe (``no_rec`` clears it).
        name: QNAME of the probe, type NS.
    """

    interval_s: float = 0.5
    recursion_desired: bool = True
    name: Name = ROOT


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Client side TLS of a forward block; empty paths mean the system's own trust store."""

    certificate_file: str = ""
    key_file: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One resolver that queries are forwarded to, with all that its connections depend on.

    Equal upstreams of different server blocks share connections and health.

    Attributes:
        address: Where it listens.
        transport: How it is asked.
        server_name: Name checked in its certificate, "" for the address itself (TLS only).
        tls: Key, certificate and trust for TLS.
        max_fails: Consecutive failures above which it counts as down; 0 means never.
        health_check: Probing after a failure.
        expire_s: Idle seconds after which a connection is closed.
        max_age_s: Seconds after which a connection is replaced; 0 chooses about 30, jittered.
        max_idle_connections: Idle connections kept; 0 means no limit of its own.
        max_rate: Queries a second, all transports together; 0 means no limit.
        max_connections: TCP or TLS connections at a time, probes and closing ones included; 0
            means no limit of its own.
    """

    address: Address
    transport: Transport = Transport.UDP
    server_name: str = ""
    tls: TlsSettings = TlsSettings()
    max_fails: int = 2
    health_check: HealthCheck = HealthCheck()
    expire_s: float = 10.0
    max_age_s: float = 0.0
    max_idle_connections: int = 0
    max_rate: int = 0
    max_connections: int = 0


@dataclass(frozen=True, slots=True)
class HostName:
    """A host whose addresses are looked up while nodecache runs.

    Attributes:
        name: Absolute.
        servers: Who is asked for them, in this order.
    """

    name: Name
    servers: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class NamedUpstream:
    """The upstreams at all addresses of a host; ``pattern`` has no address but the port."""

    host: HostName
    pattern: Upstream


@dataclass(frozen=True, slots=True)
class ForwardPolicy:
    """The ``forward`` directive of one server block.

    Attributes:
        origin: FROM: names outside it are not forwarded.
        upstreams: In the order of the Corefile; empty when the resolv.conf that it names holds
            no usable nameserver, or the upstream Service or host is not known yet (REFUSED then).
        destinations: What ``upstreams`` are made of (config/hostnames.py) where one of them is a
            host, else empty.
        except_zones: Names below these are not forwarded.
        selection: Which upstream is tried first.
        max_concurrent: Exchanges in flight above which misses are REFUSED; 0 means no limit here.
        failfast_all_unhealthy: SERVFAIL at once when every upstream is down.
        failover_rcodes: Response codes that move the query to the next upstream.
        next_rcodes: Codes after which the next ``forward`` of the block is asked.
        max_connect_attempts: Attempts to connect per query; 0 means as many as time allows.
        read_timeout_s: Longest wait for one answer on one connection.
        has_edns: Queries carry an OPT record.
    """

    origin: Name
    upstreams: tuple[Upstream, ...]
    except_zones: tuple[Name, ...] = ()
    selection: SelectionPolicy = SelectionPolicy.RANDOM
    max_concurrent: int = 0
    failfast_all_unhealthy: bool = False
    failover_rcodes: frozenset[int] = frozenset()
    next_rcodes: frozenset[int] = frozenset()
    max_connect_attempts: int = 0
    read_timeout_s: float = 2.0
    has_edns: bool = True
    destinations: tuple[Upstream | NamedUpstream, ...] = ()


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Bounds for one kind of response: entries, and seconds."""

    capacity: int
    max_ttl_s: int
    min_ttl_s: int = 0


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Refresh-ahead: names hit ``amount`` times within ``duration_s`` are refreshed early.

    ``percentage`` is the part of the TTL that remains when the refresh starts (10 to 90).
    """

    amount: int = 2
    duration_s: float = 60.0
    percentage: int = 10


class StaleMode(enum.Enum):
    """When a stale response goes out: at once, or only after a fresh one was tried for."""

    IMMEDIATE = "immediate"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class ServeStale:
    """RFC 8767: how long after expiry a response may still be served, and when.

    ``verify_timeout_s`` bounds the wait for a fresh answer in VERIFY mode.
    """

    duration_s: float = 3600.0
    mode: StaleMode = StaleMode.IMMEDIATE
    verify_timeout_s: float = 0.4


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """The ``cache`` directive of one server block.

    Attributes:
        zones: Names below these are cached; empty means all of the block's zones.
        success: Bounds for positive responses.
        denial: Bounds for NXDOMAIN and NODATA.
        servfail_s: Seconds to keep SERVFAIL; None means 1 s, growing to 5 s while it lasts.
        prefetch: Refresh-ahead; None only when the Corefile turns it off with ``prefetch 0``.
        serve_stale: None when off.
        disable_success: Names whose positive responses are not cached.
        disable_denial: Names whose negative responses are not cached.
        keep_ttl: Replies carry the TTL as stored, without counting down.
        nxdomain_cut: Zones in which an NXDOMAIN answers for all names below its own (RFC 8020).
    """

    zones: tuple[Name, ...] = ()
    success: Lifetime = Lifetime(9984, 3600)
    denial: Lifetime = Lifetime(9984, 1800)
    servfail_s: float | None = None
    prefetch: Prefetch | None = Prefetch()
    serve_stale: ServeStale | None = None
    disable_success: tuple[Name, ...] = ()
    disable_denial: tuple[Name, ...] = ()
    keep_ttl: bool = False
    nxdomain_cut: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One ``consolidate`` line: errors matching ``pattern`` are logged once per interval.

    ``pattern`` is a regular expression about the text of the error (patterns.py reads it);
    ``level`` is warning, error, info or debug; with ``show_first`` the first error of an interval
    is logged as it happens.
    """

    interval_s: float
    pattern: str
    level: str = "error"
    show_first: bool = False


@dataclass(frozen=True, slots=True)
class ErrorsPolicy:
    """The ``errors`` directive: whether failures are logged, and how they are summed up."""

    consolidate: tuple[ErrorRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The ``timeouts`` directive, for TCP clients; None keeps our own time."""

    read_s: float | None = None
    write_s: float | None = None
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class HealthEndpoint:
    """The ``health`` directive: where /health answers, and how long lameduck lasts."""

    address: Address
    lameduck_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """What a directive with a folder of its own (directives/) sets in a server block.

    Attributes:
        name: The directive's.
        default: What holds in a block without the directive.
    """

    name: str
    default: T


@dataclass(frozen=True, slots=True)
class ServerBlock:
    """One block of the Corefile, for one port.

    Attributes:
        zones: Zones it is authoritative-by-routing for, at least one.
        port: Port of its listeners.
        bind: IP addresses; empty means every address of the machine.
        errors: None when the directive is absent.
        cache: None when nothing is cached.
        forwards: In the order of the Corefile.
        prometheus: Where /metrics answers, or None.
        health: Where /health answers, or None.
        ready: Where /ready answers, or None.
        bufsize: Most octets of a UDP reply, and of what an upstream may send over UDP.
        nsid: What is told who asks which server this is, "" for the host's name (RFC 5001).
        settings: What the directives in directives/ read, by their names: ask ``of``.
        is_debug: Whether debugging lines are logged.
        timeouts: For TCP clients.
        takes_queries: Whether some directive is about queries: else all are REFUSED, as in
            CoreDNS. Otherwise those that none of the directives answers get SERVFAIL.
        directives: Names of all directives present (for coredns_plugin_enabled).
        file: Corefile path as given.
        line: Line of the block's first key.
    """

    zones: tuple[Name, ...]
    port: int
    bind: tuple[str, ...] = ()
    errors: ErrorsPolicy | None = None
    cache: CachePolicy | None = None
    forwards: tuple[ForwardPolicy, ...] = ()
    prometheus: Address | None = None
    health: HealthEndpoint | None = None
    ready: Address | None = None
    bufsize: int | None = None
    nsid: str | None = None
    settings: tuple[tuple[str, object], ...] = ()
    is_debug: bool = False
    timeouts: Timeouts | None = None
    takes_queries: bool = False
    directives: tuple[str, ...] = ()
    file: str = ""
    line: int = 0

    @property
    def zones_label(self) -> str:
        """The label ``zones`` of its series: all zones, joined by commas."""
        return ",".join(zone.text for zone in self.zones)

    def of(self, setting: Setting[T]) -> T:
        """Returns what the directive of ``setting`` is configured to here."""
        for name, value in self.settings:
            if name == setting.name:
                return cast("T", value)  # ``having`` put it there
        return setting.default

    def having(self, setting: Setting[T], value: T) -> ServerBlock:
        """Returns the block with another value of a setting; the default leaves no trace."""
        others = {name: each for name, each in self.settings if name != setting.name}
        if value != setting.default:
            others[setting.name] = value
        return replace(self, settings=tuple(sorted(others.items(), key=lambda item: item[0])))


class NxdomainScope(enum.Enum):
    """For which names an NXDOMAIN for A answers all types."""

    CLUSTER = "cluster"
    ALL = "all"
    NONE = "none"


class LogFormat(enum.Enum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class MissingService:
    """The upstream Service that a ``forward`` needs and the environment does not name.

    Attributes:
        name: Of the Service.
        namespace: Where it is looked for.
        variable: The environment variable that its address is awaited in.
        servers: Who may know its address, the likeliest first.
    """

    name: str
    namespace: str
    variable: str
    servers: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """All of the configuration.

    Attributes:
        blocks: Server blocks in file order.
        setup_metrics: Where node-cache's own metrics answer (-metrics-listen-address), or None.
        cache_octets: Budget of all caches together.
        cluster_domain: Names below it are cluster names.
        nxdomain_scope: See NxdomainScope.
        max_inflight: Upstream exchanges in flight, over all blocks.
        client_share: Per cent for one client once much is in flight; see ClientShares.
        quiet: No start-up block (-quiet).
        pidfile: Written once all listeners are up; "" for none.
        log_format: How log lines are written.
        legacy_metrics: Also the coredns_forward_* names of images up to 1.23.1.
        is_watched: Changed files are loaded without a signal.
        missing_service: What some forward waits for, or None.
        own_addresses: Where we listen on port 53.
        kept_files: Files that are gone or of no use, so that what they said before holds.
        node: The interface and the rules of this node.
        sync_interval_s: Seconds between checks of both.
        skip_teardown: The interface stays at the end.
        stuck_after_s: Seconds without an answer after which the keeper kills who serves; 0 never.
        leave_wait_s: Seconds to serve on for a successor when asked to end.
        rundir: Where a successor finds us, and a restart its cache; "" for nowhere.
    """

    blocks: tuple[ServerBlock, ...]
    setup_metrics: Address | None = None
    cache_octets: int = 32 * 1024 * 1024
    cluster_domain: Name = CLUSTER_DOMAIN
    nxdomain_scope: NxdomainScope = NxdomainScope.CLUSTER
    max_inflight: int = 10_000
    client_share: int = 20
    quiet: bool = False
    pidfile: str = ""
    log_format: LogFormat = LogFormat.TEXT
    legacy_metrics: bool = False
    is_watched: bool = True
    missing_service: MissingService | None = None
    own_addresses: frozenset[Address] = field(default=frozenset(), compare=False)
    kept_files: tuple[str, ...] = ()
    node: NodePlan = NO_NODE
    sync_interval_s: float = 60.0
    skip_teardown: bool = False
    stuck_after_s: float = limits.STUCK_AFTER_S.default
    leave_wait_s: float = 0.0
    rundir: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)
