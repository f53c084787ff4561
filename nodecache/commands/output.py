"""How commands end and write: exit codes, and text that no terminal or pipe can trip over."""

from __future__ import annotations

import os
import sys
from typing import TextIO

EXIT_GOOD = 0
EXIT_MACHINE = 1
EXIT_CONFIGURATION = 2


def write(text: str) -> None:
    """Writes to standard output; a reader who has seen enough, as ``head``, is no error."""
    _write(sys.stdout, text)


def write_error(text: str) -> None:
    """Writes to standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    # Names of files may hold what the terminal's encoding lacks.
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def counted(count: int, noun: str) -> str:
    """Returns "1 fault", "2 faults"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
