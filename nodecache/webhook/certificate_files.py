"""Certificate and key in files that somebody else renews: kubelet, for cert-manager or Helm."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from nodecache.errors import CertificateError
from nodecache.files import read_regular
from nodecache.printing import moment
from nodecache.webhook.identity import MOST_OCTETS, ServerIdentity

LOOK_S = 1.0

logger = logging.getLogger(__name__)

# Which file a path leads to, and whether it was written since: device, inode, size, nanoseconds.
_Mark = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where they are; symbolic links are followed, as those of a Secret's volume."""

    certificate: str
    key: str


async def watch_files(files: CertificateFiles, identity: ServerIdentity) -> None:
    """Loads the pair, and again each second in which a file has changed, until cancelled."""
    watch = FileWatch(files, identity.load)
    while True:
        if watch.look() and identity.not_after is not None:
            end = moment(identity.not_after)
            logger.info("serves the certificate in %s, which ends %s", files.certificate, end)
        await asyncio.sleep(LOOK_S)


class FileWatch:
    """What was seen of the files.

    Args:
        files: Where they are.
        on_pair: Called with certificates and key when there is something new to load.
    """

    def __init__(self, files: CertificateFiles, on_pair: Callable[[bytes, bytes], None]) -> None:
        self._files = files
        self._on_pair = on_pair
        self._loaded: tuple[_Mark, _Mark] | None = None
        self._complaint = ""
        self._told = ""

    def look(self) -> bool:
        """Returns whether a new pair was loaded; says what is wrong, once.

        Between two looks one file may be exchanged and the other not yet. So a fault is told only
        when it stands at the second look.
        """
        try:
            is_new = self._load()
        except (OSError, ValueError, CertificateError) as error:
            self._complain(_wording(error))
            return False
        self._complaint = self._told = ""
        return is_new

    def _load(self) -> bool:
        marks = _mark(self._files.certificate), _mark(self._files.key)
        if marks == self._loaded:
            return False
        chain_pem = read_regular(self._files.certificate, MOST_OCTETS)
        key_pem = read_regular(self._files.key, MOST_OCTETS)
        self._on_pair(chain_pem, key_pem)
        self._loaded = marks
        return True

    def _complain(self, text: str) -> None:
        if text == self._complaint and text != self._told:
            paths = f"{self._files.certificate} and {self._files.key}"
            logger.error("certificate and key in %s: %s; looking again each second", paths, text)
            self._told = text
        self._complaint = text


def _mark(path: str) -> _Mark:
    found = os.stat(path)  # noqa: PTH116 - a str, not a Path
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _wording(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror.lower()}"
    return str(error)
