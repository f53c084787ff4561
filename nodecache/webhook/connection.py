"""One TCP connection of a client, from the handshake's end to its own: deadlines, and what waits.

Who sends or reads slowly is left; what a conversation says is in conversation.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from nodecache.webhook.conversation import Conversation, Phase, Reply, Request
from nodecache.webhook.room import Guest, Room, nothing

HEAD_S = 5.0  # from a request's first octet, or the connection's beginning, to the end of its head
BODY_S = 5.0  # from there to the end of its body
IDLE_S = 120.0  # an API server leaves a connection itself after 90 s without a request
LINGER_S = 1.0  # for a client to read why it is refused, while it still sends

_SECONDS = {
    Phase.HEAD: HEAD_S,
    Phase.BODY: BODY_S,
    Phase.IDLE: IDLE_S,
    Phase.OVER: LINGER_S,
}

NO_ROOM = Reply(503, b"too much is under way\n", fault="no_room")

Respond = Callable[[Request], Reply]


class Connection(asyncio.Protocol):
    """Reads requests and has each answered by ``respond``, at once and on the loop's thread.

    Args:
        loop: Whose timers are used.
        room: The bounds that all connections share.
        guest: Our place in it.
        respond: Called with each request; raises nothing.
        note: Called with the reason for each refusal of what is no request.

    Attributes:
        ended: Done when the connection is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        room: Room,
        guest: Guest,
        respond: Respond,
        note: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._room = room
        self._guest = guest
        self._respond = respond
        self._note = note
        self.ended: asyncio.Future[None] = loop.create_future()
        self._conversation = Conversation()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._awaited: Phase | None = None
        self._is_blocked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Waits for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._guest.abort, self._guest.leave = self._transport.abort, self._leave
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives our place up."""
        self._transport = None
        self._room.remove(self._guest)
        # Its memory (some 100 KB with that of TLS) is not to wait for the search for cycles.
        self._guest.abort = self._guest.leave = nothing
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Takes a piece of a request."""
        self._conversation.receive(data)
        self._go_on()

    def eof_received(self) -> bool:
        """Closes the connection: who has closed his side of TLS reads nothing any more."""
        return False

    def pause_writing(self) -> None:
        """Reads no more from a client who does not read."""
        self._is_blocked = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Goes on reading, and with what was read before."""
        self._is_blocked = False
        if self._transport is not None:
            self._transport.resume_reading()
            self._go_on()

    def _go_on(self) -> None:
        """Answers what is whole, and waits for what is not."""
        while not self._is_blocked:
            found = self._conversation.take() or self._find_lack_of_room()
            if found is None:
                break
            self._answer(found)
        self._write(self._conversation.interim())
        if self._conversation.has_ended:
            self._close()
        else:
            self._wait()

    def _find_lack_of_room(self) -> Reply | None:
        has_room = self._room.gather(self._guest, self._conversation.gathered)
        return None if has_room else NO_ROOM

    def _answer(self, found: Request | Reply) -> None:
        if isinstance(found, Request):
            reply = self._respond(found)
        else:
            reply = found
            self._note(reply.fault)
        self._room.gather(self._guest, 0)
        self._room.refresh(self._guest)
        self._write(self._conversation.answer(reply, is_last=self._room.is_leaving))
        self._awaited = None

    def _write(self, octets: bytes) -> None:
        if octets and self._transport is not None:
            self._transport.write(octets)

    def _wait(self) -> None:
        """Begins the time of a new phase; while nothing changes, that of the old one goes on."""
        phase = self._conversation.phase
        self._guest.is_busy = phase in (Phase.HEAD, Phase.BODY)
        if phase is self._awaited or self._transport is None:
            return
        self._awaited = phase
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_SECONDS[phase], self._give_up)

    def _give_up(self) -> None:
        """The time of a phase is over."""
        if self._guest.is_busy:
            self._note("slow")
        self._guest.abort()

    def _leave(self) -> None:
        if not self._guest.is_busy:
            self._close()

    def _close(self) -> None:
        """Closes when all is written, which has its time, too."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._conversation.phase = Phase.OVER
            self._wait()
