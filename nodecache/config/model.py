"""The configuration as values: what the rest of nodecache is told, and nothing else.

Everything here is frozen and comparable, so that a reload can tell what changed.
Durations are seconds, sizes are octets, names are both text and wire format.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from nodecache.config.directives.rendering import RecordText
from nodecache.config.node import NO_NODE, NodePlan


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
class ForwardPolicy:
    """The ``forward`` directive of one server block.

    Attributes:
        origin: FROM: names outside it are not forwarded (REFUSED).
        upstreams: In the order of the Corefile; empty when the resolv.conf that it names holds
            no usable nameserver, or the upstream Service is not known yet (REFUSED then).
        except_zones: Names below these are not forwarded.
        selection: Which upstream is tried first.
        max_concurrent: Exchanges in flight above which misses are REFUSED; 0 means no limit here.
        failfast_all_unhealthy: SERVFAIL at once when every upstream is down.
        failover_rcodes: Response codes that move the query to the next upstream.
        next_rcodes: Codes after which the next ``forward`` of the block is asked.
        max_connect_attempts: Attempts to connect per query; 0 means as many as time allows.
        read_timeout_s: Longest wait for one answer on one connection.
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

    ``pattern`` is a regular expression about the text of the error (directives/patterns.py reads
    it); ``level`` is warning, error, info or debug; with ``show_first`` the first error of an
    interval is logged as it happens.
    """

    interval_s: float
    pattern: str
    level: str = "error"
    show_first: bool = False


@dataclass(frozen=True, slots=True)
class ErrorsPolicy:
    """The ``errors`` directive: whether failures are logged, and how they are summed up."""

    stacktrace: bool = False
    consolidate: tuple[ErrorRule, ...] = ()


class Match(enum.Enum):
    """How a name is compared in ``rewrite``."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    SUBSTRING = "substring"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class NameTest:
    """Which names a rule of ``rewrite`` is about.

    ``text`` is a regular expression for REGEX, else lower case with the final dot.
    """

    match: Match
    text: str


class AnswerPart(enum.Enum):
    """Which names in the records of a response are changed: owners, or those in the RDATA."""

    NAME = "name"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class AnswerRewrite:
    """``answer name|value PATTERN TO``: names that match become ``to``, groups filled in."""

    part: AnswerPart
    pattern: str
    to: str


@dataclass(frozen=True, slots=True)
class RewriteName:
    """A ``name`` rule.

    Attributes:
        test: Which QNAMEs it changes.
        to: What the part that matched becomes, for REGEX the whole name with groups filled in.
        is_last: ``stop``: no rule follows this one where it applied; so in all rules.
        is_auto: Names in the response are changed back.
        answers: Further changes of the response, done in reverse order.
    """

    test: NameTest
    to: str
    is_last: bool = True
    is_auto: bool = False
    answers: tuple[AnswerRewrite, ...] = ()


@dataclass(frozen=True, slots=True)
class RewriteType:
    """A ``type`` rule: QTYPE ``before`` becomes ``after``."""

    before: int
    after: int
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class RewriteClass:
    """A ``class`` rule: QCLASS ``before`` becomes ``after``."""

    before: int
    after: int
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class RewriteTtl:
    """A ``ttl`` rule: all TTLs are brought into the range of seconds, both ends included."""

    test: NameTest
    least_s: int
    most_s: int
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class RewriteRcode:
    """A ``rcode`` rule: response code ``before`` becomes ``after``, both below 16."""

    test: NameTest
    before: int
    after: int
    is_last: bool = True


class EdnsAction(enum.Enum):
    """What becomes of an EDNS option of the query to the upstream."""

    SET = "set"
    APPEND = "append"
    REPLACE = "replace"
    UNSET = "unset"


class EdnsVariable(enum.Enum):
    """What an EDNS option may hold that differs from question to question."""

    QNAME = "{qname}"
    QTYPE = "{qtype}"


@dataclass(frozen=True, slots=True)
class RewriteEdns:
    """An ``edns0`` rule about the option ``code`` (0 to 65535) and its octets."""

    action: EdnsAction
    code: int
    data: bytes | EdnsVariable = b""
    is_last: bool = True


