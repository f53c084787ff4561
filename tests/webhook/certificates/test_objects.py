from __future__ import annotations

import base64
import json
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.errors import ApiError, ConflictError
from nodecache.webhook.certificates.api import Reply
from nodecache.webhook.certificates.making import make_data
from nodecache.webhook.certificates.model import Entry, Held, Trust
from nodecache.webhook.certificates.objects import (
    Resource,
    Seen,
    configuration_of,
    read,
    read_data,
    read_trust,
    secret_of,
    write_bundle,
    write_secret,
)
from nodecache.webhook.certificates.planning import Step
from nodecache.webhook.certificates.reading import read_bundle
from tests import loops
from tests.webhook.certificates.lives import BEGIN, SETTINGS

SECRET, CONFIGURATION = secret_of(SETTINGS), configuration_of(SETTINGS)
CA = make_data(Step.START, Held(), BEGIN, SETTINGS)["ca.crt"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=10,
)


class Canned:
    """Answers everything alike, and remembers what it was asked."""

    def __init__(self, status: int = 200, body: bytes = b"{}") -> None:
        self.reply = Reply(status, body, BEGIN)
        self.asked: list[tuple[str, str, Any]] = []

    async def get(self, path: str) -> Reply:
        self.asked.append(("GET", path, None))
        return self.reply

    async def patch(self, path: str, media_type: str, body: bytes) -> Reply:
        self.asked.append((media_type, path, json.loads(body)))
        return self.reply


def read_from(api: Canned, resource: Resource = SECRET) -> Seen:
    return loops.run(read(api, resource))


def complaint(status: int, message: str = "", resource: Resource = SECRET) -> str:
    """Returns what is said of a GET that ends with this status."""
    body = json.dumps({"kind": "Status", "message": message}).encode()
    with pytest.raises(ApiError) as caught:
        read_from(Canned(status, body), resource)
    return str(caught.value)


def encode(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def test_an_object_is_read_with_its_version_and_the_servers_clock() -> None:
    api = Canned(body=b'{"metadata": {"resourceVersion": "7"}, "data": {}}')
    seen = read_from(api)
    assert (seen.version, seen.date, seen.content["data"]) == ("7", BEGIN, {})
    assert api.asked == [
        ("GET", "/api/v1/namespaces/kube-system/secrets/nodecache-webhook-tls", None)
    ]


def test_a_change_of_the_secret_names_its_keys_and_the_version_that_was_read() -> None:
    api = Canned()
    loops.run(write_secret(api, SECRET, "7", {"tls.crt": b"new"}))
    ((media_type, _, body),) = api.asked
    assert media_type == "application/merge-patch+json"
    assert body == {"metadata": {"resourceVersion": "7"}, "data": {"tls.crt": encode(b"new")}}


def test_a_change_of_the_configuration_names_nothing_but_ca_bundles() -> None:
    api = Canned()
    trust = Trust((Entry("a", ()), Entry("b", ())))
    loops.run(write_bundle(api, CONFIGURATION, "7", trust, b"pem"))
    ((media_type, path, body),) = api.asked
    assert path == (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/nodecache-webhook"
    )
    assert media_type == "application/strategic-merge-patch+json"
    change = {"caBundle": encode(b"pem")}
    assert body == {
        "metadata": {"resourceVersion": "7"},
        "webhooks": [
            {"name": "a", "clientConfig": change},
            {"name": "b", "clientConfig": change},
        ],
    }


def test_somebody_who_was_faster_is_no_failure_of_the_api() -> None:
    api = Canned(HTTPStatus.CONFLICT)
    with pytest.raises(ConflictError, match="Secret kube-system/nodecache-webhook-tls was changed"):
        loops.run(write_secret(api, SECRET, "7", {}))


def test_a_missing_right_is_named_with_the_role_that_it_belongs_in() -> None:
    assert complaint(403) == (
        "no right to get Secret kube-system/nodecache-webhook-tls: allow get on secrets,"
        " resourceNames [nodecache-webhook-tls], in a Role of namespace kube-system (403)"
    )
    assert "resourceNames [nodecache-webhook], in a ClusterRole" in complaint(
        403, resource=CONFIGURATION
    )


def test_a_missing_object_comes_with_what_makes_it() -> None:
    assert (
        "there is no Secret kube-system/nodecache-webhook-tls: make it, empty:"
        " kubectl -n kube-system create secret generic nodecache-webhook-tls"
    ) in complaint(404)
    text = complaint(404, resource=CONFIGURATION)
    assert text.startswith("there is no MutatingWebhookConfiguration nodecache-webhook: install it")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not take this pod's token: check its ServiceAccount"),
        (422, "takes no change of Secret kube-system/nodecache-webhook-tls: is it immutable?"),
        (429, "cannot get Secret kube-system/nodecache-webhook-tls now; it is asked again"),
        (500, "it is asked again"),
        (503, "it is asked again"),
        (302, "it is asked again"),
    ],
)
def test_each_other_refusal_has_its_sentence(status: int, words: str) -> None:
    assert words in complaint(status)


def test_what_the_api_server_says_is_shown_printable_and_short() -> None:
    assert complaint(503, "etcd \x1b[31m is away").endswith(r"(503: etcd \x1b[31m is away)")
    assert len(complaint(503, "x" * 5000)) < 500


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"[" * 100_000, b'"text"', b"\xff", b'{"message": 3}']
)
def test_a_refusal_without_words_is_shown_by_its_number(body: bytes) -> None:
    with pytest.raises(ApiError, match=r"asked again \(500\)$"):
        read_from(Canned(500, body))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", b'{"metadata": 3}', b'{"metadata": {}}', b"[" * 100_000]
)
def test_an_answer_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(
        ApiError, match="what the API server gave is no Secret kube-system/nodecache"
    ):
        read_from(Canned(body=body))


def test_names_cannot_leave_their_place_in_the_path() -> None:
    assert (
        "/secrets/..%2F..%2Fx%3Fy"
        in secret_of(
            type(SETTINGS)(SETTINGS.api, "s", "n", "d", secret="../../x?y", configuration="c")
        ).path
    )


def test_data_that_is_no_base64_is_as_if_not_there() -> None:
    data = {"a": encode(b"one"), "b": "?", "c": 3, "d": None, "e": ""}
    assert read_data({"data": data}) == {"a": b"one"}


def test_the_trust_is_that_of_each_entry() -> None:
    webhooks = [
        {"name": "a", "clientConfig": {"caBundle": encode(CA)}},
        {"name": "b", "clientConfig": {"service": {}}},
        {"clientConfig": {}},
        3,
    ]
    trust = read_trust({"webhooks": webhooks, "metadata": {}})
    assert trust == Trust((Entry("a", read_bundle(CA)), Entry("b", ())))


def test_the_annotation_of_another_keeper_is_seen() -> None:
    for name in ("cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret"):
        assert read_trust({"metadata": {"annotations": {name: "x"}}}).manager == name


@given(JSON)
def test_objects_of_any_shape_are_read(anything: Any) -> None:
    content = anything if isinstance(anything, dict) else {}
    for name in ("data", "webhooks", "metadata"):
        read_data({**content, name: anything})
        read_trust({**content, name: anything})
    read_trust({"webhooks": [anything, {"name": "a", "clientConfig": anything}]})
