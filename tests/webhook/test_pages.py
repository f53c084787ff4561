from __future__ import annotations

import logging
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nodecache.webhook.conversation import Reply, Request
from nodecache.webhook.identity import ServerIdentity
from nodecache.webhook.metrics import Metrics
from nodecache.webhook.model import Injection
from nodecache.webhook.pages import Pages, State, find_obstacles
from nodecache.webhook.review import answer
from tests.webhook.clients import review
from tests.webhook.pairs import make_pair

JSON = "application/json"


class House:
    def __init__(self) -> None:
        self.identity = ServerIdentity()
        self.state = State(self.identity)
        self.counts = Metrics()
        injection = Injection(("169.254.20.10",), ("10.96.0.10",))
        self.pages = Pages(partial(answer, injection=injection), self.state, self.counts)

    def secure(self, method: str, path: str, body: bytes = b"", kind: str = JSON) -> Reply:
        return self.pages.answer_secure(Request(method, path, kind, body))

    def plain(self, method: str, path: str) -> Reply:
        return self.pages.answer_plain(Request(method, path, "", b""))

    def count(self, series: str, reason: str) -> float | None:
        text = self.plain("GET", "/metrics").body.decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if (sample.name, sample.labels.get("reason", "")) == (series, reason):
                    return sample.value
        return None


@pytest.fixture
def house() -> House:
    return House()


def test_a_review_is_answered_and_counted_by_its_reason(house: House) -> None:
    reply = house.secure("POST", "/inject", review())
    assert (reply.status, reply.content_type) == (200, JSON)
    assert b'"allowed":true' in reply.body.replace(b" ", b"")
    assert house.count("nodecache_webhook_decisions_total", "injected") == 1
    assert house.count("nodecache_webhook_review_duration_seconds_count", "") == 1


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [(b"{", JSON, 400, "no_review"), (review(), "text/plain", 415, "media_type")],
)
def test_what_is_no_review_is_refused_counted_and_logged_once(
    house: House,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    kind: str,
    status: int,
    reason: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        replies = [house.secure("POST", "/inject", body, kind) for _ in range(3)]
    assert {reply.status for reply in replies} == {status}
    assert house.count("nodecache_webhook_decisions_total", reason) == 3
    assert len(caplog.messages) == 1


def test_wrong_paths_and_methods_say_which_are_right(house: House) -> None:
    lost = house.secure("POST", "/mutate")
    assert (lost.status, lost.fault) == (404, "path")
    assert b"/inject" in lost.body
    wrong = house.secure("GET", "/inject")
    assert (wrong.status, wrong.fault) == (405, "method")
    assert b"POST" in wrong.body
    assert house.secure("POST", "/healthz").status == 405
    assert house.count("nodecache_webhook_refused_total", "method") == 2
    assert house.count("nodecache_webhook_refused_total", "path") == 1


def test_reviews_come_over_tls_only_and_metrics_without(house: House) -> None:
    assert house.plain("POST", "/inject").status == 404
    assert house.secure("GET", "/metrics").status == 404
    assert house.plain("GET", "/metrics").status == 200


def test_it_lives_before_it_is_ready(house: House) -> None:
    for ask in (house.secure, house.plain):
        assert ask("GET", "/healthz").status == 200
        assert ask("GET", "/readyz") == Reply(503, b"no certificate is loaded yet\n")
    house.identity.load(*make_pair())
    assert house.secure("GET", "/readyz") == Reply(200, b"OK")
    assert house.secure("HEAD", "/readyz").status == 200


def test_who_is_about_to_end_is_alive_and_not_ready(house: House) -> None:
    house.identity.load(*make_pair())
    house.state.is_leaving = True
    assert house.plain("GET", "/healthz").status == 200
    assert house.plain("GET", "/readyz") == Reply(503, b"it is about to end\n")


def test_readiness_ends_with_the_certificate(house: House) -> None:
    house.identity.load(*make_pair(begins_s=-100, ends_s=-1))
    assert b"has expired at" in house.plain("GET", "/readyz").body
    house.identity.load(*make_pair())
    assert house.plain("GET", "/readyz").status == 200


def test_a_clock_that_is_slow_keeps_no_new_certificate_from_being_served(house: House) -> None:
    house.identity.load(*make_pair(begins_s=1000, ends_s=2000))
    assert house.plain("GET", "/readyz").status == 200


def test_a_certificate_ends_at_its_second() -> None:
    found = [find_obstacles(200.0, now, is_leaving=False) for now in (199.9, 200.0)]
    assert [len(obstacles) for obstacles in found] == [0, 1]
    assert find_obstacles(None, 0.0, is_leaving=True) == [
        "it is about to end",
        "no certificate is loaded yet",
    ]
