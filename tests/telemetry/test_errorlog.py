from __future__ import annotations

import logging

import pytest

from nodecache.config.model import ErrorRule, ErrorsPolicy
from nodecache.telemetry.errorlog import ErrorLog, readable

QUESTION = b"\3www\7example\0\0\1\0\1"


def log_of(*rules: ErrorRule) -> ErrorLog:
    return ErrorLog(ErrorsPolicy(consolidate=rules))


def test_a_failure_is_one_line_as_coredns_writes_it(caplog: pytest.LogCaptureFixture) -> None:
    log_of().note(QUESTION, "timed out")
    assert caplog.messages == ["plugin/errors: 2 www.example. A: timed out"]


def test_a_flood_of_failures_is_ten_lines_and_a_sum_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_of()
    for _ in range(2):
        for _ in range(500):
            log.note(QUESTION, "timed out")
        log.tick(0.0)
    assert len(caplog.messages) == 22
    assert caplog.messages[10] == "plugin/errors: 490 more errors in the last second"


def test_what_a_rule_matches_is_summed_up_once_in_its_interval(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_of(ErrorRule(30.0, "timed out$", "warning"))
    for second in range(32):
        log.note(QUESTION, "timed out")
        log.tick(float(second))
    log.note(QUESTION, "unreachable")
    assert caplog.record_tuples == [
        (
            "nodecache",
            logging.WARNING,
            "plugin/errors: 31 errors like 'timed out$' occurred in last 30s",
        ),
        ("nodecache", logging.ERROR, "plugin/errors: 2 www.example. A: unreachable"),
    ]


def test_show_first_shows_the_first_of_each_interval(caplog: pytest.LogCaptureFixture) -> None:
    log = log_of(ErrorRule(5.0, ".*", show_first=True))
    for _ in range(3):
        log.note(QUESTION, "timed out")
    assert caplog.messages == ["plugin/errors: 2 www.example. A: timed out"]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (b"\0\0\2\0\1", ". NS"),
        (b"\3a.b\0\0\x1c\0\1", "a\\.b. AAAA"),
        (b"\4\n\xff\\ \0\xfe\x00\0\1", "\\010\\255\\\\\\032. TYPE65024"),
    ],
)
def test_names_are_escaped_so_that_no_stub_writes_our_log(question: bytes, text: str) -> None:
    assert readable(question) == text
