"""What pools need from outside: a shell for their actions, a clock for later, random numbers.

The shell opens, writes and closes what the Outbox names, and reports back.
"""

from __future__ import annotations

from collections.abc import Callable

from nodecache.timers import Timers
from nodecache.upstreams.connection import Connection, Pool


class Outbox:
    """What the shell has to do, in this order. One that was closed meanwhile is passed over.

    A UDP connection has its datagram in ``out`` when it is to be opened, and is never in
    ``to_write``; the shell reports no ``connected`` for it.
    """

    __slots__ = ("to_close", "to_open", "to_write")

    def __init__(self) -> None:
        self.to_open: list[Connection] = []
        self.to_write: list[Connection] = []
        self.to_close: list[Connection] = []


class Outside:
    """Shared by all pools.

    Attributes:
        outbox: Where actions go.
        chores: Connections and pools that must be looked at later.
        random: Numbers in [0, 1).
        message_id: Unpredictable numbers from 0 to 65535.
    """

    __slots__ = ("chores", "message_id", "outbox", "random")

    def __init__(self, random: Callable[[], float], message_id: Callable[[], int]) -> None:
        self.outbox = Outbox()
        self.chores: Timers[Connection | Pool] = Timers()
        self.random = random
        self.message_id = message_id
