"""Signals as octets in a pipe: a handler does nothing, the loop reads who called."""

from __future__ import annotations

import os
import signal

from nodecache.process.keeper.child import FORWARDED

_HANDLED = (*FORWARDED, signal.SIGCHLD)
_MOST_AT_ONCE = 512


class SignalPipe:
    """Takes over the signals that the keeper forwards, and SIGCHLD."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, _do_nothing)

    def fileno(self) -> int:
        """Returns what to poll."""
        return self._read_end

    def take(self) -> list[int]:
        """Returns the signals to forward, in the order in which they came."""
        try:
            numbers = os.read(self._read_end, _MOST_AT_ONCE)
        except BlockingIOError:
            return []
        return [number for number in numbers if number != signal.SIGCHLD]

    def close(self) -> None:
        """Closes the pipe; dispositions stay."""
        signal.set_wakeup_fd(-1)
        os.close(self._read_end)
        os.close(self._write_end)


def _do_nothing(_number: int, _frame: object) -> None:
    """Only wakes the loop, through the pipe."""
