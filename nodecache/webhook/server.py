"""Accepts connections on one listening socket, has their handshakes made, and ends them."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from nodecache.config.model import Address
from nodecache.errors import SocketError
from nodecache.net.sockets import open_http
from nodecache.telemetry.endpoints import NEXT_STEP
from nodecache.webhook.connection import Connection, Respond
from nodecache.webhook.room import Guest, Room

HANDSHAKE_S = 5.0
DRAIN_S = 5.0  # for requests under way, at the end
_SHUTDOWN_S = 1.0  # for a client to take leave
# Beyond it the kernel drops who comes, and he tries again after a second, half of what API servers
# wait for an answer.
_BACKLOG = 1024
_PAUSE_S = 0.1  # after an accept that failed: no descriptor is left

logger = logging.getLogger(__name__)


class Server:
    """One listener, over TLS if a context is given; everything happens on the loop's thread.

    Args:
        address: Where; port 0 takes a free one.
        context: For handshakes; None for plain HTTP.
        respond: Answers each request, at once.
        note: Called with the reason for each connection or request that is refused.

    Attributes:
        room: The connections.
        port: The one that is listened on.

    Raises:
        SocketError: The address cannot be used.
    """

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext | None,
        respond: Respond,
        note: Callable[[str], None],
    ) -> None:
        self.room = Room()
        self._context = context
        self._respond = respond
        self._note = note
        self._listener = _open(address)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._lives: set[asyncio.Task[None]] = set()
        self._accepting = self._loop.create_task(self._accept())

    async def _accept(self) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._listener)
            except OSError:  # ECONNABORTED, EMFILE and the like; it goes on when they are over
                self._note("accept_failed")
                await asyncio.sleep(_PAUSE_S)
                continue
            guest, has_evicted = self.room.admit()
            if has_evicted:
                self._note("evicted")
            life = self._loop.create_task(self._live(client, guest))
            self._lives.add(life)
            life.add_done_callback(self._lives.discard)

    async def _live(self, client: socket.socket, guest: Guest) -> None:
        """One connection, from accept to its end."""
        connection = Connection(self._loop, self.room, guest, self._respond, self._note)
        guest.abort = guest.leave = lambda: _shut(client)
        try:
            # Without it the end of one reply would wait for the client's word on its beginning.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._shake_hands(connection, client)
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            self._note("handshake")
            self.room.remove(guest)
            client.close()
            return
        await connection.ended

    async def _shake_hands(self, connection: Connection, client: socket.socket) -> None:
        if self._context is None:
            await self._loop.connect_accepted_socket(lambda: connection, client)
            return
        await self._loop.connect_accepted_socket(
            lambda: connection,
            client,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=_SHUTDOWN_S,
        )

    async def drain(self) -> None:
        """Accepts nobody any more, and lets everybody finish what is under way, 5 s at most."""
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._listener.close()
        self.room.leave()
        if self._lives:
            await asyncio.wait(self._lives, timeout=DRAIN_S)
        self.room.abort()
        if self._lives:
            await asyncio.wait(self._lives, timeout=_SHUTDOWN_S)


def _open(address: Address) -> socket.socket:
    try:
        listener = open_http(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        step = NEXT_STEP.get(error.errno or 0, "check the address")
        raise SocketError(f"cannot listen on {address}: {error}; {step}") from error
    return listener


def _shut(client: socket.socket) -> None:
    """Ends a connection whose handshake is not over; nothing happens if it has ended."""
    try:
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        logger.debug("a connection had ended before it was to end")
