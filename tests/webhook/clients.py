"""A client of the webhook, one octet at a time if need be."""

from __future__ import annotations

import json
import socket
import ssl
from types import TracebackType

from tests.webhook.pairs import NAME


def review(uid: str = "6b0a", padding: int = 0) -> bytes:
    """Returns a review of a plain pod; ``padding`` octets longer than need be."""
    pod = {
        "metadata": {"generateName": "web-", "annotations": {"padding": "x" * padding}},
        "spec": {"containers": [{"name": "web", "image": "web"}], "dnsPolicy": "ClusterFirst"},
    }
    request = {
        "uid": uid,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "app",
        "operation": "CREATE",
        "object": pod,
    }
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(whole).encode()


def post(body: bytes, path: str = "/inject?timeout=2s", kind: str = "application/json") -> bytes:
    """Returns a request as an API server sends it."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {NAME}:443",
        "User-Agent: kube-apiserver-admission",
        f"Content-Length: {len(body)}",
        "Accept: application/json, */*",
        f"Content-Type: {kind}",
        "Accept-Encoding: gzip",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


class Client:
    """One connection; blocking, for threads and for tests of processes."""

    def __init__(self, port: int, context: ssl.SSLContext | None, timeout_s: float = 30) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout_s)
        try:
            self.socket = (
                context.wrap_socket(plain, server_hostname=NAME) if context is not None else plain
            )
        except BaseException:
            plain.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Returns status and body of the answer."""
        self.socket.sendall(request)
        return self.read()

    def read(self) -> tuple[int, bytes]:
        octets = b""
        while b"\r\n\r\n" not in octets:
            octets += self._more()
        head, _, body = octets.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.partition(b":")[2]) for line in lines if b"content-length" in line)
        while len(body) < length:
            body += self._more()
        return int(head.split()[1]), body

    def is_closed(self) -> bool:
        """Waits until the server closes."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _more(self) -> bytes:
        if not (piece := self.socket.recv(65536)):
            raise ConnectionResetError("closed in the middle of an answer")
        return piece


def ask_once(port: int, context: ssl.SSLContext | None, request: bytes) -> tuple[int, bytes]:
    """The same on a connection of its own."""
    with Client(port, context) as client:
        return client.ask(request)
