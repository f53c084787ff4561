"""What a request to an API server asks for, and what the server says of itself."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from tests.cluster import kinds
from tests.cluster.errors import Json, Refusal
from tests.cluster.kinds import Kind
from tests.cluster.rights import Deed
from tests.cluster.schema import RELEASE

_PATH: Final = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>[^/]+))?)?"
)
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as the server understood it.

    Args:
        user: whose token it bears, "system:serviceaccount:NAMESPACE:NAME" or "admin".
        verb: as RBAC names it.
        kind: of objects; None for what is no object.
        namespace: "" for none.
        name: "" for none.
        subresource: "" for none.
        query: its parameters, each once.
        headers: by name in small letters.
        body: octets.
        path: as sent, without the query.
    """

    user: str
    verb: str
    path: str
    kind: Kind | None = None
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def deed(self) -> Deed:
        """What RBAC is asked."""
        assert self.kind is not None
        resource = "/".join(filter(None, (self.kind.plural, self.subresource)))
        return Deed(self.verb, self.kind.group, resource, self.namespace, self.name)


def understood(
    known: tuple[Kind, ...], user: str, method: str, target: str, headers: Any, body: bytes
) -> Request:
    """Returns what a request asks for.

    Raises:
        Refusal: there is no such kind of objects.
    """
    path, _, query_text = target.partition("?")
    query = dict(urllib.parse.parse_qsl(query_text, keep_blank_values=True))
    lowered = {name.lower(): value for name, value in headers.items()}
    match = _PATH.fullmatch(path)
    if match is None:
        return Request(user, method.lower(), path, None, query=query, headers=lowered)
    api_version = match["core"] or match["group"]
    for kind in known:
        if (kind.api_version, kind.plural) == (api_version, match["plural"]):
            break
    else:
        raise Refusal(HTTPStatus.NOT_FOUND, "the server could not find the requested resource")
    name = match["name"] or ""
    verb = _VERBS.get(method, "get" if name else "list")
    if query.get("watch") in ("true", "1"):
        verb = "watch"
    if verb == "delete" and not name:
        verb = "deletecollection"
    named = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return Request(
        user,
        verb,
        path,
        kind,
        match["namespace"] or "",
        name or (named if verb in ("list", "watch") else ""),
        match["subresource"] or "",
        query,
        lowered,
        body,
    )


def discovery(known: tuple[Kind, ...], path: str) -> Json | str:
    """Returns what the server says of itself.

    Raises:
        Refusal: nothing is at that path.
    """
    versions = {kinds.root(kind.api_version): kind.api_version for kind in known}
    major, minor = RELEASE.split(".")
    pages: dict[str, Json | str] = {
        "/version": {"major": major, "minor": minor, "gitVersion": f"v{RELEASE}.2"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": kinds.groups(known),
        "/openapi/v3": kinds.open_api_paths(known),
        "/readyz": "ok",
    }
    if path in pages:
        return pages[path]
    if path in versions:
        return kinds.resources(known, versions[path])
    if path.removeprefix("/openapi/v3") in versions:
        return kinds.open_api(known, path.removeprefix("/openapi/v3/"))
    raise Refusal(HTTPStatus.NOT_FOUND, "the server could not find the requested resource")
