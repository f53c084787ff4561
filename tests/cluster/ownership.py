"""Who owns which field: server-side apply, and what other writes do to it.

As structured-merge-diff does it: a field is a path, and of each manager the server keeps the set of
paths that it last said something of, as ``metadata.managedFields``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from tests.cluster.errors import Json, Refusal
from tests.cluster.schema import Shape, key_of

Path = tuple[str, ...]

_MISSING: Final = object()
_UNOWNED: Final[frozenset[Path]] = frozenset(
    [("f:apiVersion",), ("f:kind",)]
    + [
        ("f:metadata", f"f:{name}")
        for name in (
            "creationTimestamp", "generation", "managedFields", "name", "namespace",
            "resourceVersion", "selfLink", "uid",
        )
    ]
)  # fmt: skip


@dataclass(slots=True)
class Manager:
    """Who wrote, how, and what it owns."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""
    paths: set[Path] = field(default_factory=set)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What tells it from the other managers."""
        return self.name, self.operation, self.subresource


def owned_paths(value: Any, shape: Shape) -> set[Path]:
    """Returns the paths of an object that somebody can own."""
    return {
        path
        for path in _paths(value, shape)
        if path and not any(path[: len(each)] == each for each in _UNOWNED)
    }


def _paths(value: Any, shape: Shape) -> Iterator[Path]:
    if value and isinstance(value, dict) and not shape.is_atomic:
        for name, member in value.items():
            for rest in _paths(member, shape.member(name)):
                yield (f"f:{name}", *rest)
    elif value and isinstance(value, list) and shape.keys:
        for item in value:
            yield from _paths_of_item(_element(item, shape), item, shape.item())
    elif value and isinstance(value, list) and shape.is_set:
        for item in value:
            yield (f"v:{json.dumps(item)}",)
    else:
        yield ()


def _paths_of_item(element: str, item: Any, shape: Shape) -> Iterator[Path]:
    yield (element,)
    for rest in _paths(item, shape):
        if rest:
            yield (element, *rest)


def _element(item: Any, shape: Shape) -> str:
    return "k:" + json.dumps(key_of(item, shape.keys), sort_keys=True, separators=(",", ":"))


def _step(value: Any, step: str, shape: Shape) -> tuple[Any, Shape]:
    """Returns what is one step further, or that it is missing."""
    if step.startswith("f:"):
        name = step[2:]
        found = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        return found, shape.member(name)
    if not isinstance(value, list):
        return _MISSING, shape
    if step.startswith("v:"):
        wanted = json.loads(step[2:])
        return (wanted if wanted in value else _MISSING), shape.item()
    for item in value:
        if _element(item, shape) == step:
            return item, shape.item()
    return _MISSING, shape.item()


def _value(manifest: Json, path: Path, shape: Shape) -> Any:
    """Returns what to compare at a path: of a list's item whether it is there."""
    value: Any = manifest
    for step in path:
        value, shape = _step(value, step, shape)
        if value is _MISSING:
            return _MISSING
    return True if path[-1].startswith("k:") else value


def _remove(value: Any, path: Path, shape: Shape) -> None:
    """Takes a path out of an object, and maps and lists that are empty then."""
    step, *rest = path
    found, below = _step(value, step, shape)
    if found is _MISSING:
        return
    if rest:
        _remove(found, tuple(rest), below)
        if found not in ({}, []):
            return
    if isinstance(value, dict):
        del value[step[2:]]
    else:
        value.remove(found)


def _overlay(live: Any, wanted: Any, shape: Shape) -> Any:
    """Returns the live value with what is applied to it."""
    if isinstance(live, dict) and isinstance(wanted, dict) and not shape.is_atomic:
        after = dict(live)
        for name, member in wanted.items():
            after[name] = _overlay(live.get(name), member, shape.member(name))
        return after
    if not isinstance(live, list) or not isinstance(wanted, list):
        return wanted
    if shape.is_set:
        return live + [item for item in wanted if item not in live]
    if not shape.keys:
        return wanted
    items = {_element(item, shape): item for item in live}
    for item in wanted:
        element = _element(item, shape)
        items[element] = _overlay(items.get(element), item, shape.item())
    return list(items.values())


