"""The API server of the tests behaves as a real one where ours and Helm depend on it."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

import pytest

from tests.cluster.api_server import ApiServer
from tests.cluster.errors import Json, Refusal
from tests.cluster.patching import APPLY, JSON_PATCH, MERGE, STRATEGIC
from tests.cluster.requests import Request

PATIENCE_S = 30
SECRETS = "/api/v1/namespaces/kube-system/secrets"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


def ask(
    api: ApiServer,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    media_type: str = "application/json",
) -> tuple[int, Json]:
    """Asks as a client does, and returns status and object."""
    context = ssl.create_default_context(cadata=api.ca_pem.decode())
    request = urllib.request.Request(
        api.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {token or api.admin_token}",
            "Content-Type": media_type,
        },
    )
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(request, timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def secret(**fields: Any) -> Json:
    metadata = {"name": "tls", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **fields}


def role(*rules: Json) -> list[Json]:
    metadata = {"name": "webhook", "namespace": "kube-system"}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [*rules]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "webhook"},
            "subjects": [{"kind": "ServiceAccount", "name": "hook", "namespace": "kube-system"}],
        },
    ]


def test_an_object_is_created_read_and_deleted(api: ApiServer) -> None:
    status, made = ask(api, "POST", SECRETS, secret(stringData={"a": "b"}))
    assert status == HTTPStatus.CREATED
    assert made["metadata"]["uid"]
    assert ask(api, "GET", f"{SECRETS}/tls")[1] == made
    assert ask(api, "DELETE", f"{SECRETS}/tls")[0] == HTTPStatus.OK
    status, answer = ask(api, "GET", f"{SECRETS}/tls")
    assert (status, answer["reason"]) == (HTTPStatus.NOT_FOUND, "NotFound")


def test_a_second_of_the_same_name_already_exists(api: ApiServer) -> None:
    api.put(secret())
    status, answer = ask(api, "POST", SECRETS, secret())
    assert (status, answer["reason"]) == (HTTPStatus.CONFLICT, "AlreadyExists")


def test_nobody_without_a_token_gets_in(api: ApiServer) -> None:
    status, answer = ask(api, "GET", SECRETS, token="made-up")
    assert (status, answer["reason"]) == (HTTPStatus.UNAUTHORIZED, "Unauthorized")


def test_a_client_that_trusts_another_authority_does_not_connect(api: ApiServer) -> None:
    with ApiServer() as other:
        context = ssl.create_default_context(cadata=other.ca_pem.decode())
    handler = urllib.request.HTTPSHandler(context=context)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        opener.open(api.url + "/version", timeout=PATIENCE_S)


def test_of_two_who_update_the_same_version_the_second_has_a_conflict(api: ApiServer) -> None:
    seen = api.put(secret(data={"a": "MQ=="}))
    status, newer = ask(api, "PUT", f"{SECRETS}/tls", {**seen, "data": {"a": "Mg=="}})
    assert status == HTTPStatus.OK
    assert newer["metadata"]["resourceVersion"] != seen["metadata"]["resourceVersion"]
    status, answer = ask(api, "PUT", f"{SECRETS}/tls", {**seen, "data": {"a": "Mw=="}})
    assert (status, answer["reason"]) == (HTTPStatus.CONFLICT, "Conflict")
    assert api.find("Secret", "tls", "kube-system")["data"] == {"a": "Mg=="}


@pytest.mark.parametrize("media_type", [MERGE, STRATEGIC])
def test_a_patch_that_names_an_old_version_has_a_conflict(api: ApiServer, media_type: str) -> None:
    seen = api.put(secret(data={"a": "MQ=="}))
    version = {"metadata": {"resourceVersion": seen["metadata"]["resourceVersion"]}}
    patch = {**version, "data": {"a": "Mg=="}}
    path = f"{SECRETS}/tls"
    assert ask(api, "PATCH", path, patch, media_type=media_type)[0] == HTTPStatus.OK
    patch = {**version, "data": {"a": "Mw=="}}
    assert ask(api, "PATCH", path, patch, media_type=media_type)[0] == HTTPStatus.CONFLICT


def test_a_write_that_changes_nothing_makes_no_new_version(api: ApiServer) -> None:
    seen = api.put(secret(data={"a": "MQ=="}))
    again = ask(api, "PATCH", f"{SECRETS}/tls", {"data": {"a": "MQ=="}}, media_type=MERGE)[1]
    assert again["metadata"]["resourceVersion"] == seen["metadata"]["resourceVersion"]


def test_a_json_patch_fits_or_is_refused(api: ApiServer) -> None:
    hook: Json = {
        "name": "inject.nodecache.io",
        "clientConfig": {"service": {"name": "x", "namespace": "kube-system"}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    api.put(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "nodecache-webhook"},
            "webhooks": [hook],
        }
    )
    path = f"{WEBHOOKS}/nodecache-webhook"
    patch = [
        {"op": "test", "path": "/webhooks/0/name", "value": "inject.nodecache.io"},
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "QQ=="},
    ]
    status, after = ask(api, "PATCH", path, patch, media_type=JSON_PATCH)
    assert status == HTTPStatus.OK
    assert after["webhooks"][0]["clientConfig"]["caBundle"] == "QQ=="
    patch[0]["value"] = "another"
    status, answer = ask(api, "PATCH", path, patch, media_type=JSON_PATCH)
    assert (status, answer["reason"]) == (HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid")


def test_a_role_allows_the_named_object_and_nothing_else(api: ApiServer) -> None:
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["tls"]}
    for manifest in [*role({**rule, "verbs": ["get", "patch"]}), secret()]:
        api.put(manifest)
    token = api.token("kube-system:hook")
    path = f"{SECRETS}/tls"
    assert ask(api, "GET", path, token=token)[0] == HTTPStatus.OK
    patch = {"data": {"a": "MQ=="}}
    assert ask(api, "PATCH", path, patch, token=token, media_type=MERGE)[0] == HTTPStatus.OK
    refused = [
        ask(api, "DELETE", path, token=token),
        ask(api, "GET", SECRETS, token=token),
        ask(api, "POST", SECRETS, secret(), token=token),
        ask(api, "GET", f"{SECRETS}/other", token=token),
        ask(api, "GET", "/api/v1/namespaces/default/secrets/tls", token=token),
        ask(api, "GET", f"{WEBHOOKS}/nodecache-webhook", token=token),
        ask(api, "GET", path, token=api.token("kube-system:another")),
    ]
    assert {status for status, _ in refused} == {HTTPStatus.FORBIDDEN}


def test_rights_may_come_with_the_token_itself(api: ApiServer) -> None:
    api.put(secret())
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    token = api.token("kube-system:hook", rule)
    assert ask(api, "GET", f"{SECRETS}/tls", token=token)[0] == HTTPStatus.OK


def test_an_apply_that_would_create_needs_the_right_to(api: ApiServer) -> None:
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "patch"]}
    path = f"{SECRETS}/tls?fieldManager=me"
    token = api.token("kube-system:hook", rule)
    assert ask(api, "PATCH", path, secret(), token=token, media_type=APPLY)[0] == 403
    assert ask(api, "PATCH", path, secret(), media_type=APPLY)[0] == HTTPStatus.CREATED


def test_what_the_schema_does_not_know_is_refused(api: ApiServer) -> None:
    status, answer = ask(api, "POST", SECRETS, secret(dat={"a": "MQ=="}))
    assert status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "dat" in answer["message"]


def test_the_selector_of_a_daemonset_is_immutable(api: ApiServer) -> None:
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets"
    assert ask(api, "POST", path, daemonset())[0] == HTTPStatus.CREATED
    other = {"matchLabels": {"app": "other"}}
    changes: Json = {
        "spec": {"selector": other, "template": {"metadata": {"labels": {"app": "other"}}}}
    }
    status, answer = ask(api, "PATCH", f"{path}/cache", changes, media_type=MERGE)
    assert status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "field is immutable" in answer["message"]


def daemonset(**container: Any) -> Json:
    labels = {"app": "cache"}
    pod = {"containers": [{"name": "cache", "image": "cache:1", **container}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "cache", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def container(manifest: Json) -> Json:
    found: Json = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def test_an_address_belongs_to_one_service(api: ApiServer) -> None:
    path = "/api/v1/namespaces/kube-system/services"
    for name, status in [("a", HTTPStatus.CREATED), ("b", HTTPStatus.UNPROCESSABLE_ENTITY)]:
        metadata = {"name": name, "namespace": "kube-system"}
        spec = {"clusterIP": "10.96.100.10", "ports": [{"port": 53}]}
        body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        assert ask(api, "POST", path, body)[0] == status


def test_a_strategic_patch_merges_lists_by_their_keys(api: ApiServer) -> None:
    api.put(daemonset(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]))
    items = [
        {"name": "cache", "env": [{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}]}
    ]
    patch = {"spec": {"template": {"spec": {"containers": items}}}}
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets/cache"
    after = ask(api, "PATCH", path, patch, media_type=STRATEGIC)[1]
    assert container(after)["env"] == [{"name": "B", "value": "3"}]
    assert container(after)["image"] == "cache:1"


def test_what_an_apply_no_longer_names_goes_and_what_others_own_stays(api: ApiServer) -> None:
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets/cache"
    ports = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]
    ask(api, "PATCH", f"{path}?fieldManager=me", daemonset(ports=ports), media_type=APPLY)
    mine = {"metadata": {"annotations": {"theirs": "1"}}}
    ask(api, "PATCH", path, mine, media_type=MERGE)
    ask(api, "PATCH", f"{path}?fieldManager=me", daemonset(ports=ports[:1]), media_type=APPLY)
    after = api.find("DaemonSet", "cache", "kube-system")
    assert container(after)["ports"] == ports[:1]
    assert after["metadata"]["annotations"] == {"theirs": "1"}


def test_an_item_that_an_apply_no_longer_names_goes_as_a_whole(api: ApiServer) -> None:
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets/cache?fieldManager=me"
    mounts = [{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"}]
    volumes: list[Json] = [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}]
    for count in (2, 1):
        wanted = daemonset(volumeMounts=mounts[:count])
        wanted["spec"]["template"]["spec"]["volumes"] = volumes[:count]
        assert ask(api, "PATCH", path, wanted, media_type=APPLY)[0] < HTTPStatus.BAD_REQUEST
    after = api.find("DaemonSet", "cache", "kube-system")
    assert container(after)["volumeMounts"] == mounts[:1]
    assert after["spec"]["template"]["spec"]["volumes"] == volumes[:1]


def test_an_apply_does_not_take_another_ones_field_unless_forced(api: ApiServer) -> None:
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets/cache"
    api.put(daemonset())
    wanted = daemonset(image="cache:2")
    status, answer = ask(api, "PATCH", f"{path}?fieldManager=me", wanted, media_type=APPLY)
    assert (status, answer["reason"]) == (HTTPStatus.CONFLICT, "Conflict")
    assert 'conflict with "test"' in answer["message"]
    forced = f"{path}?fieldManager=me&force=true"
    assert ask(api, "PATCH", forced, wanted, media_type=APPLY)[0] == HTTPStatus.OK
    assert container(api.find("DaemonSet", "cache", "kube-system"))["image"] == "cache:2"


def test_who_leaves_out_what_the_server_adds_to_one_field_is_in_conflict(api: ApiServer) -> None:
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets/cache?fieldManager"
    for reference, expected in [({}, HTTPStatus.CONFLICT), ({"apiVersion": "v1"}, HTTPStatus.OK)]:
        source = {"fieldRef": {"fieldPath": "metadata.uid", **reference}}
        wanted = daemonset(env=[{"name": "POD_UID", "valueFrom": source}])
        ask(api, "PATCH", f"{path}=one&force=true", wanted, media_type=APPLY)
        assert ask(api, "PATCH", f"{path}=two", wanted, media_type=APPLY)[0] == expected


def test_a_second_apply_of_the_same_is_no_write(api: ApiServer) -> None:
    path = "/apis/apps/v1/namespaces/kube-system/daemonsets/cache?fieldManager=me"
    env = [{"name": "A", "value": "1"}]
    first = ask(api, "PATCH", path, daemonset(env=env), media_type=APPLY)[1]
    second = ask(api, "PATCH", path, daemonset(env=env), media_type=APPLY)[1]
    assert first == second


def test_a_dry_run_leaves_nothing(api: ApiServer) -> None:
    assert ask(api, "POST", f"{SECRETS}?dryRun=All", secret())[0] == HTTPStatus.CREATED
    assert ask(api, "GET", f"{SECRETS}/tls")[0] == HTTPStatus.NOT_FOUND


def test_a_list_is_cut_by_labels(api: ApiServer) -> None:
    for name, labels in [("a", {"k": "1"}), ("b", {"k": "2"}), ("c", {})]:
        made = secret(metadata={"name": name, "namespace": "kube-system", "labels": labels})
        api.put(made)
    for selector, names in [
        ("k%3D1", ["a"]),
        ("k", ["a", "b"]),
        ("!k", ["c"]),
        ("k%21%3D1", ["b", "c"]),
        ("k%20in%20(1,2)", ["a", "b"]),
    ]:
        items = ask(api, "GET", f"{SECRETS}?labelSelector={selector}")[1]["items"]
        assert [item["metadata"]["name"] for item in items] == names


def test_a_watch_tells_what_happens(api: ApiServer) -> None:
    version = ask(api, "GET", SECRETS)[1]["metadata"]["resourceVersion"]
    context = ssl.create_default_context(cadata=api.ca_pem.decode())
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    request = urllib.request.Request(
        f"{api.url}{SECRETS}?watch=true&resourceVersion={version}",
        headers={"Authorization": f"Bearer {api.admin_token}"},
    )
    with urllib.request.build_opener(*handlers).open(request, timeout=PATIENCE_S) as response:
        api.put(secret())
        event = json.loads(response.readline())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "tls")


def test_a_fault_may_refuse_or_write_in_between(api: ApiServer) -> None:
    seen = api.put(secret())

    def overtake(request: Request) -> None:
        if request.verb == "update":
            api.fault = None
            api.store.update(api.place(seen), {**seen, "data": {"a": "MQ=="}})

    api.fault = overtake
    assert ask(api, "PUT", f"{SECRETS}/tls", seen)[0] == HTTPStatus.CONFLICT

    def fail(request: Request) -> None:
        raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "etcdserver: leader changed")

    api.fault = fail
    assert ask(api, "GET", f"{SECRETS}/tls")[0] == HTTPStatus.INTERNAL_SERVER_ERROR


def test_two_who_race_for_the_same_object_do_not_both_win(api: ApiServer) -> None:
    seen = api.put(secret())
    statuses = []

    def write(value: str) -> None:
        changed = {**seen, "data": {"a": value}}
        statuses.append(ask(api, "PUT", f"{SECRETS}/tls", changed)[0])

    threads = [threading.Thread(target=write, args=(f"MTI{digit}",)) for digit in "0123"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409, 409, 409]
