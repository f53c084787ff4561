"""The chart's two ways to inject, as an API server would follow them.

Selectors are ours to follow: they are simple. CEL is evaluated by Google's own library. What that
cannot show, because only an API server has it: the types of Kubernetes' objects, which it checks
when a policy is written, and how it turns a value of type Object into a patch. Here such a value is
a map of the same members.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import pytest

from nodecache.webhook.decision import decide
from tests.deploy.helm import rendered
from tests.webhook.applying import injected_config
from tests.webhook.table import Object, Row

_REASON = "cel-expr-python has no wheel for this machine"
cel = pytest.importorskip("cel_expr_python.cel", reason=_REASON, exc_type=ImportError)
ext_optional = pytest.importorskip("cel_expr_python.ext.ext_optional", reason=_REASON)
ext_strings = pytest.importorskip("cel_expr_python.ext.ext_strings", reason=_REASON)

# Object.spec.dnsConfig{name: value}, and JSONPatch{...}
_TYPED = re.compile(r"\b(?:Object(?:\.\w+)*|JSONPatch)\{")
_MEMBER = re.compile(r"(?<=[{,])\s*(op|path|value|nameservers|searches|options|name):")


def by_webhook(row: Row) -> Object | None:
    """Returns the dnsConfig that a pod is given by webhook; asks it once at most."""
    [configuration] = of_kind("MutatingWebhookConfiguration", "webhook", row)
    asked = [entry for entry in configuration["webhooks"] if _asks(entry, row)]
    assert len(asked) <= 1
    patch = decide(row.review_request(), row.injection).patch if asked else ()
    return injected_config(row.pod(), patch)


def is_chosen_for_webhook(row: Row) -> bool:
    """Tells whether the API server asks the webhook at all."""
    [configuration] = of_kind("MutatingWebhookConfiguration", "webhook", row)
    return any(_asks(entry, row) for entry in configuration["webhooks"])


def by_policy(row: Row) -> Object | None:
    """Returns the dnsConfig that a pod is given by the policy."""
    [policy] = of_kind("MutatingAdmissionPolicy", "policy", row)
    bindings = of_kind("MutatingAdmissionPolicyBinding", "policy", row)
    chosen = [binding for binding in bindings if _selects(binding["spec"]["matchResources"], row)]
    assert len(chosen) <= 1
    spec = policy["spec"]
    if not (chosen and _rules_match(spec["matchConstraints"]["resourceRules"], row)):
        return None
    data = _seen_by_cel(row)
    if not _conditions_hold(spec["matchConditions"], data):
        return None
    for variable in spec["variables"]:
        data["variables"][variable["name"]] = evaluate(variable["expression"], data)
    [mutation] = spec["mutations"]
    patch = evaluate(mutation["jsonPatch"]["expression"], data)
    return injected_config(row.pod(), patch)


def of_kind(kind: str, mode: str, row: Row) -> list[Object]:
    """Returns the chart's objects of a kind, with what the row's injection says as values."""
    return [item for item in _objects(mode, row.scope, row.injection) if item["kind"] == kind]


@functools.cache
def _objects(mode: str, scope: str, injection: Any) -> list[Object]:
    values: Object = {
        "config": {"dnsDomain": injection.domain, "localDns": list(injection.local)},
        "injection": {
            "mode": mode,
            "scope": scope,
            "includeClusterDns": bool(injection.cluster),
            "clusterDns": list(injection.cluster),
            "searches": list(injection.searches),
        },
    }
    return rendered(values)


def _asks(entry: Object, row: Row) -> bool:
    return (
        _rules_match(entry["rules"], row)
        and _selects(entry, row)
        and _conditions_hold(entry["matchConditions"], _seen_by_cel(row))
    )


def _rules_match(rules: list[Object], row: Row) -> bool:
    request = row.review_request()
    resource = request["resource"]
    return not request.get("subResource") and any(
        resource["group"] in rule["apiGroups"]
        and resource["version"] in rule["apiVersions"]
        and resource["resource"] in rule["resources"]
        and request["operation"] in rule["operations"]
        for rule in rules
    )


def _selects(selectors: Object, row: Row) -> bool:
    # The API server puts its name on every namespace.
    of_namespace = {**row.namespace_labels, "kubernetes.io/metadata.name": row.namespace}
    return matches(selectors["namespaceSelector"], of_namespace) and matches(
        selectors["objectSelector"], row.labels or {}
    )


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Tells whether a label selector of Kubernetes selects what has these labels."""
    wanted = selector.get("matchLabels", {}).items()
    return wanted <= labels.items() and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions", [])
    )


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":  # also without the label
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise AssertionError(expression)


def _conditions_hold(conditions: list[Object], data: Object) -> bool:
    return all(evaluate(condition["expression"], data) for condition in conditions)


def _seen_by_cel(row: Row) -> Object:
    # The API server has no members that are null.
    return {"object": without_nulls(row.pod()), "request": row.review_request(), "variables": {}}


def without_nulls(value: Any) -> Any:
    """Returns a value of JSON as it is after a pod's types have read and written it."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def evaluate(expression: str, data: Object) -> Any:
    """Returns what an expression comes to; an error of CEL fails the test."""
    result = _compiled(expression).eval(data=data)
    assert result.type() != cel.Type.ERROR, result.value()
    return result.plain_value()


@functools.cache
def _compiled(expression: str) -> Any:
    as_maps = _MEMBER.sub(r' "\1":', _TYPED.sub("{", expression))
    return _environment().compile(as_maps)


@functools.cache
def _environment() -> Any:
    dyn, integer = cel.Type.DYN, cel.Type.INT
    a_list = cel.Type.List(dyn)
    # Kubernetes' own list library has it; the evaluator does not.
    cut = cel.Overload(
        "list_slice",
        return_type=a_list,
        parameters=[a_list, integer, integer],
        is_member=True,
        impl=lambda values, start, end: values[start:end],
    )
    return cel.NewEnv(
        variables=dict.fromkeys(("object", "request", "variables"), dyn),
        extensions=[
            ext_optional.ExtOptional(),
            ext_strings.ExtStrings(),
            cel.CelExtension("lists", [cel.FunctionDecl("slice", [cut])]),
        ],
    )
