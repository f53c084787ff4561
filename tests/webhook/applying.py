"""What API servers do with a patch, as far as ours need it (RFC 6902: add of a member)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]


def apply(pod: Object, patch: Iterable[Object]) -> Object:
    """Returns the pod after the patch."""
    patched = copy.deepcopy(pod)
    for operation in patch:
        assert operation["op"] == "add"
        *parents, name = operation["path"].split("/")[1:]
        parent = patched
        for member in parents:
            parent = parent[member]
        parent[name] = copy.deepcopy(operation["value"])
    return patched


def injected_config(pod: Object, patch: Iterable[Object]) -> Object | None:
    """Returns the dnsConfig that a patch gives, or None; it may change nothing else."""
    patched = apply(pod, patch)
    if patched == pod:
        return None
    spec = patched["spec"]
    assert spec.pop("dnsPolicy") == "None"
    config: Object = spec.pop("dnsConfig")
    rest = copy.deepcopy(pod)
    rest["spec"].pop("dnsPolicy", None)
    rest["spec"].pop("dnsConfig", None)
    assert patched == rest
    return config
