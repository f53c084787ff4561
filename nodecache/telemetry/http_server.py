"""One HTTP connection, from its first octet to its last, within bounds.

The standard library reads the request and writes the response head; what it lacks on an event
loop is kept here: deadline, size and number of connections. It must not know what is served.
Each connection carries one request, so one that ends leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import cast
from urllib.parse import parse_qsl

MAX_CONNECTIONS = 64  # over all listeners
MAX_HEAD_OCTETS = 8192
MAX_QUERY_FIELDS = 32
CONNECTION_S = 10.0  # from accept to the last octet of the response

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Response:
    """What a page answers; ``body`` is whole."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a page is asked.

    Attributes:
        path: Path of the URL, without the query part.
        query: Fields of the query part; of a field that comes twice, the last one.
        wants_json: Whether the client accepts JSON or says "format=json".
        take: To be called with the seconds that the page is going to need, if these are many.
    """

    path: str
    query: Mapping[str, str]
    wants_json: bool
    take: Callable[[float], None] = lambda _seconds: None


Page = Callable[[PageRequest], Awaitable[Response]]


class ConnectionTable:
    """The open connections, oldest first; when full, the oldest makes room for the newest.

    So slow or silent clients cannot lock out a health probe, which takes a millisecond.
    """

    def __init__(self) -> None:
        self._connections: dict[HttpConnection, None] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: HttpConnection) -> None:
        """Enters a new connection."""
        if len(self._connections) >= MAX_CONNECTIONS:
            next(iter(self._connections)).abort()
        self._connections[connection] = None

    def remove(self, connection: HttpConnection) -> None:
        """Forgets a connection, known or not."""
        self._connections.pop(connection, None)

    def abort_all(self) -> None:
        """Ends all connections at once."""
        for connection in list(self._connections):
            connection.abort()


class HttpConnection(asyncio.Protocol):
    """Reads one request and answers it from ``pages`` (path -> page)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        table: ConnectionTable,
        pages: Mapping[str, Page],
    ) -> None:
        self._loop = loop
        self._table = table
        self._pages = pages
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._answer: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the clock."""
        self._transport = cast("asyncio.Transport", transport)
        self._table.add(self)
        self._allow(0.0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives up what the client no longer waits for."""
        self._table.remove(self)
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()
        if self._answer is not None:
            self._answer.cancel()

    def data_received(self, data: bytes) -> None:
        """Gathers the request's head; whatever follows it is ignored."""
        if self._answer is not None:
            return
        self._head += data
        is_whole = b"\r\n\r\n" in self._head or b"\n\n" in self._head
        if is_whole or len(self._head) > MAX_HEAD_OCTETS:
            self._answer = self._loop.create_task(self._respond(is_whole))
            self._answer.add_done_callback(self._finish)

    def _allow(self, seconds: float) -> None:
        """Begins the time of the connection, ``seconds`` longer than usual, anew."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(CONNECTION_S + seconds, self.abort)

    def eof_received(self) -> bool:
        """Stays open if a response is due: a client may close its side after asking."""
        return self._answer is not None

    def abort(self) -> None:
        """Ends the connection at once, unsent octets included."""
        self._table.remove(self)
        if self._transport is not None:
            self._transport.abort()

    async def _respond(self, is_whole: bool) -> None:
        """Writes the response."""
        too_large = None if is_whole else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        request = Request(bytes(self._head[:MAX_HEAD_OCTETS]), too_large)
        octets = request.refusal
        if not octets:
            page = self._pages.get(request.path)
            octets = await self._ask(page, request) if page else request.compose_error(404)
        if self._transport is not None:
            self._transport.write(octets)

    async def _ask(self, page: Page, request: Request) -> bytes:
        return request.compose(await page(replace(request.for_page(), take=self._allow)))

    def _finish(self, answer: asyncio.Task[None]) -> None:
        """Closes the connection once the transport has sent all that was written."""
        if not answer.cancelled() and (error := answer.exception()) is not None:
            logger.error("HTTP: a page failed", exc_info=error)
        if self._transport is not None:
            self._transport.close()


class Request(BaseHTTPRequestHandler):
    """The standard library's request parser and response writer, on octets instead of a socket.

    Attributes:
        refusal: The whole response, if the request itself is at fault; else b"".
        path: Path without the query part.
        query: Fields of the query part.
    """

    default_request_version = "HTTP/1.0"  # so that garbage gets a status line, too

    def __init__(self, head: bytes, refused: HTTPStatus | None = None) -> None:
        self.rfile = io.BytesIO(head)
        self._written = self.wfile = io.BytesIO()
        self.client_address = ("", 0)
        self.command = self.requestline = self.path = ""
        self.request_version = self.protocol_version
        self.close_connection = True
        if refused is not None:
            self.send_error(refused)
        else:
            self.raw_requestline = self.rfile.readline()
            if self.parse_request() and self.command not in ("GET", "HEAD"):
                self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        self.path, _, fields = self.path.partition("?")
        self.query: dict[str, str] = {}
        try:
            self.query = dict(parse_qsl(fields, True, max_num_fields=MAX_QUERY_FIELDS))
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST, "Too many fields")
        self.refusal = self._written.getvalue()

    def for_page(self) -> PageRequest:
        """Returns what a page needs to know of a request that was not refused."""
        accepted = self.headers.get("Accept", "").split(",")
        kinds = {kind.partition(";")[0].strip().lower() for kind in accepted}
        wants_json = "application/json" in kinds or self.query.get("format") == "json"
        return PageRequest(self.path, self.query, wants_json)

    def compose(self, response: Response) -> bytes:
        """Returns the response's octets, without its body for HEAD."""
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        head = self._written.getvalue()
        return head if self.command == "HEAD" else head + response.body

    def compose_error(self, status: int) -> bytes:
        """Returns an error response's octets."""
        self.send_error(status)
        return self._written.getvalue()

    def version_string(self) -> str:
        """Returns what stands in the Server field: no versions for strangers."""
        return "nodecache"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the parent's name)
        """Logs nothing: what strangers send must not fill a log."""
