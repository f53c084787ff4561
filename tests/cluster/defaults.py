"""What the API server adds to objects inside fields that are one value to server-side apply.

Whoever leaves these out is in conflict with the next one who applies the same. What is added
elsewhere is owned by nobody, and hurts nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.cluster.errors import Json


def add_defaults(manifest: Json) -> None:
    """Completes an object in place."""
    for reference in _members(manifest.get("spec"), "fieldRef"):
        reference.setdefault("apiVersion", "v1")
    for name in ("matchConstraints", "matchResources"):
        for match in _members(manifest.get("spec"), name):
            match.setdefault("matchPolicy", "Equivalent")
            match.setdefault("namespaceSelector", {})
            match.setdefault("objectSelector", {})
            for rule in match.get("resourceRules", ()):
                rule.setdefault("scope", "*")
    for webhook in manifest.get("webhooks", ()):
        for rule in webhook.get("rules", ()):
            rule.setdefault("scope", "*")


def _members(value: Any, name: str) -> Iterator[Json]:
    """Yields all maps of that name below a value."""
    if isinstance(value, dict):
        for key, member in value.items():
            if key == name and isinstance(member, dict):
                yield member
            yield from _members(member, name)
    elif isinstance(value, list):
        for item in value:
            yield from _members(item, name)
