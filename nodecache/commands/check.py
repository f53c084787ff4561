"""``nodecache check``: says what is wrong with a configuration, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence

from nodecache.commands.inspection import Inspection, inspect
from nodecache.commands.output import (
    EXIT_CONFIGURATION,
    EXIT_GOOD,
    EXIT_MACHINE,
    counted,
    write,
    write_error,
)
from nodecache.commands.request import STAND_IN, Request, read_request
from nodecache.printing import printable

HELP = f"""\
nodecache check says whether nodecache would take a configuration, and shows all that is wrong
with it. It starts nothing, binds nothing and writes nothing.

Usage: nodecache check [-strict] [FLAGS] [FILE...]

  FILE     a Corefile, "-" for standard input, or the folder of a kube-dns ConfigMap; a folder
           beside Corefiles is checked together with each of them. Without FILE: what
           -basecorefile, -conf and -kubednscm name. With neither FILE nor FLAGS: those of the
           nodecache that runs here, with its environment, else the defaults.
  FLAGS    those of nodecache (see nodecache help), so that the args of a DaemonSet can be pasted
           here. With -localip they are judged, too; without, {STAND_IN} stands in for it.
  -strict  warnings count as faults.

Examples:
  nodecache check Corefile
  nodecache check Corefile kube-dns/
  nodecache check -localip 169.254.20.10,10.96.0.10 -upstreamsvc kube-dns-upstream \\
      Corefile
  kubectl -n kube-system get configmap node-local-dns -o jsonpath='{{.data.Corefile}}' \\
      | KUBE_DNS_SERVICE_HOST=10.96.0.10 nodecache check -strict -

Faults and warnings go to standard output, as from other linters: FILE:LINE:COLUMN: TEXT, then the
line and a caret below the place; at the end one line for each FILE. What cannot be read is said on
standard error. Looked at are the files, interfaces and environment of this machine; a Service whose
<NAME>_SERVICE_HOST the environment lacks is a warning. Relative imports begin at the folder of
-conf, as in the daemon, without -conf at that of FILE; other paths at the working directory.

Exit codes: 0 good, 2 faults, 1 a FILE cannot be read at all (the others are checked).
"""


def check(words: Sequence[str]) -> int:
    """Runs ``nodecache check`` with the words behind it; returns the exit code."""
    request = read_request(words)
    if request.flags.help:
        write(HELP)
        return EXIT_GOOD
    write(request.origin)
    for fault in request.faults:
        write(f"{printable(str(fault))}\n")
    inspections = look(request)
    for found in inspections:
        if found.unreadable:
            write_error(unreadable_line(found))
        else:
            write(found.show())
    write(_summary(request, inspections))
    return _exit_code(request, inspections)


def look(request: Request) -> list[Inspection]:
    """Looks at all targets; not at the default file if a faulty flag may have named another."""
    found = [inspect(target) for target in request.targets]
    is_default = not request.targets[0].label
    return [] if is_default and request.faults and found[0].unreadable else found


def unreadable_line(found: Inspection) -> str:
    """Returns what to say of something that cannot be read."""
    return printable(f"{found.label}: {found.unreadable}") + "\n"


def _summary(request: Request, inspections: list[Inspection]) -> str:
    lines = [f"command line: {counted(len(request.faults), 'fault')}\n"] if request.faults else []
    for found in inspections:
        if not found.unreadable:
            end = " (-strict: faults)\n" if request.is_strict and found.warnings else "\n"
            lines.append(printable(found.summary().rstrip("\n")) + end)
    return "".join(lines)


def _exit_code(request: Request, inspections: list[Inspection]) -> int:
    if any(found.unreadable for found in inspections):
        return EXIT_MACHINE
    faults = [*request.faults, *(fault for found in inspections for fault in found.faults)]
    warnings = [warning for found in inspections for warning in found.warnings]
    is_wrong = faults or (request.is_strict and warnings)
    return EXIT_CONFIGURATION if is_wrong else EXIT_GOOD
