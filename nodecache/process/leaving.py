"""How a worker ends, as signals, a successor and the keeper want it: one table.

Decides no step of the end itself: ``worker`` has these in their order.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from math import inf
from time import monotonic

logger = logging.getLogger("nodecache")

# Both a terminal and the keeper may send the same signal: within this time it counts once.
_SAME_SIGNAL_S = 0.2


class Stage(Enum):
    """How far a worker is on its way out."""

    SERVING = auto()
    LEAVING = auto()  # in order, each step bounded
    HURRYING = auto()  # without what only waits
    SUCCEEDED = auto()  # a successor serves: node and sockets are its own
    SUCCEEDED_HURRYING = auto()


class Wish(Enum):
    """What others want of it."""

    END = auto()
    END_AT_ONCE = auto()
    BE_SUCCEEDED = auto()  # a successor serves, and nothing is read here any more
    BE_ORPHANED = auto()  # the keeper is gone, and no successor came


_HURRIED = {Wish.END: Stage.HURRYING, Wish.END_AT_ONCE: Stage.HURRYING}
_SUCCEEDED = {Wish.END: Stage.SUCCEEDED_HURRYING, Wish.END_AT_ONCE: Stage.SUCCEEDED_HURRYING}
# Who is not named changes nothing.
STAGES: dict[Stage, dict[Wish, Stage]] = {
    Stage.SERVING: {
        Wish.END: Stage.LEAVING,
        Wish.END_AT_ONCE: Stage.HURRYING,
        Wish.BE_SUCCEEDED: Stage.SUCCEEDED,
        Wish.BE_ORPHANED: Stage.LEAVING,
    },
    Stage.LEAVING: {**_HURRIED, Wish.BE_SUCCEEDED: Stage.SUCCEEDED},
    Stage.HURRYING: {Wish.BE_SUCCEEDED: Stage.SUCCEEDED_HURRYING},
    Stage.SUCCEEDED: _SUCCEEDED,
    Stage.SUCCEEDED_HURRYING: {},
}


class Leaving:
    """The end of one worker, as far as others want it.

    Attributes:
        stage: How far it is.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.stage = Stage.SERVING
        self._clock = clock
        self._signalled_at = -inf
        self._begun = asyncio.Event()
        self._hurried = asyncio.Event()
        self._succeeded = asyncio.Event()

    @property
    def is_succeeded(self) -> bool:
        """Whether a successor serves."""
        return self.stage in (Stage.SUCCEEDED, Stage.SUCCEEDED_HURRYING)

    async def begun(self) -> None:
        """Returns once somebody wants an end."""
        await self._begun.wait()

    async def hurried(self) -> None:
        """Returns once nothing is to be waited for."""
        await self._hurried.wait()

    async def succeeded(self) -> None:
        """Returns once a successor serves."""
        await self._succeeded.wait()

    def want(self, wish: Wish) -> None:
        """Goes on to the stage that this leads to."""
        self.stage = STAGES[self.stage].get(wish, self.stage)
        if self.stage is not Stage.SERVING:
            self._begun.set()
        if self.stage in (Stage.HURRYING, Stage.SUCCEEDED_HURRYING):
            self._hurried.set()
        if self.is_succeeded:
            self._succeeded.set()

    def on_signal(self, wish: Wish) -> None:
        """Takes a signal; who repeats it later than at once is in haste."""
        now = self._clock()
        is_same = now - self._signalled_at <= _SAME_SIGNAL_S
        if self.stage is Stage.SERVING:
            self._signalled_at = now
        elif not is_same:
            logger.info("leaving at once, as asked again")
        elif wish is Wish.END:
            return
        self.want(wish)

    @contextmanager
    def signals(
        self, loop: asyncio.AbstractEventLoop, reload: Callable[[], None]
    ) -> Iterator[None]:
        """While it lasts, signals end or reload; afterwards those that end are ignored."""
        ending = {
            signal.SIGTERM: Wish.END,
            signal.SIGINT: Wish.END,
            signal.SIGQUIT: Wish.END_AT_ONCE,
        }
        for number, wish in ending.items():
            loop.add_signal_handler(number, self.on_signal, wish)
        for number in (signal.SIGUSR1, signal.SIGHUP):
            loop.add_signal_handler(number, reload)
        try:
            yield
        finally:
            for number in ending:
                # Everything is done: who asks again must not make it look like a crash.
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
