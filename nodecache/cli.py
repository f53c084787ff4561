"""The command line's entry: reads the configuration, prints what is wrong with it, or serves.

Exit codes: 0 served to the end, 1 the machine refused something, 2 the configuration is wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import nodecache
from nodecache.config.assemble import Template, assemble, read_template, sorted_faults
from nodecache.config.corefile import Reader
from nodecache.config.directives import DIRECTIVES
from nodecache.config.flags import Flags, help_text, parse_flags
from nodecache.config.model import Config
from nodecache.config.values import printable
from nodecache.errors import ConfigError, Fault, SocketError
from nodecache.loading import FileReader, write_whole

EXIT_MACHINE = 1
EXIT_CONFIGURATION = 2

_MAX_EXCERPT = 120  # characters of a faulty line that are shown


def main(argv: Sequence[str] | None = None) -> int:
    """Runs nodecache with the given words, or those of the process; returns the exit code."""
    flags, faults = parse_flags(sys.argv[1:] if argv is None else argv)
    information = _information(flags)
    if information:
        sys.stdout.write(information)
        return 0
    reader = FileReader()
    template = read_template(flags, os.environ, reader)
    try:
        config = _configure(flags, faults, template, reader)
    except ConfigError as error:
        for fault in error.faults:
            sys.stderr.write(f"{printable(str(fault))}\n{_excerpt(fault, template, reader)}")
        return EXIT_CONFIGURATION
    return _serve(_with_written_corefile(config, flags, template))


def _information(flags: Flags) -> str:
    """What -help, -version or -plugins print, or ""."""
    if flags.help:
        return help_text()
    if flags.version:
        return f"nodecache {nodecache.__version__}\n"
    if flags.plugins:
        rows = [f"{name:<12}  {kind.effect}\n" for name, kind in sorted(DIRECTIVES.items())]
        return "".join(rows)
    return ""


def _configure(flags: Flags, faults: list[Fault], template: Template, reader: Reader) -> Config:
    """Raises ConfigError with the faults of the command line and of all files together."""
    environ: Mapping[str, str] = os.environ
    if faults and not reader.exists(template.path):
        # The flag that names the file may be among the faulty ones.
        raise ConfigError(faults)
    try:
        config = assemble(flags, environ, reader, template=template)
    except ConfigError as error:
        raise ConfigError(sorted_faults(faults + error.faults, template.path)) from None
    if faults:
        raise ConfigError(faults)
    return config


def _excerpt(fault: Fault, template: Template, reader: Reader) -> str:
    """The faulty line with a caret below the place, or "" when it cannot be shown."""
    if not fault.column:
        return ""
    try:
        text = template.text if fault.file == template.path else reader.read_text(fault.file)
        line = text.split("\n")[fault.line - 1]
    except (OSError, ValueError, IndexError):
        return ""
    start = max(0, fault.column - _MAX_EXCERPT // 2)
    part = "".join(c if c.isprintable() else " " for c in line[start : start + _MAX_EXCERPT])
    margin = f"{fault.line:>5} | "
    caret = " " * (len(margin) + fault.column - start - 1)
    return f"{margin}{part}\n{caret}^\n"


def _with_written_corefile(config: Config, flags: Flags, template: Template) -> Config:
    """Writes the filled Corefile to -conf, unless that is where it came from."""
    if not flags.conf or os.path.realpath(flags.conf) == os.path.realpath(template.path):
        return config
    try:
        write_whole(flags.conf, template.text)
    except OSError as error:
        warning = f"cannot write {flags.conf}: {error.strerror}; serving goes on without it"
        return replace(config, warnings=(*config.warnings, warning))
    return config


def _serve(config: Config) -> int:
    # Imported here, so that faults and --help do not wait for the event loop's libraries.
    from nodecache.daemon import run  # noqa: PLC0415

    try:
        return run(config)
    except SocketError as error:
        sys.stderr.write(f"nodecache: {printable(str(error))}\n")
        return EXIT_MACHINE
