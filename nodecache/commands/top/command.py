"""Runs ``nodecache top``: asks the daemon again and again, and shows what it says."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nodecache.commands.output import (
    EXIT_CONFIGURATION,
    EXIT_GOOD,
    EXIT_MACHINE,
    write,
    write_error,
)
from nodecache.commands.running import ask_running
from nodecache.commands.top.report import SORTS, Said, lay_out
from nodecache.config.flags import Flags
from nodecache.errors import NotRunningError
from nodecache.printing import printable, shown

HELP = f"""\
nodecache top shows who asks what on this node at present: names, suffixes and clients by queries,
what the cache has and what upstreams take for it, what search lists of resolv.conf cost, slow
names, and the upstreams. The daemon looks at queries for this only while somebody looks at it; on
a busy node it looks at some and estimates the rest.

Usage: nodecache top [-once] [-json] [-interval SECONDS] [-sort ORDER] [-rundir FOLDER]

  -once      looks for one interval, prints what it saw, and ends.
  -json      prints what the daemon says as JSON, one line each time.
  -interval  seconds between two looks, 2 by default; from 0.5 to 10.
  -sort      names by {", ".join(SORTS)}; queries by default. cost is time that
             upstreams took, denied is NXDOMAIN.
  -rundir    of the daemon, {Flags().rundir} by default.

While it runs: q ends it, n, c and d sort names by queries, cost and denied.

HITS are answers from the cache; ASKED, TIME and FAILED are exchanges with upstreams. GAVE UP counts
stubs that were told SERVFAIL, or had asked again before the answer came. Slow names are those since
the daemon started; everything else is of the last ten to twenty seconds.

Examples:
  kubectl -n kube-system exec -it POD -- nodecache top
  nodecache top -once -sort denied
  nodecache top -once -json

Exit codes: 0 shown, 1 no daemon to look at, 2 words that are not understood.
"""

_INTERVALS_S = (0.5, 10.0)
_KEYS = dict(zip("ncd", SORTS, strict=True))
_CLEAR, _ENTER, _LEAVE = "\x1b[H\x1b[2J", "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@dataclass(slots=True)
class Wish:
    """What the words ask for."""

    rundir: str = Flags().rundir
    interval_s: float = 2.0
    sort: str = SORTS[0]
    is_once: bool = False
    is_json: bool = False


def top(words: Sequence[str]) -> int:
    """Runs ``nodecache top`` with the words behind it; returns the exit code."""
    if any(word.lstrip("-") in ("help", "h") and word.startswith("-") for word in words):
        write(HELP)
        return EXIT_GOOD
    try:
        wish = read_words(words)
    except ValueError as error:
        write_error(f"nodecache top: {error}; see nodecache top -help\n")
        return EXIT_CONFIGURATION
    try:
        _run(wish)
    except NotRunningError as error:
        write_error(f"nodecache top: {printable(str(error))}\n")
        return EXIT_MACHINE
    except KeyboardInterrupt:
        pass
    return EXIT_GOOD


def read_words(words: Sequence[str]) -> Wish:
    """Returns what ``words`` ask for; raises ValueError with what is wrong."""
    wish, left = Wish(), list(words)
    while left:
        name, equals, value = left.pop(0).partition("=")
        bare = name.removeprefix("-").removeprefix("-") if name.startswith("-") else ""
        if bare in ("once", "json") and not equals:
            wish.is_once |= bare == "once"
            wish.is_json |= bare == "json"
            continue
        if bare not in ("interval", "sort", "rundir"):
            raise ValueError(f"{shown(name)} is not understood")
        if not equals:
            if not left:
                raise ValueError(f"-{bare} needs a value")
            value = left.pop(0)
        _take(wish, bare, value)
    return wish


def _take(wish: Wish, name: str, value: str) -> None:
    if name == "rundir":
        wish.rundir = value
    elif name == "sort":
        if value not in SORTS:
            raise ValueError(f"-sort is one of {', '.join(SORTS)}, not {shown(value)}")
        wish.sort = value
    else:
        least, most = _INTERVALS_S
        with suppress(ValueError):
            if least <= float(value) <= most:
                wish.interval_s = float(value)
                return
        raise ValueError(f"-interval is seconds from {least:g} to {most:g}, not {shown(value)}")


def _run(wish: Wish) -> None:
    said = _ask(wish)
    if wish.is_once:
        if said["is_new"]:
            time.sleep(wish.interval_s)
            said = _ask(wish)
        write(_text(wish, said))
        return
    if wish.is_json or not _is_terminal():
        while True:
            time.sleep(wish.interval_s)
            write(_text(wish, _ask(wish)))
    with _screen():
        while True:
            size = shutil.get_terminal_size()
            page = lay_out(said, wish.sort, size.columns, size.lines - 1)
            write(_CLEAR + "\r\n".join(page))
            key = _key_within(wish.interval_s)
            if key in ("q", "\x03", "\x04"):
                return
            wish.sort = _KEYS.get(key, wish.sort)
            said = _ask(wish)


def _ask(wish: Wish) -> Said:
    said: Said = ask_running(Path(wish.rundir), "/top")
    return said


def _text(wish: Wish, said: Said) -> str:
    if wish.is_json:
        return json.dumps(said) + "\n"
    return "\n".join(lay_out(said, wish.sort, shutil.get_terminal_size().columns)) + "\n\n"


def _is_terminal() -> bool:
    is_dumb = os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdin.isatty() and sys.stdout.isatty() and not is_dumb


@contextmanager
def _screen() -> Iterator[None]:
    """Takes the terminal for itself, and gives it back as it was."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSADRAIN)  # what was typed already counts
        write(_ENTER)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        write(_LEAVE)


def _key_within(seconds: float) -> str:
    """Returns a key that is pressed in time, "" for none."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode("ascii", "replace") if ready else ""
