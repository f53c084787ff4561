"""From the machine to a Config, again and again: reads flags' files, knows when they changed.

The pure part is in config/; here are the file system and the order of things.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

from nodecache.config.words import MAX_TEXT_CHARACTERS

_MAX_OCTETS = 4 * MAX_TEXT_CHARACTERS  # UTF-8 takes at most four octets a character


class FileReader:
    """A Reader (see config/corefile.py) on the real file system, which remembers what it saw.

    So whatever the configuration was made of is what is watched, without a list of its own.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[Callable[[str], object], str], object] = {}

    def read_text(self, path: str) -> str:
        """Returns the whole text; raises OSError, or ValueError when it is no UTF-8 or too big."""
        self._note(_signature, path)  # before reading: what changes meanwhile is read once more
        with Path(path).open("rb") as file:
            octets = file.read(_MAX_OCTETS + 1)
        if len(octets) > _MAX_OCTETS:
            raise ValueError("it is longer than 4 MiB")
        return octets.decode("utf-8")

    def glob(self, pattern: str) -> list[str]:
        """Returns the paths that match, sorted, without hidden files."""
        self._note(_glob, pattern)
        return _glob(pattern)

    def exists(self, path: str) -> bool:
        """Returns whether there is such a file or directory."""
        self._note(_exists, path)
        return _exists(path)

    def has_changed(self) -> bool:
        """Returns whether reading everything again could give something else."""
        return any(look(path) != seen for (look, path), seen in list(self._seen.items()))

    def _note(self, look: Callable[[str], object], path: str) -> None:
        if (look, path) not in self._seen:
            self._seen[look, path] = look(path)


def _signature(path: str) -> object:
    """What changes when a file is written, replaced, or its symbolic link points elsewhere."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat costs twice as much, each second
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern))  # noqa: PTH207 - Path.glob takes no absolute pattern


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def write_whole(path: str, text: str) -> None:
    """Writes ``text`` to ``path`` so that a reader sees the old or the new file, never a part.

    Raises OSError; then ``path`` is as it was.
    """
    target = Path(path).resolve()
    draft = target.with_name(f".{target.name}.new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
