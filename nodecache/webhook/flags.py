"""The command line of ``nodecache webhook``.

Its flags, and those of ACK's admission controller: who runs that changes the image, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from nodecache import limits
from nodecache.config.flag_reading import Flag, Reading, Table, boolean, help_rows, parse_truth
from nodecache.config.model import Address, LogFormat
from nodecache.config.names import parse_name
from nodecache.config.reading import one_of
from nodecache.config.values import (
    parse_duration_s,
    parse_integer,
    parse_ip,
    parse_listen_address,
    within,
)
from nodecache.errors import Fault
from nodecache.printing import shown
from nodecache.webhook.model import SYSTEM_NAMESPACES, Injection

# ACK's Secret is mounted here.
_FOLDER = "/var/run/node-local-dns-admission-controller"
# The kubelet says so to pods in the namespace of the Service kube-dns.
_CLUSTER_DNS = "KUBE_DNS_SERVICE_HOST"
_NAMESPACE = "POD_NAMESPACE"
_LEAVE_WAIT_S = 5.0  # until API servers know that no connection should be opened here any more
_MOST_ADDRESSES = 3  # what a pod may have, and what kubelet writes
_MOST_SEARCHES = 29  # of 32 that a pod may have, three are the cluster's own
_MOST_NAMESPACES = 1000
_LISTEN = Address("", 8443)
_METRICS_LISTEN = Address("", 9253)


@dataclass(frozen=True, slots=True)
class WebhookFlags:
    """All flags as values.

    Attributes:
        nameservers: Addresses of the cache on each node.
        includes_cluster_dns: ``cluster_dns`` comes behind them.
        cluster_dns: Empty for what the environment says.
        searches: Domains besides the cluster's own.
        excluded_namespaces: Their pods are never changed.
        metrics_listen: None when -metrics-listen-address is empty.
        secret: Where certificates are kept by ourselves; "" for files.
        namespace: "" for what the environment says.
        leave_wait_s: None for 5 in a pod.
    """

    nameservers: tuple[str, ...] = ("169.254.20.10",)
    includes_cluster_dns: bool = True
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    searches: tuple[str, ...] = ()
    ndots: int = int(limits.WEBHOOK_NDOTS.default)
    attempts: int = int(limits.WEBHOOK_ATTEMPTS.default)
    timeout: int = int(limits.WEBHOOK_TIMEOUT_S.default)
    excluded_namespaces: tuple[str, ...] = SYSTEM_NAMESPACES
    listen: Address = _LISTEN
    metrics_listen: Address | None = _METRICS_LISTEN
    certificate_file: str = f"{_FOLDER}/tls.crt"
    key_file: str = f"{_FOLDER}/tls.key"
    secret: str = ""
    service: str = "nodecache-webhook"
    configuration: str = "nodecache-webhook"
    namespace: str = ""
    leave_wait_s: float | None = None
    log_format: LogFormat = LogFormat.TEXT
    ignored: str = ""
    help: bool = False


def _listed(parse: Callable[[str], str], most: int) -> Callable[[str], tuple[str, ...]]:
    """Returns a reader of a list with commas; each item counts once."""

    def read(text: str) -> tuple[str, ...]:
        items = tuple(
            dict.fromkeys(parse(item.strip()) for item in text.split(",") if item.strip())
        )
        if not 0 < len(items) <= most:
            raise ValueError(f"give 1 to {most}, with commas between them")
        return items

    return read


def _parse_domain(text: str) -> str:
    """Returns a domain as a resolv.conf has it, in lower case and without the final dot."""
    parse_name(text)
    domain = text.rstrip(".").lower()
    if not domain or not set(domain) <= _DOMAIN_CHARACTERS:
        raise ValueError(
            f"{shown(text)} is no domain for a search list: write one such as a.example"
        )
    return domain


def _parse_address(text: str) -> str:
    address = parse_ip(text)
    if "%" in address:
        raise ValueError(f"{shown(text)} names an interface, which pods do not have")
    return address


def _parse_object(text: str) -> str:
    """Returns the name of an object of Kubernetes: what a DNS name may be, and not more."""
    if not text or not set(text) <= _NAME_CHARACTERS or len(text) > _MOST_NAME:
        raise ValueError(
            f"{shown(text)} is no name of an object: lower case letters, digits, - and ."
        )
    return text


def _parse_metrics_address(text: str) -> Address | None:
    return parse_listen_address(text) if text else None


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
_DOMAIN_CHARACTERS = _NAME_CHARACTERS | {"_"}
_MOST_NAME = 253
_FORMATS = one_of({form.value: form for form in LogFormat})

TABLE: Table = {
    "What pods get": (
        Flag(
            ("nameserver",), "nameservers", "IP,...", _listed(_parse_address, _MOST_ADDRESSES),
            "169.254.20.10", "addresses of the cache on each node; IPv4 and IPv6 may be mixed",
        ),
        boolean(
            "include-kube-dns", "includes_cluster_dns", "true",
            "the cluster's DNS behind them, for as long as a node has no cache",
        ),
        Flag(
            ("cluster-dns",), "cluster_dns", "IP,...", _listed(_parse_address, _MOST_ADDRESSES),
            "what KUBE_DNS_SERVICE_HOST says", "addresses of the cluster's DNS",
        ),
        Flag(
            ("cluster-domain",), "cluster_domain", "NAME", _parse_domain, "cluster.local",
            "domain of the search lists",
        ),
        Flag(
            ("searches",), "searches", "NAME,...", _listed(_parse_domain, _MOST_SEARCHES), "none",
            "domains that come behind the cluster's own, such as those of the nodes",
        ),
        Flag(
            ("ndots",), "ndots", "N", within(parse_integer, limits.WEBHOOK_NDOTS), "3",
            "names with fewer dots are looked up in the search list first",
        ),
        Flag(
            ("attempts",), "attempts", "N", within(parse_integer, limits.WEBHOOK_ATTEMPTS), "2",
            "how often a stub resolver asks all nameservers",
        ),
        Flag(
            ("timeout",), "timeout", "SECONDS", within(parse_integer, limits.WEBHOOK_TIMEOUT_S),
            "1", "how long it waits for one of them",
        ),
        Flag(
            ("excluded-namespaces",), "excluded_namespaces", "NAME,...",
            _listed(_parse_object, _MOST_NAMESPACES), "the cluster's own, and that of the webhook",
            "whose pods are never changed, whatever the API server sends",
        ),
    ),
    "Server": (
        Flag(
            ("listen-address",), "listen", "IP:PORT", parse_listen_address, ":8443",
            "where API servers ask, over TLS",
        ),
        Flag(
            ("metrics-listen-address",), "metrics_listen", "IP:PORT", _parse_metrics_address,
            ":9253", "where /metrics, /healthz and /readyz answer without TLS; \"\" for nowhere",
        ),
        Flag(
            ("tls-cert-file",), "certificate_file", "FILE", str, f"{_FOLDER}/tls.crt",
            "the certificate, then those that lead to its CA; loaded anew when it changes",
        ),
        Flag(
            ("tls-private-key-file", "tls-key-file"), "key_file", "FILE", str,
            f"{_FOLDER}/tls.key", "its private key",
        ),
    ),
    "Certificates that it makes itself": (
        Flag(
            ("tls-secret",), "secret", "NAME", _parse_object, "none, files are used",
            "the Secret that it keeps CA and certificate in, and shares with its other replicas",
        ),
        Flag(
            ("service",), "service", "NAME", _parse_object, "nodecache-webhook",
            "the Service that API servers ask: whose names the certificate is for",
        ),
        Flag(
            ("webhook-configuration",), "configuration", "NAME", _parse_object,
            "nodecache-webhook", "the MutatingWebhookConfiguration whose caBundle it keeps",
        ),
        Flag(
            ("namespace",), "namespace", "NAME", _parse_object, "what POD_NAMESPACE says",
            "of the Service and the Secret",
        ),
    ),
    "Process": (
        Flag(
            ("leavewait",), "leave_wait_s", "DURATION",
            within(parse_duration_s, limits.LEAVE_WAIT_S), "5s in a pod, else 0",
            "on SIGTERM, answer on so long, no longer ready",
        ),
        Flag(
            ("log-format",), "log_format", "text|json", _FORMATS, "text",
            "how lines of the log are written",
        ),
        Flag(
            ("logtostderr", "alsologtostderr"), "ignored", "", parse_truth, "true",
            "without effect: the log goes to standard error anyway",
        ),
        Flag(
            ("v",), "ignored", "LEVEL", str, "0", "without effect: what is decided is in /metrics",
        ),
        Flag(("help", "h"), "help", "", parse_truth, "false", "print this and end"),
    ),
}  # fmt: skip

_EXAMPLES = """\
nodecache webhook answers the API server, which asks it about each new pod: it has those pods that
would ask the cluster's DNS ask the cache on their node first.

