"""Serves /metrics, /health and /ready over HTTP, from the loop that serves queries.

On the loop, because the counters are plain integers that only its thread may read, and because
a /health that a second thread answers would call a hanging daemon healthy. The price is the
time it takes to render a scrape, so that is done in pieces between which queries are served.
Longest pause of a busy uvloop during a scrape of 2,000 series (2 cores, median of 7): 14 ms
rendered whole, 10 ms rendered by a second thread (which takes the interpreter from the loop for
5 ms at a time), 1.4 ms in pieces.

Importing the libraries takes about 50 ms. A thread spends them while the daemon already answers,
so the endpoints belong after the DNS listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from nodecache.config.model import Address
from nodecache.counters import Counters
from nodecache.errors import SocketError
from nodecache.telemetry.catalogue import Exposure
from nodecache.telemetry.health import Readiness

if TYPE_CHECKING:
    from nodecache.telemetry import exposition, http_server, series

OWN_REQUEST_INTERVAL_S = 1.0  # as often as CoreDNS asks itself
OWN_REQUEST_TIMEOUT_S = 5.0

# Returns complaints, none when all is well.
Check = Callable[[], Awaitable[Sequence[str]]]

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
        open_listener: Returns a listening socket for an address; raises OSError.
        give_up: Called when an address is served no more.
        legacy_metrics: Whether /metrics shows the former names of forward's series, too.
    """

    def __init__(
        self,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        open_listener: Callable[[Address], socket.socket],
        give_up: Callable[[Address], None] = lambda _address: None,
        *,
        legacy_metrics: bool = False,
    ) -> None:
        self._counters = counters
        self._loop = loop
        self._open_listener = open_listener
        self._give_up = give_up
        self._legacy_metrics = legacy_metrics
        self._changing = asyncio.Lock()
        self._pages: dict[Address, dict[str, http_server.Page]] = {}
        self._servers: dict[Address, asyncio.Server] = {}
        self._exposures: dict[Address, Exposure] = {}
        self._scrapers: dict[Exposure, exposition.Scraper] = {}
        self._connections: http_server.ConnectionTable | None = None
        self._own_requests: asyncio.Task[None] | None = None

    async def start_metrics(self, address: Address, exposure: Exposure = Exposure.ALL) -> Address:
        """Answers GET /metrics on ``address``; returns the address bound (for port 0).

        No series is shown on two kinds of pages: SETUP shows the node set-up, SERVING the rest,
        and everything as long as no address shows the set-up. An address that is started as both
        shows everything.

        Raises:
            SocketError: It cannot be bound. Nothing else is affected; try again later.
        """
        async with self._changing:
            bound = await self._listen(address)
            self._exposures[address] = self._exposures.get(address, exposure) | exposure
            self._pages[address]["/metrics"] = self._make_metrics_page(address)
        return bound

    async def start_health(self, address: Address, check: Check) -> Address:
        """Answers GET /health on ``address``: 200 "OK", or 503 with what ``check`` complains of.

        Returns the address bound. Called again for the same address, it replaces ``check``.
        One address is also asked once a second, for coredns_health_request_*, so ``check`` should
        keep its answer for a moment (see health.SelfCheck).

        Raises:
            SocketError: It cannot be bound. Nothing else is affected; try again later.
        """
        bound = await self.start_page(address, "/health", _make_health_page(check))
        if self._own_requests is None:
            self._own_requests = self._loop.create_task(self._request_own_health())
        return bound

    async def start_ready(self, address: Address, report: Callable[[], Readiness]) -> Address:
        """Answers GET /ready on ``address``: 200 "OK", or 503 with the reasons why not.

        Returns the address bound. Called again for the same address, it replaces ``report``.

        Raises:
            SocketError: It cannot be bound. Nothing else is affected; try again later.
        """
        return await self.start_page(address, "/ready", _make_ready_page(report))

    async def start_page(self, address: Address, path: str, page: http_server.Page) -> Address:
        """Answers GET ``path`` on ``address`` with ``page``; the same way for all pages.

        Raises:
            SocketError: It cannot be bound. Nothing else is affected; try again later.
        """
        async with self._changing:
            bound = await self._listen(address)
            self._pages[address][path] = page
        return bound

    async def stop_page(self, address: Address, path: str) -> None:
        """Answers ``path`` on ``address`` no more; the last page takes the listener with it."""
        async with self._changing:
            pages = self._pages.get(address, {})
            pages.pop(path, None)
            if path == "/metrics":
                self._exposures.pop(address, None)
            if not pages:
                self._close(address)

    async def stop(self) -> None:
        """Closes all listeners and connections; the object may be started again."""
        async with self._changing:
            if self._own_requests is not None:
                self._own_requests.cancel()
                self._own_requests = None
            self.stop_accepting()
            for address in list(self._servers):
                self._close(address)
            if self._connections is not None:
                self._connections.abort_all()

    def stop_accepting(self) -> None:
        """Leaves new connections to whoever has the sockets, too; those that are open go on."""
        for server in self._servers.values():
            server.close()

    def _close(self, address: Address) -> None:
        self._pages.pop(address, None)
        self._exposures.pop(address, None)
        server = self._servers.pop(address, None)
        if server is not None:
            server.close()
            self._give_up(address)

    async def _listen(self, address: Address) -> Address:
        """Opens the listener of ``address`` unless it is open; returns the address bound."""
        if address not in self._servers:
            await self._loop.run_in_executor(None, _import_libraries)
            pages: dict[str, http_server.Page] = {}
            self._servers[address] = await self._bind(address, pages)
            self._pages[address] = pages
        return _bound(self._servers[address])

    async def _bind(
        self, address: Address, pages: Mapping[str, http_server.Page]
    ) -> asyncio.Server:
        """Returns a listener that serves ``pages``, which may change later."""
        table = self._connections = self._connections or http_server.ConnectionTable()
        try:
            sock = self._open_listener(address)
            return await self._loop.create_server(
                lambda: http_server.HttpConnection(self._loop, table, pages), sock=sock
            )
        except OSError as error:
            step = NEXT_STEP.get(error.errno or 0, "check the address")
            raise SocketError(f"cannot serve HTTP on {address}: {error}; {step}") from error

    def _make_metrics_page(self, address: Address) -> http_server.Page:
        """Returns the page for /metrics, which shows what is not shown elsewhere."""

        async def answer(request: http_server.PageRequest) -> http_server.Response:
            exposure = self._exposures.get(address, Exposure.ALL)
            if not any(Exposure.SETUP in other for other in self._exposures.values()):
                exposure = Exposure.ALL
            return await self._scraper(exposure)(request)

        return answer

    def _scraper(self, exposure: Exposure) -> exposition.Scraper:
        """Returns the one scraper that all pages of ``exposure`` share."""
        scraper = self._scrapers.get(exposure)
        if scraper is None:
            registry = series.make_registry(self._counters, exposure, legacy=self._legacy_metrics)
            scraper = self._scrapers[exposure] = exposition.Scraper(
                registry, self._loop, self._counters.fold_slowly
            )
        return scraper

    async def _request_own_health(self) -> None:
        """Asks the own /health once a second: its duration shows how busy the loop is."""
        while True:
            await asyncio.sleep(OWN_REQUEST_INTERVAL_S)
            place = next((a for a, pages in self._pages.items() if "/health" in pages), None)
            if place is None:  # a reload took it away
                continue
            begun_at = time.perf_counter()
            try:
                async with asyncio.timeout(OWN_REQUEST_TIMEOUT_S):
                    await _request_health(_bound(self._servers[place]))
            except (OSError, TimeoutError):
                self._counters.health_failures += 1
            else:
                self._counters.health_durations.observe(time.perf_counter() - begun_at)


