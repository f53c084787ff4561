"""The webhook as a process: what an API server and a kubelet see of it."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import pytest
from cryptography import x509

from tests.daemon.processes import free_port
from tests.webhook.certificates.test_replicas import Cluster, cluster
from tests.webhook.clients import Client, ask_once, post, review
from tests.webhook.pairs import make_pair, trusting
from tests.webhook.processes import LOOPBACK, Webhook, running
from tests.webhook.test_flags import ACK

__all__ = ["cluster"]  # a fixture

PAIR = make_pair()
TRUSTING = trusting(PAIR[0])


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[Webhook]:
    with running(tmp_path) as found:
        found.show(PAIR)
        found.wait_until(lambda: found.status("/readyz") == 200)
        yield found


def test_a_pod_is_injected(webhook: Webhook) -> None:
    status, body = ask_once(webhook.port, TRUSTING, post(review("4711")))
    assert status == 200
    response = json.loads(body)["response"]
    assert (response["uid"], response["allowed"]) == ("4711", True)
    assert response["patchType"] == "JSONPatch"
    assert webhook.series('nodecache_webhook_decisions_total{reason="injected"}') == 1


def test_without_a_certificate_it_lives_and_waits(tmp_path: Path) -> None:
    with running(tmp_path) as webhook:
        assert webhook.status("/readyz") == 503
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Client(webhook.port, TRUSTING)
        webhook.wait_until(lambda: "no such file or directory" in webhook.log)
        webhook.show(PAIR)
        webhook.wait_until(lambda: webhook.status("/readyz") == 200)
        assert ask_once(webhook.port, TRUSTING, post(review()))[0] == 200


def test_an_expired_certificate_is_not_ready_and_a_new_one_is(tmp_path: Path) -> None:
    with running(tmp_path) as webhook:
        webhook.show(make_pair(begins_s=-100, ends_s=-1))
        webhook.wait_until(lambda: webhook.series("nodecache_webhook_certificate_expiry"))
        assert webhook.status("/readyz") == 503
        webhook.show(PAIR)
        webhook.wait_until(lambda: webhook.status("/readyz") == 200)


@dataclass
class Load:
    """Reviews over TLS from several threads, until it is told to stop."""

    port: int
    context: ssl.SSLContext
    is_over: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    serials: set[int] = field(default_factory=set)
    handshakes: int = 0
    reviews: int = 0

    def __enter__(self) -> Load:
        # Two keep their connection for some reviews, two make one for each.
        self.threads = [
            threading.Thread(target=self._go_on, args=(count,)) for count in (1, 1, 50, 1000)
        ]
        for thread in self.threads:
            thread.start()
        return self

    def has_seen(self, serial: int) -> bool:
        return serial in self.serials

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def _go_on(self, count: int) -> None:
        while not self.is_over.is_set():
            try:
                with Client(self.port, self.context) as client:
                    self._ask(client, count)
            except OSError as error:
                self.failures.append(repr(error))

    def _ask(self, client: Client, count: int) -> None:
        assert isinstance(client.socket, ssl.SSLSocket)
        shown = client.socket.getpeercert(binary_form=True)
        assert shown is not None
        self.serials.add(x509.load_der_x509_certificate(shown).serial_number)
        self.handshakes += 1
        for _ in range(count):
            if self.is_over.is_set():
                return
            if client.ask(post(review()))[0] != 200:
                self.failures.append("no answer")
            self.reviews += 1


def test_no_handshake_and_no_review_fails_while_certificates_change(webhook: Webhook) -> None:
    pairs = [make_pair(n, kind=kind) for n, kind in enumerate(("ec", "rsa", "ec", "rsa"), 10)]
    context = trusting(PAIR[0], *(chain for chain, _ in pairs))
    with Load(webhook.port, context) as load:
        for number, pair in enumerate(pairs, 10):
            webhook.show(pair)
            webhook.wait_until(partial(load.has_seen, number))
    assert load.failures == []
    assert load.serials >= {10, 11, 12, 13}
    assert load.handshakes > 20
    assert webhook.series("nodecache_webhook_refused_total") == 0


def test_told_to_end_it_is_not_ready_answers_on_and_finishes_what_is_under_way(
    tmp_path: Path,
) -> None:
    with running(tmp_path, "-leavewait", "2s") as webhook:
        webhook.show(PAIR)
        webhook.wait_until(lambda: webhook.status("/readyz") == 200)
        request = post(review())
        with Client(webhook.port, TRUSTING) as busy:
            busy.socket.sendall(request[:-1])
            webhook.tell_to_end()
            webhook.wait_until(lambda: webhook.status("/readyz") == 503)
            assert ask_once(webhook.port, TRUSTING, request)[0] == 200
            webhook.wait_until(lambda: webhook.status("/healthz") == 0)
            assert busy.ask(request[-1:])[0] == 200
            assert busy.is_closed()
        assert webhook.end() == 0
        assert "Traceback" not in webhook.log


def test_told_twice_it_does_not_wait(tmp_path: Path) -> None:
    with running(tmp_path, "-leavewait", "1h") as webhook:
        webhook.tell_to_end()
        webhook.wait_until(lambda: webhook.status("/readyz") == 503)
        webhook.tell_to_end()
        assert webhook.end() == 0


def test_a_thousand_idle_connections_keep_nobody_out(webhook: Webhook) -> None:
    process = psutil.Process(webhook.process.pid)
    before = process.memory_info().rss
    idle = []
    for _ in range(1000):
        client = Client(webhook.port, None)
        idle.append(client)
    assert ask_once(webhook.port, TRUSTING, post(review()))[0] == 200
    assert webhook.status("/readyz") == 200
    assert webhook.series("nodecache_webhook_connections") <= 128
    after = process.memory_info().rss
    print(f"FIGURE 1,000 connections that say nothing take {(after - before) / 1e6:.1f} MB")
    for client in idle:
        client.close()
    assert after - before < 200e6


def test_what_comes_is_refused_and_the_next_review_is_answered(webhook: Webhook) -> None:
    refused = {
        b"GET /inject HTTP/1.1\r\nHost: x\r\n\r\n": 405,
        b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n": 404,
        b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n": 413,
        b"hello\r\n\r\n": 400,
        post(b"no JSON"): 400,
        post(b"{}"): 400,
        post(review(), kind="text/plain"): 415,
    }
    for request, status in refused.items():
        assert ask_once(webhook.port, TRUSTING, request)[0] == status
    assert ask_once(webhook.port, TRUSTING, post(review()))[0] == 200
    assert "Traceback" not in webhook.log


def test_under_acks_name_it_takes_acks_words(tmp_path: Path) -> None:
    """As in a pod of ACK's chart of which only the image was changed."""
    program = Path(sys.executable).parent / "nodecache"
    name = tmp_path / "node-local-dns-admission-controller"
    name.symlink_to(program)
    with running(tmp_path, *ACK, command=[str(name)]) as webhook:
        webhook.show(PAIR)
        webhook.wait_until(lambda: webhook.status("/readyz") == 200)
        body = ask_once(webhook.port, TRUSTING, post(review()))[1]
        assert json.loads(body)["response"]["patchType"] == "JSONPatch"


