"""Octets of an AdmissionReview in, octets out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.webhook.model import Answer, Reason, Refusal
from nodecache.webhook.review import answer
from tests.webhook.applying import injected_config
from tests.webhook.table import BASE, ROWS, Object, Row, config

JSON = "application/json"
PLAIN_POD = ROWS[0]
THREE_NAMESERVERS = next(row for row in ROWS if row.number == "25")


def review(row: Row = PLAIN_POD, **members: Any) -> Object:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": row.review_request(),
        **members,
    }


def post(body: object, content_type: str = JSON) -> Answer:
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(octets, content_type, BASE)


def response(found: Answer) -> Object:
    assert (found.status, found.content_type) == (200, JSON)
    whole = json.loads(found.body)
    assert whole.pop("apiVersion") == "admission.k8s.io/v1"
    assert whole.pop("kind") == "AdmissionReview"
    inner: Object = whole.pop("response")
    assert whole == {}
    return inner


def test_injected_pod_gets_its_patch_and_nothing_else_is_said() -> None:
    found = post(review())
    assert found.reason is Reason.INJECTED
    said = response(found)
    patch = json.loads(base64.b64decode(said.pop("patch")))
    assert injected_config(PLAIN_POD.pod(), patch) == config()
    assert said == {
        "uid": PLAIN_POD.review_request()["uid"],
        "allowed": True,
        "patchType": "JSONPatch",
        "auditAnnotations": {"injected": "injected"},
    }


@pytest.mark.parametrize("row", [row for row in ROWS if row.expected is None and row.held != "S"])
def test_pod_that_is_left_alone_is_allowed_without_a_patch(row: Row) -> None:
    said = response(post(review(row)))
    assert said == {
        "uid": row.review_request()["uid"],
        "allowed": True,
        "auditAnnotations": {"injected": str(row.reason)},
    }


def test_warnings_reach_whoever_makes_the_pod() -> None:
    [warning] = response(post(review(THREE_NAMESERVERS)))["warnings"]
    assert "192.0.2.2, 192.0.2.3" in warning


@pytest.mark.parametrize(
    "content_type", [JSON, "Application/JSON", "application/json; charset=utf-8"]
)
def test_json_is_taken_however_it_is_spelled(content_type: str) -> None:
    assert post(review(), content_type).status == 200


@pytest.mark.parametrize("content_type", ["", "text/json", "application/yaml", "application/jsonx"])
def test_row_45_another_media_type_is_refused(content_type: str) -> None:
    found = post(review(), content_type)
    assert (found.status, found.reason) == (415, Refusal.MEDIA_TYPE)
    assert found.body == b"send application/json\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[]",
        b'"AdmissionReview"',
        {},
        review(kind="Pod"),
        review(request=None),
        review(request=[]),
        review(request={}),
        review(request={**PLAIN_POD.review_request(), "uid": 5}),
        review(request={**PLAIN_POD.review_request(), "uid": ""}),
        review(request={**PLAIN_POD.review_request(), "uid": "u" * 129}),
    ],
    ids=lambda body: repr(body)[:40],
)
def test_row_45_what_is_no_review_is_refused_in_a_line(body: object) -> None:
    found = post(body)
    assert (found.status, found.reason) == (400, Refusal.NO_REVIEW)
    assert found.content_type.startswith("text/plain")
    assert found.body.decode("ascii").count("\n") == 1


@pytest.mark.parametrize("version", ["admission.k8s.io/v1beta1", "v1", None, 1])
def test_row_46_another_version_is_refused_by_naming_v1(version: object) -> None:
    found = post(review(apiVersion=version))
    assert (found.status, found.reason) == (400, Refusal.OTHER_VERSION)
    assert b"admission.k8s.io/v1:" in found.body


def test_row_47_body_that_would_fill_the_memory_is_refused_unread() -> None:
    found = post(b"[" + b"{}," * 200_000 + b"{}]")
    assert (found.status, found.reason) == (413, Refusal.TOO_LARGE)


def test_row_47_largest_pod_that_the_api_server_takes_is_read() -> None:
    env = [{"name": "A", "value": "b"}] * 60_000
    row = Row(number="", case="", spec={"containers": [{"env": env}]})
    body = json.dumps(review(row), separators=(",", ":")).encode()
    assert len(body) > 1_500_000
    assert post(body).reason is Reason.INJECTED


def test_row_48_hostile_pod_is_allowed_and_counted() -> None:
    found = post(review(request={"uid": "\ud800", "operation": "CREATE", "object": 1}))
    assert found.reason is Reason.NOT_A_NEW_POD
    hostile = {**PLAIN_POD.review_request(), "object": {"spec": {"dnsConfig": 5}}}
    found = post(review(request=hostile))
    assert found.reason is Reason.MALFORMED
    assert "patch" not in response(found)


def test_uid_is_echoed_as_it_came() -> None:
    uid = "\ud800\N{SNOWMAN}\n"
    assert response(post(review(request={**PLAIN_POD.review_request(), "uid": uid})))["uid"] == uid


@given(st.binary() | st.text().map(lambda text: json.dumps(text).encode()))
def test_no_octets_raise(octets: bytes) -> None:
    assert post(octets).status in (400, 413)


_REVIEW = json.dumps(review(THREE_NAMESERVERS)).encode()


@given(st.integers(0, len(_REVIEW)), st.binary(max_size=3), st.integers(0, 5))
def test_no_damage_raises(place: int, octets: bytes, cut: int) -> None:
    damaged = _REVIEW[:place] + octets + _REVIEW[place + cut :]
    assert post(damaged).status in (200, 400)
