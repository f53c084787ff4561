"""The folder of -rundir: made, and in it who serves, for ``nodecache probe``."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from nodecache.loading import write_whole

logger = logging.getLogger("nodecache")

SERVING_FILE = "serving"


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
