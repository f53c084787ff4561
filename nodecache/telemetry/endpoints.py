"""Serves /metrics and /health over HTTP, from the loop that serves queries.

On the loop, because the counters are plain integers that only its thread may read, and because
a /health that a second thread answers would call a hanging daemon healthy. The price is the
time it takes to render a scrape, so that is done in pieces between which queries are served.
Longest pause of a busy uvloop during a scrape of 2,000 series (2 cores, median of 7): 14 ms
rendered whole, 10 ms rendered by a second thread (which takes the interpreter from the loop for
5 ms at a time), 1.4 ms in pieces.

Importing the libraries takes about 50 ms. A thread spends them while the daemon already answers,
so ``start_metrics`` and ``start_health`` belong after the DNS listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.errors import SocketError

if TYPE_CHECKING:
    from nodecache.telemetry import exposition, http_server, series

SELF_CHECK_INTERVAL_S = 1.0  # as often as CoreDNS asks itself
SELF_CHECK_TIMEOUT_S = 5.0

NEXT_STEP = {
    errno.EADDRINUSE: "another process listens there: stop it, or choose another port",
    errno.EADDRNOTAVAIL: "no interface of this machine has the address: add it, or correct it",
    errno.EACCES: "a port below 1024 needs the capability NET_BIND_SERVICE",
}


class Endpoints:
    """All HTTP listeners of the daemon, one for each address however many blocks name it.

    Args:
        counters: What /metrics shows.
        loop: The loop that serves queries; every method must be called on its thread.
    """

    def __init__(self, counters: Counters, loop: asyncio.AbstractEventLoop) -> None:
        self._counters = counters
        self._loop = loop
        self._changing = asyncio.Lock()
        self._pages: dict[Address, dict[str, http_server.Page]] = {}
        self._servers: dict[Address, asyncio.Server] = {}
        self._connections: http_server.ConnectionTable | None = None
        self._scraper: exposition.Scraper | None = None
        self._self_check: asyncio.Task[None] | None = None

    async def start_metrics(self, address: Address) -> Address:
        """Answers GET /metrics on ``address``; returns the address bound (for port 0).

        Raises:
            SocketError: It cannot be bound. Nothing else is affected; try again later.
        """
        async with self._changing:
            bound = await self._listen(address)
            if self._scraper is None:
                registry = series.make_registry(self._counters)
                self._scraper = exposition.Scraper(registry, self._loop)
            self._pages[address]["/metrics"] = self._scraper
        return bound

    async def start_health(self, address: Address, is_healthy: Callable[[], bool]) -> Address:
        """Answers GET /health on ``address`` with 200 or, when ``is_healthy`` says no, with 503.

        Returns the address bound. Called again for the same address, it replaces ``is_healthy``.
        The first address is also asked once a second, for coredns_health_request_*.

        Raises:
            SocketError: It cannot be bound. Nothing else is affected; try again later.
        """
        async with self._changing:
            bound = await self._listen(address)
            self._pages[address]["/health"] = _make_health_page(is_healthy)
            if self._self_check is None:
                self._self_check = self._loop.create_task(self._check_self(bound))
        return bound

    async def stop(self) -> None:
        """Closes all listeners and connections; the object may be started again."""
        async with self._changing:
            if self._self_check is not None:
                self._self_check.cancel()
                self._self_check = None
            for server in self._servers.values():
                server.close()
            if self._connections is not None:
                self._connections.abort_all()
            for server in self._servers.values():
                await server.wait_closed()
            self._servers.clear()
            self._pages.clear()

    async def _listen(self, address: Address) -> Address:
        """Opens the listener of ``address`` unless it is open; returns the address bound."""
        if address not in self._servers:
            await self._loop.run_in_executor(None, _import_libraries)
            pages: dict[str, http_server.Page] = {}
            self._servers[address] = await self._bind(address, pages)
            self._pages[address] = pages
        host, port = self._servers[address].sockets[0].getsockname()[:2]
        return Address(host, port)

    async def _bind(self, address: Address, pages: dict[str, http_server.Page]) -> asyncio.Server:
        """Returns a listener that serves ``pages``, which may change later."""
        table = self._connections = self._connections or http_server.ConnectionTable()
        try:
            sock = _open_listener(address)
            return await self._loop.create_server(
                lambda: http_server.HttpConnection(self._loop, table, pages), sock=sock
            )
        except OSError as error:
            step = NEXT_STEP.get(error.errno or 0, "check the address")
            raise SocketError(f"cannot serve HTTP on {address}: {error}; {step}") from error

    async def _check_self(self, address: Address) -> None:
        """Asks the own /health once a second: its duration shows how busy the loop is."""
        while True:
            await asyncio.sleep(SELF_CHECK_INTERVAL_S)
            begun_at = time.perf_counter()
            try:
                async with asyncio.timeout(SELF_CHECK_TIMEOUT_S):
                    await _request_health(address)
            except (OSError, TimeoutError):
                self._counters.health_failures += 1
            else:
                self._counters.health_durations.observe(time.perf_counter() - begun_at)


def _open_listener(address: Address) -> socket.socket:
    """Returns a listening socket; an empty host means every address. Raises OSError.

    Made here, because a loop that is given a host looks it up in threads, and these stay.
    """
    if not address.host and socket.has_dualstack_ipv6():
        return socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family)


def _import_libraries() -> None:
    """Binds the modules that cost time; the import system makes it safe in any thread."""
    global exposition, http_server, series  # noqa: PLW0603 (once, before the first use)
    from nodecache.telemetry import exposition, http_server, series  # noqa: PLC0415 (see above)


def _make_health_page(is_healthy: Callable[[], bool]) -> http_server.Page:
    """Returns the page for /health."""

    async def answer() -> http_server.Response:
        if is_healthy():
            return http_server.Response(HTTPStatus.OK, b"OK")
        return http_server.Response(HTTPStatus.SERVICE_UNAVAILABLE, b"Service Unavailable")

    return answer


async def _request_health(address: Address) -> None:
    """Sends GET /health and reads the answer to its end; whatever it says will do."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
