"""One worker process: how it is started, and what the keeper knows of it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping

from nodecache.process.channel import KeeperLink, WorkerLink

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT,
    signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# How long one that was told to end may neither answer nor say that it leaves.
_IGNORANCE_S = 5.0
EXIT_CRASHED = 70  # EX_SOFTWARE of sysexits.h

RunWorker = Callable[[KeeperLink], int]


class Child:
    """A worker that was started and not yet reaped.

    Attributes:
        pid: Its process.
        link: Where its messages come from.
        served_at: When it said that it serves, monotonic seconds; None before.
        told_at: When a signal that ends it was forwarded; None if none was.
        is_killed: We ended it.
    """

    def __init__(self, pid: int, link: WorkerLink) -> None:
        self.pid = pid
        self.link = link
        self.served_at: float | None = None
        self.told_at: float | None = None
        self.is_killed = False

    def ignores_signals(self, now: float) -> bool:
        """Whether it was told to end so long ago that it should have said something."""
        return self.told_at is not None and now - self.told_at >= _IGNORANCE_S

    def kill(self) -> None:
        """Ends it at once."""
        self.is_killed = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def send_signal(self, number: int, now: float) -> None:
        """Forwards a signal; one that ends it is remembered, though it may come too late."""
        if number in ENDING:
            self.told_at = now
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start_worker(
    run_worker: RunWorker,
    held: Mapping[str, socket.socket],
    history: Mapping[str, int],
    close_keeper: Callable[[], None],
) -> Child:
    """Forks a worker; returns in the keeper only.

    Args:
        run_worker: Runs in the worker and returns its exit code.
        held: Sockets for the worker, by name.
        history: What was counted so far.
        close_keeper: Called in the worker: closes what is the keeper's alone.

    Raises:
        OSError: No process or descriptor is left.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    gc.freeze()  # or the first search for cycles copies every page that both share
    # Until the worker has its own dispositions, signals wait.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, signal.SIGCHLD))
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    else:
        if not pid:

            def become() -> KeeperLink:
                ours.close()
                close_keeper()
                _reset_signals(mask)
                return KeeperLink(theirs, dict(held), history)

            _run(run_worker, become)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return Child(pid, WorkerLink(ours))


def _run(run_worker: RunWorker, become: Callable[[], KeeperLink]) -> None:
    """Is the worker; ends the process."""
    code = EXIT_CRASHED
    try:
        code = run_worker(become())
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 # whatever it is must not run on as a second keeper
        sys.excepthook(*sys.exc_info())
    finally:
        _flush()
        os._exit(code & 0xFF)


def _reset_signals(mask: Iterable[int]) -> None:
    for number in (*ENDING, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Their default is death, which nobody means who asks for a reload a moment too early.
    for number in FORWARDED:
        if number not in ENDING:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _flush() -> None:
    """Writes what is buffered, since ``os._exit`` does not."""
    logging = sys.modules.get("logging")
    with contextlib.suppress(Exception):
        if logging is not None:
            logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
