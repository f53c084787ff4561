"""Label and field selectors of lists and watches."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from tests.cluster.errors import Json, Refusal

_REQUIREMENTS = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s+\((?P<values>[^)]*)\)")
_EQUAL = re.compile(r"(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>\S*)")
_PRESENT = re.compile(r"(?P<not>!?)(?P<key>[\w./-]+)")


def selected(items: list[Json], labels: str, fields: str) -> list[Json]:
    """Returns the objects that both selectors take.

    Raises:
        Refusal: a selector cannot be read.
    """
    return [
        item
        for item in items
        if _takes(labels, item["metadata"].get("labels") or {}) and _takes_fields(fields, item)
    ]


def _takes_fields(selector: str, item: Json) -> bool:
    for requirement in filter(None, selector.split(",")):
        path, _, wanted = requirement.partition("=")
        value: Any = item
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value != wanted.removeprefix("="):
            return False
    return True


def _takes(selector: str, labels: dict[str, str]) -> bool:
    return all(
        _holds(requirement.strip(), labels)
        for requirement in _REQUIREMENTS.split(selector)
        if requirement.strip()
    )


def _holds(requirement: str, labels: dict[str, str]) -> bool:
    if match := _SET.fullmatch(requirement):
        values = {value.strip() for value in match["values"].split(",")}
        return (labels.get(match["key"]) in values) == (match["operator"] == "in")
    if match := _EQUAL.fullmatch(requirement):
        return (labels.get(match["key"]) == match["value"]) == (match["operator"] != "!=")
    if match := _PRESENT.fullmatch(requirement):
        return (match["key"] in labels) == (match["not"] == "")
    raise Refusal(HTTPStatus.BAD_REQUEST, f"unable to parse requirement: {requirement}")
