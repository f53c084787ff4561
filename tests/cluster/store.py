"""The objects of a cluster: what each write makes of them, and which it refuses.

Pure but for the lock: no sockets, no clock but the one that it is given.
"""

from __future__ import annotations

import copy
import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from tests.cluster import ownership, patching, schema
from tests.cluster.defaults import add_defaults
from tests.cluster.errors import Json, Refusal
from tests.cluster.kinds import Kind
from tests.cluster.ownership import Manager
from tests.cluster.schema import Shape

_EVENTS: Final = 10_000  # that a watch can still be told of
_PRESENT: Final = "2026-11-30T12:00:00Z"
# What the API server lets nobody change, by kind.
_IMMUTABLE: Final = {
    "DaemonSet": (("spec", "selector"),),
    "Deployment": (("spec", "selector"),),
    "Job": (("spec", "template"), ("spec", "selector")),
    "RoleBinding": (("roleRef",),),
    "ClusterRoleBinding": (("roleRef",),),
    "Service": (("spec", "clusterIP"),),
}

Settle = Callable[[Json], Json]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is: its kind, namespace ("" for none) and name."""

    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Writing:
    """How a write is meant.

    Args:
        manager: who writes, as managedFields name it.
        is_dry: nothing is kept of it.
        force: takes fields from other managers.
        subresource: "status" writes that, and nothing else.
    """

    manager: str = "test"
    is_dry: bool = False
    force: bool = False
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A change, as watches tell it."""

    version: int
    type: str
    place: Place
    manifest: Json


def _unchanged(manifest: Json) -> Json:
    return manifest


class Store:
    """Objects by place, one resourceVersion for all.

    Args:
        settle: what controllers make of an object that was written, its status above all.
    """

    def __init__(self, settle: Settle = _unchanged) -> None:
        self._objects: dict[Place, Json] = {}
        self._versions = itertools.count(100)
        self._addresses = itertools.count(2)
        self._settle = settle
        self.version = 99
        self.changed = threading.Condition(threading.RLock())
        self.events: deque[Event] = deque(maxlen=_EVENTS)

    def get(self, place: Place) -> Json:
        """Returns an object.

        Raises:
            Refusal: there is none.
        """
        with self.changed:
            if place not in self._objects:
                raise Refusal(
                    HTTPStatus.NOT_FOUND, f'{place.kind.qualified_plural} "{place.name}" not found'
                )
            return copy.deepcopy(self._objects[place])

    def objects(self, kind: Kind, namespace: str = "") -> list[Json]:
        """Returns all objects of a kind, or those in a namespace, in the order of their names."""
        with self.changed:
            found = {
                (place.namespace, place.name): manifest
                for place, manifest in self._objects.items()
                if place.kind == kind and namespace in ("", place.namespace)
            }
        return [copy.deepcopy(found[key]) for key in sorted(found)]

    def everything(self) -> dict[tuple[str, str, str], Json]:
        """Returns (kind, namespace, name) -> object."""
        with self.changed:
            return {
                (place.kind.name, place.namespace, place.name): copy.deepcopy(manifest)
                for place, manifest in self._objects.items()
            }

    def create(self, place: Place, manifest: Json, writing: Writing = Writing()) -> Json:
        """Adds an object.

        Raises:
            Refusal: one of that name is there, its namespace is not, or it is invalid.
        """
        with self.changed:
            if place in self._objects:
                raise Refusal(
                    HTTPStatus.CONFLICT,
                    f'{place.kind.qualified_plural} "{place.name}" already exists',
                    "AlreadyExists",
                )
            shape = Shape.of(place.kind.api_version, place.kind.name)
            manager = Manager(writing.manager, "Update", place.kind.api_version)
            return self._add(place, ownership.written({}, manifest, manager, shape), writing)

    def update(self, place: Place, manifest: Json, writing: Writing = Writing()) -> Json:
        """Puts an object in place of the present one.

        Raises:
            Refusal: there is none, the present one is newer, or the change is not allowed.
        """
        with self.changed:
            return self._replace(place, self.get(place), manifest, writing)

    def patch(
        self, place: Place, media_type: str, patch: Any, writing: Writing = Writing()
    ) -> tuple[Json, bool]:
        """Patches an object, or makes one by server-side apply; returns it and whether it is new.

        Raises:
            Refusal: the patch does not fit, or the change is not allowed.
        """
        with self.changed:
            if media_type == patching.APPLY:
                return self._apply(place, patch, writing)
            before = self.get(place)
            shape = Shape.of(place.kind.api_version, place.kind.name)
            after = patching.patched(media_type, before, patch, shape)
            return self._replace(place, before, after, writing), False

    def overwrite(self, place: Place, manifest: Json) -> None:
        """Puts an object there as it is, by no rule: what a test's past left."""
        with self.changed:
            self._objects[place] = copy.deepcopy(manifest)

    def delete(self, place: Place, version: str | None = None, *, is_dry: bool = False) -> Json:
        """Takes an object away.

        Raises:
            Refusal: there is none, or not in that version.
        """
        with self.changed:
            manifest = self.get(place)
            if version is not None and version != manifest["metadata"]["resourceVersion"]:
                raise _stale(place)
            if is_dry:
                return manifest
            del self._objects[place]
            self._tell("DELETED", place, manifest)
            if place.kind.name == "Namespace":
                for inner in [each for each in self._objects if each.namespace == place.name]:
                    self.delete(inner)
            return manifest

    def events_after(self, version: int, patience: float) -> list[Event]:
        """Returns what happened after a version; waits so many seconds for the first."""
        with self.changed:
            self.changed.wait_for(lambda: self.version > version, patience)
            return [event for event in self.events if event.version > version]

    def _apply(self, place: Place, wanted: Json, writing: Writing) -> tuple[Json, bool]:
        manager = Manager(writing.manager, "Apply", place.kind.api_version, writing.subresource)
        shape = Shape.of(place.kind.api_version, place.kind.name)
        wanted = _without_nulls(wanted)
        live = self._objects.get(place)
        after = ownership.applied(copy.deepcopy(live), wanted, manager, shape, writing.force)
        if live is None:
            return self._add(place, after, writing), True
        return self._keep(place, live, after, writing), False

    def _add(self, place: Place, manifest: Json, writing: Writing) -> Json:
        if place.namespace and not self._has_namespace(place.namespace):
            raise Refusal(HTTPStatus.NOT_FOUND, f'namespaces "{place.namespace}" not found')
        manifest = _without_nulls(copy.deepcopy(manifest))
        metadata = manifest["metadata"]
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = _PRESENT
        metadata["generation"] = 1
        metadata.pop("resourceVersion", None)
        if place.kind.name == "Service":
            self._give_address(manifest.setdefault("spec", {}))
        add_defaults(manifest)
        _check(place, manifest)
        return self._commit("ADDED", place, manifest, writing)

    def _replace(self, place: Place, before: Json, after: Json, writing: Writing) -> Json:
        after = _without_nulls(copy.deepcopy(after))
        wanted = after.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, "", before["metadata"]["resourceVersion"]):
            raise _stale(place)
        if not after.setdefault("metadata", {}).get("managedFields"):
            after["metadata"]["managedFields"] = before["metadata"]["managedFields"]
        shape = Shape.of(place.kind.api_version, place.kind.name)
        manager = Manager(writing.manager, "Update", place.kind.api_version, writing.subresource)
        after = _keep_the_servers_own(place, before, after)
        return self._keep(place, before, ownership.written(before, after, manager, shape), writing)

    def _keep(self, place: Place, before: Json, after: Json, writing: Writing) -> Json:
        """Commits a change of an object, if it is one."""
        add_defaults(after)
        after = _keep_the_servers_own(place, before, after)
        if "status" in place.kind.subresources:
            after = _status_apart(before, after, writing.subresource)
        if after == before:
            return copy.deepcopy(before)
        _check(place, after)
        for path in _IMMUTABLE.get(place.kind.name, ()):
            if _at(before, path) != _at(after, path):
                field = ".".join(path)
                raise Refusal(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    f'{place.kind.name} "{place.name}" is invalid: {field}: '
                    "Invalid value: field is immutable",
                )
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] = before["metadata"]["generation"] + 1
        return self._commit("MODIFIED", place, after, writing)

    def _commit(self, type_: str, place: Place, manifest: Json, writing: Writing) -> Json:
        if writing.is_dry:
            return manifest
        manifest = self._settle(manifest)
        self._objects[place] = manifest
        self._tell(type_, place, manifest)
        return copy.deepcopy(manifest)

    def _tell(self, type_: str, place: Place, manifest: Json) -> None:
        self.version = next(self._versions)
        manifest["metadata"]["resourceVersion"] = str(self.version)
        self.events.append(Event(self.version, type_, place, copy.deepcopy(manifest)))
        self.changed.notify_all()

    def _give_address(self, spec: Json) -> None:
        """Gives a Service its own address, or the one that it asks for."""
        address = spec.setdefault("clusterIP", f"10.96.1.{next(self._addresses)}")
        held = (each.get("spec", {}).get("clusterIP") for each in self._objects.values())
        if address != "None" and address in held:
            raise Refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"spec.clusterIPs: Invalid value: {address}: failed to allocate IP: "
                "provided IP is already allocated",
            )

    def _has_namespace(self, name: str) -> bool:
        return any(place.kind.name == "Namespace" and place.name == name for place in self._objects)


