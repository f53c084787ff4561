"""The ``loop`` directive: does a question that we forward come back to us?

A name that nobody else can know is asked once, behind the cache. If it arrives as a query, what
we forward comes round; then the block refuses its misses until a later look finds it mended,
while other blocks and everything cached go on.
"""

from __future__ import annotations


class LoopGuard:
    """One look at one server block; see Guard in resolve/block.py.

    Attributes:
        qname: The name that was asked, in wire format and lower case.
        has_returned: It arrived as a query.
        has_failed: Nobody answered it, so it tells nothing.
        is_looping: Misses of the block are refused: this look or the one before found a loop.
    """

    __slots__ = ("has_failed", "has_returned", "is_looping", "qname")

    def __init__(self, qname: bytes, is_looping: bool = False) -> None:
        self.qname = qname
        self.has_returned = False
        self.has_failed = False
        self.is_looping = is_looping

    def stops(self, qname: bytes) -> bool:
        """Returns whether a query for ``qname`` that misses may not be forwarded."""
        if qname == self.qname:
            self.has_returned = self.is_looping = True
        return self.is_looping

    def note_failure(self) -> None:
        """Takes note that nobody answered its question."""
        self.has_failed = True
