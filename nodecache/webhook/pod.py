"""What of an AdmissionRequest decides, read from values that anybody may have sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# A label of RFC 1123, which is how namespaces are named; it becomes part of a search domain.
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Pod:
    """A new pod, with the API server's defaults where it says nothing.

    Attributes:
        namespace: The request's; the object need not have one.
        labels, annotations, node_selector: Names and values.
        node_name: Where it shall run, or "".
        os: What spec.os says, or linux.
        host_network: Whether it has the node's addresses.
        dns_policy: As Kubernetes writes it.
        nameservers, searches: Its own, of dnsConfig.
        options: Its own, as name and value; some have no value.
    """

    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]
    node_selector: dict[str, str]
    node_name: str
    os: str
    host_network: bool
    dns_policy: str
    nameservers: tuple[str, ...]
    searches: tuple[str, ...]
    options: tuple[tuple[str, str | None], ...]


def read_pod(request: dict[str, Any]) -> Pod | None:
    """Returns the pod that a request is about, or None if any of its values has a wrong type."""
    try:
        pod = _object(request.get("object"))
        metadata, spec = _object(pod.get("metadata")), _object(pod.get("spec"))
        config = _object(spec.get("dnsConfig"))
        return Pod(
            namespace=_namespace(request.get("namespace")),
            labels=_strings_by_name(metadata.get("labels")),
            annotations=_strings_by_name(metadata.get("annotations")),
            node_selector=_strings_by_name(spec.get("nodeSelector")),
            node_name=_string(spec.get("nodeName"), ""),
            os=_string(_object(spec.get("os")).get("name"), "linux"),
            host_network=_boolean(spec.get("hostNetwork")),
            dns_policy=_string(spec.get("dnsPolicy"), "ClusterFirst"),
            nameservers=tuple([_string(value) for value in _list(config.get("nameservers"))]),
            searches=tuple([_string(value) for value in _list(config.get("searches"))]),
            options=tuple([_option(value) for value in _list(config.get("options"))]),
        )
    except TypeError:
        return None


def _namespace(value: object) -> str:
    name = _string(value)
    if not _NAMESPACE.fullmatch(name):
        raise TypeError
    return name


def _option(value: object) -> tuple[str, str | None]:
    option = _object(value)
    setting = option.get("value")
    return _string(option.get("name")), None if setting is None else _string(setting)


def _strings_by_name(value: object) -> dict[str, str]:
    return {name: _string(text) for name, text in _object(value).items()}


def _object(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError
    return value


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError
    return value


def _boolean(value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise TypeError
    return bool(value)


def _string(value: object, default: str | None = None) -> str:
    found = default if value is None else value
    if not isinstance(found, str):
        raise TypeError
    return found
