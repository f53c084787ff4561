"""Which request gets which answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from nodecache.printing import moment
from nodecache.webhook import metrics
from nodecache.webhook.conversation import Reply, Request
from nodecache.webhook.identity import ServerIdentity
from nodecache.webhook.model import Answer, Refusal

# Octets and Content-Type of a review to its answer; raises nothing.
Review = Callable[[bytes, str], Answer]
Page = Callable[[Request], Reply]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class State:
    """What readiness is about.

    Attributes:
        is_leaving: The process was told to end.
    """

    identity: ServerIdentity
    is_leaving: bool = False

    def obstacles(self) -> list[str]:
        """Returns why no review should be sent here; nothing if all is well."""
        now = datetime.now(UTC).timestamp()
        return find_obstacles(self.identity.not_after, now, is_leaving=self.is_leaving)


def find_obstacles(not_after: float | None, now: float, *, is_leaving: bool) -> list[str]:
    """Returns why an API server would not be served; times are Unix seconds.

    A certificate that begins later is none of them: the API server's clock counts, and of two
    clocks that differ by little ours may be the slow one.
    """
    found = ["it is about to end"] if is_leaving else []
    if not_after is None:
        found.append("no certificate is loaded yet")
    elif now >= not_after:
        found.append(f"the certificate has expired at {moment(not_after)}")
    return found


class Pages:
    """Answers on both listeners: reviews over TLS, metrics without, health on both.

    Kubelet may ask either for health: over TLS that fails, too, while there is no certificate.

    Args:
        review: Decides.
        state: For readiness.
        counts: What is counted, and shown.
    """

    def __init__(self, review: Review, state: State, counts: metrics.Metrics) -> None:
        self._review = review
        self._state = state
        self._counts = counts
        self._told: set[Refusal] = set()
        health = {"/healthz": ("GET", _say_yes), "/readyz": ("GET", self._say_whether_ready)}
        self._secure = {**health, "/inject": ("POST", self._inject)}
        self._plain = {**health, "/metrics": ("GET", self._show)}

    def answer_secure(self, request: Request) -> Reply:
        """Returns the answer over TLS."""
        return self._answer(self._secure, request)

    def answer_plain(self, request: Request) -> Reply:
        """Returns the answer on the page for metrics."""
        return self._answer(self._plain, request)

    def _answer(self, pages: dict[str, tuple[str, Page]], request: Request) -> Reply:
        method, page = pages.get(request.path, ("", _say_yes))
        asked = "GET" if request.method == "HEAD" else request.method
        if not method:
            reply = _refuse(HTTPStatus.NOT_FOUND, f"there are: {', '.join(pages)}", "path")
        elif asked != method:
            reply = _refuse(HTTPStatus.METHOD_NOT_ALLOWED, f"it takes {method}", "method")
        else:
            return page(request)
        self._counts.note_refusal(reply.fault)
        return reply

    def _inject(self, request: Request) -> Reply:
        begun_at = time.perf_counter()
        answer = self._review(request.body, request.content_type)
        self._counts.note_decision(answer.reason, time.perf_counter() - begun_at)
        if isinstance(answer.reason, Refusal) and answer.reason not in self._told:
            self._tell(answer.reason, answer)
        return Reply(answer.status, answer.body, answer.content_type)

    def _tell(self, reason: Refusal, answer: Answer) -> None:
        """Logs the first of each kind: anybody may send more, and the metrics count them."""
        self._told.add(reason)
        text = answer.body.decode("utf-8", "replace").strip()
        logger.warning("a review was refused with %d: %s", answer.status, text)

    def _show(self, _request: Request) -> Reply:
        return Reply(HTTPStatus.OK, self._counts.render(), metrics.CONTENT_TYPE)

    def _say_whether_ready(self, request: Request) -> Reply:
        obstacles = self._state.obstacles()
        return _refuse_ready(obstacles) if obstacles else _say_yes(request)


def _say_yes(_request: Request) -> Reply:
    return Reply(HTTPStatus.OK, b"OK")


def _refuse_ready(obstacles: Sequence[str]) -> Reply:
    return Reply(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{o}\n" for o in obstacles).encode())


def _refuse(status: HTTPStatus, text: str, fault: str) -> Reply:
    return Reply(status, f"{status.phrase}; {text}\n".encode(), fault=fault)
