"""What goes on beside serving: begun, seen through, and ended with the worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from nodecache.counters import Counters

logger = logging.getLogger("nodecache")

Job = Coroutine[Any, Any, object]


class Jobs:
    """Jobs of one worker; one that fails is counted and logged, and serving goes on."""

    def __init__(self, counters: Counters, loop: asyncio.AbstractEventLoop) -> None:
        self._counters = counters
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, job: Job) -> None:
        """Has it done."""
        task = self._loop.create_task(self._see_through(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Who is cancelled before the first step would otherwise never have been awaited.
        task.add_done_callback(lambda _: job.close())

    async def stop(self) -> None:
        """Cancels those that are not done, and returns when they have ended."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _see_through(self, job: Job) -> None:
        try:
            await job
        except Exception:
            self._counters.panics += 1
            logger.exception("serving goes on without what was under way")


async def first_of(*jobs: Job) -> None:
    """Returns when one of the jobs is done; the others are cancelled, and seen to their end."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
