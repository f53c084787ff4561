"""A steady stream of queries from another thread, and what became of each."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.daemon.stubs import make_query

_HEADER = 12
_STEP_S = 0.01


@dataclass
class Load:
    """Sends ``rate`` queries a second for ``names`` in turn, every ``unique_each``-th a new name.

    Attributes:
        sent: Queries so far.
        rcodes: RCODE -> replies.
        lost: Queries without a reply; known after the end.
        longest_s: Longest time to a reply.
    """

    host: str
    port: int
    names: Sequence[str]
    rate: int = 500
    unique_each: int = 0
    sent: int = 0
    rcodes: dict[int, int] = field(default_factory=dict)
    lost: int = 0
    longest_s: float = 0.0

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._waiting: dict[int, float] = {}
        self._templates = [make_query(name).to_wire()[2:] for name in self.names]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            selectors.DefaultSelector() as selector,
        ):
            sock.connect((self.host, self.port))
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
            began = time.monotonic()
            while not self._stopping.is_set():
                due = int((time.monotonic() - began) * self.rate)
                while self.sent < due:
                    self._send(sock)
                self._receive(sock, selector, _STEP_S)
            end = time.monotonic() + 3.0
            while self._waiting and time.monotonic() < end:
                self._receive(sock, selector, _STEP_S)
        self.lost += len(self._waiting)

    def _send(self, sock: socket.socket) -> None:
        ident = self.sent & 0xFFFF
        rest = self._templates[self.sent % len(self._templates)]
        if self.unique_each and self.sent % self.unique_each == 0:
            rest = make_query(f"u{self.sent}.test").to_wire()[2:]
        self.lost += ident in self._waiting
        self._waiting[ident] = time.monotonic()
        sock.send(ident.to_bytes(2, "big") + rest)
        self.sent += 1

    def _receive(
        self, sock: socket.socket, selector: selectors.BaseSelector, timeout_s: float
    ) -> None:
        if not selector.select(timeout_s):
            return
        while True:
            try:
                reply = sock.recv(4096)
            except BlockingIOError:
                return
            assert len(reply) >= _HEADER
            asked_at = self._waiting.pop(int.from_bytes(reply[:2], "big"), None)
            if asked_at is not None:
                self.longest_s = max(self.longest_s, time.monotonic() - asked_at)
                self.rcodes[reply[3] & 15] = self.rcodes.get(reply[3] & 15, 0) + 1
