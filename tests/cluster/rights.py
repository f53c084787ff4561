"""Who may do what: RBAC, read from the objects in the store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.cluster.errors import Json

EVERYTHING: Final[Json] = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}


@dataclass(frozen=True, slots=True)
class Deed:
    """What somebody wants to do.

    Args:
        verb: "get", "list", "patch", ...
        group: of the API, "" for the core's.
        resource: plural, with its subresource: "pods/log".
        namespace: "" for what is in none.
        name: "" where the request names none, as of create and list.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


def allows(rules: Iterable[Json], deed: Deed) -> bool:
    """Tells whether one of a role's rules covers a deed."""
    return any(
        _has(rule.get("verbs"), deed.verb)
        and _has(rule.get("apiGroups"), deed.group)
        and _has(rule.get("resources"), deed.resource)
        and (not rule.get("resourceNames") or deed.name in rule["resourceNames"])
        for rule in rules
    )


def rules_for(
    account: str, namespace: str, bindings: Iterable[Json], roles: Iterable[Json]
) -> list[Json]:
    """Returns the rules that an account has in a namespace ("" for the cluster's own objects).

    Args:
        account: "NAMESPACE:NAME".
        namespace: of the deed.
        bindings: all RoleBindings and ClusterRoleBindings.
        roles: all Roles and ClusterRoles.
    """
    by_name = {
        (role["kind"], role["metadata"].get("namespace", ""), role["metadata"]["name"]): role
        for role in roles
    }
    rules: list[Json] = []
    for binding in bindings:
        where = binding["metadata"].get("namespace", "")
        if where not in ("", namespace) or account not in map(_account, binding["subjects"]):
            continue
        reference = binding["roleRef"]
        place = where if reference["kind"] == "Role" else ""
        role = by_name.get((reference["kind"], place, reference["name"]), {})
        rules += role.get("rules") or ()
    return rules


def _account(subject: Json) -> str:
    if subject.get("kind") != "ServiceAccount":
        return ""
    return f"{subject.get('namespace')}:{subject['name']}"


def _has(values: list[str] | None, wanted: str) -> bool:
    return wanted in (values or ()) or "*" in (values or ())