Usage: nodecache webhook [FLAGS]

Examples:
  With the certificate of a mounted Secret, as cert-manager or Helm makes it:
    nodecache webhook -cluster-dns 10.96.0.10 -tls-cert-file /tls/tls.crt \\
        -tls-private-key-file /tls/tls.key
  With a certificate that it makes and renews itself:
    nodecache webhook -cluster-dns 10.96.0.10 -tls-secret nodecache-webhook-tls

It takes the flags of ACK's admission controller, too, and starts without the word webhook where it
is run under the name node-local-dns-admission-controller.

POST /inject is answered over TLS; GET /healthz says that it runs, GET /readyz that it has a valid
certificate and is not about to end; GET /metrics counts decisions. The defaults of these flags are
those of the chart, see docs/webhook.md.

One dash or two; -flag value or -flag=value; booleans only as -flag or -flag=false.
"""


def help_text() -> str:
    """Returns what ``nodecache help webhook`` prints."""
    return _EXAMPLES + help_rows(TABLE)


def parse_webhook_flags(
    words: Sequence[str], environ: Mapping[str, str]
) -> tuple[WebhookFlags, list[Fault]]:
    """Returns the flags and every fault of the command line; raises nothing.

    What flags leave open comes from the environment, and nowhere from a resolver: what DNS itself
    needs must not need DNS.
    """
    # ACK's chart wrote a shell's redirection into a list of arguments, where no shell sees it.
    reading = Reading([word for word in words if word != "2>&1"], TABLE)
    flags = replace(WebhookFlags(), **reading.values)  # type: ignore[arg-type] # TABLE pairs them
    if flags.help:
        return flags, reading.all_faults()
    flags = _fill(flags, environ)
    reading.faults += _find_gaps(flags, reading.faulty)
    return flags, reading.all_faults()


def injection_of(flags: WebhookFlags) -> Injection:
    """Returns what pods get by these flags, where the webhook itself lives not included."""
    own = (flags.namespace,) if flags.namespace else ()
    return Injection(
        local=flags.nameservers,
        cluster=flags.cluster_dns,
        domain=flags.cluster_domain,
        searches=flags.searches,
        ndots=flags.ndots,
        attempts=flags.attempts,
        timeout=flags.timeout,
        excluded=frozenset((*flags.excluded_namespaces, *own)),
    )


def _fill(flags: WebhookFlags, environ: Mapping[str, str]) -> WebhookFlags:
    """Returns the flags with what the environment says where they say nothing."""
    if flags.leave_wait_s is None:
        is_pod = "KUBERNETES_SERVICE_HOST" in environ
        flags = replace(flags, leave_wait_s=_LEAVE_WAIT_S if is_pod else 0.0)
    if not flags.namespace:
        flags = replace(flags, namespace=environ.get(_NAMESPACE, ""))
    if not flags.includes_cluster_dns:
        flags = replace(flags, cluster_dns=())
    elif not flags.cluster_dns:
        with suppress(ValueError):
            flags = replace(flags, cluster_dns=(_parse_address(environ.get(_CLUSTER_DNS, "")),))
    return flags


def _find_gaps(flags: WebhookFlags, faulty: set[str]) -> list[str]:
    """Returns a fault for each value that neither flags nor environment have."""
    faults = []
    if flags.secret and not flags.namespace and "namespace" not in faulty:
        faults.append(f"-tls-secret needs -namespace, or {_NAMESPACE} in the environment")
    if flags.includes_cluster_dns and not flags.cluster_dns and "cluster_dns" not in faulty:
        faults.append(
            f"-cluster-dns is missing, and {_CLUSTER_DNS} is not in the environment: add for"
            " instance -cluster-dns 10.96.0.10, or -include-kube-dns=false"
        )
    return faults
