"""What ``nodecache explain`` says of ``rewrite``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import Row
from nodecache.directives.rewrite.model import REWRITES


def rows(block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in ``block``."""
    kinds = Counter(
        type(rule).__name__.removeprefix("Rewrite").lower() for rule in block.of(REWRITES)
    )
    counts = ", ".join(f"{count} about {kind}" for kind, count in kinds.items())
    yield "rewrite", f"rules of the question and its response, in this order: {counts}"
