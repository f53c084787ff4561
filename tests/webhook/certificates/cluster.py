"""Replicas in real time, against an API server that keeps objects, versions and rights.

Only the API server's clock is invented: certificates grow old by what it says.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from nodecache.config.model import Address
from nodecache.webhook.certificates.keeping import keep_certificates
from nodecache.webhook.certificates.model import ApiServer, Settings
from nodecache.webhook.certificates.objects import read_data, read_trust
from nodecache.webhook.certificates.planning import Step, plan_bundle, plan_secret
from nodecache.webhook.certificates.reading import read_held
from nodecache.webhook.conversation import Reply
from nodecache.webhook.identity import ServerIdentity
from nodecache.webhook.server import Server
from tests.cluster import api_server
from tests.webhook.certificates.lives import BEGIN, SETTINGS

NAME = "nodecache-webhook.kube-system.svc"
ACCOUNT = "kube-system:nodecache-webhook"
RULES = {
    "secret": {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["nodecache-webhook-tls"],
        "verbs": ["get", "patch"],
    },
    "configuration": {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": ["nodecache-webhook"],
        "verbs": ["get", "patch"],
    },
}
X509_V_FLAG_NO_CHECK_TIME = 0x200000  # the API server's clock is invented, OpenSSL's is not


class Cluster:
    """An API server with the two objects, and the replicas' account."""

    def __init__(self, server: api_server.ApiServer, folder: Path) -> None:
        self.server = server
        self.now = BEGIN
        self.folder = folder
        port = int(server.url.rpartition(":")[2])
        api = ApiServer("127.0.0.1", port, str(folder / "token"), str(folder / "ca.crt"))
        self.settings = replace(SETTINGS, api=api, look_s=0.05, settle_s=0.25)
        (folder / "ca.crt").write_bytes(server.ca_pem)
        server.put(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": SETTINGS.secret, "namespace": "kube-system"},
                "type": "Opaque",
            }
        )
        server.put(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": SETTINGS.configuration},
                "webhooks": [webhook("inject.nodecache.io"), webhook("pods.inject.nodecache.io")],
            }
        )
        self.permit(*RULES.values())

    def remove_objects(self) -> None:
        """Leaves nothing behind for a chart to clash with."""
        for each in (
            self.server.find("Secret", SETTINGS.secret, "kube-system"),
            self.configuration(),
        ):
            self.server.store.delete(self.server.place(each))

    def permit(self, *rules: dict[str, Any]) -> None:
        """Gives the replicas these rights, and no others."""
        (self.folder / "token").write_text(self.server.token(ACCOUNT, *rules))

    def data(self) -> dict[str, bytes]:
        return read_data(self.server.find("Secret", SETTINGS.secret, "kube-system"))

    def configuration(self) -> dict[str, Any]:
        return self.server.find("MutatingWebhookConfiguration", SETTINGS.configuration)

    def bundles(self) -> list[bytes]:
        found = (each["clientConfig"] for each in self.configuration()["webhooks"])
        return [base64.b64decode(each.get("caBundle", "")) for each in found]

    def is_quiet(self, replicas: list[Replica]) -> bool:
        """Whether nothing is left to do, for anybody."""
        held, trust = read_held(self.data()), read_trust(self.configuration())
        late_s, settings = 3 * self.settings.settle_s, self.settings
        return (
            plan_secret(held, late_s, self.now, settings) is Step.NOTHING
            and plan_bundle(held, trust, late_s, self.now, settings) is None
            and all(each.shown[-1:] == [self.data()["tls.crt"]] for each in replicas)
        )


def webhook(name: str) -> dict[str, Any]:
    service = {"name": "nodecache-webhook", "namespace": "kube-system", "path": "/inject"}
    return {
        "name": name,
        "clientConfig": {"service": {**service, "port": 443}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }
        ],
    }


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with api_server.ApiServer() as server:
        made = Cluster(server, tmp_path)
        monkeypatch.setattr(
            api_server._Handler, "date_time_string", lambda *_: formatdate(made.now, usegmt=True)
        )
        yield made


class Replica:
    """One webhook server whose certificate is kept."""

    def __init__(self) -> None:
        self.identity = ServerIdentity()
        self.shown: list[bytes] = []
        self.server = Server(
            Address("127.0.0.1", 0), self.identity.context, lambda _: Reply(200, b"OK"), print
        )

    def load(self, chain: bytes, key: bytes) -> None:
        self.identity.load(chain, key)
        self.shown.append(chain)


@asynccontextmanager
async def running(settings: Settings, count: int = 2) -> AsyncIterator[list[Replica]]:
    replicas = [Replica() for _ in range(count)]
    tasks = [asyncio.create_task(keep_certificates(settings, each.load)) for each in replicas]
    try:
        yield replicas
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        for each in replicas:
            await each.server.drain()


async def hammer(cluster: Cluster, replica: Replica, done: asyncio.Event) -> int:
    """Shakes hands again and again, as an API server would; returns how often."""
    count = 0
    while not done.is_set():
        for bundle in cluster.bundles():
            await shake_hands(replica.server.port, bundle)
            count += 1
        await asyncio.sleep(0.005)  # all is on one thread
    return count


async def shake_hands(port: int, bundle: bytes) -> None:
    """Asks a replica something over TLS, trusting this caBundle alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=bundle.decode())
    context.verify_flags |= X509_V_FLAG_NO_CHECK_TIME
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=NAME
    )
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
    writer.transport.abort()
