"""What ``nodecache explain`` says of ``loop``."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import Row


def rows(block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in ``block``."""
    if block.forwards:
        yield "loop", "after each start and reload it is seen whether queries come back here"
