"""Ten thousand reviews over TLS: what one costs an API server and the webhook.

    python -m bench.webhook

One client asks, as an API server does that has one pod at a time to admit: first on one connection,
then with a new one for each review, with a pod of usual size and with a large one. Times are the
client's, its handshakes included; CPU is the server's alone.

Verdict (CPython 3.11, two cores that had three times as much to do): 0.3 ms and 0.29 ms of CPU on
one connection, 5 ms and 1.4 ms with a new one each; p99 5 and 17 ms, most of it waiting for a core.
29 MB before, 31 MB after 24,000 reviews, 36 MB with 120 connections.

Why HTTP is h11's and the connection ours: a review on a quieter machine took 0.23 ms and the
process 18.5 MB with h11 alone, 0.33 ms and 24 MB with uvicorn, 0.31 ms and 33 MB with aiohttp;
hypercorn waited for the TLS goodbye of clients that were gone, and was not done in minutes. After
25 s each of the first three still waited for a head, a body and a handshake that did not come.
uvicorn writes head and body apart.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.process import ServerProcess
from nodecache.webhook.certificates.making import make_data
from nodecache.webhook.certificates.model import ApiServer, Held, Settings
from nodecache.webhook.certificates.planning import Step

REVIEWS = 10_000
CONNECTIONS = 2_000
IDLE = 120
_NAME = "nodecache-webhook.kube-system.svc"
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of many reviews: microseconds."""

    p50: float
    p99: float
    longest: float
    cpu: float


class Webhook:
    """The server under test, and what a client needs to ask it."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(
            ApiServer("", 0, "", ""), "nodecache-webhook", "kube-system", "cluster.local", "", ""
        )
        data = make_data(Step.START, Held(), time.time(), settings)  # noqa: TID251
        for name in ("tls.crt", "tls.key"):
            (folder / name).write_bytes(data[name])
        self.context = ssl.create_default_context(cadata=data["ca.crt"].decode())
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "nodecache", "webhook", "-cluster-dns", "10.96.0.10"]
        command += ["-listen-address", f"127.0.0.1:{self.port}", "-metrics-listen-address", ""]
        command += ["-tls-cert-file", str(folder / "tls.crt")]
        command += ["-tls-private-key-file", str(folder / "tls.key")]
        self.process = ServerProcess(command, 0, folder)

    def connect(self) -> ssl.SSLSocket:
        """Returns a new connection, as Go's library makes one."""
        plain = socket.create_connection(("127.0.0.1", self.port), _PATIENCE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(plain, server_hostname=_NAME)

    def wait(self) -> None:
        """Returns when it answers."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            self.process.check_alive()
            try:
                self.connect().close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def measure(self, ask: Callable[[], None], count: int) -> Cost:
        """Returns what ``count`` calls of ``ask`` cost."""
        before, times = self.process.cpu(), []
        for _ in range(count):
            begun_at = time.perf_counter()
            ask()
            times.append(1e6 * (time.perf_counter() - begun_at))
        cpu = self.process.cpu().since(before) / count / 1000
        hundredths = statistics.quantiles(times, n=100)
        return Cost(hundredths[49], hundredths[98], max(times), cpu)

    def pss_mb(self) -> float:
        """Returns the memory of the server."""
        return self.process.memory().pss / 1e6


def request_for(octets: int) -> bytes:
    """Returns a review of a pod that takes about so many octets."""
    variables = [{"name": f"VARIABLE_{n}", "value": "x" * 40} for n in range(octets // 80)]
    pod = {
        "metadata": {"generateName": "web-", "labels": {"app": "web"}},
        "spec": {
            "containers": [{"name": "web", "image": "web:1", "env": variables}],
            "dnsPolicy": "ClusterFirst",
        },
    }
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "app",
        "operation": "CREATE",
        "object": pod,
    }
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    body = json.dumps(whole).encode()
    head = (
        f"POST /inject?timeout=2s HTTP/1.1\r\nHost: {_NAME}:443\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def ask(connection: ssl.SSLSocket, request: bytes) -> None:
    """Sends a review and reads its answer, which must be a patch."""
    connection.sendall(request)
    answer = b""
    while b"JSONPatch" not in answer or not answer.rstrip().endswith(b"}"):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionResetError(answer[:200])
        answer += piece


def main() -> None:
    """Prints the table."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        webhook = Webhook(Path(name))
        with closing(_Stop(webhook)):
            webhook.wait()
            _measure(webhook)


class _Stop:
    def __init__(self, webhook: Webhook) -> None:
        self.close = webhook.process.stop


def _measure(webhook: Webhook) -> None:
    print(f"memory before: {webhook.pss_mb():.1f} MB")
    for octets in (4_000, 100_000):
        request = request_for(octets)

        def ask_anew(request: bytes = request) -> None:
            with webhook.connect() as connection:
                ask(connection, request)

        with webhook.connect() as connection:

            def ask_again(request: bytes = request, to: ssl.SSLSocket = connection) -> None:
                ask(to, request)

            webhook.measure(ask_again, 200)
            kept = webhook.measure(ask_again, REVIEWS)
        for what, cost in (
            ("one connection", kept),
            ("a new one each", webhook.measure(ask_anew, CONNECTIONS)),
        ):
            print(
                f"{octets:>7} octets, {what:<15} p50 {cost.p50:6.0f} us, p99 {cost.p99:6.0f} us,"
                f" longest {cost.longest:7.0f} us, server's CPU {cost.cpu:5.0f} us"
            )
    print(f"memory after: {webhook.pss_mb():.1f} MB")
    idle = [webhook.connect() for _ in range(IDLE)]
    print(f"memory with {IDLE} connections: {webhook.pss_mb():.1f} MB")
    for connection in idle:
        connection.close()


if __name__ == "__main__":
    main()
