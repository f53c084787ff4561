"""The keeper's lines in the log, in the form of the worker's.

Never waits for a reader: what standard error does not take at once is left out. How often lines
come is bounded by what they tell of. The worker's own way to log imports 2 MB.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Sequence

_MOST_CHARACTERS = 1000
_JSON_FLAGS = ("-log-format", "--log-format")


class Log:
    """Writes lines to standard error; raises nothing.

    Attributes:
        is_json: One object a line, instead of "[INFO] message".
    """

    def __init__(self, is_json: bool = False) -> None:
        self.is_json = is_json

    def info(self, text: str) -> None:
        """Says what goes on."""
        self._write("INFO", text)

    def warning(self, text: str) -> None:
        """Says what is worth a look."""
        self._write("WARNING", text)

    def error(self, text: str) -> None:
        """Says what is wrong, and the next step."""
        self._write("ERROR", text)

    def _write(self, level: str, text: str) -> None:
        text = printable(text[:_MOST_CHARACTERS])
        line = _as_json(level, text) if self.is_json else f"[{level}] {text}"
        try:
            descriptor = sys.stderr.fileno()
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            if poll.poll(0):
                os.write(descriptor, line.encode("utf-8", "backslashreplace") + b"\n")
        except (AttributeError, OSError, ValueError):  # closed: nobody wants to read this
            pass


def wants_json(words: Sequence[str]) -> bool:
    """Whether the command line asks for lines in JSON; the last flag counts."""
    is_json = False
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in _JSON_FLAGS:
            is_json = (value if equals else following) == "json"
    return is_json


def printable(text: str) -> str:
    """Returns ``text`` with everything escaped that a terminal could act on."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _as_json(level: str, text: str) -> str:
    # A time to show; nothing is measured with it.
    seconds, ns = divmod(time.clock_gettime_ns(time.CLOCK_REALTIME), 1_000_000_000)
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fields = {
        "time": f"{at}.{ns // 1_000_000:03d}Z",
        "level": level.lower(),
        "message": text,
    }
    return json.dumps(fields)
