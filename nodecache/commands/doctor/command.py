"""The command line of ``nodecache doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodecache.commands.doctor.examine import Order, examine
from nodecache.commands.doctor.judge import judge
from nodecache.commands.doctor.report import exit_code, to_json, to_text
from nodecache.commands.output import (
    EXIT_CONFIGURATION,
    EXIT_GOOD,
    EXIT_MACHINE,
    write,
    write_error,
)
from nodecache.commands.request import STAND_IN
from nodecache.config.flags import parse_flags
from nodecache.printing import printable

_MOST_OCTETS = 65536

HELP = """\
nodecache doctor says what is wrong with DNS on this node or in a pod: the likeliest cause first,
each finding with what to do next. It changes nothing, and takes ten seconds at most.

Usage: nodecache doctor [-json] [-pid PID | -resolvconf FILE] [FLAGS]

  -json             one line of JSON; docs/doctor.md has its keys and the names of all findings.
  -pid PID          also judges the resolv.conf of this process, and asks its servers from within
                    its network: for a process of a pod, as the node numbers it.
  -resolvconf FILE  also judges this resolv.conf.
  FLAGS             those of nodecache (see nodecache help). The running daemon's own count; these
                    are for a node where none runs, and to have it looked for at another -rundir.
                    A -localip that is not the daemon's is a finding.

It looks at: the daemon, its version and what it says of itself; interface and addresses; who has
the DNS port; the rules of nodecache, node-cache, kube-proxy and others; who answers at each of
nodecache's addresses; each upstream over UDP and TCP; connection tracking, limits, queues.

Examples:
  kubectl -n kube-system exec POD -- nodecache doctor
  nodecache doctor -pid $(crictl inspect -o go-template --template '{{.info.pid}}' CONTAINER)
  nodecache doctor -localip 169.254.20.10,10.96.0.10    # no daemon runs: should one?

In nodecache's pod it sees all but processes of others. What it could not look at, it says.

Exit codes: 0 nothing is wrong, 3 something is broken, 4 something is doubtful and nothing broken,
1 PID or FILE cannot be read, 2 faults in the words.
"""


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of this command, and those of the daemon."""

    is_json: bool = False
    pid: str = ""
    resolvconf: str = ""
    flags: tuple[str, ...] = ()


def doctor(words: Sequence[str]) -> int:
    """Runs ``nodecache doctor`` with the words behind it; returns the exit code."""
    read = _read_words(words)
    flags, faults = parse_flags(("-localip", STAND_IN, *read.flags))
    if flags.help:
        write(HELP)
        return EXIT_GOOD
    complaint = _complaint(read)
    if faults or complaint:
        lines = [*map(str, faults), *([complaint] if complaint else [])]
        write_error("".join(f"{printable(line)}\n" for line in lines))
        return EXIT_CONFIGURATION
    path = f"/proc/{read.pid}/root/etc/resolv.conf" if read.pid else read.resolvconf
    try:
        text = _read_file(path) if path else ""
    except OSError as error:
        write_error(f"nodecache: {printable(path)}: {str(error.strerror or error).lower()}\n")
        return EXIT_MACHINE
    order = Order(flags, STAND_IN not in flags.localip, int(read.pid or 0), path, text)
    seen = asyncio.run(examine(order))
    findings = judge(seen)
    write(to_json(seen, findings) if read.is_json else to_text(seen, findings))
    return exit_code(findings)


def _read_words(words: Sequence[str]) -> _Words:
    """Parts our own words from the daemon's."""
    is_json, values, flags = False, {"pid": "", "resolvconf": ""}, list[str]()
    left = list(words[::-1])
    while left:
        word = left.pop()
        name, equals, value = word.lstrip("-").partition("=")
        if word in ("-json", "--json"):
            is_json = True
        elif word.startswith("-") and name in values:
            values[name] = value if equals else left.pop() if left else " "
        else:
            flags.append(word)
    return _Words(is_json, **values, flags=tuple(flags))


def _complaint(read: _Words) -> str:
    """Returns what is wrong with the words of this command, "" if nothing is."""
    if read.pid and not (read.pid.isascii() and read.pid.isdigit()):
        return "-pid takes the number of a process: -pid 4711"
    if read.resolvconf == " ":
        return "-resolvconf takes a file: -resolvconf /etc/resolv.conf"
    if read.pid and read.resolvconf:
        return "-pid and -resolvconf name two files; give one of them"
    return ""


def _read_file(path: str) -> str:
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        return file.read(_MOST_OCTETS)
