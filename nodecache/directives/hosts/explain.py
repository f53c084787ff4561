"""What ``nodecache explain`` says of ``hosts``."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import Row, below, duration, marked
from nodecache.directives.hosts.model import HOSTS, HostsTable


def rows(block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in ``block``."""
    table = block.of(HOSTS) or HostsTable(())
    yield "hosts", _text(table)
    yield "", _beyond(table)


def _text(table: HostsTable) -> str:
    ttl = marked(duration(table.ttl_s), table.ttl_s, HostsTable(()).ttl_s)
    source = f" of {table.file} and the Corefile" if table.file else ""
    return f"{table.entries} entries{source} for {below(table.zones)}, TTL {ttl}"


def _beyond(table: HostsTable) -> str:
    if table.fallthrough is None:
        return "names without an entry get SERVFAIL (default)"
    return f"without an entry, {below(table.fallthrough)} go on"
