from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping

import pytest

from nodecache.config.assemble import assemble
from nodecache.config.flags import Flags
from nodecache.config.model import Config, ServerBlock
from nodecache.directives.table import PLUGINS
from nodecache.errors import ConfigError

ReadBlock = Callable[[str], ServerBlock]

READY = Flags(localip=("127.0.0.15",), basecorefile="Corefile")


class FakeReader:
    """Files in a dict; a value that is an exception is raised on reading."""

    def __init__(self, files: Mapping[str, str | Exception]) -> None:
        self._files = files

    def read_text(self, path: str) -> str:
        if path not in self._files:
            raise FileNotFoundError(2, "No such file or directory", path)
        found = self._files[path]
        if isinstance(found, Exception):
            raise found
        return found

    def glob(self, pattern: str) -> list[str]:
        return sorted(path for path in self._files if fnmatch.fnmatchcase(path, pattern))

    def exists(self, path: str) -> bool:
        return path in self._files


def _configure(
    text: str,
    files: Mapping[str, str | Exception] | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Flags = READY,
) -> Config:
    return assemble(flags, environ or {}, FakeReader({"Corefile": text, **(files or {})}), PLUGINS)


def _find_faults(
    text: str,
    files: Mapping[str, str | Exception] | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Flags = READY,
) -> list[str]:
    try:
        _configure(text, files, environ, flags)
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return []


@pytest.fixture(scope="session")
def make_reader() -> Callable[..., FakeReader]:
    """Files by path -> a Reader."""
    return FakeReader


@pytest.fixture(scope="session")
def configure() -> Callable[..., Config]:
    """Corefile text -> Config, with sensible flags and no files."""
    return _configure


@pytest.fixture(scope="session")
def find_faults() -> Callable[..., list[str]]:
    """Corefile text -> its faults as users see them."""
    return _find_faults


@pytest.fixture
def block_of(configure: Callable[..., Config]) -> ReadBlock:
    """Directives of one block -> that block, read without a warning."""

    def read(directives: str) -> ServerBlock:
        config = configure(f". {{\n{directives}\n}}\n")
        assert config.warnings == ()
        (block,) = config.blocks
        return block

    return read


@pytest.fixture
def faults_of(find_faults: Callable[..., list[str]]) -> Callable[[str], list[str]]:
    """Directives of one block -> its faults as users see them."""

    def find(directives: str) -> list[str]:
        return find_faults(f". {{\n{directives}\n}}\n")

    return find
