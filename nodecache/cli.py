"""The command line's entry: runs a command, or reads the configuration and serves.

Exit codes: 0 served to the end, 1 the machine refused something, 2 the configuration is wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import nodecache
from nodecache.commands.output import (
    EXIT_CONFIGURATION,
    EXIT_GOOD,
    EXIT_MACHINE,
    write,
    write_error,
)
from nodecache.config.flags import Flags, help_text, parse_flags
from nodecache.config.model import Config
from nodecache.config.values import nearest
from nodecache.directives.table import PLUGINS
from nodecache.errors import ConfigError, Fault, NodeError, SocketError
from nodecache.loading import Source
from nodecache.printing import printable, shown
from nodecache.serving.last_good import load_first

if TYPE_CHECKING:
    from nodecache.process.channel import KeeperLink

_COMMANDS_HELP = """
Commands, in place of flags:
  nodecache check Corefile      says what is wrong in a Corefile or a ConfigMap, with exit codes
  nodecache explain Corefile    says in plain words what a Corefile comes to, defaults included
  nodecache doctor              says what is wrong with DNS on this node or in a pod
  nodecache top                 shows who asks what on this node at present, live
  nodecache webhook             has the API server make new pods use the cache on their node
  nodecache cleanup             takes rules, interface and files of nodecache off this node
  nodecache probe               tells by its exit code whether this pod's nodecache serves
  nodecache help check          tells more about a command
"""


def main(argv: Sequence[str] | None = None, link: KeeperLink | None = None) -> int:
    """Runs nodecache with the given words, or those of the process; returns the exit code.

    ``link`` leads to the keeper, if one started us.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        return _run_command(words[0], words[1:])
    flags, faults = parse_flags(words)
    information = _information(flags)
    if information:
        write(information)
        return EXIT_GOOD
    if faults:
        return _refuse_flags(flags, faults)
    source = Source(flags, os.environ)
    try:
        config = load_first(source, flags.rundir)
    except ConfigError as error:
        return _refuse(error.faults, source)
    return _serve(config, source, link)


def _run_command(name: str, words: list[str]) -> int:
    if name in _COMMANDS:
        return _COMMANDS[name](words)
    hint = nearest(name, _COMMANDS) or f"; there are: {', '.join(_COMMANDS)}"
    write_error(f"nodecache: there is no command {shown(name)}{hint}\n")
    return EXIT_CONFIGURATION


def _check(words: list[str]) -> int:
    from nodecache.commands.check import check  # noqa: PLC0415 # see below

    return check(words)


def _explain(words: list[str]) -> int:
    from nodecache.commands.explain import explain  # noqa: PLC0415 # see below

    return explain(words)


def _cleanup(words: list[str]) -> int:
    from nodecache.commands.cleanup import cleanup  # noqa: PLC0415 # see below

    return cleanup(words)


def _doctor(words: list[str]) -> int:
    from nodecache.commands.doctor.command import doctor  # noqa: PLC0415 # see below

    return doctor(words)


def _top(words: list[str]) -> int:
    from nodecache.commands.top.command import top  # noqa: PLC0415 # see below

    return top(words)


def _webhook(words: list[str]) -> int:
    from nodecache.commands.webhook import webhook  # noqa: PLC0415 # see below

    return webhook(words)


def _help(words: list[str]) -> int:
    """``nodecache help``, alone or with the name of a command."""
    if words:
        return _run_command(words[0], ["-help"] if words[0] != "help" else [])
    write(help_text() + _COMMANDS_HELP)
    return EXIT_GOOD


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "check": _check,
    "cleanup": _cleanup,
    "doctor": _doctor,
    "explain": _explain,
    "help": _help,
    "top": _top,
    "webhook": _webhook,
}


def _information(flags: Flags) -> str:
    """What -help, -version or -plugins print, or ""."""
    if flags.help:
        return help_text() + _COMMANDS_HELP
    if flags.version:
        return f"nodecache {nodecache.__version__}\n"
    if flags.plugins:
        rows = [f"{name:<12}  {plugin.effect}\n" for name, plugin in sorted(PLUGINS.items())]
        return "".join(rows)
    return ""


# Imports below stand where they are needed: serving does without commands/, and faults and
# --help do not wait for the event loop's libraries.


def _refuse_flags(flags: Flags, faults: list[Fault]) -> int:
    """Shows the faults of the command line, and those of the files that it names."""
    from nodecache.commands.inspection import find_faults  # noqa: PLC0415

    more, excerpts = find_faults(flags)
    write_error("".join(map(excerpts.show_fault, [*faults, *more])))
    return EXIT_CONFIGURATION


def _refuse(faults: Sequence[Fault], source: Source) -> int:
    from nodecache.commands.excerpt import Excerpts  # noqa: PLC0415

    write_error("".join(map(Excerpts(source.text, source.reader).show_fault, faults)))
    return EXIT_CONFIGURATION


def _serve(config: Config, source: Source, link: KeeperLink | None) -> int:
    from nodecache.process.start import run  # noqa: PLC0415

    try:
        return run(config, source, link)
    except (SocketError, NodeError) as error:
        write_error(f"nodecache: {printable(str(error))}\n")
        return EXIT_MACHINE
