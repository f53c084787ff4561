"""The two objects that are read and changed: their paths, their JSON, and why a request failed.

The rights that this takes are `get` and `patch` on one Secret and one MutatingWebhookConfiguration.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

from nodecache.errors import ApiError, ConflictError
from nodecache.printing import printable
from nodecache.webhook.certificates.api import Reply
from nodecache.webhook.certificates.model import Entry, Settings, Trust
from nodecache.webhook.certificates.reading import read_bundle

# With these annotations cert-manager's injector writes caBundle.
_MANAGERS = ("cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret")

_MOST_SHOWN = 300  # characters of what the API server says itself


class Asking(Protocol):
    """Who sends requests; see `api.ApiClient`."""

    async def get(self, path: str) -> Reply:
        """Returns the answer to a GET; raises ApiError."""

    async def patch(self, path: str, media_type: str, body: bytes) -> Reply:
        """Returns the answer to a PATCH; raises ApiError."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One object: where it is, and what to say if it cannot be had.

    Attributes:
        path: In the API.
        title: As people call it.
        right: What a role must allow; a verb comes before it.
        remedy: What to do if it is not there.
    """

    path: str
    title: str
    right: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Seen:
    """An object as it was read.

    Attributes:
        content: All of it.
        version: Its resourceVersion: a change that names it fails if somebody else was faster.
        date: When that was, by the API server's clock; None if it does not say.
    """

    content: dict[str, Any]
    version: str
    date: float | None


def secret_of(settings: Settings) -> Resource:
    """Returns the Secret."""
    name, namespace = settings.secret, settings.namespace
    return Resource(
        f"/api/v1/namespaces/{quote(namespace, '')}/secrets/{quote(name, '')}",
        f"Secret {namespace}/{name}",
        f"on secrets, resourceNames [{name}], in a Role of namespace {namespace}",
        f"make it, empty: kubectl -n {namespace} create secret generic {name}",
    )


def configuration_of(settings: Settings) -> Resource:
    """Returns the MutatingWebhookConfiguration."""
    group, plural = "admissionregistration.k8s.io", "mutatingwebhookconfigurations"
    name = settings.configuration
    return Resource(
        f"/apis/{group}/v1/{plural}/{quote(name, '')}",
        f"MutatingWebhookConfiguration {name}",
        f"on {plural} (apiGroup {group}), resourceNames [{name}], in a ClusterRole",
        "install it with the chart, or give its name",
    )


async def read(api: Asking, resource: Resource) -> Seen:
    """Returns an object.

    Raises:
        ApiError: It cannot be had.
    """
    reply = await api.get(resource.path)
    _check(reply, "get", resource)
    try:
        content = json.loads(reply.body)
        version = content["metadata"]["resourceVersion"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ApiError(f"what the API server gave is no {resource.title}") from None
    return Seen(content, str(version), reply.date)


async def write_secret(
    api: Asking, resource: Resource, version: str, data: Mapping[str, bytes]
) -> None:
    """Changes the Secret that was read as ``version``: these keys, and nothing else.

    Raises:
        ConflictError: Somebody was faster.
        ApiError: It cannot be changed.
    """
    encoded = {name: base64.b64encode(octets).decode() for name, octets in data.items()}
    body = {"metadata": {"resourceVersion": version}, "data": encoded}
    await _patch(api, resource, "application/merge-patch+json", body)


async def write_bundle(
    api: Asking, resource: Resource, version: str, trust: Trust, pem: bytes
) -> None:
    """Changes caBundle in each entry of the configuration that was read as ``version``.

    Raises:
        ConflictError: Somebody was faster.
        ApiError: It cannot be changed.
    """
    bundle = {"caBundle": base64.b64encode(pem).decode()}
    webhooks = [{"name": entry.name, "clientConfig": bundle} for entry in trust.entries]
    body = {"metadata": {"resourceVersion": version}, "webhooks": webhooks}
    # This kind of patch knows entries by their names; a merge patch would replace the whole list.
    await _patch(api, resource, "application/strategic-merge-patch+json", body)


async def _patch(api: Asking, resource: Resource, media_type: str, body: object) -> None:
    reply = await api.patch(resource.path, media_type, json.dumps(body).encode())
    _check(reply, "patch", resource)


def read_data(secret: dict[str, Any]) -> dict[str, bytes]:
    """Returns what a Secret holds; what is not base64 is as if not there."""
    data = secret.get("data")
    decoded = {name: _decode(text) for name, text in _object(data).items()}
    return {name: octets for name, octets in decoded.items() if octets}


def read_trust(configuration: dict[str, Any]) -> Trust:
    """Returns what a MutatingWebhookConfiguration trusts; entries without a name are left out."""
    webhooks = configuration.get("webhooks")
    entries = tuple(
        Entry(each["name"], read_bundle(_decode(_object(each.get("clientConfig")).get("caBundle"))))
        for each in (webhooks if isinstance(webhooks, list) else ())
        if isinstance(each, dict) and isinstance(each.get("name"), str)
    )
    annotations = _object(_object(configuration.get("metadata")).get("annotations"))
    return Trust(entries, next((name for name in _MANAGERS if name in annotations), ""))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _decode(text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _check(reply: Reply, verb: str, resource: Resource) -> None:
    """Raises ApiError unless the request was carried out."""
    if reply.status == HTTPStatus.OK:
        return
    if reply.status == HTTPStatus.CONFLICT:
        raise ConflictError(f"{resource.title} was changed meanwhile")
    raise ApiError(f"{_reason(reply.status, verb, resource)} ({_said(reply)})")


def _reason(status: int, verb: str, resource: Resource) -> str:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return "the API server does not take this pod's token: check its ServiceAccount"
        case HTTPStatus.FORBIDDEN:
            return f"no right to {verb} {resource.title}: allow {verb} {resource.right}"
        case HTTPStatus.NOT_FOUND:
            return f"there is no {resource.title}: {resource.remedy}"
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            return (
                f"the API server takes no change of {resource.title}: is it immutable? make it anew"
            )
    return f"the API server cannot {verb} {resource.title} now; it is asked again"


def _said(reply: Reply) -> str:
    try:
        message = _object(json.loads(reply.body)).get("message")
    except (ValueError, RecursionError):
        message = None
    words = f": {printable(message)}" if message and isinstance(message, str) else ""
    return f"{reply.status}{words}"[:_MOST_SHOWN]
