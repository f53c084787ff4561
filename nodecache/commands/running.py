"""The daemon that runs on this node, as seen through its window (process/window.py)."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodecache.errors import NotRunningError
from nodecache.process.rundir import WINDOW_FILE

_PATIENCE_S = 5.0
_MOST_OCTETS = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """How it was started.

    Attributes:
        version: Of the program.
        pid: In the daemon's own PID namespace.
        words: Its command line, without the program.
        folder: Where relative paths begin.
        environment: Its variables.
    """

    version: str
    pid: int
    words: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]


def find_running(rundir: Path, patience_s: float = _PATIENCE_S) -> RunningDaemon:
    """Returns the daemon of a -rundir; raises NotRunningError."""
    said = ask_running(rundir, "/self", patience_s)
    try:
        return RunningDaemon(
            str(said["version"]),
            int(said["pid"]),
            tuple(map(str, said["words"])),
            str(said["folder"]),
            {str(name): str(value) for name, value in said["environment"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unintelligible(rundir) from error


def ask_running(rundir: Path, page: str, patience_s: float = _PATIENCE_S) -> Any:
    """Returns what the running daemon says at ``page`` of its window, read from JSON.

    Args:
        rundir: Where its window is.
        page: Such as "/self".
        patience_s: Seconds that each octet may take.

    Raises:
        NotRunningError: Nobody answers there, or not intelligibly.
    """
    path = rundir / WINDOW_FILE
    connection = _Connection(path, patience_s)
    try:
        connection.request("GET", page)
        response = connection.getresponse()
        body = response.read(_MOST_OCTETS)
        if response.status != http.client.OK:
            raise _unintelligible(rundir)
        return json.loads(body)
    except OSError as error:
        text = f"no nodecache answers at {path}: {error.strerror or error}"
        raise NotRunningError(f"{text}; name its -rundir if that is another folder") from error
    except (http.client.HTTPException, ValueError) as error:
        raise _unintelligible(rundir) from error
    finally:
        connection.close()


def _unintelligible(rundir: Path) -> NotRunningError:
    return NotRunningError(
        f"what answers at {rundir / WINDOW_FILE} is not understood;"
        " use the command of the same version as the daemon"
    )


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, patience_s: float) -> None:
        super().__init__("localhost", timeout=patience_s)
        self._path = path

    def connect(self) -> None:
        """Connects to the path, not to a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
