"""What ``nodecache explain`` says of ``whoami``."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import Row


def rows(_block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in a block."""
    yield "whoami", "what no forward takes is answered with the client's own address"
