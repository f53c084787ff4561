"""One look at a configuration as it stands: what is wrong with it, and what it comes to.

Reads files; starts, binds and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodecache.commands.excerpt import Excerpts
from nodecache.commands.output import counted
from nodecache.commands.request import Target
from nodecache.config.assemble import CorefileText, assemble, read_template
from nodecache.config.corefile import reason
from nodecache.config.flags import Flags
from nodecache.config.kubedns import read_kubedns
from nodecache.config.lexer import Report, split_lines
from nodecache.config.model import Config
from nodecache.directives.table import PLUGINS
from nodecache.errors import ConfigError, Fault
from nodecache.files import read_stream
from nodecache.loading import MAX_OCTETS, FileReader


class OnceReader(FileReader):
    """Reads each file once, so that standard input can be shown, too, and knows which it read.

    Args:
        stream: A path that may be a pipe or a terminal, because the user named it and waits.

    Attributes:
        failures: Path -> why it could not be read.
    """

    def __init__(self, stream: str = "") -> None:
        super().__init__()
        self._stream = stream
        self.failures: dict[str, OSError | ValueError] = {}
        self._texts: dict[str, str] = {}

    @property
    def paths(self) -> list[str]:
        """The files that were read, in their order."""
        return list(self._texts)

    def read_text(self, path: str) -> str:
        """Returns the text; raises OSError or ValueError, as before if it did so before."""
        if path in self.failures:
            raise self.failures[path]
        if path not in self._texts:
            try:
                self._texts[path] = super().read_text(path)
            except (OSError, ValueError) as error:
                self.failures[path] = error
                raise
        return self._texts[path]

    def _read(self, path: str) -> bytes:
        if path != self._stream:
            return super()._read(path)
        return read_stream(path, MAX_OCTETS)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        label: What the user calls it.
        reader: Which files were read.
        excerpts: Shows faults with their lines.
        faults: In file order.
        warnings: With faults, only those about variables and the ConfigMap.
        good: What to say if nothing is wrong.
        imports: Where relative imports begin, "" if there are none.
        config: None with faults, and of a ConfigMap alone.
        unreadable: Why there is nothing to look at, or "".
    """

    label: str
    reader: OnceReader
    excerpts: Excerpts
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    good: str = ""
    imports: str = ""
    config: Config | None = None
    unreadable: str = ""

    def show(self) -> str:
        """Returns all faults and warnings with their lines."""
        return "".join(
            [
                *map(self.excerpts.show_fault, self.faults),
                *map(self.excerpts.show_warning, self.warnings),
            ]
        )

    def summary(self) -> str:
        """Returns one line: how many faults and warnings, or what is good."""
        warnings = [counted(len(self.warnings), "warning")] if self.warnings else []
        imports = f", imports from {self.imports}" if self.imports else ""
        good = f"good; {self.good}{imports}"
        first = counted(len(self.faults), "fault") if self.faults else good
        return f"{self.label}: {', '.join([first, *warnings])}\n"


def inspect(target: Target) -> Inspection:
    """Looks at one target; raises nothing."""
    if target.is_folder:
        return _inspect_folder(target)
    return _inspect_corefile(target, OnceReader(target.flags.basecorefile))


def _inspect_folder(target: Target) -> Inspection:
    reader = OnceReader()
    found = read_kubedns(target.flags, reader)
    domains = counted(len(found.blocks), "stub domain")
    return Inspection(
        target.label,
        reader,
        Excerpts(CorefileText(""), reader),
        found.faults,
        found.warnings,
        good=f"{domains}, {counted(len(found.upstreams), 'upstream')}",
    )


def _inspect_corefile(target: Target, reader: OnceReader) -> Inspection:
    corefile = read_template(target.flags, target.environ, reader, folder=target.folder)
    label, excerpts = target.label or corefile.path, Excerpts(corefile, reader)
    error = reader.failures.get(corefile.path)
    if error is not None:
        return Inspection(label, reader, excerpts, unreadable=_why(error, target))
    try:
        config = assemble(
            target.flags,
            target.environ,
            reader,
            PLUGINS,
            template=corefile,
            resolve_interface=reader.addresses,
        )
    except ConfigError as refusal:
        return Inspection(label, reader, excerpts, tuple(refusal.faults), refusal.warnings)
    good = counted(len(config.blocks), "server block")
    imports = _import_folder(corefile, target)
    return Inspection(label, reader, excerpts, (), config.warnings, good, imports, config)


def _import_folder(corefile: CorefileText, target: Target) -> str:
    """Where relative imports begin, and that the daemon may have another folder for them."""
    lines = split_lines(corefile.filled.text, corefile.path, target.environ, Report())
    snippets = {line[0].text for line in lines}
    names = [line[1].text for line in lines if line[0].text == "import" and len(line) > 1]
    if all(name.startswith("/") or f"({name})" in snippets for name in names):
        return ""
    return corefile.folder + ("" if target.has_conf else " (the daemon: from the folder of -conf)")


def _why(error: Exception, target: Target) -> str:
    if target.is_running:
        hint = "; it is the running daemon's, so ask in its pod: kubectl exec POD -- nodecache ..."
    else:
        hint = "" if target.label else "; name another: -basecorefile FILE"
    return f"cannot read this: {reason(error)}{hint}"


def find_faults(flags: Flags) -> tuple[tuple[Fault, ...], Excerpts]:
    """Returns every fault of the files that ``flags`` name, and the lines they are about."""
    found = _inspect_corefile(Target(flags), OnceReader())
    return found.faults, found.excerpts
