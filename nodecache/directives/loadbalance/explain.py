"""What ``nodecache explain`` says of ``loadbalance``."""

from __future__ import annotations

from collections.abc import Iterator

from nodecache.config.model import ServerBlock
from nodecache.config.wording import Row, some
from nodecache.directives.loadbalance.model import LOADBALANCE, LoadBalance


def rows(block: ServerBlock) -> Iterator[Row]:
    """Yields the rows of the directive in ``block``."""
    yield "loadbalance", _text(block.of(LOADBALANCE) or LoadBalance())


def _text(policy: LoadBalance) -> str:
    text = "addresses stand in another order in each reply (default)"
    if policy.is_weighted:
        text = f"one address comes first, chosen by weight; {len(policy.weights)} names have some"
    return f"{text}; first come those in {some(policy.prefer)}" if policy.prefer else text
