from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from nodecache.config.model import LogFormat
from nodecache.telemetry import loglines
from nodecache.telemetry.loglines import (
    MAX_REPEATS,
    MAX_WAITING_OCTETS,
    JsonFormatter,
    LineHandler,
    TextFormatter,
    set_debug,
)

PIPE_OCTETS = 4096


class Pipe:
    """A handler that writes to a pipe of one page, and the pipe's reader."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_OCTETS)
        os.set_blocking(self.reader, False)
        self.handler = LineHandler(self.writer)
        self.handler.setFormatter(TextFormatter())
        self.logger = logging.Logger("nodecache.test")
        self.logger.addHandler(self.handler)

    def read(self) -> list[str]:
        """Returns the lines that lie in the pipe."""
        try:
            return os.read(self.reader, 1 << 20).decode().splitlines()
        except BlockingIOError:
            return []

    def read_all(self) -> list[str]:
        """Returns all lines, what waits included."""
        octets = b""
        while True:
            try:
                octets += os.read(self.reader, 1 << 20)
            except BlockingIOError:
                return octets.decode().splitlines()
            self.handler.flush()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for descriptor in (made.reader, made.writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("nodecache", logging.INFO, "x.py", 7, message, args, None)
    made.__dict__.update(extra)
    return made


def record_of_an_error() -> logging.LogRecord:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
        return made


@pytest.mark.parametrize(
    ("level", "line"),
    [
        (logging.DEBUG, "[DEBUG] a 1"),
        (logging.INFO, "[INFO] a 1"),
        (logging.WARNING, "[WARNING] a 1"),
        (logging.ERROR, "[ERROR] a 1"),
    ],
)
def test_text_is_level_and_message(level: int, line: str, pipe: Pipe) -> None:
    pipe.logger.log(level, "a %d", 1)
    assert pipe.read() == [line]


def test_text_escapes_what_a_terminal_acts_on() -> None:
    assert TextFormatter().format(record("a\nb\x1b[2J\u202ec")) == r"[INFO] a\nb\x1b[2J\u202ec"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_traceback_stands_on_the_line_of_its_message(formatter: logging.Formatter) -> None:
    line = formatter.format(record_of_an_error())
    assert line.isprintable()
    assert "failed | Traceback (most recent call last): |   File " in line
    assert "| ValueError: two | lines" in line


def test_json_has_time_level_message_and_the_fields_given() -> None:
    line = json.loads(JsonFormatter().format(record("a %s", "b", fields={"zone": ".", "level": 9})))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "info", "message": "a b", "zone": "."}


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, "\x7f\n\u2028", {(1, 2): 3}])
def test_json_of_any_field_is_one_line_that_can_be_read(value: object) -> None:
    line = JsonFormatter().format(record("a", fields={"x": value}))
    assert line.isascii()
    assert line.isprintable()
    assert "x" in json.loads(line)


def test_a_message_that_cannot_be_made_is_said_so(pipe: Pipe) -> None:
    pipe.handler.handle(record("%d", "no number"))
    assert pipe.read() == ["[ERROR] a line could not be written: TypeError at x.py:7"]


def test_a_reader_who_stops_reading_does_not_stop_us(pipe: Pipe) -> None:
    for number in range(100):
        pipe.logger.info("%d %s", number, "x" * 1000)
    lines = pipe.read_all()
    assert [line.split()[1] for line in lines] == [str(number) for number in range(100)]


def test_lines_longer_than_a_pipe_come_whole(pipe: Pipe) -> None:
    pipe.logger.info("%s", "x" * 10_000)
    assert pipe.read_all() == ["[INFO] " + "x" * 10_000]


def test_what_nobody_reads_is_bounded_and_counted(pipe: Pipe) -> None:
    written = 2 * MAX_WAITING_OCTETS // 1000
    for number in range(written):
        pipe.logger.info("%06d %s", number, "x" * 985)
    *lines, last = pipe.read_all()
    kept = len(lines)
    assert MAX_WAITING_OCTETS <= kept * 1000 <= MAX_WAITING_OCTETS + 2 * PIPE_OCTETS
    assert last == f"[WARNING] {written - kept} lines were left out: nobody read them"


def test_what_waits_is_written_at_the_end_if_somebody_reads(pipe: Pipe) -> None:
    for number in range(2):
        pipe.logger.info("%d", number)
    assert pipe.read() == ["[INFO] 0"]  # a pipe of one page counts as full with anything in it
    pipe.handler.close()
    assert pipe.read() == ["[INFO] 1"]


def test_a_reader_who_never_reads_gets_a_second_at_the_end(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loglines, "_PATIENCE_S", 0.01)
    for number in range(2):
        pipe.logger.info("%d", number)
    pipe.handler.close()
    assert pipe.read() == ["[INFO] 0"]


@pytest.mark.parametrize("end", ["reader", "writer"])
def test_a_broken_pipe_raises_nothing_and_keeps_nothing(end: str, pipe: Pipe) -> None:
    os.close(pipe.reader if end == "reader" else pipe.writer)
    for _ in range(2 * MAX_WAITING_OCTETS // 1000):
        pipe.logger.info("%s", "x" * 990)
    pipe.handler.flush()
    pipe.handler.close()
    assert repr(pipe.handler) == "<LineHandler (NOTSET)>"


def test_one_wording_is_bounded_each_second(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(loglines, "monotonic", lambda: now)
    for number in range(MAX_REPEATS + 7):
        pipe.logger.warning("no %d", number)
        pipe.logger.error("no %d", number)
    assert len(pipe.read_all()) == 2 * MAX_REPEATS
    now = 101.0
    pipe.handler.flush()
    assert pipe.read_all() == [
        "[WARNING] 7 more lines like 'no %d' within a second were left out",
        "[ERROR] 7 more lines like 'no %d' within a second were left out",
    ]
    pipe.logger.warning("no %d", 1)
    assert pipe.read_all() == ["[WARNING] no 1"]


def test_what_is_no_warning_is_not_bounded(pipe: Pipe) -> None:
    for number in range(3 * MAX_REPEATS):
        pipe.logger.info("query %d", number)
    assert len(pipe.read_all()) == 3 * MAX_REPEATS


def test_wordings_without_end_share_one_bound(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loglines, "monotonic", lambda: 100.0)
    for number in range(2000):
        pipe.logger.warning(f"wording {number}")  # noqa: G004 (that is the case)
    assert len(pipe.read_all()) == 1000 + MAX_REPEATS


def test_debugging_is_for_our_own_lines() -> None:
    ours, theirs = logging.getLogger("nodecache.net"), logging.getLogger("asyncio")
    set_debug(True)
    try:
        assert ours.isEnabledFor(logging.DEBUG)
        assert theirs.getEffectiveLevel() == logging.getLogger().level
    finally:
        set_debug(False)
    assert ours.getEffectiveLevel() == logging.getLogger().level


CONFIGURE = """
import logging, sys
from nodecache.config.model import LogFormat
from nodecache.telemetry.loglines import configure_logging, flush_lines
configure_logging(LogFormat.TEXT, logging.WARNING)
configure_logging(LogFormat.{style}, logging.INFO)
logging.getLogger("nodecache").info("up")
logging.getLogger("nodecache").debug("never")
flush_lines()
"""


@pytest.fixture
def run() -> Callable[..., str]:
    """Style -> what a process writes that configures logging twice and logs one line."""

    def start(style: str, redirect: str = "") -> str:
        script = CONFIGURE.format(style=style)
        command = ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirect}', sys.executable, script]
        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=30)
        return done.stderr

    return start


def test_lines_go_to_standard_error_once(run: Callable[..., str]) -> None:
    assert run(LogFormat.TEXT.name) == "[INFO] up\n"


def test_the_last_style_holds(run: Callable[..., str]) -> None:
    assert json.loads(run(LogFormat.JSON.name))["message"] == "up"


def test_a_closed_standard_error_is_no_reason_to_fail(run: Callable[..., str]) -> None:
    assert run(LogFormat.TEXT.name, "2>&-") == ""
