"""What is said on one connection in HTTP/1.1: octets in, requests and octets out.

h11 reads and writes the protocol, as it does inside the servers built on it; here are the bounds.
Knows no socket and no clock.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from http import HTTPStatus

import h11

MOST_HEAD_OCTETS = 16 * 1024  # an API server sends some 300
MOST_BODY_OCTETS = 8 * 1024 * 1024  # an API server takes 3 MiB of one object at most
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole.

    Attributes:
        path: Without the query part.
        content_type: "" if the client does not say.
    """

    method: str
    path: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request is answered.

    Attributes:
        fault: Why it was refused before anybody looked at it, for the metrics; else "".
    """

    status: int
    body: bytes
    content_type: str = _TEXT
    fault: str = ""


class Phase(enum.Enum):
    """What is awaited of the client."""

    IDLE = enum.auto()  # its next request, if it has one
    HEAD = enum.auto()
    BODY = enum.auto()
    OVER = enum.auto()  # nothing: what it still sends is dropped


class Conversation:
    """One connection's requests, one after the other.

    Attributes:
        phase: What is awaited; IDLE at first, as clients open connections for later, too.
        gathered: Octets of the body that have come.
    """

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.gathered = 0
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_OCTETS)
        self._head: h11.Request | None = None
        self._body = bytearray()

    def receive(self, octets: bytes) -> None:
        """Takes what came over the connection."""
        if self.phase is not Phase.OVER:
            self._http.receive_data(octets)
            if self.phase is Phase.IDLE:
                self.phase = Phase.HEAD

    def take(self) -> Request | Reply | None:
        """Returns a request that is whole, or why it is refused; None until more has come.

        Whatever is returned is to be answered before the next call.
        """
        try:
            while self.phase is not Phase.OVER:
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return None
                if found := self._note(event):
                    return found
        except h11.RemoteProtocolError as error:
            return Reply(error.error_status_hint, f"{error}\n".encode(), fault="malformed")
        return None

    def _note(self, event: object) -> Request | Reply | None:
        if isinstance(event, h11.Request):
            return self._begin(event)
        if isinstance(event, h11.Data):
            self._body += event.data
            self.gathered = len(self._body)
            return _TOO_LARGE if self.gathered > MOST_BODY_OCTETS else None
        if isinstance(event, h11.EndOfMessage):
            return self._whole()
        self.phase = Phase.OVER  # h11.ConnectionClosed
        return None

    def _begin(self, head: h11.Request) -> Reply | None:
        self._head = head
        self.phase = Phase.BODY
        if head.method == b"CONNECT":  # a tunnel would begin behind any answer of success
            return _NO_TUNNEL
        length = _field(head, b"content-length")  # digits, h11 has seen to that
        return _TOO_LARGE if length and int(length) > MOST_BODY_OCTETS else None

    def _whole(self) -> Request:
        assert self._head is not None  # noqa: S101 - h11 keeps the order
        path = self._head.target.partition(b"?")[0].decode("ascii", "replace")
        kind = _field(self._head, b"content-type").decode("latin-1")
        body, self._body, self.gathered = bytes(self._body), bytearray(), 0
        return Request(self._head.method.decode("ascii"), path, kind, body)

    @property
    def has_ended(self) -> bool:
        """Whether nothing that the client still sends is in the way of its last answer."""
        return self.phase is Phase.OVER and self._http.their_state is not h11.SEND_BODY

    def interim(self) -> bytes:
        """Returns what lets a client send its body that asked first (RFC 9110 section 10.1.1)."""
        if self.phase is not Phase.BODY or not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))

    def answer(self, reply: Reply, *, is_last: bool = False) -> bytes:
        """Returns a response, head and body in one piece, to be written at once.

        The phase is IDLE then, or OVER if nothing more will be answered: because of ``is_last``,
        because the client wants it so, or because it was refused before it had sent everything.
        """
        is_whole = self._http.their_state is h11.DONE
        octets = self._write(reply, not is_whole or is_last)
        self._body, self.gathered, self._head = bytearray(), 0, None
        if is_whole and not is_last and self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
            self.phase = Phase.HEAD if self._http.trailing_data[0] else Phase.IDLE
        else:
            self.phase = Phase.OVER
        return octets

    def _write(self, reply: Reply, is_last: bool) -> bytes:
        status = HTTPStatus(reply.status)
        headers = [
            ("Content-Type", reply.content_type),
            ("Content-Length", str(len(reply.body))),
            *([("Connection", "close")] if is_last else []),
        ]
        head = h11.Response(status_code=status, headers=headers, reason=status.phrase)
        is_bodiless = self._head is not None and self._head.method == b"HEAD"
        body = h11.Data(data=b"" if is_bodiless else reply.body)
        return self._send(head) + self._send(body) + self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""


_TOO_LARGE = Reply(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    f"the body is longer than {MOST_BODY_OCTETS >> 20} MiB\n".encode(),
    fault="too_large",
)
_NO_TUNNEL = Reply(HTTPStatus.METHOD_NOT_ALLOWED, b"this is no proxy\n", fault="method")


def _field(head: h11.Request, name: bytes) -> bytes:
    return next((value for key, value in head.headers if key == name), b"")
