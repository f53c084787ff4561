"""An upstream as clouds have them: it drops what comes too fast or over too many connections."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from tests.daemon.faulty import ScriptedUpstream


@dataclass
class LimitedUpstream(ScriptedUpstream):
    """Drops datagrams beyond ``most_a_second`` and closes connections beyond ``most_connections``.

    Attributes:
        dropped: Datagrams so far that got no answer.
        refused: Connections so far that were closed at once.
        most_open: Connections that were open at the same time.
    """

    most_a_second: int = 1 << 30
    most_connections: int = 1 << 30
    dropped: int = 0
    refused: int = 0
    most_open: int = 0
    _open_now: int = 0
    _times: deque[float] = field(default_factory=deque)

    def takes_datagram(self) -> bool:
        """Counts one datagram; returns whether it is within the limit of the last second."""
        now = time.monotonic()
        times = self._times
        while times and now - times[0] >= 1.0:
            times.popleft()
        if len(times) >= self.most_a_second:
            self.dropped += 1
            return False
        times.append(now)
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open_now >= self.most_connections:
            self.refused += 1
            writer.transport.abort()
            return
        self._open_now += 1
        self.most_open = max(self.most_open, self._open_now)
        try:
            await super()._accept(reader, writer)
        finally:
            self._open_now -= 1
