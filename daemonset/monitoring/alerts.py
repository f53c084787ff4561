"""Alerts for Prometheus: what should wake somebody, or be read in the morning.

Expressions come from the catalogue, for the job and the DaemonSet that the chart names by default;
the chart's template puts in other names. An expression that is compared with a figure ends in it,
so that the template can put in another. Each alert has its part in docs/runbooks.md.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import yaml

from daemonset.monitoring.queries import Scope, share

# What the template replaces: the job of the chart's ServiceMonitor, and its DaemonSet.
JOB = 'job="node-local-dns"'
DAEMONSET = "node-local-dns"

NODES = Scope(JOB, "5m")
SLOWLY = Scope(JOB, "15m")
ELSEWHERE = Scope("", "10m")

A_FEW = 0.1  # responses a second; of fewer, one that fails is too large a share

RUNBOOKS = "docs/runbooks.md"


class Severity(enum.StrEnum):
    """Who should know, and when."""

    CRITICAL = "critical"  # pods cannot resolve, or are about to: now
    WARNING = "warning"  # something is worse than it should be: today


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule.

    Attributes:
        name: As Alertmanager shows it.
        expr: PromQL.
        bound: With what ``expr`` is compared, such as "> 0.05"; "" if it is compared already.
        wait: For how long that must hold, a duration of Prometheus.
        severity: Who should know.
        summary: What is so, one line.
        description: What to do next.
    """

    name: str
    expr: str
    bound: str
    wait: str
    severity: Severity
    summary: str
    description: str

    @property
    def anchor(self) -> str:
        """The part of the page of runbooks that is about it."""
        return self.name.lower()

    def rule(self) -> dict[str, object]:
        """Returns it as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": f"{self.expr} {self.bound}".strip(),
            "for": self.wait,
            "labels": {"severity": str(self.severity)},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}#{self.anchor}",
            },
        }


_NODE = "{{ $labels.instance }}"
_PERCENT = "{{ $value | humanizePercentage }}"

_SERVING = (
    Alert(
        "NodecacheAbsent",
        f"absent({NODES.series('up')})", "", "10m", Severity.CRITICAL,
        "Prometheus scrapes no nodecache at all",
        "No target of this job is known: look whether the DaemonSet is there, and whether"
        " Prometheus finds it.",
    ),
    Alert(
        "NodecacheDown",
        f"{NODES.series('up')} == 0", "", "5m", Severity.CRITICAL,
        f"nodecache on {_NODE} does not answer Prometheus",
        "Its pods may be without DNS, or resolve at the cluster's DNS. Look at the pod of that node"
        " and at the end of its log.",
    ),
    Alert(
        "NodecacheServfail",
        share(
            NODES.rate("coredns_dns_responses_total", "instance", rcode="SERVFAIL"),
            NODES.rate("coredns_dns_responses_total", "instance"),
            least=A_FEW,
        ), "> 0.05", "10m", Severity.CRITICAL,
        f"{_PERCENT} of all responses on {_NODE} are SERVFAIL",
        "Upstreams fail, or cannot be reached from this node. The panel Asked upstream shows which"
        " one and how it answers.",
    ),
    Alert(
        "NodecacheSlow",
        NODES.quantile(0.99, "coredns_dns_request_duration_seconds", "instance"),
        "> 1", "15m", Severity.WARNING,
        f"One of 100 queries on {_NODE} takes longer than {{{{ $value | humanizeDuration }}}}",
        "Mostly it is an upstream: compare the panels Time to answer, by zone, and Time of"
        " upstreams.",
    ),
    Alert(
        "NodecacheServingStale",
        share(
            NODES.rate("nodecache_stale_total", "instance"),
            NODES.rate("coredns_dns_responses_total", "instance"),
            least=A_FEW,
        ), "> 0.05", "10m", Severity.WARNING,
        f"{_PERCENT} of all responses on {_NODE} are beyond their time",
        "No upstream answers for these names; pods still resolve what was asked before. Mend the"
        " upstream before that runs out.",
    ),
    Alert(
        "NodecacheShedding",
        NODES.rate("nodecache_shed_total", "instance"), "> 1", "10m", Severity.WARNING,
        f"nodecache on {_NODE} refuses {{{{ $value | humanize }}}} queries a second",
        "Too much is in flight: upstreams are slow, or a pod asks too much. Look which of the two.",
    ),
    Alert(
        "NodecacheReceiveQueueDrops",
        NODES.rate("nodecache_receive_queue_drops_total", "instance"),
        "> 1", "10m", Severity.WARNING,
        f"The kernel drops {{{{ $value | humanize }}}} queries a second on {_NODE}",
        "The process gets too little CPU for what is asked: look at its limit, and at who asks so"
        " much.",
    ),
    Alert(
        "NodecacheLoopLag",
        NODES.quantile(0.9, "nodecache_loop_lag_seconds", "instance"),
        "> 0.1", "15m", Severity.WARNING,
        f"nodecache on {_NODE} is late by {{{{ $value | humanizeDuration }}}} every tenth second",
        "The process waits for a core, and so does each query: look at its CPU limit, and at what"
        " else the node runs.",
    ),
)  # fmt: skip

_UPSTREAMS = (
    Alert(
        "NodecacheUpstreamsDown",
        NODES.rate("coredns_forward_healthcheck_broken_total", "instance"),
        "> 0", "2m", Severity.CRITICAL,
        f"nodecache on {_NODE} has no upstream that is up",
        "Look whether the cluster's DNS runs and whether this node reaches it over TCP.",
    ),
)  # fmt: skip

_NODE_SETUP = (
    Alert(
        "NodecacheSetupErrors",
        SLOWLY.risen("coredns_nodecache_setup_errors_total", "instance", "errortype"),
        "> 0", "0m", Severity.WARNING,
        f"nodecache on {_NODE} could not set up the node: {{{{ $labels.errortype }}}}",
        "The interface or the packet filter rules could not be made. The log of its pod says why.",
    ),
    Alert(
        "NodecacheRedirectMissing",
        NODES.gauge("min", "nodecache_redirect", "instance") + " == 0", "", "5m", Severity.WARNING,
        f"Queries on {_NODE} go past nodecache",
        "Its packet filter rules are not there, so pods ask the cluster's DNS. The log says what"
        " removes or refuses them.",
    ),
    Alert(
        "NodecacheFallback",
        SLOWLY.increase("nodecache_fallback_seconds_total", "instance"),
        "> 5", "0m", Severity.WARNING,
        f"The kernel led queries on {_NODE} to the cluster's DNS for"
        " {{ $value | humanizeDuration }} of the last 15 minutes",
        "The process ran but could not answer in time. Look at its CPU limit and at the log.",
    ),
    Alert(
        "NodecacheRestarting",
        SLOWLY.increase("nodecache_worker_restarts_total", "instance"),
        "> 2", "0m", Severity.WARNING,
        f"nodecache on {_NODE} was started again"
        ' {{ printf "%.0f" $value }} times in 15 minutes',
        "Its serving process dies or hangs. The log says how; a memory limit is the usual reason.",
    ),
    Alert(
        "NodecacheRolloutStuck",
        "min by (namespace, pod) ("
        + ELSEWHERE.series("kube_pod_status_phase", phase="Pending")
        + " == 1 and on (namespace, pod) "
        + ELSEWHERE.series("kube_pod_info", created_by_kind="DaemonSet", created_by_name=DAEMONSET)
        + ")",
        "", "10m", Severity.WARNING,
        "Pod {{ $labels.pod }} of nodecache is Pending",
        "The rollout does not go on while it waits. kubectl describe says what for; declared host"
        " ports of the former pod are the usual reason.",
    ),
)  # fmt: skip

_CONFIGURATION = (
    Alert(
        "NodecacheReloadFailed",
        SLOWLY.increase("coredns_reload_failed_total", "instance"), "> 0", "0m", Severity.WARNING,
        f"nodecache on {_NODE} refused a new configuration",
        "What was in force before is served. The log and /ready?format=json name file, line and"
        " fault.",
    ),
    Alert(
        "NodecacheLastGoodConfiguration",
        f"{NODES.gauge('max', 'nodecache_config_last_good', 'instance')} == 1",
        "", "5m", Severity.WARNING,
        f"nodecache on {_NODE} serves a configuration from before its restart",
        "The files are refused. Mend them: on a new node nodecache would not start with them.",
    ),
    Alert(
        "NodecachePanics",
        SLOWLY.increase("coredns_panics_total", "instance"), "> 0", "0m", Severity.WARNING,
        f"An error escaped a query on {_NODE}",
        "That is a fault of nodecache. It went on; report the traceback of its log.",
    ),
)  # fmt: skip

_INJECTION = (
    Alert(
        "NodecacheWebhookFailOpen",
        ELSEWHERE.increase(
            "apiserver_admission_webhook_fail_open_count", "name",
            name=r"=~(.+\\.)?inject\\.nodecache\\.io",
        ), "> 0", "0m", Severity.WARNING,
        "Pods were made without injection: the webhook {{ $labels.name }} did not answer",
        "They resolve as before, past nodecache's own address. Look at the webhook's pods and"
        " certificate; make those pods again afterwards.",
    ),
    Alert(
        "NodecacheWebhookCertificateExpiring",
        ELSEWHERE.gauge(
            "min", "nodecache_webhook_certificate_expiry_timestamp_seconds", "instance"
        ) + " - time()", f"< {7 * 86400}", "30m", Severity.WARNING,
        f"The webhook's certificate on {_NODE} ends within a week",
        "It should have been renewed long ago. The webhook's log says why not.",
    ),
)  # fmt: skip

GROUPS = {
    "nodecache.serving": _SERVING,
    "nodecache.upstreams": _UPSTREAMS,
    "nodecache.node": _NODE_SETUP,
    "nodecache.configuration": _CONFIGURATION,
    "nodecache.injection": _INJECTION,
}
ALERTS = tuple(alert for alerts in GROUPS.values() for alert in alerts)


def composed() -> str:
    """Returns the rules as a file of Prometheus."""
    groups = [
        {"name": name, "rules": [alert.rule() for alert in alerts]}
        for name, alerts in GROUPS.items()
    ]
    return yaml.safe_dump({"groups": groups}, sort_keys=False, width=1000)