def _stale(place: Place) -> Refusal:
    return Refusal(
        HTTPStatus.CONFLICT,
        f'Operation cannot be fulfilled on {place.kind.qualified_plural} "{place.name}": the '
        "object has been modified; please apply your changes to the latest version and try again",
    )


def _check(place: Place, manifest: Json) -> None:
    if manifest.get("metadata", {}).get("name") != place.name:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the name of the object is not that of the request")
    if found := schema.faults(manifest):
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f'{place.kind.name} "{place.name}" is invalid: {"; ".join(found[:3])}',
        )


def _keep_the_servers_own(place: Place, before: Json, after: Json) -> Json:
    """Returns the object with what only the server writes, as it was."""
    metadata = dict(after.get("metadata", {}))
    for name in ("uid", "creationTimestamp", "generation", "resourceVersion", "name", "namespace"):
        if name in before["metadata"]:
            metadata[name] = before["metadata"][name]
    after = {**after, "metadata": metadata}
    if place.kind.name == "Service" and "clusterIP" not in after.get("spec", {}):
        after["spec"] = {**after.get("spec", {}), "clusterIP": before["spec"]["clusterIP"]}
    return after


def _status_apart(before: Json, after: Json, subresource: str) -> Json:
    """Returns the object with a new status, or with all but that."""
    source, rest = (after, before) if subresource == "status" else (before, after)
    joined = {name: value for name, value in rest.items() if name != "status"}
    joined["metadata"] = after["metadata"]
    if "status" in source:
        joined["status"] = source["status"]
    return joined


def _at(manifest: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        manifest = manifest.get(name) if isinstance(manifest, dict) else None
    return manifest


def _without_nulls(value: Any) -> Any:
    """Returns what is left of a value once it was read into the server's own types."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value
