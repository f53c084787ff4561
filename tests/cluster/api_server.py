"""A Kubernetes API server for tests: real TLS, bearer tokens, RBAC, objects as a cluster has them.

It runs in a thread of the test's process. What it knows of kinds is in kinds.py, of objects in
store.py; here are the requests.
"""

from __future__ import annotations

import base64
import json
import queue
import secrets
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any, Final, Self

import yaml

from tests.cluster import kinds, rights
from tests.cluster.answers import Answering
from tests.cluster.authority import Authority
from tests.cluster.errors import Json, Refusal
from tests.cluster.kinds import Kind
from tests.cluster.requests import Request, discovery, understood
from tests.cluster.rights import Deed
from tests.cluster.store import Place, Settle, Store

_BODY_LIMIT: Final = 3 * 1024 * 1024  # octets, as the real one's
_REQUESTS: Final = 10_000  # that are remembered


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token: whose it is, and rules that it has besides those in the store."""

    user: str
    rules: tuple[Json, ...] = ()


class ApiServer:
    """Serves on 127.0.0.1 while entered.

    Args:
        known: kinds that it has; give BUILT_IN for a cluster without policies and custom kinds.
        settle: what controllers make of an object that was written.

    ``fault``, if set, is asked before each request is carried out: it may raise Refusal, wait, or
    write to the store as somebody else would in that moment.
    """

    def __init__(
        self, known: tuple[Kind, ...] = kinds.ALL, settle: Settle = lambda manifest: manifest
    ) -> None:
        self.kinds = known
        self.store = Store(settle)
        self.authority = Authority()
        self.requests: deque[Request] = deque(maxlen=_REQUESTS)
        self.fault: Callable[[Request], None] | None = None
        self.admin_token = secrets.token_urlsafe(16)
        self._tokens = {self.admin_token: Token("admin", (rights.EVERYTHING,))}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self._server.context = self.authority.server_context("127.0.0.1", "localhost")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    @property
    def ca_pem(self) -> bytes:
        """The certificate that its own is signed by."""
        return self.authority.ca_pem

    def __enter__(self) -> Self:
        """Starts to serve."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends all connections."""
        self._server.shutdown()
        self._server.close_all()
        self._thread.join()

    def kind(self, api_version: str, name: str) -> Kind:
        """Returns a kind by its name in objects.

        Raises:
            Refusal: this server has none such.
        """
        for kind in self.kinds:
            if (kind.api_version, kind.name) == (api_version, name):
                return kind
        raise Refusal(HTTPStatus.NOT_FOUND, f"no kind {name} in {api_version}")

    def place(self, manifest: Json) -> Place:
        """Returns where an object belongs; without a namespace of its own in "default"."""
        kind = self.kind(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        namespace = metadata.get("namespace", "default") if kind.is_namespaced else ""
        return Place(kind, namespace, metadata["name"])

    def put(self, manifest: Json) -> Json:
        """Adds an object, as an administrator would before the test."""
        return self.store.create(self.place(manifest), manifest)

    def find(self, kind: str, name: str, namespace: str = "") -> Json:
        """Returns an object by the name of its kind."""
        found = next(each for each in self.kinds if each.name == kind)
        return self.store.get(Place(found, namespace, name))

    def token(self, account: str, *rules: Json) -> str:
        """Returns a token of a ServiceAccount.

        Args:
            account: "NAMESPACE:NAME"; it has the rights that roles in the store give it.
            rules: rights that it has besides, everywhere.
        """
        token = secrets.token_urlsafe(16)
        self._tokens[token] = Token(f"system:serviceaccount:{account}", rules)
        return token

    def kubeconfig(self, token: str | None = None) -> str:
        """Returns a kubeconfig, by which clients find this server."""
        authority = base64.b64encode(self.ca_pem).decode()
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [
                    {
                        "name": "test",
                        "cluster": {"server": self.url, "certificate-authority-data": authority},
                    }
                ],
                "users": [{"name": "test", "user": {"token": token or self.admin_token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            }
        )

    def whose(self, authorization: str) -> Token:
        """Returns whose request it is.

        Raises:
            Refusal: it bears no token that this server gave.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or token not in self._tokens:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Unauthorized")
        return self._tokens[token]

    def authorize(self, token: Token, deed: Deed) -> None:
        """Lets a deed pass.

        Raises:
            Refusal: no rule allows it.
        """
        account = token.user.removeprefix("system:serviceaccount:")
        listed = {kind.name: self.store.objects(kind) for kind in self.kinds if "Role" in kind.name}
        rules = rights.rules_for(
            account,
            deed.namespace,
            listed["RoleBinding"] + listed["ClusterRoleBinding"],
            listed["Role"] + listed["ClusterRole"],
        )
        if rights.allows([*token.rules, *rules], deed):
            return
        where = (
            f' in the namespace "{deed.namespace}"' if deed.namespace else " at the cluster scope"
        )
        named = f' "{deed.name}"' if deed.name else ""
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            f'{deed.resource}{named} is forbidden: User "{token.user}" cannot {deed.verb} resource '
            f'"{deed.resource}" in API group "{deed.group}"{where}',
        )


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    api: ApiServer
    context: ssl.SSLContext

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def get_request(self) -> tuple[Any, Any]:
        """Takes a connection; the handshake is its own thread's."""
        connection, address = super().get_request()
        wrapped = self.context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        self._connections.put(wrapped)
        return wrapped, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lets a client go that broke off."""

    def close_all(self) -> None:
        """Closes the port and every connection."""
        self.server_close()
        while not self._connections.empty():
            self._connections.get().close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing: tests read ``requests``."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _BODY_LIMIT + 1))
        try:
            if len(body) > _BODY_LIMIT:
                raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
            code, answer = self._answer(body)
        except Refusal as refusal:
            code, answer = refusal.code, refusal.status()
        if isinstance(answer, Iterator):
            self._stream(answer)
            return
        self._send(code, answer)

    def _send(self, code: HTTPStatus, answer: Json | str) -> None:
        is_text = isinstance(answer, str)
        octets = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)
        self.wfile.flush()

    def _stream(self, events: Iterator[Json]) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for event in events:
            octets = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(octets), octets))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _answer(self, body: bytes) -> tuple[HTTPStatus, Json | str | Iterator[Json]]:
        api = self.server.api
        token = api.whose(self.headers.get("Authorization", ""))
        request = understood(api.kinds, token.user, self.command, self.path, self.headers, body)
        api.requests.append(request)
        if api.fault is not None:
            api.fault(request)
        if request.kind is None:
            return HTTPStatus.OK, discovery(api.kinds, request.path)
        deed = request.deed
        api.authorize(token, deed)
        may_create = partial(api.authorize, token, replace(deed, verb="create"))
        return Answering(api.store, request, may_create).answer()
