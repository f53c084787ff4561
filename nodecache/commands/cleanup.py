"""``nodecache cleanup``: takes away what nodecache and node-cache have put on a node."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from nodecache.commands.output import (
    EXIT_CONFIGURATION,
    EXIT_GOOD,
    EXIT_MACHINE,
    write,
    write_error,
)
from nodecache.commands.request import STAND_IN
from nodecache.config.flags import Flags, parse_flags
from nodecache.config.node import NodePlan
from nodecache.config.values import printable
from nodecache.host.tool import Report, run_tool
from nodecache.net.handover import SOCKET_FILE

_NOW = "now"
_LIMIT_S = 20.0
_CONNECT_S = 1.0

HELP = f"""\
nodecache cleanup takes away what nodecache, and node-cache before it, have put on this node:
packet filter rules in every backend, the interface or the addresses on it, and what is left in
-rundir. It says each thing that it removed. What others made stays.

Usage: nodecache cleanup [{_NOW}] [FLAGS]

  {_NOW}      also while a nodecache serves here, which puts everything back unless it ends first.
  FLAGS    those of nodecache (see nodecache help), so that the args of a DaemonSet can be pasted
           here; what counts are -localip, -dns.port, -health-port, -interfacename and -rundir.
           Without -localip, node-cache's rules and addresses on links of others are not looked for.

Examples, as root on the node, after the DaemonSet is gone:
  nodecache cleanup -localip 169.254.20.10,10.96.0.10
  nodecache cleanup -localip 169.254.20.10,fd00::10 -interfacename nodelocaldns -rundir=

Pods whose resolv.conf names a removed address get no answer from then on: restart them first.

Exit codes: 0 nothing is left, 1 something could not be removed or a nodecache serves, 2 faults in
FLAGS.
"""


def cleanup(words: Sequence[str]) -> int:
    """Runs ``nodecache cleanup`` with the words behind it; returns the exit code."""
    is_now = words[:1] == [_NOW]
    # parse_flags demands -localip; if it is given, it comes later and counts.
    flags, faults = parse_flags(["-localip", STAND_IN, *words[is_now:]])
    if flags.help:
        write(HELP)
        return EXIT_GOOD
    if faults:
        write_error("".join(f"{printable(str(fault))}\n" for fault in faults))
        return EXIT_CONFIGURATION
    if not is_now and flags.rundir and _is_served(Path(flags.rundir)):
        return _refuse(flags)
    report = asyncio.run(run_tool("cleanup", _plan(flags), _LIMIT_S))
    files, complaints = _clear_rundir(Path(flags.rundir)) if flags.rundir else ([], [])
    return _tell(flags, report, files, complaints)


def _plan(flags: Flags) -> NodePlan:
    hosts = [host for host in flags.localip if host != STAND_IN and "%" not in host]
    return NodePlan(
        flags.interface_name, tuple(hosts), flags.dns_port, flags.health_port, flags.rules
    )


def _refuse(flags: Flags) -> int:
    place = printable(str(Path(flags.rundir) / SOCKET_FILE))
    write_error(
        f"nodecache: a nodecache serves here ({place} answers): end it first, or write"
        f" nodecache cleanup {_NOW}; nothing was removed\n"
    )
    return EXIT_MACHINE


def _is_served(rundir: Path) -> bool:
    """Whether somebody listens for successors; we say nothing, and so change nothing for him."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.settimeout(_CONNECT_S)
        try:
            caller.connect(str(rundir / SOCKET_FILE))
        except TimeoutError:
            return True  # somebody is there, and hangs
        except OSError as error:
            # Another kind of socket, or a full queue: that is somebody, too.
            return error.errno in (errno.EPROTOTYPE, errno.EAGAIN)
    return True


# What the daemon keeps in -rundir, also half written under a temporary name.
_OURS = re.compile(rf"({re.escape(SOCKET_FILE)}|cache|serving)(\.\w{{1,16}})?")


def _clear_rundir(rundir: Path) -> tuple[list[str], list[str]]:
    """Removes our files, and the folder if it is empty then; returns them, and complaints."""
    removed: list[str] = []
    try:
        for path in _our_files(rundir):
            path.unlink()
            removed.append(f"file {path}")
    except OSError as error:
        return removed, [f"{rundir}: {(error.strerror or str(error)).lower()}"]
    # Not if it is a mount point, as in a container, or if others have files there.
    with suppress(OSError):
        rundir.rmdir()
        removed.append(f"folder {rundir}")
    return removed, []


def _our_files(rundir: Path) -> Iterator[Path]:
    if rundir.is_dir():
        for path in sorted(rundir.iterdir()):
            mode = path.lstat().st_mode
            if _OURS.fullmatch(path.name) and (stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
                yield path


def _tell(flags: Flags, report: Report, files: list[str], complaints: list[str]) -> int:
    removed = [*report.removed, *files]
    lines = [f"removed: {what}" for what in removed] + list(report.notes)
    if STAND_IN in flags.localip:
        text = "-localip was not given: node-cache's rules and addresses on links of others"
        lines.append(f"{text} were not looked for")
    errors = [text for text in (report.error, *complaints) if text]
    if not removed and not errors:
        lines.append("nothing to remove")
    write("".join(f"{printable(line)}\n" for line in lines))
    write_error("".join(f"nodecache: {printable(error)}\n" for error in errors))
    return EXIT_MACHINE if errors else EXIT_GOOD
