from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from http import HTTPStatus

import pytest

from tests import loops
from tests.cluster.errors import Refusal
from tests.cluster.requests import Request
from tests.loops import Run, until
from tests.webhook.certificates.cluster import (
    RULES,
    Cluster,
    cluster,
    hammer,
    running,
    shake_hands,
)
from tests.webhook.certificates.lives import DAY, SETTINGS

__all__ = ["Cluster", "cluster"]  # a fixture


def test_the_smallest_rights_suffice_for_two_replicas(run: Run, cluster: Cluster) -> None:
    async def live() -> None:
        async with running(cluster.settings) as replicas:
            await until(lambda: cluster.is_quiet(replicas))
            assert [len(each.shown) for each in replicas] == [1, 1]

    run(live())
    assert set(cluster.bundles()) == {cluster.data()["ca.crt"]}
    assert {(each.verb, each.name) for each in cluster.server.requests} == {
        ("get", "nodecache-webhook-tls"),
        ("patch", "nodecache-webhook-tls"),
        ("get", "nodecache-webhook"),
        ("patch", "nodecache-webhook"),
    }


def test_no_other_field_of_either_object_is_touched(run: Run, cluster: Cluster) -> None:
    before = cluster.configuration()

    async def live() -> None:
        async with running(cluster.settings) as replicas:
            await until(lambda: cluster.is_quiet(replicas))

    run(live())
    after = cluster.configuration()
    for each in after["webhooks"]:
        del each["clientConfig"]["caBundle"]
    assert after["webhooks"] == before["webhooks"]
    assert cluster.data().keys() == {"ca.crt", "ca.key", "tls.crt", "tls.key"}


@pytest.mark.parametrize("what", RULES)
@pytest.mark.parametrize("verb", ["get", "patch"])
def test_a_missing_right_has_its_sentence(
    run: Run, cluster: Cluster, caplog: pytest.LogCaptureFixture, what: str, verb: str
) -> None:
    others = [rule for name, rule in RULES.items() if name != what]
    left = [each for each in ("get", "patch") if each != verb]
    cluster.permit(*others, {**RULES[what], "verbs": left})
    title = {"secret": "Secret kube-system/", "configuration": "MutatingWebhookConfiguration "}
    sentence = f"no right to {verb} {title[what]}"

    def count() -> int:
        return sum(sentence in text for text in caplog.messages)

    async def live() -> None:
        async with running(cluster.settings, 1):
            await until(count)
            asked = len(cluster.server.requests)
            await until(lambda: len(cluster.server.requests) > asked + 8)

    run(live())
    assert count() == 1


@pytest.mark.parametrize("name", [SETTINGS.secret, SETTINGS.configuration])
def test_a_missing_object_has_its_sentence_and_is_kept_when_it_comes(
    run: Run, cluster: Cluster, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    kind = "Secret" if name == SETTINGS.secret else "MutatingWebhookConfiguration"
    gone = cluster.server.find(kind, name, "kube-system" if kind == "Secret" else "")
    place = cluster.server.place(gone)
    cluster.server.store.delete(place)
    for field in ("resourceVersion", "uid"):
        del gone["metadata"][field]

    async def live() -> None:
        async with running(cluster.settings) as replicas:
            await until(lambda: any(f"there is no {kind}" in each for each in caplog.messages))
            cluster.server.store.create(place, gone)
            await until(lambda: cluster.data() and cluster.is_quiet(replicas))

    run(live())


def test_the_last_pair_is_served_while_the_api_is_away(
    run: Run, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def away(_: Request) -> None:
        raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "etcd is away")

    async def live() -> None:
        async with running(cluster.settings) as replicas:
            await until(lambda: cluster.is_quiet(replicas))
            cluster.server.fault = away
            cluster.now += 61 * DAY
            await until(lambda: sum("etcd is away" in text for text in caplog.messages) >= 2)
            for replica in replicas:
                await shake_hands(replica.server.port, cluster.bundles()[0])
            cluster.server.fault = None
            await until(lambda: cluster.is_quiet(replicas))
            assert [len(each.shown) for each in replicas] == [2, 2]

    run(live())
    assert caplog.messages.count("certificates are kept again") == 2


@pytest.mark.slow
def test_certificates_are_exchanged_under_load_with_no_failed_handshake(cluster: Cluster) -> None:
    async def live() -> list[int]:
        async with running(cluster.settings) as replicas, AsyncExitStack() as stack:
            await until(lambda: cluster.is_quiet(replicas))
            done = asyncio.Event()
            counts = [asyncio.create_task(hammer(cluster, each, done)) for each in replicas]
            stack.callback(done.set)
            cas = {cluster.data()["ca.crt"]}
            while len(replicas[0].shown) < 8 or len(cas) < 3:
                cluster.now += 25 * DAY
                await until(lambda: cluster.is_quiet(replicas))
                cas.add(cluster.data()["ca.crt"])
            done.set()
            return [await count for count in counts]

    counts = loops.run(live(), "uvloop", 110)
    print(f"FIGURE handshakes while 8 certificates and 2 CAs came, none failed: {sum(counts)}")
    assert min(counts) > 8
