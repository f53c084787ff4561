"""What /health and /ready say: a question to ourselves, and a report of the daemon's state.

Knows neither HTTP nor sockets; who asks, and how, is passed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf

# How long an answer of /health may be passed on to others who ask.
KEPT_S = 1.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """What /ready says.

    Attributes:
        is_ready: Whether sockets and configuration are in place.
        reasons: Why it is not, one sentence each.
        details: What an operator should know although it is ready, such as a refused reload.
    """

    is_ready: bool
    reasons: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


class SelfCheck:
    """Asks when somebody wants to know, once for all who want to know meanwhile.

    So a flood of requests costs one question to ourselves in ``KEPT_S`` seconds.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[Sequence[str]]], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Prepares; nothing is asked before the first call.

        Args:
            ask: Returns complaints, none when all is well, within a bounded time.
            loop: Runs it.
        """
        self._ask = ask
        self._loop = loop
        self._asking: asyncio.Task[tuple[str, ...]] | None = None
        self._complaints: tuple[str, ...] = ()
        self._found_at = -inf

    async def __call__(self) -> tuple[str, ...]:
        """Returns complaints at most ``KEPT_S`` old; whoever gives up waiting stops nobody else."""
        if self._asking is None and self._loop.time() - self._found_at < KEPT_S:
            return self._complaints
        if self._asking is None:
            self._asking = self._loop.create_task(self._find())
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Gives up a question that is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
            self._asking = None

    async def _find(self) -> tuple[str, ...]:
        try:
            self._complaints = tuple(await self._ask())
            self._found_at = self._loop.time()
            return self._complaints
        finally:
            self._asking = None
