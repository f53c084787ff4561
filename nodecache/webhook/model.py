"""What is to be injected, and what was decided about one pod."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nodecache import limits

# On namespaces and pods; ACK's, Huawei's and Tencent's users have it there already.
LABEL = "node-local-dns-injection"
OPT_OUT = "disabled"

# Kubernetes' own, pkg/apis/core/validation: a pod beyond them is refused.
MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARACTERS = 2048  # of all of them, joined by blanks

# What DNS itself needs must not need it.
SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True, slots=True)
class Injection:
    """What pods are given, and where they are not; whoever reads the flags checks the values.

    Attributes:
        local: Addresses of nodecache on each node; the first is the pod's first nameserver.
        cluster: Addresses of the cluster's DNS for when nodecache does not answer; may be empty.
        domain: Of the cluster, without a final dot.
        searches: Further search domains, after the cluster's own: dnsPolicy None loses the node's.
        ndots, attempts: resolv.conf(5) options.
        timeout: resolv.conf(5) option, in seconds.
        excluded: Namespaces whose pods are left alone.
    """

    local: tuple[str, ...]
    cluster: tuple[str, ...] = ()
    domain: str = "cluster.local"
    searches: tuple[str, ...] = ()
    ndots: int = int(limits.WEBHOOK_NDOTS.default)
    attempts: int = int(limits.WEBHOOK_ATTEMPTS.default)
    timeout: int = int(limits.WEBHOOK_TIMEOUT_S.default)
    excluded: frozenset[str] = frozenset(SYSTEM_NAMESPACES)

    @property
    def nameservers(self) -> tuple[str, ...]:
        """All addresses in the order in which a pod asks them.

        The cluster's first address is second, so that a stub resolver that waited for a dead
        nodecache waits but once, whatever its family.
        """
        servers = (*self.local[:1], *self.cluster[:1], *self.local[1:], *self.cluster[1:])
        return tuple(dict.fromkeys(servers))


class Reason(enum.StrEnum):
    """Why a pod was injected or left alone: a label of a metric, and the API server's audit."""

    INJECTED = "injected"
    NOT_A_NEW_POD = "not_a_new_pod"  # another kind, operation or subresource
    EXCLUDED_NAMESPACE = "excluded_namespace"
    OPTED_OUT = "opted_out"
    SERVERLESS = "serverless"  # no node of ours below it
    WINDOWS = "windows"
    MIRROR_POD = "mirror_pod"  # the kubelet runs it already, and not from this object
    OTHER_DNS_POLICY = "other_dns_policy"  # does not ask the cluster's DNS, or was injected before
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one pod.

    Attributes:
        reason: Why.
        patch: Operations of RFC 6902, of values that JSON has; empty leaves the pod as it is.
        warnings: Sentences for whoever made the pod, in printable ASCII.
    """

    reason: Reason
    patch: tuple[dict[str, object], ...] = ()
    warnings: tuple[str, ...] = ()


class Refusal(enum.StrEnum):
    """Why a request got no decision; a label of the same metric."""

    MEDIA_TYPE = "media_type"
    NO_REVIEW = "no_review"
    OTHER_VERSION = "other_version"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response.

    Attributes:
        status: 200, 400, 413 or 415.
        content_type: Of ``body``.
        body: An AdmissionReview, or a line of text that says what is wrong.
        reason: What to count it as.
    """

    status: int
    content_type: str
    body: bytes
    reason: Reason | Refusal
