"""Every finding that ``nodecache doctor`` knows, in the order in which they explain each other.

A cause stands before what follows from it, so that the first line of a report is the one to act
on. The names are stable: scripts and pages quote them. docs/doctor.md is made from this table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    """How bad it is; the worst stands first."""

    BROKEN = "broken"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that may be wrong.

    Attributes:
        name: What scripts know it by.
        severity: Broken if queries fail or nodecache does not do its work, else doubtful.
        what: One sentence, without the case's own figures.
        step: What to do next, a command where there is one.
        more: Page and anchor that say more, below docs/.
    """

    name: str
    severity: Severity
    what: str
    step: str
    more: str


_BROKEN, _DOUBTFUL = Severity.BROKEN, Severity.DOUBTFUL
_POD = "operations.md#a-pod-cannot-resolve"
_SLOW = "operations.md#look-ups-are-slow"

KINDS = (
    Kind(
        "capability-missing", _BROKEN,
        "The daemon lacks a capability that its flags need",
        "Give the container the capability (securityContext.capabilities.add)",
        "runbooks.md#nodecachesetuperrors",
    ),
    Kind(
        "port-taken", _BROKEN,
        "Another server has the DNS port of nodecache's addresses",
        "Stop that server, or have it listen on other addresses",
        _POD,
    ),
    Kind(
        "configuration-wrong", _BROKEN,
        "The configuration is refused, and no daemon runs",
        "Run nodecache check with the same flags, and mend what it shows",
        "operations.md#the-configuration-is-not-taken",
    ),
    Kind(
        "daemon-stopped", _BROKEN,
        "The daemon is stopped or frozen and answers nothing",
        "Continue it (kill -CONT PID), or find who froze its cgroup",
        "runbooks.md#nodecachefallback",
    ),
    Kind(
        "daemon-hangs", _BROKEN,
        "The daemon runs and does not answer",
        "Look at the node's CPU and the container's limit; its keeper starts it again after 3 s",
        "runbooks.md#nodecacherestarting",
    ),
    Kind(
        "daemon-absent", _BROKEN,
        "No nodecache runs here",
        "See why its pod does not run (kubectl describe, logs --previous), or run nodecache"
        " cleanup if it is not wanted any more",
        "runbooks.md#nodecachedown",
    ),
    Kind(
        "address-missing", _BROKEN,
        "The node does not have an address that nodecache serves",
        "See the log for what keeps the daemon from putting it up; with -setupinterface=false it"
        " is yours to make",
        "runbooks.md#nodecachesetuperrors",
    ),
    Kind(
        "dns-dropped", _BROKEN,
        "A packet filter rule of somebody else drops DNS",
        "Remove that rule, or let it pass port 53 of nodecache's addresses",
        _POD,
    ),
    Kind(
        "dns-stolen", _BROKEN,
        "A packet filter rule of somebody else leads DNS away from nodecache",
        "Remove that rule, or have it leave out nodecache's addresses",
        _POD,
    ),
    Kind(
        "rules-missing", _BROKEN,
        "The packet filter rules that steer queries to nodecache do not stand",
        "See the log for why they cannot be put up, and for who takes them away",
        "runbooks.md#nodecacheredirectmissing",
    ),
    Kind(
        "leftovers-harm", _BROKEN,
        "Rules of node-cache stand that keep queries from the cluster's DNS while nobody serves",
        "Run nodecache cleanup with the same flags, or start nodecache, which removes them",
        "install.md",
    ),
    Kind(
        "address-silent", _BROKEN,
        "An address of nodecache answers nobody",
        "Look for a packet filter or policy in the way, and at the log of the daemon",
        _POD,
    ),
    Kind(
        "address-elsewhere", _BROKEN,
        "Queries for nodecache's addresses reach another server",
        "If it lasts, see the log for rules and beat; meanwhile pods resolve, slower",
        "runbooks.md#nodecachefallback",
    ),
    Kind(
        "tracking-full", _BROKEN,
        "The table of connection tracking is full: new connections are dropped",
        "Raise net.netfilter.nf_conntrack_max, and find who fills it (conntrack -L)",
        _SLOW,
    ),
    Kind(
        "upstream-silent", _BROKEN,
        "An upstream answers neither over UDP nor over TCP",
        "Does it run, and does the node reach it? See NetworkPolicies and kube-proxy",
        "runbooks.md#nodecacheupstreamsdown",
    ),
    Kind(
        "upstream-refuses", _BROKEN,
        "Nothing listens at the address of an upstream",
        "Start it, or name another in the Corefile; of a Service, look at its endpoints",
        "runbooks.md#nodecacheupstreamsdown",
    ),
    Kind(
        "upstream-no-tcp", _BROKEN,
        "An upstream answers over UDP and not over TCP, by which it is asked",
        "Let TCP port 53 pass (NetworkPolicy, firewall), or say prefer_udp in its forward block",
        "runbooks.md#nodecacheupstreamsdown",
    ),
    Kind(
        "upstream-no-udp", _BROKEN,
        "An upstream answers over TCP and not over UDP, by which it is asked",
        "Let UDP port 53 pass, or say force_tcp in its forward block",
        "runbooks.md#nodecacheupstreamsdown",
    ),
    Kind(
        "pod-no-server", _BROKEN,
        "The resolv.conf names no server",
        "See dnsPolicy and dnsConfig of the pod; stub resolvers ask 127.0.0.1 then",
        _POD,
    ),
    Kind(
        "pod-cannot-reach", _BROKEN,
        "A server that the resolv.conf names does not answer from within the pod",
        "Look at the policies for the pod's egress: they must allow port 53 of that address",
        _POD,
    ),
    Kind(
        "leftovers", _DOUBTFUL,
        "Rules of node-cache stand beside nodecache's",
        "End node-cache's DaemonSet if it still runs; nodecache removes its rules when it starts",
        "install.md",
    ),
    Kind(
        "redirect-by-others", _DOUBTFUL,
        "A rule of somebody else leads DNS elsewhere, and does not catch what was asked here",
        "See whether it concerns pods: ask from one with -pid",
        _POD,
    ),
    Kind(
        "beat-unheard", _DOUBTFUL,
        "The daemon serves, but the rules lead queries to the cluster's DNS",
        "Run this again: it lasts a second after a pause; else look at CPU and log",
        "runbooks.md#nodecachefallback",
    ),
    Kind(
        "localip-differs", _DOUBTFUL,
        "-localip does not name the addresses that pods ask",
        "Put the ClusterIP of kube-dns, and the address that the kubelet tells pods, in -localip",
        "install.md",
    ),
    Kind(
        "ipvs-has-address", _DOUBTFUL,
        "kube-proxy in IPVS mode has an address that nodecache serves",
        "Serve the local address alone (mode: ipvs of the chart), and tell pods of it",
        "operations.md#kube-proxy-in-ipvs-mode",
    ),
    Kind(
        "last-good", _DOUBTFUL,
        "The files are refused, and what was in force before is served",
        "Mend the files now: a new node would not start (nodecache check)",
        "runbooks.md#nodecachelastgoodconfiguration",
    ),
    Kind(
        "configuration-refused", _DOUBTFUL,
        "A newer configuration is refused, and the one before is in force",
        "Run nodecache check, and mend what it shows",
        "runbooks.md#nodecachereloadfailed",
    ),
    Kind(
        "upstream-errors", _DOUBTFUL,
        "An upstream answers a question for its own zone with an error",
        "Ask it for names that matter; if those fail, too, look at its log",
        "runbooks.md#nodecacheservfail",
    ),
    Kind(
        "upstream-large-lost", _DOUBTFUL,
        "Large answers of an upstream do not come through over UDP",
        "Say force_tcp in its forward block, or bufsize 512; look at the path's MTU",
        _SLOW,
    ),
    Kind(
        "upstream-slow", _DOUBTFUL,
        "An upstream takes long to answer",
        "Give it CPU or replicas; serve_stale and prefetch hide it for names asked before",
        "runbooks.md#nodecacheslow",
    ),
    Kind(
        "tracking-near-full", _DOUBTFUL,
        "The table of connection tracking is nearly full",
        "Raise net.netfilter.nf_conntrack_max before it is",
        _SLOW,
    ),
    Kind(
        "queue-drops", _DOUBTFUL,
        "The kernel drops queries that the daemon does not read in time",
        "Remove a CPU limit; find who asks so much",
        "runbooks.md#nodecachereceivequeuedrops",
    ),
    Kind(
        "descriptors-near", _DOUBTFUL,
        "The daemon has nearly as many files open as it may",
        "Raise the limit of open files of the container runtime",
        "operations.md#how-large",
    ),
    Kind(
        "memory-near", _DOUBTFUL,
        "The container has nearly as much memory as it may",
        "Raise the limit, or lower -cache-size",
        "operations.md#how-large",
    ),
    Kind(
        "clock-behind", _DOUBTFUL,
        "The clock is behind the date of this program, so certificates of TLS upstreams fail",
        "Set the clock; the cache itself does not mind a clock that jumps",
        "runbooks.md#nodecacheupstreamsdown",
    ),
    Kind(
        "pod-stranger", _DOUBTFUL,
        "The resolv.conf names a server that is neither nodecache's nor the cluster's DNS",
        "See dnsPolicy and dnsConfig of the pod, or clusterDNS of the kubelet",
        _POD,
    ),
    Kind(
        "pod-too-much", _DOUBTFUL,
        "The resolv.conf has more than stub resolvers read",
        "Keep to 3 servers and 6 search domains (32 since glibc 2.26)",
        _POD,
    ),
    Kind(
        "pod-ndots", _DOUBTFUL,
        "Each name outside the cluster is asked for with every search domain first",
        "Set ndots to 1 or 2 in dnsConfig, have pods injected, or end names with a dot",
        "operations.md#nxdomain-storms",
    ),
    Kind(
        "pod-options", _DOUBTFUL,
        "The resolv.conf has options that no stub resolver understands",
        "Correct them in dnsConfig; they are ignored without a word",
        _POD,
    ),
    Kind(
        "versions-differ", _DOUBTFUL,
        "The daemon is of another version than this command",
        "Run the command of the daemon's own image: kubectl exec into its pod",
        "operations.md#after-an-upgrade",
    ),
    Kind(
        "details", _DOUBTFUL,
        "The daemon has something to say of itself",
        "See its log for when that began",
        "operations.md#troubleshooting",
    ),
)  # fmt: skip

BY_NAME = {kind.name: kind for kind in KINDS}
RANK = {kind.name: rank for rank, kind in enumerate(KINDS)}
