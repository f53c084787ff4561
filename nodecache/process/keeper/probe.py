"""``nodecache probe``: whether this pod's daemon is the one that serves, for a startup probe.

The kubelet runs it in the container again and again, so it imports next to nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_RUNDIR = "/run/nodecache"
_MOST_OCTETS = 4096
_USAGE = """\
Usage: nodecache probe [-rundir FOLDER]

Ends with 0 if the daemon of this pod serves, else with 1 and a line that says why. What serves is
in FOLDER/serving (default /run/nodecache); this pod is $POD_UID. Without that variable, any daemon
will do.
"""


def probe(words: Sequence[str]) -> int:
    """Runs ``nodecache probe``; returns the exit code: 0 yes, 1 no, 2 wrong words."""
    if words and words[0].lstrip("-") in ("h", "help"):
        sys.stdout.write(_USAGE)
        return 0
    rundir = _read_words(words)
    if rundir is None:
        sys.stderr.write(_USAGE)
        return 2
    complaint = _complaint(rundir, os.environ.get("POD_UID", "").strip())
    if complaint:
        sys.stderr.write(f"nodecache: {complaint}\n")
    return int(bool(complaint))


def _read_words(words: Sequence[str]) -> str | None:
    """Returns the folder, None if the words make no sense."""
    rest = list(words)
    rundir = _RUNDIR
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in ("-rundir", "--rundir") or not (equals or rest):
            return None
        rundir = value if equals else rest.pop(0)
    return rundir


def _complaint(rundir: str, pod_uid: str) -> str:
    """Returns "" if who serves is us."""
    if not rundir:
        return "-rundir is empty, so nobody can tell who serves; give a folder"
    path = f"{rundir}/serving"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return f"nobody serves yet: {path}: {_reason(error)}"
    try:
        serving = os.read(descriptor, _MOST_OCTETS).decode("utf-8", "replace").strip()
    except OSError as error:
        return f"{path} cannot be read: {_reason(error)}"
    finally:
        os.close(descriptor)
    if not serving:
        return f"nobody serves yet: {path} is empty"
    if pod_uid not in ("", serving):
        return f"another pod serves: {_plain(serving)}, and this is {_plain(pod_uid)}"
    return ""


def _plain(text: str) -> str:
    """Returns ``text`` so that any terminal can show it; its quotes would look like part of it."""
    return ascii(text)[1:-1][:80]


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
