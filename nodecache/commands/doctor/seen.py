"""What the looks saw: values without judgement. None and () stand for what was not looked at."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodecache.commands.doctor.resolvconf import ResolvConf
from nodecache.config.model import Address
from nodecache.config.node import NodePlan

Upstreams = tuple[tuple[str, Address, str], ...]


class By(enum.Enum):
    """Who answered a question; the values are those of the report."""

    DAEMON = "this node's nodecache"
    ANOTHER = "another server"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question.

    Attributes:
        server: Address and port that were asked.
        transport: "udp" or "tcp".
        by: Who answered.
        rcode: Of the response, -1 without one.
        octets: Of the response.
        took_s: Seconds until the response, or until there was certainty that none comes.
        error: Why there is none, "" with one.
        is_refused: The machine that was asked says that nothing listens there.
    """

    server: str
    transport: str
    by: By
    rcode: int = -1
    octets: int = 0
    took_s: float = 0.0
    error: str = ""
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class AskedHere:
    """One of our addresses over one transport.

    Attributes:
        host: The address.
        transport: "udp" or "tcp".
        direct: Asked from the loopback address, which no rule of ours leads elsewhere.
        led: Asked as the node's processes ask.
    """

    host: str
    transport: str
    direct: Answer
    led: Answer


@dataclass(frozen=True, slots=True)
class AskedUpstream:
    """One upstream of the configuration.

    Attributes:
        server: Address and port.
        zone: Of the server block that forwards there.
        transport: How it is asked by the configuration: "udp", "tcp" or "tls".
        udp: A small question over UDP; None for TLS.
        tcp: The same over TCP; for TLS whether a connection opens, and no more.
        large: A question with an answer of more than 512 octets, over UDP; None if there is none.
    """

    server: str
    zone: str
    transport: str
    udp: Answer | None
    tcp: Answer
    large: Answer | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What the daemon says of itself.

    Attributes:
        mark: What makes it known by its answer (serving/views.py).
        plan: The interface and rules that it wants.
        upstreams: Zone, address and transport of those of its configuration.
        refusal: Why newer files are not in force, "" if they are.
        is_last_good: What is in force is from before the start.
        has_redirect: Its rules stand, as far as it knows; None if it wants none.
        is_beat_heard: The rules heard its last beat.
        details: What /ready tells beside.
    """

    mark: bytes
    plan: NodePlan
    upstreams: Upstreams = ()
    refusal: str = ""
    is_last_good: bool = False
    has_redirect: bool | None = None
    is_beat_heard: bool = False
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a daemon, as /proc shows it.

    Attributes:
        pid: As it is called here.
        is_stopped: A signal, a tracer or a frozen cgroup holds it.
        capabilities: The effective ones, a bit each (capabilities(7)).
        files, most_files: Open, and allowed; 0 if unknown.
    """

    pid: int
    is_stopped: bool = False
    capabilities: int = 0
    files: int = 0
    most_files: int = 0


@dataclass(frozen=True, slots=True)
class Daemon:
    """The nodecache of this network namespace.

    Attributes:
        version: "" if it did not say.
        words: Its command line, without the program.
        environment: Its variables.
        state: None if it did not answer.
        processes: Keeper and worker, if they can be seen.
        complaint: Why it did not answer, "" if it did.
    """

    version: str = ""
    words: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    state: State | None = None
    processes: tuple[Process, ...] = ()
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A socket on the DNS port of our addresses that is not the daemon's.

    ``place`` is such as "udp 10.96.0.10:53", ``who`` such as "dnsmasq (pid 812)".
    """

    place: str
    who: str


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """A rule of somebody else that is about DNS.

    Attributes:
        where: Program, table and chain.
        text: The rule.
        is_drop: It drops or rejects; else it leads elsewhere.
        concerns: The address of ours that it names, "" if it names none.
        is_certain: It matches whoever asks; else only what was asked here tells.
    """

    where: str
    text: str
    is_drop: bool
    concerns: str = ""
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Rules:
    """The packet filter.

    Attributes:
        stands: Our rules are there as the plan wants them.
        has_table: There is a table or a chain of ours at all.
        proxy: How kube-proxy works here: "nftables", "iptables", "ipvs", or "" if none was seen.
        leftovers: Rules of node-cache for our addresses.
        foreign: Rules of others that are about DNS.
    """

    stands: bool
    has_table: bool
    proxy: str = ""
    leftovers: tuple[str, ...] = ()
    foreign: tuple[ForeignRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernel:
    """Figures of the kernel; -1 for what it does not show.

    Attributes:
        tracked, most_tracked: Entries of connection tracking, and how many there may be.
        insert_failed: Entries that lost a race since the node started.
        queue_drops: Queries that were dropped while we looked.
        memory, most_memory: Octets of the cgroup.
        clock_behind_s: Seconds by which the clock is behind the date of the program.
    """

    tracked: int = -1
    most_tracked: int = -1
    insert_failed: int = -1
    queue_drops: int = -1
    memory: int = -1
    most_memory: int = -1
    clock_behind_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod's, or any, resolv.conf.

    Attributes:
        path: Where it was read.
        resolvconf: What it says.
        answers: What its servers said when they were asked from within the pod.
    """

    path: str
    resolvconf: ResolvConf
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was not looked at, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything.

    Attributes:
        version: Of this command.
        plan: What a daemon here wants of the node, as far as known.
        wanted: -localip as this command was given it, () if it was not.
        cluster_dns: Addresses of the cluster's DNS that pods may ask, as far as known.
        faults: Of the configuration, where no daemon runs.
        missing: Those of the plan's addresses that the node does not have.
        holders: Who has the port; None if that could not be seen.
        daemon: None if there is none.
        asked_here, asked_upstreams, rules, kernel, pod, skipped: See their types.
    """

    version: str
    plan: NodePlan
    wanted: tuple[str, ...] = ()
    cluster_dns: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    holders: tuple[Holder, ...] | None = None
    daemon: Daemon | None = None
    asked_here: tuple[AskedHere, ...] = ()
    asked_upstreams: tuple[AskedUpstream, ...] = ()
    rules: Rules | None = None
    kernel: Kernel = Kernel()
    pod: Pod | None = None
    skipped: tuple[Skipped, ...] = ()
