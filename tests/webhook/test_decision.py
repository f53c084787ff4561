"""The table as the server decides it, and what holds for pods that nobody thought of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.webhook.decision import decide
from nodecache.webhook.model import (
    MAX_NAMESERVERS,
    MAX_SEARCH_CHARACTERS,
    MAX_SEARCHES,
    Decision,
    Injection,
    Reason,
    Refusal,
)
from tests.webhook.anything import configs, names
from tests.webhook.applying import apply, injected_config
from tests.webhook.table import BASE, CLUSTER, LOCAL, NULLS, ROWS, Object, Row, config

ROOT = Path(__file__).parents[2]
DECIDED = [row for row in (*ROWS, *NULLS) if "W" in row.held]


def decided(row: Row) -> Decision:
    return decide(row.review_request(), row.injection)


@pytest.mark.parametrize("row", DECIDED, ids=lambda row: f"row {row.number}: {row.case}")
def test_server_decides_each_row_by_itself(row: Row) -> None:
    decision = decided(row)
    assert decision.reason is row.reason
    assert injected_config(row.pod(), decision.patch) == row.expected
    assert bool(decision.warnings) == row.warns


def test_patch_sets_two_members_whether_or_not_they_are_there() -> None:
    [first, second] = decided(ROWS[0]).patch
    assert first == {"op": "add", "path": "/spec/dnsPolicy", "value": "None"}
    assert second == {"op": "add", "path": "/spec/dnsConfig", "value": config()}


def test_page_names_every_reason() -> None:
    page = (ROOT / "docs" / "webhook.md").read_text(encoding="utf-8")
    assert [reason for reason in (*Reason, *Refusal) if f"`{reason}`" not in page] == []


def test_each_row_has_its_number_once() -> None:
    numbers = [row.number for row in (*ROWS, *NULLS)]
    assert len(numbers) == len(set(numbers))
    # 45 to 47 are no reviews (test_review.py), 48 is below.
    whole = {int(number.rstrip("abc")) for number in numbers}
    assert whole == set(range(1, 45))


def request(spec: Object | None = None, **members: Any) -> Object:
    row = Row(number="", case="", spec=spec or {})
    return {**row.review_request(), **members}


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        [],
        "request",
        request(object=None, namespace=None),
        request(object=[]),
        request(object="pod"),
        request(object={"metadata": [], "spec": {}}),
        request(object={"metadata": {"labels": ["eci"]}, "spec": {}}),
        request(object={"metadata": {"labels": {"a": 1}}, "spec": {}}),
        request(object={"metadata": {"annotations": "x"}, "spec": {}}),
        request(object={"spec": 5}),
        request(namespace=5),
        request(namespace=""),
        request(namespace="app.svc.evil.example"),
        request(namespace="app\nnameserver 192.0.2.1"),
        request(namespace="a" * 64),
        request({"dnsPolicy": 1}),
        request({"hostNetwork": "true"}),
        request({"os": "linux"}),
        request({"os": {"name": []}}),
        request({"nodeName": 7}),
        request({"nodeSelector": ["type"]}),
        request({"nodeSelector": {"type": None}}),
        request({"dnsConfig": []}),
        request({"dnsConfig": {"nameservers": "192.0.2.1"}}),
        request({"dnsConfig": {"nameservers": [None]}}),
        request({"dnsConfig": {"searches": [1]}}),
        request({"dnsConfig": {"options": {"name": "ndots"}}}),
        request({"dnsConfig": {"options": ["ndots"]}}),
        request({"dnsConfig": {"options": [{"value": "1"}]}}),
        request({"dnsConfig": {"options": [{"name": "ndots", "value": 1}]}}),
    ],
    ids=repr,
)
def test_row_48_a_pod_of_wrong_types_is_left_alone(hostile: object) -> None:
    assert decide(hostile, BASE) == Decision(Reason.MALFORMED)


@pytest.mark.parametrize(
    ("member", "value"), [("kind", None), ("kind", "Pod"), ("kind", {}), ("operation", ["CREATE"])]
)
def test_row_48_a_request_of_wrong_types_is_for_no_new_pod(member: str, value: Any) -> None:
    assert decide({**request(), member: value}, BASE) == Decision(Reason.NOT_A_NEW_POD)


def test_namespace_of_the_request_counts_against_the_objects_own() -> None:
    decision = decide(request(namespace="kube-system"), BASE)
    assert decision.reason is Reason.EXCLUDED_NAMESPACE


def test_excluded_are_the_namespaces_that_are_named() -> None:
    injection = replace(BASE, excluded=frozenset({"app"}))
    assert decide(request(), injection).reason is Reason.EXCLUDED_NAMESPACE
    assert decide(request(namespace="kube-system"), injection).reason is Reason.INJECTED


def test_warning_names_what_found_no_room_and_not_what_is_ours() -> None:
    injection = Injection((LOCAL, "fd00::a"), (CLUSTER, "fd00::b"))
    assert decide(request(), injection).warnings == ()
    own = {"dnsConfig": {"nameservers": ["192.0.2.1", "192.0.2.2"]}}
    [warning] = decide(request(own), injection).warnings
    assert warning == (
        "nodecache: no room in the pod's dnsConfig.nameservers for 192.0.2.1, 192.0.2.2"
    )


def test_warning_is_short_and_of_printable_ascii_whatever_the_pod_says() -> None:
    own = {"dnsConfig": {"searches": [f"\r\n\ud800{number}\N{SNOWMAN}" for number in range(5000)]}}
    [warning] = decide(request(own), BASE).warnings
    assert warning.isascii()
    assert warning.isprintable()
    assert len(warning) < 256


injections = st.builds(
    Injection,
    local=st.sampled_from([(LOCAL,), (LOCAL, "fd00::a")]),
    cluster=st.sampled_from([(), (CLUSTER,), (CLUSTER, "fd00::b")]),
    searches=st.lists(names, max_size=29).map(tuple),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("Pod") | st.just("CREATE"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(configs, injections)
def test_injected_pod_is_within_kubernetes_limits(own: Object, injection: Injection) -> None:
    decision = decide(request({"dnsConfig": own}), injection)
    found = injected_config(request({"dnsConfig": own})["object"], decision.patch)
    assert found is not None
    assert 1 <= len(found["nameservers"]) <= MAX_NAMESERVERS
    assert len(found["searches"]) <= MAX_SEARCHES
    assert len(" ".join(found["searches"])) <= MAX_SEARCH_CHARACTERS
    assert found["nameservers"][0] == LOCAL


@given(configs, injections)
def test_nothing_of_a_pods_own_is_lost_without_a_warning(own: Object, injection: Injection) -> None:
    decision = decide(request({"dnsConfig": own}), injection)
    found = injected_config(request({"dnsConfig": own})["object"], decision.patch)
    assert found is not None
    lost = [
        value
        for field in ("nameservers", "searches")
        for value in own.get(field, [])
        if value not in found[field]
    ]
    assert bool(lost) == bool(decision.warnings)
    assert found["options"][: len(own.get("options", []))] == own.get("options", [])


@given(configs, injections)
def test_second_review_of_an_injected_pod_changes_nothing(
    own: Object, injection: Injection
) -> None:
    before = request({"dnsConfig": own})
    pod = apply(before["object"], decide(before, injection).patch)
    again = decide({**before, "object": pod}, injection)
    assert again == Decision(Reason.OTHER_DNS_POLICY)


@given(anything, anything, anything, anything)
def test_no_values_raise(whole: object, pod: object, spec: object, own: object) -> None:
    for hostile in (
        whole,
        request(object=pod),
        request(object={"metadata": {"labels": own}, "spec": spec}),
        request({"dnsConfig": own}),
        request(kind=own, operation=whole, namespace=pod),
    ):
        assert isinstance(decide(hostile, BASE), Decision)
