"""Which pods ask nodecache, and how: the table of docs/webhook.md.

The policy in daemonset/chart/templates/injection says the same in CEL; tests/webhook compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodecache.webhook.model import (
    LABEL,
    MAX_NAMESERVERS,
    MAX_SEARCH_CHARACTERS,
    MAX_SEARCHES,
    OPT_OUT,
    Decision,
    Injection,
    Reason,
)
from nodecache.webhook.pod import Pod, read_pod

_SERVERLESS_LABELS = ("eci", "alibabacloud.com/eci")
_VIRTUAL_NODE = "virtual-kubelet"  # value of the node's label "type", and how its name begins
_MIRROR_ANNOTATION = "kubernetes.io/config.mirror"

_MOST_NAMED = 160  # characters; a client shows warnings on one line


def decide(request: object, injection: Injection) -> Decision:
    """Returns what to do with the pod of an AdmissionRequest; raises nothing.

    Selectors and conditions of the webhook's configuration keep most of the others away. All that
    the request shows is looked at again here, should a configuration have become too wide.
    """
    if not isinstance(request, dict):
        return Decision(Reason.MALFORMED)
    if not _is_new_pod(request):
        return Decision(Reason.NOT_A_NEW_POD)
    pod = read_pod(request)
    if pod is None:
        return Decision(Reason.MALFORMED)
    for reason, applies in _LEFT_ALONE:
        if applies(pod, injection):
            return Decision(reason)
    config, warnings = merge(pod, injection)
    return Decision(
        Reason.INJECTED,
        # "add" sets a member whether or not it is there (RFC 6902 section 4.1).
        (
            {"op": "add", "path": "/spec/dnsPolicy", "value": "None"},
            {"op": "add", "path": "/spec/dnsConfig", "value": config},
        ),
        warnings,
    )


def _is_new_pod(request: dict[str, Any]) -> bool:
    kind = request.get("kind")
    return (
        request.get("operation") == "CREATE"
        and not request.get("subResource")
        and isinstance(kind, dict)
        and not kind.get("group")
        and kind.get("kind") == "Pod"
    )


def _is_serverless(pod: Pod, _injection: Injection) -> bool:
    return (
        any(label in pod.labels for label in _SERVERLESS_LABELS)
        or pod.node_selector.get("type") == _VIRTUAL_NODE
        or pod.node_name.startswith(_VIRTUAL_NODE)
    )


def _is_windows(pod: Pod, _injection: Injection) -> bool:
    return "windows" in (pod.os, pod.node_selector.get("kubernetes.io/os"))


def _resolves_otherwise(pod: Pod, _injection: Injection) -> bool:
    # On the node's network ClusterFirst means Default: the node's own resolv.conf.
    return pod.dns_policy != ("ClusterFirstWithHostNet" if pod.host_network else "ClusterFirst")


# The first that applies is the reason.
_LEFT_ALONE: tuple[tuple[Reason, Callable[[Pod, Injection], bool]], ...] = (
    (Reason.EXCLUDED_NAMESPACE, lambda pod, injection: pod.namespace in injection.excluded),
    (Reason.OPTED_OUT, lambda pod, _: pod.labels.get(LABEL) == OPT_OUT),
    (Reason.SERVERLESS, _is_serverless),
    (Reason.WINDOWS, _is_windows),
    (Reason.MIRROR_POD, lambda pod, _: _MIRROR_ANNOTATION in pod.annotations),
    (Reason.OTHER_DNS_POLICY, _resolves_otherwise),
)


def merge(pod: Pod, injection: Injection) -> tuple[dict[str, object], tuple[str, ...]]:
    """Returns the pod's new dnsConfig, and warnings of what of its own found no room.

    Nameservers and search domains of ours come first, as the kubelet's would for ClusterFirst;
    options of the pod's own are in force, also against ours.
    """
    domain = injection.domain
    cluster_searches = [f"{pod.namespace}.svc.{domain}", f"svc.{domain}", domain]
    searches = _extend(_extend(cluster_searches, injection.searches), pod.searches)
    nameservers = _extend(list(injection.nameservers), pod.nameservers)
    fitting = _fitting_searches(searches)
    config: dict[str, object] = {
        "nameservers": nameservers[:MAX_NAMESERVERS],
        "searches": searches[:fitting],
        "options": _options(pod, injection),
    }
    warnings = (
        *_warn_of("nameservers", nameservers, MAX_NAMESERVERS, pod.nameservers),
        *_warn_of("searches", searches, fitting, pod.searches),
    )
    return config, warnings


def _extend(values: list[str], more: tuple[str, ...]) -> list[str]:
    return values + [value for value in more if value not in values]


def _fitting_searches(searches: list[str]) -> int:
    """Returns how many of the first ones a pod may have."""
    length = -1
    for count, search in enumerate(searches[:MAX_SEARCHES]):
        length += 1 + len(search)
        if length > MAX_SEARCH_CHARACTERS:
            return count
    return min(len(searches), MAX_SEARCHES)


def _options(pod: Pod, injection: Injection) -> list[dict[str, str]]:
    own = {name for name, _ in pod.options}
    ours = (
        ("ndots", injection.ndots),
        ("attempts", injection.attempts),
        ("timeout", injection.timeout),
    )
    return [
        {"name": name} if value is None else {"name": name, "value": value}
        for name, value in pod.options
    ] + [{"name": name, "value": str(value)} for name, value in ours if name not in own]


def _warn_of(field: str, wanted: list[str], room: int, own: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a warning if the pod loses what it asked for; ours alone may go silently."""
    dropped = wanted[room:]
    lost = set(own).intersection(dropped).difference(wanted[:room])
    if not lost:
        return ()
    # A Warning header: RFC 9110 section 5.5 wants visible ASCII, whatever the pod's author wrote.
    names = ascii(", ".join(value for value in dropped if value in lost))[1:-1]
    if len(names) > _MOST_NAMED:
        names = f"{names[:_MOST_NAMED]}..."
    return (f"nodecache: no room in the pod's dnsConfig.{field} for {names}",)