def applied(live: Json | None, wanted: Json, manager: Manager, shape: Shape, force: bool) -> Json:
    """Returns the object after a server-side apply, with its new owners.

    Raises:
        Refusal: another manager owns a field that this one would change, and does not force it.
    """
    managers = managers_of(live or {})
    own = next((each for each in managers if each.identity == manager.identity), manager)
    others = [each for each in managers if each is not own]
    new_paths = owned_paths(wanted, shape)
    before = live or {}
    disputes = {
        (each.name, path)
        for each in others
        for path in each.paths & new_paths
        if _value(before, path, shape) != _value(wanted, path, shape)
    }
    if disputes and not force:
        raise Refusal(HTTPStatus.CONFLICT, _conflict_message(disputes))
    after = _overlay(copy.deepcopy(before), copy.deepcopy(wanted), shape)
    others_paths = set[Path]().union(*(each.paths for each in others))
    # An item before what is in it: that has the keys by which the item is found.
    for path in sorted(own.paths - new_paths - others_paths, key=len):
        is_shared = any(each[: len(path)] == path for each in others_paths)
        if not (path[-1].startswith("k:") and is_shared):
            _remove(after, path, shape)
    for each in others:
        each.paths -= {path for name, path in disputes if name == each.name}
    own.paths = new_paths
    return with_managers(after, [*others, own])


def _conflict_message(disputes: set[tuple[str, Path]]) -> str:
    lines = [f'conflict with "{name}": .{_dotted(path)}' for name, path in sorted(disputes)]
    return f"Apply failed with {len(lines)} conflicts: " + "; ".join(lines)


def _dotted(path: Path) -> str:
    return ".".join(step[2:] if step.startswith("f:") else f"[{step[2:]}]" for step in path)


def written(before: Json, after: Json, manager: Manager, shape: Shape) -> Json:
    """Returns the object after another write than an apply, with its new owners."""
    managers = managers_of(after)
    own = next((each for each in managers if each.identity == manager.identity), manager)
    old_paths, new_paths = owned_paths(before, shape), owned_paths(after, shape)
    changed = {
        path
        for path in new_paths
        if _value(before, path, shape) != _value(after, path, shape) or path not in old_paths
    }
    for each in managers:
        each.paths = {
            path for path in each.paths - changed if _value(after, path, shape) is not _MISSING
        }
    own.paths |= changed
    return with_managers(after, [*(each for each in managers if each is not own), own])


def managers_of(manifest: Json) -> list[Manager]:
    """Returns the managers that an object names."""
    return [
        Manager(
            entry.get("manager", ""),
            entry.get("operation", "Update"),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
            set(_decoded(entry.get("fieldsV1") or {})),
        )
        for entry in manifest.get("metadata", {}).get("managedFields") or ()
    ]


def with_managers(manifest: Json, managers: list[Manager]) -> Json:
    """Returns the object with these managers; one that owns nothing is left out."""
    entries = [
        {
            "manager": each.name,
            "operation": each.operation,
            "apiVersion": each.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": _encoded(each.paths),
            **({"subresource": each.subresource} if each.subresource else {}),
        }
        for each in sorted(managers, key=lambda each: each.identity)
        if each.paths
    ]
    metadata = {**manifest.get("metadata", {}), "managedFields": entries}
    return {**manifest, "metadata": metadata}


def _encoded(paths: set[Path]) -> Json:
    root: Json = {}
    for path in sorted(paths):
        node = root
        for step in path:
            node = node.setdefault(step, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return root


def _decoded(node: Json, path: Path = ()) -> Iterator[Path]:
    if not node and path:
        yield path
    for step, below in node.items():
        if step == ".":
            yield path
        else:
            yield from _decoded(below, (*path, step))
