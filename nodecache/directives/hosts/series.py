"""What the series of hosts files show: how many entries there are, and how old they are."""

from __future__ import annotations

import contextlib
from pathlib import Path

from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.directives.hosts.model import HOSTS


def note(config: Config, counters: Counters) -> None:
    """Tells ``counters`` of all hosts files of ``config``; looks at their times of change."""
    tables = [table for block in config.blocks if (table := block.of(HOSTS)) is not None]
    counters.hosts_entries = dict.fromkeys((table.file for table in tables), 0)
    for table in tables:
        counters.hosts_entries[table.file] += table.entries
    changed = [0.0]
    for path in filter(None, counters.hosts_entries):
        with contextlib.suppress(OSError, ValueError):
            changed.append(Path(path).stat().st_mtime)
    counters.hosts_changed_at = max(changed)
