"""From the machine to a Config, again and again: reads flags' files, knows when they changed.

The pure part is in config/; here are the file system and the order of things.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from nodecache.config.assemble import CorefileText, assemble, read_template
from nodecache.config.flags import Flags
from nodecache.config.kubedns import is_in_kubedns
from nodecache.config.model import Config
from nodecache.config.words import MAX_TEXT_CHARACTERS
from nodecache.counters import Counters
from nodecache.errors import ConfigError

_MAX_OCTETS = 4 * MAX_TEXT_CHARACTERS  # UTF-8 takes at most four octets a character


class Source:
    """All that one configuration after the other is made of: flags, environment, files.

    Attributes:
        reader: What the last ``load`` read through, kept until the next.
        has_left_out_kubedns: Whether the first ``load`` had to do without the ConfigMap.
        text: The Corefile that it read, for showing faulty lines.
        sha512: Of the Corefile last loaded, its variables filled, in hexadecimal.
    """

    def __init__(self, flags: Flags, environ: Mapping[str, str]) -> None:
        self.reader = FileReader()
        self.text = CorefileText(flags.basecorefile)
        self.sha512 = ""
        self.has_left_out_kubedns = False
        self._flags = flags
        self._environ = dict(environ)

    def learn(self, variable: str, value: str) -> None:
        """Fills in what the environment lacks, from the next ``load`` on."""
        self._environ[variable] = value

    def has_changed(self) -> bool:
        """Returns whether a file has changed since the last ``load``, successful or not."""
        return self.reader.has_changed()

    def load(self, *, is_first: bool = False) -> Config:
        """Returns the configuration as everything stands now, and writes -conf.

        A broken kube-dns ConfigMap is left out with ``is_first``, so that a node that starts has
        DNS; later it is refused like everything else, because then an older one is in force.

        Raises:
            ConfigError: With all faults; -conf is as it was.
        """
        self.reader = FileReader()
        try:
            return self._load(with_kubedns=True)
        except ConfigError as error:
            if not is_first or not all(map(is_in_kubedns, error.faults)):
                raise
            self.has_left_out_kubedns = True
            config = self._load(with_kubedns=False)
            faults = tuple(f"{fault}; the ConfigMap is left out" for fault in error.faults)
            return replace(config, warnings=(*faults, *config.warnings))

    def _load(self, *, with_kubedns: bool) -> Config:
        flags, environ, reader = self._flags, self._environ, self.reader
        self.text = text = read_template(flags, environ, reader, with_kubedns)
        config = assemble(flags, environ, reader, template=text, resolve_interface=reader.addresses)
        self.sha512 = hashlib.sha512(text.text.encode()).hexdigest()
        return self._with_written_corefile(config, text.path, text.text)

    def _with_written_corefile(self, config: Config, path: str, text: str) -> Config:
        """Writes the filled Corefile to -conf, unless that is where it came from."""
        conf = self._flags.conf
        if not conf or os.path.realpath(conf) == os.path.realpath(path):
            return config
        try:
            write_whole(conf, text)
        except OSError as error:
            warning = f"cannot write {conf}: {error.strerror}; serving goes on without it"
            return replace(config, warnings=(*config.warnings, warning))
        return config


def note_hosts(config: Config, counters: Counters) -> None:
    """Tells the series of hosts files how many entries there are, and how old."""
    tables = [block.hosts for block in config.blocks if block.hosts is not None]
    counters.hosts_entries = dict.fromkeys((table.file for table in tables), 0)
    for table in tables:
        counters.hosts_entries[table.file] += table.entries
    changed = [0.0]
    for path in filter(None, counters.hosts_entries):
        with contextlib.suppress(OSError, ValueError):
            changed.append(Path(path).stat().st_mtime)
    counters.hosts_changed_at = max(changed)


class FileReader:
    """A Reader (see config/corefile.py) on the real file system, which remembers what it saw.

    So whatever the configuration was made of is what is watched, without a list of its own.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[Callable[[str], object], str], object] = {}

    def read_text(self, path: str) -> str:
        """Returns the whole text; raises OSError, or ValueError when it is no UTF-8 or too big."""
        self._note(_signature, path)  # before reading: what changes meanwhile is read once more
        with Path(path).open("rb") as file:
            octets = file.read(_MAX_OCTETS + 1)
        if len(octets) > _MAX_OCTETS:
            raise ValueError("it is longer than 4 MiB")
        return octets.decode("utf-8")

    def glob(self, pattern: str) -> list[str]:
        """Returns the paths that match, sorted, without hidden files."""
        self._note(_glob, pattern)
        return _glob(pattern)

    def exists(self, path: str) -> bool:
        """Returns whether there is such a file or directory."""
        self._note(_exists, path)
        return _exists(path)

    def addresses(self, interface: str) -> tuple[str, ...]:
        """Returns the addresses of an interface, none if there is no such interface."""
        self._note(_addresses, interface)
        return _addresses(interface)

    def has_changed(self) -> bool:
        """Returns whether reading everything again could give something else."""
        return any(look(path) != seen for (look, path), seen in list(self._seen.items()))

    def _note(self, look: Callable[[str], object], path: str) -> None:
        if (look, path) not in self._seen:
            self._seen[look, path] = look(path)


def _signature(path: str) -> object:
    """What changes when a file is written, replaced, or its symbolic link points elsewhere."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat costs twice as much, each second
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern))  # noqa: PTH207 - Path.glob takes no absolute pattern


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _addresses(interface: str) -> tuple[str, ...]:
    from pyroute2 import IPRoute  # noqa: PLC0415 # 0.15 s, for the few that name an interface

    with IPRoute() as route:
        found = [
            str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
            for index in route.link_lookup(ifname=interface)
            for message in route.get_addr(index=index)
        ]
    return tuple(f"{ip}%{interface}" if ip.startswith("fe80:") else ip for ip in found)


def write_whole(path: str, text: str) -> None:
    """Writes ``text`` to ``path`` so that a reader sees the old or the new file, never a part.

    Raises OSError; then ``path`` is as it was.
    """
    target = Path(path).resolve()
    draft = target.with_name(f".{target.name}.new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
