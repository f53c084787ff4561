from __future__ import annotations

import logging

import pytest

from nodecache.config.model import ErrorRule, ErrorsPolicy
from nodecache.patterns import Expression
from nodecache.telemetry.errorlog import ErrorLog, duration_text
from nodecache.wire.numbers import REFUSED, SERVFAIL

QUESTION = b"\3www\7example\0\0\1\0\1"


def log_of(*rules: ErrorRule) -> ErrorLog:
    return ErrorLog(ErrorsPolicy(consolidate=rules))


def test_a_failure_is_one_line_as_coredns_writes_it(caplog: pytest.LogCaptureFixture) -> None:
    log_of().note(QUESTION, SERVFAIL, "timed out")
    assert caplog.messages == ["plugin/errors: 2 www.example. A: timed out"]


def test_a_flood_of_failures_is_ten_lines_and_a_sum_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_of()
    for _ in range(2):
        for _ in range(500):
            log.note(QUESTION, SERVFAIL, "timed out")
        log.tick(0.0)
    assert len(caplog.messages) == 22
    assert caplog.messages[10] == "plugin/errors: 490 more errors in the last second"


def test_what_a_rule_matches_is_summed_up_once_in_its_interval(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_of(ErrorRule(30.0, "timed out$", "warning"))
    for second in range(32):
        log.note(QUESTION, SERVFAIL, "timed out")
        log.tick(float(second))
    log.note(QUESTION, SERVFAIL, "unreachable")
    assert caplog.record_tuples == [
        (
            "nodecache",
            logging.WARNING,
            "plugin/errors: 31 errors like 'timed out$' occurred in last 30s",
        ),
        ("nodecache", logging.ERROR, "plugin/errors: 2 www.example. A: unreachable"),
    ]


def test_an_interval_ends_with_its_duration_as_go_writes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_of(ErrorRule(300.0, "."))
    log.note(QUESTION, SERVFAIL, "timed out")
    for now in (0.0, 299.0, 300.0, 700.0):
        log.tick(now)
    assert caplog.messages == ["plugin/errors: 1 errors like '.' occurred in last 5m0s"]


def test_an_interval_begins_with_its_first_failure(caplog: pytest.LogCaptureFixture) -> None:
    log = log_of(ErrorRule(5.0, "."))
    log.tick(0.0)
    log.tick(4.0)
    log.note(QUESTION, SERVFAIL, "timed out")
    log.tick(5.0)
    log.tick(9.0)
    assert caplog.messages == []
    log.tick(10.0)
    assert len(caplog.messages) == 1


def test_show_first_shows_the_first_of_each_interval_at_its_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_of(ErrorRule(5.0, ".*", "warning", show_first=True))
    for _ in range(3):
        log.note(QUESTION, SERVFAIL, "timed out")
    log.tick(0.0)
    log.tick(5.0)
    log.note(QUESTION, SERVFAIL, "unreachable")
    assert [(level, text) for _, level, text in caplog.record_tuples] == [
        (logging.WARNING, "plugin/errors: 2 www.example. A: timed out"),
        (logging.WARNING, "plugin/errors: 3 errors like '.*' occurred in last 5s"),
        (logging.WARNING, "plugin/errors: 2 www.example. A: unreachable"),
    ]


def test_show_first_sums_nothing_up_when_the_first_was_the_only_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_of(ErrorRule(5.0, ".*", show_first=True))
    log.note(QUESTION, SERVFAIL, "timed out")
    log.tick(0.0)
    log.tick(5.0)
    log.note(QUESTION, SERVFAIL, "timed out")
    assert caplog.messages == ["plugin/errors: 2 www.example. A: timed out"] * 2


@pytest.mark.parametrize(
    ("pattern", "is_summed_up"),
    [
        ("^timed", True),
        ("out$", True),
        ("^2 www", False),
        ("example", False),
        ("[[:alpha:]] o", True),
    ],
)
def test_rules_are_about_the_text_of_the_error_alone(
    pattern: str, is_summed_up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log_of(ErrorRule(5.0, pattern)).note(QUESTION, SERVFAIL, "timed out")
    assert (caplog.messages == []) is is_summed_up


def test_the_first_rule_that_matches_counts(caplog: pytest.LogCaptureFixture) -> None:
    log = log_of(ErrorRule(1.0, "out"), ErrorRule(1.0, "timed"))
    log.note(QUESTION, SERVFAIL, "timed out")
    log.tick(0.0)
    log.tick(1.0)
    assert caplog.messages == ["plugin/errors: 1 errors like 'out' occurred in last 1s"]


def test_a_pattern_made_to_take_for_ever_takes_a_moment(caplog: pytest.LogCaptureFixture) -> None:
    log_of(ErrorRule(5.0, "(a*)*b")).note(QUESTION, SERVFAIL, "a" * 2000)
    assert len(caplog.messages) == 1


def test_the_end_writes_what_is_not_due_yet(caplog: pytest.LogCaptureFixture) -> None:
    log = log_of(ErrorRule(3600.0, "timed"))
    for _ in range(12):
        log.note(QUESTION, SERVFAIL, "timed out")
        log.note(QUESTION, SERVFAIL, "unreachable")
    log.finish()
    assert caplog.messages[-2:] == [
        "plugin/errors: 2 more errors in the last second",
        "plugin/errors: 12 errors like 'timed' occurred in last 1h0m0s",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "500ms"), (1.0, "1s"), (1.5, "1.5s"), (90.0, "1m30s"), (5400.0, "1h30m0s")],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


TIMEOUT = "read udp 10.0.0.2:41234->10.0.0.10:53: i/o timeout"


def test_line_holds_the_rcode_and_coredns_words_with_our_own_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_of()
    log.note(QUESTION, SERVFAIL, TIMEOUT, "timed out, 3 attempts")
    log.note(QUESTION, REFUSED, "concurrent queries exceeded maximum 100")
    assert caplog.messages == [
        f"plugin/errors: 2 www.example. A: {TIMEOUT} (timed out, 3 attempts)",
        "plugin/errors: 5 www.example. A: concurrent queries exceeded maximum 100",
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        ".* i/o timeout$",  # from the README of CoreDNS
        "^read udp .*->10.0.0.10:53: i/o timeout$",
        "^read udp 10\\.0\\.0\\.2:[0-9]+->",
        "timed out",
        "3 attempts\\)$",
    ],
)
def test_rule_matches_coredns_words_to_their_end_and_ours_behind(
    caplog: pytest.LogCaptureFixture, pattern: str
) -> None:
    log = log_of(ErrorRule(30.0, pattern))
    log.note(QUESTION, SERVFAIL, TIMEOUT, "timed out, 3 attempts")
    assert caplog.messages == []


def test_rule_is_not_matched_anew_for_each_port_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    matched: list[str] = []
    monkeypatch.setattr(Expression, "find_groups", lambda _self, text: matched.append(text))
    log = log_of(ErrorRule(30.0, "refused$"))
    for port in range(1024, 2048):
        log.note(QUESTION, SERVFAIL, TIMEOUT.replace("41234", str(port)))
    assert len(matched) <= 2
