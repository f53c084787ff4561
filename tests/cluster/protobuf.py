"""Secrets as Helm's client sends them: in Kubernetes' protobuf. All else comes as JSON.

Numbers of fields: generated.proto of k8s.io/api/core/v1 and of k8s.io/apimachinery/pkg/runtime.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from http import HTTPStatus
from typing import Final

from tests.cluster.errors import Json, Refusal

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_VARINT, _OCTETS = 0, 2

Fields = dict[int, list[bytes]]


def decoded(body: bytes) -> Json:
    """Returns the object in a request's body; of what is no Secret only its kind.

    Raises:
        Refusal: the body is no such thing.
    """
    try:
        envelope = _fields(body.removeprefix(_MAGIC))
        types = _fields(envelope[1][0])
        manifest: Json = {"apiVersion": _text(types, 1), "kind": _text(types, 2)}
        if manifest["kind"] == "Secret":
            manifest |= _secret(_fields(envelope[2][0]))
    except (IndexError, UnicodeDecodeError) as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the body is no protobuf") from error
    return manifest


def _secret(fields: Fields) -> Json:
    metadata = _fields(fields[1][0])
    named = {"name": 1, "namespace": 3, "resourceVersion": 6}
    data = {key.decode(): base64.b64encode(value).decode() for key, value in _map(fields[2])}
    return {
        "metadata": {
            **{name: _text(metadata, number) for name, number in named.items() if metadata[number]},
            "labels": {key.decode(): value.decode() for key, value in _map(metadata[11])},
            "annotations": {key.decode(): value.decode() for key, value in _map(metadata[12])},
        },
        "data": data,
        **({"type": _text(fields, 3)} if fields[3] else {}),
    }


def _map(entries: list[bytes]) -> list[tuple[bytes, bytes]]:
    pairs = [_fields(entry) for entry in entries]
    return [(pair[1][0] if pair[1] else b"", pair[2][0] if pair[2] else b"") for pair in pairs]


def _text(fields: Fields, number: int) -> str:
    return fields[number][-1].decode() if fields[number] else ""


def _fields(octets: bytes) -> Fields:
    """Returns number -> values; of numbers, which nothing here reads, their octets."""
    fields: Fields = defaultdict(list)
    at = 0
    while at < len(octets):
        tag, at = _varint(octets, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            start = at
            _, at = _varint(octets, at)
            fields[number].append(octets[start:at])
        elif wire_type == _OCTETS:
            length, at = _varint(octets, at)
            fields[number].append(octets[at : at + length])
            at += length
        else:
            raise IndexError(wire_type)
    return fields


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = octets[at]
        value |= (octet & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if octet < 0x80:
            return value, at
