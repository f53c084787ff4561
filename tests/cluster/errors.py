"""What an API server answers when it refuses, as it writes it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

Json = dict[str, Any]

_REASONS = {
    HTTPStatus.BAD_REQUEST: "BadRequest",
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.FORBIDDEN: "Forbidden",
    HTTPStatus.NOT_FOUND: "NotFound",
    HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed",
    HTTPStatus.CONFLICT: "Conflict",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "RequestEntityTooLarge",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "UnsupportedMediaType",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Invalid",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalError",
}


class Refusal(Exception):  # noqa: N818 - an answer like others, not a failure
    """A request that the API server refuses.

    Args:
        code: the HTTP status.
        message: for people.
        reason: for programs; the one that goes with the code if None. Conflict has two.
    """

    def __init__(self, code: HTTPStatus, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or _REASONS[code]

    def status(self) -> Json:
        """Returns the object that the body of the response is."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": int(self.code),
        }
