"""Reads Corefiles that tests write, as the daemon reads its own."""

from __future__ import annotations

from nodecache.config.assemble import assemble
from nodecache.config.model import Config
from nodecache.directives.table import PLUGINS
from tests.config.conftest import READY, FakeReader


def read_corefile(text: str) -> Config:
    """Returns what a Corefile means. Raises ConfigError."""
    return assemble(READY, {}, FakeReader({"Corefile": text}), PLUGINS)
