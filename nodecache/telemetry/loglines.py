"""How all lines of the log look, and how they leave: one record, one line, and no waiting.

A reader of our standard error who stops reading (a full pipe, a terminal that is held) must not
stop the answers, so a line is written only while the descriptor says that it takes one. On Linux
that means room for at least 4,096 octets in a pipe, so pieces up to that size never block
(pipe(7), poll(2)). What cannot be written waits in a bounded queue for the next line, ``flush``
or the end; beyond that bound lines are counted and left out. Regular files and sockets that lie
about their room can still make us wait.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections import deque
from datetime import UTC, datetime
from time import monotonic

from nodecache.config.model import LogFormat
from nodecache.printing import printable

MAX_WAITING_OCTETS = 256 * 1024
MAX_REPEATS = 100  # lines a second of one wording, from WARNING up
_MAX_WORDINGS = 1000
_PIECE_OCTETS = 4096  # PIPE_BUF
_PATIENCE_S = 1.0  # at the end, for a reader who is slow

_OURS = "nodecache"


def configure_logging(style: LogFormat, level: int) -> None:
    """Sends what is logged to standard error from now on, one line each.

    Args:
        style: "[INFO] message", or one JSON object.
        level: Of the logging module; what is below it is left out.

    May be called again, for another style.
    """
    root = logging.getLogger()
    for handler in _line_handlers():
        root.removeHandler(handler)
        handler.close()
    descriptor = _standard_error()
    if descriptor is not None:
        new = LineHandler(descriptor)
        new.setFormatter(JsonFormatter() if style is LogFormat.JSON else TextFormatter())
        root.addHandler(new)
    root.setLevel(level)
    # Costs of each record whose results no line of ours shows.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def set_debug(on: bool) -> None:
    """Logs what we say for debugging, or no longer; what libraries say keeps its level."""
    logging.getLogger(_OURS).setLevel(logging.DEBUG if on else logging.NOTSET)


def flush_lines() -> None:
    """Writes lines that waited for a slow reader, without waiting; to be called once a second."""
    for handler in _line_handlers():
        handler.flush()


def _line_handlers() -> list[LineHandler]:
    return [found for found in logging.getLogger().handlers if isinstance(found, LineHandler)]


def _standard_error() -> int | None:
    """Returns its descriptor; None where it is closed, since the number may be a socket by now."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return None


class TextFormatter(logging.Formatter):
    """``[LEVEL] message``; a traceback follows on the same line, its lines parted by " | "."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line without its end."""
        line = f"[{record.levelname}] {record.getMessage()}{_traceback(record)}"
        return line if line.isprintable() else printable(line)


class JsonFormatter(logging.Formatter):
    """One JSON object with time, level, message and what ``extra={"fields": {...}}`` adds."""

    def __init__(self) -> None:
        import json  # noqa: PLC0415 # 0.1 MB, where somebody wants it

        super().__init__()
        self._dumps = json.dumps

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        own = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage() + _traceback(record),
        }
        line = {**own, **getattr(record, "fields", {}), **own}  # ours first, and not to be forged
        try:
            text = self._dumps(line, allow_nan=False, default=str)
        except (ValueError, TypeError):  # infinite, circular, or a key that is no word
            text = self._dumps({str(key): str(value) for key, value in line.items()})
        return text.replace("\x7f", "\\u007f")


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info and not record.stack_info:
        return ""
    text = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    lines = [*text.splitlines(), *(record.stack_info or "").splitlines()]
    return "".join(f" | {line}" for line in lines)


class LineHandler(logging.Handler):
    """Writes lines to a descriptor as far as it takes them without waiting; raises nothing."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._pieces: deque[bytes] = deque()
        self._waiting_octets = 0
        self._left_out = 0
        self._repeats = _Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record, unless too many of its wording came within a second."""
        if record.levelno < logging.WARNING or self._repeats.admit(record, monotonic()):
            self._put(record)
        self._write()

    def flush(self) -> None:
        """Writes what waits, as far as possible now; to be called once a second."""
        self.acquire()
        try:
            self._repeats.turn(monotonic())
            self._write()
        finally:
            self.release()

    def close(self) -> None:
        """Gives a slow reader a second to take what waits."""
        self.flush()
        deadline = monotonic() + _PATIENCE_S
        while self._pieces and monotonic() < deadline:
            self._poll.poll(100)
            self.flush()
        super().close()

    def _put(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 (whatever the arguments' own code raises)
            text = "a line could not be written: %s at %s:%d"
            where = (type(error).__name__, record.pathname, record.lineno)
            line = self.format(logging.LogRecord(_OURS, logging.ERROR, "", 0, text, where, None))
        octets = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._waiting_octets + len(octets) > MAX_WAITING_OCTETS:
            self._left_out += 1
            return
        self._waiting_octets += len(octets)
        for start in range(0, len(octets), _PIECE_OCTETS):
            self._pieces.append(octets[start : start + _PIECE_OCTETS])

    def _write(self) -> None:
        """Writes what waits; then says what was left out, if there is room for that again."""
        for level, wording, count in self._repeats.take_sums():
            self._tell(
                level, "%d more lines like '%s' within a second were left out", count, wording
            )
        self._drain()
        if self._left_out and not self._pieces:
            count, self._left_out = self._left_out, 0
            self._tell(logging.WARNING, "%d lines were left out: nobody read them", count)
            self._drain()

    def _tell(self, level: int, text: str, *arguments: object) -> None:
        self._put(logging.LogRecord(_OURS, level, "", 0, text, arguments, None))

    def _drain(self) -> None:
        while self._pieces and self._poll.poll(0):
            piece = self._pieces.popleft()
            try:
                written = os.write(self._descriptor, piece)
            except BlockingIOError:
                written = 0
            except OSError:  # nobody will ever read this
                self._pieces.clear()
                self._waiting_octets = self._left_out = 0
                return
            self._waiting_octets -= written
            if written < len(piece):
                self._pieces.appendleft(piece[written:])
                return


class _Repeats:
    """How often each wording came within the present second."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str], int] = {}
        self._sums: list[tuple[int, str, int]] = []
        self._began_at = 0.0

    def admit(self, record: logging.LogRecord, now: float) -> bool:
        """Counts a record; returns whether it is one of the first of its wording."""
        self.turn(now)
        wording = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        key = (record.levelno, wording[:200])
        if key not in self._counts and len(self._counts) >= _MAX_WORDINGS:
            key = (record.levelno, "...")
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count <= MAX_REPEATS

    def turn(self, now: float) -> None:
        """Begins a new second if the present one is over."""
        if now - self._began_at < 1.0:
            return
        self._sums += [
            (level, wording, count - MAX_REPEATS)
            for (level, wording), count in self._counts.items()
            if count > MAX_REPEATS
        ]
        self._counts.clear()
        self._began_at = now

    def take_sums(self) -> list[tuple[int, str, int]]:
        """Returns level, wording and count of what was left out, once."""
        sums, self._sums = self._sums, []
        return sums
