"""AdmissionReview of admission.k8s.io/v1: octets in, octets out."""

from __future__ import annotations

import base64
import json
from typing import Any

from nodecache.webhook.decision import decide
from nodecache.webhook.model import Answer, Decision, Injection, Refusal

_API_VERSION = "admission.k8s.io/v1"
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"

_MAX_UID = 128  # characters; the API server's have 36
_MAX_VALUES = 250_000  # of 30 MB in all as Python has them; a full pod of 1.5 MB has 100,000


def answer(body: bytes, content_type: str, injection: Injection) -> Answer:
    """Returns the response to a POST; raises nothing, asks nobody, keeps nothing.

    How long ``body`` may be is for whoever reads it to bound. Whatever the review asks, the pod
    is allowed: a response that is none has the API server go on as its failurePolicy says.
    """
    if content_type.partition(";")[0].strip().lower() != _JSON:
        return _refuse(415, Refusal.MEDIA_TYPE, f"send {_JSON}")
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        return _refuse(413, Refusal.TOO_LARGE, f"the body has more than {_MAX_VALUES} values")
    review = _read(body)
    if review is None:
        return _refuse(400, Refusal.NO_REVIEW, "the body is no AdmissionReview in JSON")
    if review.get("apiVersion") != _API_VERSION:
        return _refuse(
            400,
            Refusal.OTHER_VERSION,
            f"send apiVersion {_API_VERSION}: admissionReviewVersions [v1] in the configuration",
        )
    request = review.get("request")
    uid = request.get("uid") if isinstance(request, dict) else None
    if not isinstance(uid, str) or not 0 < len(uid) <= _MAX_UID:
        return _refuse(400, Refusal.NO_REVIEW, "the AdmissionReview has no request with a uid")
    decision = decide(request, injection)
    response = {
        "apiVersion": _API_VERSION,
        "kind": "AdmissionReview",
        "response": _respond(uid, decision),
    }
    octets = json.dumps(response, separators=(",", ":")).encode("ascii")
    return Answer(200, _JSON, octets, decision.reason)


def _read(body: bytes) -> dict[str, Any] | None:
    """Returns the review that ``body`` holds, or None; the interpreter bounds how deep it nests."""
    try:
        review = json.loads(body)
    except (ValueError, RecursionError):
        return None
    is_review = isinstance(review, dict) and review.get("kind") == "AdmissionReview"
    return review if is_review else None


def _respond(uid: str, decision: Decision) -> dict[str, object]:
    response: dict[str, object] = {
        "uid": uid,
        "allowed": True,
        # Not on the pod itself: a label or an annotation of ours could meet somebody's selector.
        "auditAnnotations": {"injected": decision.reason},
    }
    if decision.patch:
        octets = json.dumps(decision.patch, separators=(",", ":")).encode("ascii")
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(octets).decode("ascii")
    if decision.warnings:
        response["warnings"] = decision.warnings
    return response


def _refuse(status: int, refusal: Refusal, text: str) -> Answer:
    return Answer(status, _TEXT, f"{text}\n".encode("ascii"), refusal)
