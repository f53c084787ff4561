"""What ``nodecache explain`` says of ``pprof``."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import Row, url
from nodecache.directives.pprof.model import PPROF


def rows(block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in ``block``."""
    address = block.of(PPROF)
    if address is not None:
        yield "pprof", f"{url(address)}/debug/pprof/"
