"""From the machine to a Config, again and again: reads flags' files, knows when they changed.

The pure part is in config/; here are the file system and the order of things.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from nodecache.config.assemble import CorefileText, assemble, read_template
from nodecache.config.corefile import Reader, decode_text, encode_text
from nodecache.config.flags import Flags
from nodecache.config.kept import KeptTexts
from nodecache.config.kubedns import is_in_kubedns
from nodecache.config.lexer import MAX_TEXT_CHARACTERS
from nodecache.config.model import Config
from nodecache.config.recording import Recording
from nodecache.directives.table import PLUGINS
from nodecache.errors import ConfigError
from nodecache.files import read_regular

MAX_OCTETS = 4 * MAX_TEXT_CHARACTERS  # UTF-8 takes at most four octets a character


class Source:
    """All that one configuration after the other is made of: flags, environment, files.

    Attributes:
        reader: What the last ``load`` read through, kept until the next.
        has_left_out_kubedns: Whether the last ``load`` had to do without some of the ConfigMap.
        text: The Corefile that it read, for showing faulty lines.
        sha512: Of the Corefile last loaded, its variables filled, in hexadecimal.
        refused: What is wrong with the files, if ``load_again`` had to stand in for them.
        recorded_at: Since when that was in force, to show.
    """

    def __init__(self, flags: Flags, environ: Mapping[str, str]) -> None:
        self.reader = FileReader()
        self.text = CorefileText(flags.basecorefile)
        self.sha512 = ""
        self.has_left_out_kubedns = False
        self.refused: ConfigError | None = None
        self.recorded_at = ""
        self._flags = flags
        self._environ = dict(environ)
        self._kept = KeptTexts()
        self._recording: Recording | None = None

    def learn(self, variable: str, value: str) -> None:
        """Fills in what the environment lacks, from the next ``load`` on."""
        self._environ[variable] = value

    def has_changed(self) -> bool:
        """Returns whether a file has changed since the last ``load``, successful or not."""
        return self.reader.has_changed()

    def load(self) -> Config:
        """Returns the configuration as everything stands now, and writes -conf.

        Raises:
            ConfigError: With all faults; -conf is as it was.
        """
        self.reader = reader = FileReader()
        self.has_left_out_kubedns = False
        self._recording = None
        config = self._load(reader, with_kubedns=True)
        self._recording = reader.take_recording(self._kept.texts)
        return config

    def load_without_kubedns(self, refused: ConfigError) -> Config:
        """Returns what ``load`` refused without the kube-dns ConfigMap, and writes -conf.

        For a node that starts, so that it has DNS; later there is an older one in force.

        Raises:
            ConfigError: Something else is wrong as well: that is ``refused`` itself.
        """
        if not all(map(is_in_kubedns, refused.faults)):
            raise refused
        config = self._load(self.reader, with_kubedns=False)
        self.has_left_out_kubedns = True
        faults = tuple(f"{fault}; the ConfigMap is left out" for fault in refused.faults)
        return replace(config, warnings=(*faults, *config.warnings))

    def load_again(self, recording: Recording, refused: ConfigError, recorded_at: str) -> Config:
        """Returns the configuration of before, in place of what ``load`` refused, and writes -conf.

        What is watched are the files.

        Args:
            recording: What it was read from.
            refused: What ``load`` raised.
            recorded_at: Since when it was in force, to show.

        Raises:
            ConfigError: The recording is of no use either.
        """
        config = self._load(recording, with_kubedns=True)
        self.refused, self.recorded_at = refused, recorded_at
        return config

    def take_recording(self) -> Recording | None:
        """Returns what the last ``load`` was read from, once; None if that is not to be kept."""
        recording, self._recording = self._recording, None
        return recording

    def _load(self, reader: Reader, *, with_kubedns: bool) -> Config:
        flags, environ = self._flags, self._environ
        self.text = text = read_template(flags, environ, reader, with_kubedns=with_kubedns)
        kept = KeptTexts(self._kept.texts)
        resolve = self.reader.addresses
        config = assemble(
            flags, environ, reader, PLUGINS, template=text, resolve_interface=resolve, kept=kept
        )
        self._kept = kept
        in_force = text.text_for(config)
        self.has_left_out_kubedns = text.has_left_out(config)
        self.sha512 = hashlib.sha512(encode_text(in_force)).hexdigest()
        return self._with_written_corefile(config, text.path, in_force)

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


class FileReader:
    """A Reader (see config/corefile.py) on the real file system, which remembers what it saw.

    So whatever the configuration was made of is what is watched, without a list of its own.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[Callable[[str], object], str], object] = {}
        self._texts: dict[str, str] = {}

    def read_text(self, path: str) -> str:
        """Returns the whole text; raises OSError, or ValueError when it is too long."""
        self._note(_signature, path)  # before reading: what changes meanwhile is read once more
        text = self._texts[path] = decode_text(self._read(path))
        return text

    def _read(self, path: str) -> bytes:
        return read_regular(path, MAX_OCTETS)

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

    def take_recording(self, instead: Mapping[str, str]) -> Recording:
        """Returns what was read, and forgets the texts; ``instead`` has those that stood in."""
        texts, self._texts = self._texts, {}
        seen = [(path, found) for (_, path), found in self._seen.items()]
        return Recording(
            {**texts, **instead},
            {path: found for path, found in seen if isinstance(found, list)},
            [path for path, found in seen if found is True],
        )

    def _note(self, look: Callable[[str], object], path: str) -> None:
        if (look, path) not in self._seen:
            self._seen[look, path] = look(path)


def _signature(path: str) -> object:
    """What changes when a file is written, replaced, may be read, or its link points elsewhere."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat costs twice as much, each second
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern))  # noqa: PTH207 - Path.glob takes no absolute pattern


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _addresses(interface: str) -> tuple[str, ...]:
    from nodecache.host.addresses import addresses_of  # noqa: PLC0415 # for few: most name none

    return addresses_of(interface)


def write_whole(path: str, text: str, mode: int = 0o666) -> None:
    """Writes ``text`` to ``path`` so that a reader sees the old or the new file, never a part.

    ``mode`` is cut by the umask, as ever. Raises OSError; then ``path`` is as it was.
    """
    target = Path(path).resolve()
    draft = target.with_name(f".{target.name}.new")
    draft.unlink(missing_ok=True)
    try:
        # "x": never into what somebody put there.
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(encode_text(text))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
