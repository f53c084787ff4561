"""Three kinds of patches: RFC 7386, RFC 6902, and Kubernetes' strategic merge."""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import Any

import jsonpatch

from tests.cluster.errors import Json, Refusal
from tests.cluster.schema import Shape

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def patched(media_type: str, before: Json, patch: Any, shape: Shape) -> Json:
    """Returns the object with the patch.

    Raises:
        Refusal: the server knows no such patch, or this one does not fit the object.
    """
    before = copy.deepcopy(before)
    if media_type == JSON_PATCH:
        return _json_patched(before, patch)
    if not isinstance(patch, dict):
        raise Refusal(HTTPStatus.BAD_REQUEST, "a merge patch is an object")
    if media_type == MERGE:
        merged: Json = _merged(before, patch)
        return merged
    if media_type == STRATEGIC and shape.is_known:
        return _strategic_map(before, patch, shape)
    raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{media_type} is no patch for this object")


def _json_patched(before: Json, patch: Any) -> Json:
    try:
        after: Json = jsonpatch.apply_patch(before, patch)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError) as error:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"the server rejected our request: {error}"
        ) from error
    return after


def _merged(before: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    after = before if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = _merged(after.get(name), value)
    return after


def _strategic_map(before: Json, patch: Json, shape: Shape) -> Json:
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    after = before
    for name, value in patch.items():
        if not name.startswith("$"):
            _strategic_member(after, name, value, shape.member(name))
    for name, value in patch.items():
        if name.startswith("$"):
            after = _directed(after, name, value, shape)
    return after


def _directed(after: Json, name: str, value: Any, shape: Shape) -> Json:
    directive, _, field = name.partition("/")
    if directive == "$retainKeys":
        return {key: member for key, member in after.items() if key in value}
    if directive == "$deleteFromPrimitiveList":
        after[field] = [item for item in after.get(field, ()) if item not in value]
    elif directive == "$setElementOrder" and field in after:
        after[field] = _ordered(after[field], value, shape.member(field).merge_key)
    return after


def _strategic_member(after: Json, name: str, value: Any, shape: Shape) -> None:
    if value is None:
        after.pop(name, None)
    elif isinstance(value, dict):
        after[name] = _strategic_map(after.get(name) or {}, value, shape)
    elif isinstance(value, list) and shape.merge_key:
        after[name] = _strategic_list(after.get(name) or [], value, shape)
    elif isinstance(value, list) and shape.merges_values:
        have = after.get(name) or []
        after[name] = have + [item for item in value if item not in have]
    else:
        after[name] = value


def _strategic_list(before: list[Json], patch: list[Json], shape: Shape) -> list[Json]:
    key = shape.merge_key or ""
    if any("$patch" in item and item["$patch"] == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    after = list(before)
    for item in patch:
        at = next((i for i, have in enumerate(after) if have.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            after = after if at is None else after[:at] + after[at + 1 :]
        elif at is None:
            after.append(_strategic_map({}, item, shape.item()))
        else:
            after[at] = _strategic_map(after[at], item, shape.item())
    return after


def _ordered(items: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """Returns the items in the order that the patch names, those it does not name at the end."""

    def rank(item: Any) -> int:
        wanted = [each.get(key) for each in order] if key else order
        value = item.get(key) if key else item
        return wanted.index(value) if value in wanted else len(wanted)

    return sorted(items, key=rank)
