"""The folder of -rundir: made, sockets in it, and who serves, for ``nodecache probe``."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from pathlib import Path

from nodecache.errors import SocketError
from nodecache.loading import write_whole

logger = logging.getLogger("nodecache")

SERVING_FILE = "serving"
WINDOW_FILE = "window.sock"

# Connections that wait to be accepted.
_BACKLOG = 8


def make_rundir(path: str) -> Path | None:
    """Returns the folder, None where there is none: then nothing is handed over or kept."""
    if not path:
        return None
    try:
        Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        logger.warning(
            "cannot make %s: %s; a restart will begin with an empty cache (see -rundir)",
            path,
            error.strerror,
        )
        return None
    return Path(path)


def note_serving(rundir: Path | None) -> None:
    """Says who serves: the pod, or the process where there is none. Raises nothing."""
    if rundir is not None:
        who = os.environ.get("POD_UID") or f"process {os.getpid()}"
        with contextlib.suppress(OSError):
            write_whole(str(rundir / SERVING_FILE), f"{who}\n")


def note_gone(rundir: Path | None) -> None:
    """Says that nobody does. Raises nothing."""
    if rundir is not None:
        with contextlib.suppress(OSError):
            (rundir / SERVING_FILE).unlink()


def listen_at(path: Path, kind: socket.SocketKind) -> socket.socket:
    """Returns a listening, non-blocking Unix socket that only our user may connect to.

    Takes the place of the file that somebody before us left, dead or alive.

    Args:
        path: Its folder is made with mode 0700 if it is not there.
        kind: Stream or packets in order.

    Raises:
        SocketError: With the path and the next step.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sock.setblocking(False)
        sock.bind(str(temporary))
        # Before anybody can connect, and before anybody finds it.
        temporary.chmod(0o600)
        sock.listen(_BACKLOG)
        temporary.rename(path)
    except OSError as error:
        sock.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        text = f"cannot listen on {path}: {reason}: choose another -rundir, or none (-rundir=)"
        raise SocketError(text) from error
    return sock
