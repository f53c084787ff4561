"""The loops that tests run on, and how they wait for what tells nobody that it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import uvloop

Result = TypeVar("Result")

PATIENCE_S = 20.0  # a shared machine may rest for seconds; nothing here is a measurement
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Run(Protocol):
    """``run`` on one loop or the other."""

    def __call__(self, main: Coroutine[Any, Any, Result]) -> Result: ...


def run(
    main: Coroutine[Any, Any, Result], loop: str = "asyncio", within_s: float = 3 * PATIENCE_S
) -> Result:
    """Runs a coroutine on a new loop and returns its result.

    Args:
        main: What to run.
        loop: A name in ``LOOPS``.
        within_s: Seconds that it may take.

    Raises:
        AssertionError: Something went wrong that the loop would only have logged.
        TimeoutError: It took longer.
    """
    complaints: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=LOOPS[loop], debug=loop == "asyncio") as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
        result = runner.run(_within(main, within_s))
    assert complaints == [], complaints
    return result


async def _within(main: Coroutine[Any, Any, Result], seconds: float) -> Result:
    async with asyncio.timeout(seconds):
        return await main


async def until(is_so: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Returns when it is so; raises TimeoutError when it does not come to that."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110 # what is waited for knows no events
            await asyncio.sleep(0.005)
