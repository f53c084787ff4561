"""Keeps the last configuration that worked in -rundir, and starts from it when the files are wrong.

So a broken ConfigMap does nothing to a node that crashes, restarts or is upgraded: what was in
force stays in force until the files are right again.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from threading import Lock

from nodecache.config.corefile import decode_text
from nodecache.config.model import Config
from nodecache.config.recording import Recording
from nodecache.errors import ConfigError, Fault
from nodecache.files import read_regular
from nodecache.loading import Source, write_whole

logger = logging.getLogger("nodecache")

FILE_NAME = "configuration"
MOST_OCTETS = 16 * 1024 * 1024
_PRIVATE = 0o600


class LastGood:
    """Writes what is in force to a file, if anything is new.

    Args:
        rundir: Directory of the file, only ours to write; None for no file.
    """

    def __init__(self, rundir: Path | None) -> None:
        self._path = None if rundir is None else rundir / FILE_NAME
        self._writing = Lock()
        self._has_complained = False

    def keep(self, recording: Recording | None) -> None:
        """Keeps what is in force; waits for the file system, so not for the loop. Raises nothing.

        Args:
            recording: What it was read from; None if that is kept already, or should not be.
        """
        if recording is None or self._path is None:
            return
        with self._writing:
            try:
                _write(self._path, recording)
            except (OSError, ValueError) as error:
                self._complain(self._path, _reason(error))
            else:
                self._has_complained = False

    def _complain(self, path: Path, reason: str) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.warning(
                "cannot keep the configuration in %s: %s; a restart needs files that are right",
                path,
                reason,
            )


def load_first(source: Source, rundir: str) -> Config:
    """Returns the configuration to start with.

    That of the files; if they are refused, the last one that worked; if none was kept, what the
    files say without a broken kube-dns ConfigMap.

    Raises:
        ConfigError: With all faults of the files, and why nothing that was kept is of use.
    """
    try:
        return source.load()
    except ConfigError as error:
        refused = error
    path = Path(rundir) / FILE_NAME
    useless: list[Fault] = []
    try:
        if rundir:
            return source.load_again(_read(path), refused, _time_of(path))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, OverflowError, ConfigError) as error:
        text = f"the last configuration that worked is of no use: {_reason(error)}"
        useless = [Fault(str(path), 0, 0, text)]
    try:
        config = source.load_without_kubedns(refused)
    except ConfigError as error:
        raise ConfigError([*error.faults, *useless], error.warnings) from error
    return replace(config, warnings=(*map(str, useless), *config.warnings))


def _reason(error: Exception) -> str:
    """Returns one line."""
    if isinstance(error, ConfigError):
        return str(error.faults[0])
    return str(error.strerror if isinstance(error, OSError) else error)


def _read(path: Path) -> Recording:
    """Raises OSError, and ValueError for what we did not write."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise ValueError("it is no file of ours")
    return Recording.from_json(decode_text(read_regular(str(path), MOST_OCTETS)))


def _time_of(path: Path) -> str:
    """Returns since when the configuration was in force, to show.

    Raises OSError, OverflowError and ValueError.
    """
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(path.stat().st_mtime))


def _write(path: Path, recording: Recording) -> None:
    """Raises OSError, and ValueError if it is too long; then the file is as it was."""
    text = recording.to_json()
    if len(text) > MOST_OCTETS:
        raise ValueError(f"it is longer than {MOST_OCTETS >> 20} MiB")
    try:
        is_known = _read(path) == recording
    except (OSError, ValueError):
        is_known = False
    if not is_known:
        write_whole(str(path), text, _PRIVATE)