Rewrite = RewriteName | RewriteType | RewriteClass | RewriteTtl | RewriteRcode | RewriteEdns


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that was understood: config/directives/patterns.py makes and matches it.

    Attributes:
        text: As it was written.
        groups: The name of each group, "" without one; the first is the whole match.
        steps: How large it is, 4000 at most.
    """

    text: str
    groups: tuple[str, ...]
    steps: int


@dataclass(frozen=True, slots=True)
class AnswerTemplate:
    """One ``template`` directive.

    Attributes:
        rclass, rtype: CLASS and TYPE that it answers, 255 for any.
        zones: Names below these are answered for, at least one.
        patterns: The first one that matches the QNAME counts; empty matches everything.
        answer, authority, additional: The records to make, by section.
        rcode: 0 to 15.
        extended_error: RFC 8914 code and text, None for none.
        fallthrough: None: what no pattern matches gets SERVFAIL; else zones whose names go on.
    """

    rclass: int
    rtype: int
    zones: tuple[Name, ...]
    patterns: tuple[Pattern, ...] = ()
    answer: tuple[RecordText, ...] = ()
    authority: tuple[RecordText, ...] = ()
    additional: tuple[RecordText, ...] = ()
    rcode: int = 0
    extended_error: tuple[int, str] | None = None
    fallthrough: tuple[Name, ...] | None = None


@dataclass(frozen=True, slots=True)
class HostsTable:
    """The ``hosts`` directive.

    Attributes:
        zones: Names below these are answered for.
        addresses: (name, addresses) pairs: name in wire format, ``*`` as its first label for any
            one label there; addresses as RDATA of A (4 octets) and AAAA (16 octets).
        names: (reverse name, host names) pairs, all in wire format.
        ttl_s: TTL of all answers.
        fallthrough: None: names without an entry get SERVFAIL; else zones whose names go on.
        passes_other_types: Also where an entry exists and neither A nor AAAA is asked
            (``fallthrough_unsupported``).
        file: What it was read from, "" without a file (for coredns_hosts_entries).
        entries: Addresses and reverse names, as coredns_hosts_entries counts them.
    """

    zones: tuple[Name, ...]
    addresses: tuple[tuple[bytes, tuple[bytes, ...]], ...] = ()
    names: tuple[tuple[bytes, tuple[bytes, ...]], ...] = ()
    ttl_s: int = 3600
    fallthrough: tuple[Name, ...] | None = None
    passes_other_types: bool = False
    file: str = ""
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Dns64:
    """The ``dns64`` directive: AAAA records made of A records (RFC 6147).

    Attributes:
        prefix: IPv6 network, length 32, 40, 48, 56, 64 or 96.
        translate_all: Also where there is an AAAA record.
        allow_ipv4: Also for queries that arrive over IPv4.
    """

    prefix: str = "64:ff9b::/96"
    translate_all: bool = False
    allow_ipv4: bool = False


@dataclass(frozen=True, slots=True)
class LoadBalance:
    """The ``loadbalance`` directive: the order of A, AAAA and MX records in each reply.

    Attributes:
        is_weighted: One address is chosen by weight and comes first; nothing is shuffled.
        weights: Name in wire format -> (RDATA of an address, weight from 1 to 255) pairs;
            addresses without one weigh 1.
        prefer: Networks whose addresses come first, in this order.
    """

    is_weighted: bool = False
    weights: tuple[tuple[bytes, tuple[tuple[bytes, int], ...]], ...] = ()
    prefer: tuple[str, ...] = ()


class LogClass(enum.Enum):
    """Which responses a ``log`` line is about."""

    ALL = "all"
    SUCCESS = "success"
    DENIAL = "denial"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogRule:
    """One ``log`` directive: queries below ``zones`` whose response is of ``classes``.

    ``template`` has its shortcuts filled in, and no placeholder that does not exist.
    """

    zones: tuple[Name, ...]
    template: str
    classes: frozenset[LogClass] = frozenset((LogClass.ALL,))


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
class ServerBlock:
    """One block of the Corefile, for one port.

    Attributes:
        zones: Zones it is authoritative-by-routing for, at least one.
        port: Port of its listeners.
        bind: IP addresses; empty means every address of the machine.
        errors: None when the directive is absent.
        cache: None when nothing is cached.
        forwards: In the order of the Corefile; empty means everything is REFUSED.
        prometheus: Where /metrics answers, or None.
        health: Where /health answers, or None.
        ready: Where /ready answers, or None.
        pprof: Where the profiler answers, or None.
        bufsize: Most octets of a UDP reply, and of what an upstream may send over UDP.
        logs: Which queries are logged, and how; empty for none.
        dns64, loadbalance: What is done to a reply in front of the cache.
        rewrites, templates, hosts: What stands behind the cache, before ``forward``.
        is_loop_checked: Whether a forwarding loop is looked for (``loop``).
        is_whoami: Whether what ``forward`` does not take is answered with the client's address.
        is_debug: Whether debugging lines are logged.
        timeouts: For TCP clients.
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
    pprof: Address | None = None
    bufsize: int | None = None
    logs: tuple[LogRule, ...] = ()
    dns64: Dns64 | None = None
    loadbalance: LoadBalance | None = None
    rewrites: tuple[Rewrite, ...] = ()
    templates: tuple[AnswerTemplate, ...] = ()
    hosts: HostsTable | None = None
    is_loop_checked: bool = False
    is_whoami: bool = False
    is_debug: bool = False
    timeouts: Timeouts | None = None
    directives: tuple[str, ...] = ()
    file: str = ""
    line: int = 0


class NxdomainScope(enum.Enum):
    """For which names an NXDOMAIN for one type answers all types."""

    CLUSTER = "cluster"
    ALL = "all"


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
        node: The interface and the rules of this node.
        sync_interval_s: Seconds between checks of both.
        skip_teardown: The interface stays at the end.
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
    node: NodePlan = NO_NODE
    sync_interval_s: float = 60.0
    skip_teardown: bool = False
    rundir: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)
