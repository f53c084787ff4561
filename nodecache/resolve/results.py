"""What the resolver has for the shell: replies that come later, and failures for the error log."""

from __future__ import annotations

from typing import Any, NamedTuple

from nodecache.resolve.block import BlockState
from nodecache.resolve.listener import Listener
from nodecache.resolve.waiter import Waiter

# Failures kept for the error log between two looks of the shell; more are only counted.
_MOST_FAILURES = 256


class FailedQuery(NamedTuple):
    """A failed query, for the error log: its RCODE, why in CoreDNS's words, and in our own."""

    state: BlockState
    question: bytes
    rcode: int
    text: str
    detail: str = ""


class Results:
    """Collects until the shell comes by.

    Attributes:
        replies: Listener, client and whole reply; whoever takes them puts another list here.
        failures: At most 256, likewise.
    """

    __slots__ = ("failures", "replies")

    def __init__(self) -> None:
        self.replies: list[tuple[Listener, Any, bytes]] = []
        self.failures: list[FailedQuery] = []

    def send(self, waiter: Waiter, reply: bytes, now: float, upstream: str = "") -> None:
        """Hands out a reply that comes later, from ``upstream`` if one was asked for it."""
        before_cache = waiter.listener.before_cache
        if before_cache is None:
            self.replies.append((waiter.listener, waiter.client, reply))
        else:
            before_cache.deliver(waiter.client, reply, now, upstream)

    def send_as_it_is(self, listener: Listener, client: Any, reply: bytes) -> None:
        """Hands out a reply that has been through its BeforeCache."""
        self.replies.append((listener, client, reply))

    def note_failure(self, failure: FailedQuery) -> None:
        """Puts a failure down for the error log of its block, if that has one."""
        if failure.state.block.errors is not None and len(self.failures) < _MOST_FAILURES:
            self.failures.append(failure)
