"""Reads files that somebody else writes: never waits for a writer, never reads without end."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def read_regular(path: str, most_octets: int) -> bytes:
    """Returns all octets of a regular file.

    Raises:
        OSError: It cannot be read, or is something else: a FIFO or a device in its place would
            keep whoever opens it waiting, or do something when opened.
        ValueError: It is longer than ``most_octets``, or no path at all.
    """
    check_regular(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - pathlib knows no descriptors
        _check_mode(os.fstat(descriptor).st_mode, path)  # it may have been replaced meanwhile
        return _read_all(file, most_octets)


def read_stream(path: str, most_octets: int) -> bytes:
    """Returns the same of anything, a pipe or a terminal too, and waits as long as it takes."""
    with open(path, "rb") as file:  # noqa: PTH123 - a str, not a Path
        return _read_all(file, most_octets)


def _read_all(file: BinaryIO, most_octets: int) -> bytes:
    octets = file.read(most_octets + 1)
    if len(octets) > most_octets:
        raise ValueError(f"it is longer than {most_octets >> 20} MiB")
    return octets


def check_regular(path: str) -> None:
    """Raises OSError unless ``path`` is a regular file, or leads to one by symbolic links."""
    _check_mode(os.stat(path).st_mode, path)  # noqa: PTH116 - a str, not a Path


def _check_mode(mode: int, path: str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", path)
