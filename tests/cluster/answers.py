"""What an API server does about a request for objects."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

import yaml

from tests.cluster import protobuf, selectors
from tests.cluster.errors import Json, Refusal
from tests.cluster.patching import APPLY
from tests.cluster.requests import Request
from tests.cluster.store import Event, Place, Store, Writing

_WATCH_S: Final = 30.0

Answer = tuple[HTTPStatus, Json | str | Iterator[Json]]


class Answering:
    """One request about objects.

    Args:
        store: which it is about.
        request: what is asked.
        may_create: raises Refusal unless whoever asks may create such an object.
    """

    def __init__(self, store: Store, request: Request, may_create: Callable[[], None]) -> None:
        assert request.kind is not None
        self._store = store
        self._may_create = may_create
        self._request = request
        self._kind = request.kind
        self._place = Place(self._kind, request.namespace, request.name)
        query = request.query
        agent = request.headers.get("user-agent", "").partition("/")[0]
        self._writing = Writing(
            manager=query.get("fieldManager") or agent,
            is_dry=query.get("dryRun") == "All",
            force=query.get("force") == "true",
            subresource=request.subresource,
        )

    def answer(self) -> tuple[HTTPStatus, Json | str | Iterator[Json]]:
        """Carries it out.

        Raises:
            Refusal: it cannot be.
        """
        parts = ("", *self._kind.subresources)
        if self._request.subresource not in parts:
            raise Refusal(HTTPStatus.NOT_FOUND, "the server could not find the requested resource")
        carry_out = getattr(self, f"_{self._request.verb}")
        answer: tuple[HTTPStatus, Json | str | Iterator[Json]] = carry_out()
        return answer

    def _get(self) -> tuple[HTTPStatus, Json | str]:
        manifest = self._store.get(self._place)
        return HTTPStatus.OK, "" if self._request.subresource == "log" else manifest

    def _list(self) -> tuple[HTTPStatus, Json]:
        with self._store.changed:
            items = self._selected(self._store.objects(self._kind, self._request.namespace))
            version = self._store.version
        return HTTPStatus.OK, {
            "kind": f"{self._kind.name}List",
            "apiVersion": self._kind.api_version,
            "metadata": {"resourceVersion": str(version)},
            "items": items,
        }

    def _selected(self, items: list[Json]) -> list[Json]:
        query = self._request.query
        return selectors.selected(
            items, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )

    def _watch(self) -> tuple[HTTPStatus, Iterator[Json]]:
        if self._request.query.get("sendInitialEvents") == "true":
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "sendInitialEvents is not served here")
        return HTTPStatus.OK, self._changes()

    def _changes(self) -> Iterator[Json]:
        """Yields events after the version asked for, until nothing came for a while."""
        query = self._request.query
        seen = int(query.get("resourceVersion") or 0)
        patience = min(float(query.get("timeoutSeconds") or _WATCH_S), _WATCH_S)
        while fresh := self._store.events_after(seen, patience):
            seen = fresh[-1].version
            for event in filter(self._concerns, fresh):
                yield {"type": event.type, "object": event.manifest}

    def _concerns(self, event: Event) -> bool:
        place = event.place
        is_there = place.kind == self._kind and self._place.namespace in ("", place.namespace)
        return is_there and bool(self._selected([event.manifest]))

    def _create(self) -> tuple[HTTPStatus, Json]:
        manifest = self._manifest()
        metadata = manifest.setdefault("metadata", {})
        if "name" not in metadata and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)
        place = Place(self._kind, self._request.namespace, metadata.get("name", ""))
        return HTTPStatus.CREATED, self._store.create(place, manifest, self._writing)

    def _update(self) -> tuple[HTTPStatus, Json]:
        return HTTPStatus.OK, self._store.update(self._place, self._manifest(), self._writing)

    def _patch(self) -> tuple[HTTPStatus, Json]:
        media_type = self._request.headers.get("content-type", "").partition(";")[0]
        patch = self._parsed()
        if media_type == APPLY:
            if not self._request.query.get("fieldManager"):
                raise Refusal(HTTPStatus.BAD_REQUEST, "fieldManager is required for apply patch")
            self._place_of_apply(patch)
        manifest, is_new = self._store.patch(self._place, media_type, patch, self._writing)
        return HTTPStatus.CREATED if is_new else HTTPStatus.OK, manifest

    def _place_of_apply(self, wanted: Any) -> None:
        """Completes what is applied, and asks for the right to create where it does that."""
        if not isinstance(wanted, dict) or (wanted.get("apiVersion"), wanted.get("kind")) != (
            self._kind.api_version,
            self._kind.name,
        ):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the object applied is of another kind")
        metadata = wanted.setdefault("metadata", {})
        if self._kind.is_namespaced:
            metadata.setdefault("namespace", self._request.namespace)
        try:
            self._store.get(self._place)
        except Refusal:
            self._may_create()

    def _delete(self) -> tuple[HTTPStatus, Json]:
        options = self._parsed() if self._request.body else {}
        version = (options.get("preconditions") or {}).get("resourceVersion")
        manifest = self._store.delete(self._place, version, is_dry=self._writing.is_dry)
        return HTTPStatus.OK, {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Success",
            "details": {"name": self._place.name, "uid": manifest["metadata"]["uid"]},
        }

    def _deletecollection(self) -> tuple[HTTPStatus, Json]:
        for manifest in self._selected(self._store.objects(self._kind, self._request.namespace)):
            metadata = manifest["metadata"]
            place = Place(self._kind, metadata.get("namespace", ""), metadata["name"])
            self._store.delete(place)
        return HTTPStatus.OK, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _parsed(self) -> Any:
        if self._request.headers.get("content-type", "").startswith(protobuf.MEDIA_TYPE):
            return protobuf.decoded(self._request.body)
        try:
            # Server-side apply sends YAML, of which JSON is a part.
            return yaml.safe_load(self._request.body) if self._request.body else None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the body cannot be read: {error}") from error

    def _manifest(self) -> Json:
        manifest = self._parsed()
        if not isinstance(manifest, dict):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body is no object")
        manifest.setdefault("apiVersion", self._kind.api_version)
        manifest.setdefault("kind", self._kind.name)
        metadata = manifest.setdefault("metadata", {})
        if self._kind.is_namespaced:
            metadata.setdefault("namespace", self._request.namespace)
        return manifest
