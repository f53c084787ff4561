"""``nodecache cleanup``: takes away what nodecache and node-cache have put on a node."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
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
from nodecache.host.listeners import who_serves
from nodecache.host.tool import Report, run_tool
from nodecache.printing import printable
from nodecache.process.handover import SOCKET_FILE
from nodecache.process.rundir import SERVING_FILE
from nodecache.process.warm_start import FILE_NAME as CACHE_FILE
from nodecache.serving.last_good import FILE_NAME as LAST_GOOD_FILE

_NOW = "now"
_LIMIT_S = 20.0
_CONNECT_S = 1.0
_MOST_SHOWN = 4

HELP = f"""\
nodecache cleanup takes away what nodecache, and node-cache before it, have put on this node:
packet filter rules in every backend, the interface or the addresses on it, and what is left in
-rundir. It says each thing that it removed. What others made stays.

Usage: nodecache cleanup [{_NOW}] [FLAGS]

  {_NOW}      also while somebody serves here: a nodecache puts everything back unless it ends
           first, anybody else on the DNS port of these addresses loses their queries.
  FLAGS    those of nodecache (see nodecache help), so that the args of a DaemonSet can be pasted
           here; what counts are -localip, -dns.port, -health-port, -interfacename and -rundir.
           Without -localip, node-cache's rules and addresses on links of others are not looked for,
           and who has the DNS port of any address but 127.0.0.1 and the like is said to serve.

Examples, as root on the node, after the DaemonSet is gone:
  nodecache cleanup -localip 169.254.20.10,10.96.0.10
  nodecache cleanup -localip 169.254.20.10,fd00::10 -interfacename nodelocaldns -rundir=

Pods whose resolv.conf names a removed address get no answer from then on: restart them first.

Run it wherever the node's network is, a debug pod included: who serves is asked of the sockets.
In a debug pod the node's -rundir is elsewhere: say -rundir /host/run/nodecache where /host is the
node's root (kubectl debug node/NAME --profile=sysadmin), or what is in it stays.

Exit codes: 0 nothing is left, 1 something could not be removed or somebody serves, 2 faults in
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
    plan = _plan(flags)
    if not is_now and (serving := _who_serves(flags, plan)):
        return _refuse(serving)
    report = asyncio.run(run_tool("cleanup", plan, _LIMIT_S))
    files, complaints = _clear_rundir(Path(flags.rundir)) if flags.rundir else ([], [])
    return _tell(flags, report, files, complaints)


def _plan(flags: Flags) -> NodePlan:
    hosts = [host for host in flags.localip if host != STAND_IN and "%" not in host]
    return NodePlan(
        flags.interface_name, tuple(hosts), flags.dns_port, flags.health_port, flags.rules
    )


def _who_serves(flags: Flags, plan: NodePlan) -> str:
    """Returns who serves here, and how that is known; "" if nobody does."""
    if flags.rundir and _is_awaited(Path(flags.rundir)):
        return f"a nodecache serves here ({Path(flags.rundir) / SOCKET_FILE} answers)"
    try:
        # It may have been told to listen without an address: we know nothing of its Corefile.
        found = who_serves(replace(plan, is_wildcard=True))
    except OSError as error:
        return f"somebody may serve here ({str(error).lower()})"
    return f"somebody serves at {', '.join(found[:_MOST_SHOWN])}" if found else ""


def _refuse(serving: str) -> int:
    write_error(
        f"nodecache: {printable(serving)}: end it first, or write nodecache cleanup {_NOW};"
        " nothing was removed\n"
    )
    return EXIT_MACHINE


def _is_awaited(rundir: Path) -> bool:
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
_AS_BY_DEFAULT = Flags().rundir
_NAMES = "|".join(map(re.escape, (SOCKET_FILE, LAST_GOOD_FILE, CACHE_FILE, SERVING_FILE)))
_OURS = re.compile(rf"\.?({_NAMES})(\.\w{{1,16}})?")


def _clear_rundir(rundir: Path) -> tuple[list[str], list[str]]:
    """Removes our files, and the folder if it is empty then; returns them, and complaints.

    Another may write there: the folder is opened once, and no symbolic link is followed.
    """
    removed: list[str] = []
    try:
        folder = os.open(rundir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [_complaint(rundir, error)]
    try:
        for name in _our_files(folder):
            os.unlink(name, dir_fd=folder)
            removed.append(f"file {rundir / name}")
    except OSError as error:
        return removed, [_complaint(rundir, error)]
    finally:
        os.close(folder)
    # Not if it is a mount point, as in a container, or if others have files there.
    with suppress(OSError):
        rundir.rmdir()
        removed.append(f"folder {rundir}")
    return removed, []


def _complaint(rundir: Path, error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return f"{rundir} is no folder but a link or a file: name the folder in -rundir"
    return f"{rundir}: {(error.strerror or str(error)).lower()}"


def _our_files(folder: int) -> Iterator[str]:
    for name in sorted(os.listdir(folder)):
        if _OURS.fullmatch(name):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
                yield name


def _tell(flags: Flags, report: Report, files: list[str], complaints: list[str]) -> int:
    removed = [*report.removed, *files]
    lines = [f"removed: {what}" for what in removed] + list(report.notes)
    if STAND_IN in flags.localip:
        text = "-localip was not given: node-cache's rules and addresses on links of others"
        lines.append(f"{text} were not looked for")
    if flags.rundir and not files and not os.path.lexists(flags.rundir):
        elsewhere = f"-rundir /host{_AS_BY_DEFAULT}"
        lines.append(f"{flags.rundir} is not here; a debug pod may have the node's by {elsewhere}")
    errors = [text for text in (report.error, *complaints) if text]
    if not removed and not errors:
        lines.append("nothing to remove")
    write("".join(f"{printable(line)}\n" for line in lines))
    write_error("".join(f"nodecache: {printable(error)}\n" for error in errors))
    return EXIT_MACHINE if errors else EXIT_GOOD