def run(*words: str, script: str = "") -> subprocess.CompletedProcess[str]:
    command = ["-c", script] if script else ["-m", "nodecache"]
    return subprocess.run(
        [sys.executable, *command, *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_faults_of_flags_end_with_two_and_come_together() -> None:
    done = run("webhook", "-ndots", "99", "-cluster-dns", "x")
    assert done.returncode == 2
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["-ndots", "-cluster-dns"]


@pytest.mark.parametrize("words", [("help", "webhook"), ("webhook", "-help")])
def test_help_teaches(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nodecache webhook -cluster-dns 10.96.0.10 -tls-secret" in done.stdout


def test_an_address_that_is_taken_ends_with_one_and_the_next_step() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run("webhook", "-cluster-dns", "10.96.0.10", "-listen-address", address)
    assert done.returncode == 1
    assert f"cannot listen on {address}" in done.stderr
    assert "stop it, or choose another port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_secret_outside_a_pod_ends_with_one_and_the_next_step() -> None:
    port = free_port(LOOPBACK)
    words = ["-cluster-dns", "10.96.0.10", "-tls-secret", "x", "-namespace", "y"]
    done = run("webhook", *words, "-listen-address", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert "run it in a pod, or give it a certificate by files" in done.stderr


@pytest.mark.parametrize("package", ["h11", "cryptography"])
def test_a_missing_package_is_named_with_the_next_step(package: str) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None; from nodecache.cli import main;"
        " sys.exit(main(['webhook', '-cluster-dns', '10.96.0.10']))"
    )
    done = run(script=script)
    assert done.returncode == 1
    assert f"the webhook needs the package {package}" in done.stderr
    assert "pip install 'nodecache[webhook]'" in done.stderr


def test_the_daemon_imports_nothing_of_the_webhook() -> None:
    script = (
        "import sys, nodecache.cli, nodecache.process.start;"
        " print([n for n in sys.modules if n in ('h11', 'cryptography') or '.webhook' in n])"
    )
    assert run(script=script).stdout == "[]\n"


def test_with_an_empty_secret_it_makes_its_certificate_and_tells_api_servers(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.now = time.time()  # noqa: TID251 - as certificates have it
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", cluster.server.url.rpartition(":")[2])
    # Kubelet's folder is one of the machine; all else is as in a pod.
    script = (
        f"from nodecache.webhook.certificates import api; api._FOLDER = {str(tmp_path)!r};"
        " import sys; from nodecache.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["-tls-secret", "nodecache-webhook-tls", "-namespace", "kube-system"]
    command = [sys.executable, "-c", script, "webhook"]
    with running(tmp_path, *words, "-leavewait", "0", command=command) as webhook:
        webhook.wait_until(lambda: webhook.status("/readyz") == 200)
        webhook.wait_until(lambda: all(cluster.bundles()))
        as_api_servers = trusting(*cluster.bundles())
        assert ask_once(webhook.port, as_api_servers, post(review()))[0] == 200
        webhook.tell_to_end()
        assert webhook.end() == 0
