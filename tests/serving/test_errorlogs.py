"""Which block's error log is told of which failure, through reloads."""

from __future__ import annotations

import logging

import pytest

from nodecache.config.model import ROOT, ErrorsPolicy, ServerBlock
from nodecache.resolve.block import BlockState
from nodecache.resolve.results import FailedQuery
from nodecache.serving.errorlogs import ErrorLogs

QUESTION = b"\1a\0\0\1\0\1"


def state(policy: ErrorsPolicy | None) -> BlockState:
    return BlockState(ServerBlock((ROOT,), 53, errors=policy), None)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_only_blocks_with_the_directive_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    logged, silent = state(ErrorsPolicy()), state(None)
    logs = ErrorLogs()
    logs.open([logged, silent])
    with caplog.at_level(logging.INFO):
        logs.note(FailedQuery(silent, QUESTION, 2, "silent"))
        logs.note(FailedQuery(logged, QUESTION, 2, "timeout", "of 4.5 s"))
    assert lines(caplog) == ["plugin/errors: 2 a. A: timeout (of 4.5 s)"]


def test_block_that_a_reload_took_away_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    gone, stays = state(ErrorsPolicy()), state(ErrorsPolicy())
    logs = ErrorLogs()
    logs.open([gone, stays])
    logs.open([stays])
    with caplog.at_level(logging.INFO):
        for each in (gone, stays):
            logs.note(FailedQuery(each, QUESTION, 2, "timeout"))
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("how", ["tick", "reload", "end"])
def test_what_was_left_out_is_told_at_each_tick_before_a_reload_and_at_the_end(
    caplog: pytest.LogCaptureFixture, how: str
) -> None:
    flooded = state(ErrorsPolicy())
    logs = ErrorLogs()
    logs.open([flooded])
    with caplog.at_level(logging.INFO):
        for _ in range(30):
            logs.note(FailedQuery(flooded, QUESTION, 2, "timeout"))
        told = len(lines(caplog))
        if how == "tick":
            logs.tick(1000.0)
        elif how == "reload":
            logs.open([flooded])
        else:
            logs.finish()
    (summary,) = lines(caplog)
    assert told < 30
    assert str(30 - told) in summary
