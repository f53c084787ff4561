"""A stub with few source ports: each query goes out from the next of its sockets, and once only."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import dns.exception
import dns.message
import dns.rcode

from tests.daemon.faulty import right_address
from tests.daemon.stubs import addresses, make_query

PORTS = 8
PATIENCE_S = 5.0  # resolv.conf(5): timeout
_PAUSE_S = 0.025
_HOT_NAMES = 4


@dataclass(slots=True)
class Query:
    """One query and what became of it.

    Attributes:
        port: Source port.
        sent_at, took_s: Monotonic seconds, and how long the answer took.
        outcome: "NOERROR" with the right address, another RCODE, "wrong", or "lost".
    """

    name: str
    port: int
    sent_at: float
    took_s: float = PATIENCE_S
    outcome: str = "lost"

    @property
    def is_good(self) -> bool:
        return self.outcome == "NOERROR"


class FewPorts:
    """Asks ``server`` over UDP at a steady rate, half of the names never asked before.

    Enter it inside the namespace that it is to ask from.

    Attributes:
        ports: Its source ports.
        queries: All so far, in order.
        errors: What the kernel said of the sockets -> how often; such a query is not sent again.
    """

    def __init__(self, server: str, label: str, first_port: int) -> None:
        self.label = label
        self.ports = range(first_port, first_port + PORTS)
        self.queries: list[Query] = []
        self.errors: Counter[str] = Counter()
        self._server = server
        self._waiting: dict[int, Query] = {}
        self._sockets: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._selector.close)
            for port in self.ports:
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.bind(("0.0.0.0", port))
                sock.connect((self._server, 53))
                sock.setblocking(False)
                self._selector.register(sock, selectors.EVENT_READ)
                self._sockets.append(sock)
            self._thread.start()
            stack.callback(self._thread.join)
            stack.callback(self._stopping.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def answered(self) -> set[int]:
        """Returns the ports that got a good answer so far."""
        return {query.port for query in self.queries[:] if query.is_good}

    def stop(self) -> None:
        """Asks no more."""
        self._stopping.set()

    def finish(self) -> list[Query]:
        """Stops asking, waits for what is under way, and returns all queries."""
        self._stack.close()
        return self.queries

    def _run(self) -> None:
        due_at = time.monotonic()
        while not self._stopping.is_set():
            if time.monotonic() >= due_at:
                self._ask(len(self.queries))
                due_at += _PAUSE_S
            self._receive(due_at - time.monotonic())
        give_up_at = time.monotonic() + PATIENCE_S
        while self._waiting and time.monotonic() < give_up_at:
            self._receive(give_up_at - time.monotonic())

    def _ask(self, number: int) -> None:
        # Shifted by one in each round, so that every port asks for names of both kinds.
        is_hot = (number + number // PORTS) % 2 == 0
        stem = f"h{number // 2 % _HOT_NAMES}.ttl-2" if is_hot else f"u{number}"
        query = make_query(f"{stem}.{self.label}.test")
        sock = self._sockets[number % PORTS]
        port = self.ports[number % PORTS]
        asked = Query(query.question[0].name.to_text(), port, 0.0)
        asked.sent_at = time.monotonic()
        self._waiting[query.id] = asked
        self.queries.append(asked)
        try:
            sock.send(query.to_wire())
        except OSError as error:
            self._note(error)

    def _receive(self, seconds: float) -> None:
        for key, _ in self._selector.select(max(seconds, 0)):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                self._take(sock.recv(4096))
            except OSError as error:
                self._note(error)

    def _note(self, error: OSError) -> None:
        self.errors[errno.errorcode[error.errno or 0]] += 1

    def _take(self, octets: bytes) -> None:
        now = time.monotonic()
        asked = self._waiting.pop(int.from_bytes(octets[:2], "big"), None)
        if asked is None or now - asked.sent_at > PATIENCE_S:
            return
        asked.took_s = now - asked.sent_at
        try:
            reply = dns.message.from_wire(octets)
        except dns.exception.DNSException:
            asked.outcome = "wrong"
            return
        asked.outcome = dns.rcode.to_text(reply.rcode())
        if asked.is_good and addresses(reply) != [right_address(asked.name)]:
            asked.outcome = "wrong"
