"""One run of another program, with a time limit, while the keeper goes on.

Whoever reaps all children says when it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence

LIMIT_S = 5.0
_MOST_OUTPUT_OCTETS = 4096
_MOST_SHOWN = 300
# Dispositions that the program should not inherit from us.
_DEFAULTS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Errand:
    """A program that runs in a process group of its own, out of reach of a terminal's keys.

    Attributes:
        pid: Of the program.
        ends_at: When it is killed, monotonic seconds.
    """

    def __init__(self, words: Sequence[str], now: float) -> None:
        """Starts it.

        Raises:
            OSError: It cannot be started.
        """
        self.ends_at = now + LIMIT_S
        self._is_late = False
        self._output, theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._output, False)
        try:
            self.pid = os.posix_spawnp(
                words[0],
                list(words),
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 1)],
                setpgroup=0,
                setsigmask=[],
                setsigdef=_DEFAULTS,
            )
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(theirs)

    def kill_if_late(self, now: float) -> None:
        """Ends it, with all that it started, when its time is over."""
        if now >= self.ends_at and not self._is_late:
            self._is_late = True
            self.kill()

    def kill(self) -> None:
        """Ends it, with all that it started. Not to be called after it was reaped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def complaint(self, code: int) -> str:
        """Returns "" if the program did its work, else why not; frees what it held.

        Args:
            code: As ``os.waitstatus_to_exitcode`` gives it.
        """
        said = self._read_output()
        if self._is_late:
            return f"it took longer than {LIMIT_S:g} s"
        if code == 0:
            return ""
        return f"exit code {code}{': ' + said if said else ''}"

    def close(self) -> None:
        """Frees what it held; it may still run."""
        os.close(self._output)

    def _read_output(self) -> str:
        try:
            octets = os.read(self._output, _MOST_OUTPUT_OCTETS)
        except OSError:  # something it started holds the other end, and says nothing
            octets = b""
        self.close()
        return octets.decode("utf-8", "replace").strip()[:_MOST_SHOWN]