def _bound(server: asyncio.Server) -> Address:
    host, port = server.sockets[0].getsockname()[:2]
    return Address(host, port)


def _import_libraries() -> None:
    """Binds the modules that cost time; the import system makes it safe in any thread."""
    global exposition, http_server, series  # noqa: PLW0603 (once, before the first use)
    from nodecache.telemetry import exposition, http_server, series  # noqa: PLC0415 (see above)


def _make_health_page(check: Check) -> http_server.Page:
    """Returns the page for /health."""

    async def answer(request: http_server.PageRequest) -> http_server.Response:
        complaints = await check()
        is_healthy = not complaints
        return _respond(request, is_healthy, complaints, {"healthy": is_healthy}, complaints)

    return answer


def _make_ready_page(report: Callable[[], Readiness]) -> http_server.Page:
    """Returns the page for /ready."""

    async def answer(request: http_server.PageRequest) -> http_server.Response:
        found = report()
        verdict = {"ready": found.is_ready, "details": found.details}
        told = found.details if found.is_ready else (*found.reasons, *found.details)
        return _respond(request, found.is_ready, found.reasons, verdict, told)

    return answer


def _respond(
    request: http_server.PageRequest,
    is_good: bool,
    reasons: Sequence[str],
    verdict: Mapping[str, object],
    told: Sequence[str],
) -> http_server.Response:
    """Returns "OK", and what is ``told``, one a line; the verdict for who wants JSON."""
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    if request.wants_json:
        import json  # noqa: PLC0415 # 0.1 MB, where somebody wants it

        text = json.dumps({**verdict, "reasons": reasons}) + "\n"
        return http_server.Response(status, text.encode(), "application/json")
    text = "\n".join(["OK", *told] if is_good else told or [status.phrase])
    return http_server.Response(status, text.encode())


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
