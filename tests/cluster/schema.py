"""What Kubernetes' own schema says of a field: how it merges, and what may be in it."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.cluster.errors import Json

RELEASE: Final = "1.36"
_FOLDER: Final = f"kubernetes-json-schema/v{RELEASE}.0-local-strict"
# Defaults of keys that an item of a list may leave out.
_KEY_DEFAULTS: Final = {"protocol": "TCP"}


@cache
def _definitions() -> Json:
    contents: Json = schema_contents(f"{_FOLDER}/_definitions.json", RELEASE)
    return contents


@cache
def _names() -> dict[tuple[str, str], str]:
    """Returns (apiVersion, kind) -> name of the definition."""
    names = {}
    for name, definition in _definitions()["$defs"].items():
        for which in definition.get("x-kubernetes-group-version-kind", ()):
            group = which["group"]
            version = which["version"]
            names[f"{group}/{version}" if group else version, which["kind"]] = name
    return names


@cache
def _validator(name: str) -> Draft202012Validator:
    definitions = Resource.from_contents(_definitions())
    registry: Registry[Any] = definitions @ Registry()
    return Draft202012Validator(
        {"$ref": f"{_definitions()['$id']}#/$defs/{name}"}, registry=registry
    )


def faults(manifest: Json) -> list[str]:
    """Returns what is wrong in an object by Kubernetes' schema; nothing for a custom kind."""
    name = _names().get((manifest["apiVersion"], manifest["kind"]))
    if name is None:
        return []
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in _validator(name).iter_errors(manifest)
    ]


class Shape:
    """A field of an object, as far as merging asks.

    Args:
        node: its part of the schema; None for what is in no schema, as in custom objects.
    """

    __slots__ = ("_node",)

    def __init__(self, node: Json | None) -> None:
        while node is not None and "$ref" in node:
            node = _definitions()["$defs"].get(node["$ref"].rpartition("/")[2])
        self._node = node

    @classmethod
    def of(cls, api_version: str, kind: str) -> Shape:
        """Returns the shape of a kind's objects."""
        name = _names().get((api_version, kind))
        return cls(None if name is None else _definitions()["$defs"][name])

    @property
    def is_known(self) -> bool:
        """Whether the schema has it."""
        return self._node is not None

    def member(self, name: str) -> Shape:
        """Returns the shape of a member of this map."""
        node = self._node or {}
        found = node.get("properties", {}).get(name) or node.get("additionalProperties")
        return Shape(found if isinstance(found, dict) else None)

    def item(self) -> Shape:
        """Returns the shape of this list's items."""
        return Shape((self._node or {}).get("items"))

    @property
    def is_atomic(self) -> bool:
        """Whether server-side apply takes it as one value."""
        node = self._node or {}
        return "atomic" in (node.get("x-kubernetes-map-type"), node.get("x-kubernetes-list-type"))

    @property
    def is_set(self) -> bool:
        """Whether it is a list of values, none of them twice."""
        return (self._node or {}).get("x-kubernetes-list-type") == "set"

    @property
    def keys(self) -> tuple[str, ...]:
        """The members by which server-side apply tells items apart; none if it does not."""
        node = self._node or {}
        if node.get("x-kubernetes-list-type") != "map":
            return ()
        return tuple(node["x-kubernetes-list-map-keys"])

    @property
    def merge_key(self) -> str | None:
        """The member by which a strategic merge tells this list's items, if it merges them."""
        return (self._node or {}).get("x-kubernetes-patch-merge-key") if self._merges else None

    @property
    def merges_values(self) -> bool:
        """Whether a strategic merge adds to this list of plain values instead of replacing it."""
        return self._merges and self.merge_key is None

    @property
    def _merges(self) -> bool:
        return "merge" in (self._node or {}).get("x-kubernetes-patch-strategy", "").split(",")


def key_of(item: Json, keys: tuple[str, ...]) -> Json:
    """Returns what tells an item of a list from the others."""
    return {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in keys}
