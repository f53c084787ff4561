"""A pod's stubs under steady load; runs in the pod's namespace until SIGTERM, then tells in JSON.

Most queries go as A and AAAA pairs, each pair from a socket of its own, as glibc sends them. A few
go over TCP, on fresh connections and on one that is used again and again. With one server a query
is sent once and never again; with two servers a lookup goes on to the next, as stubs do.

Standard library only, and no import of the tests: it is a program of its own.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import select
import selectors
import signal
import socket
import struct
import sys
import threading
from array import array
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from time import CLOCK_REALTIME, clock_gettime, monotonic, process_time
from typing import Any

_A, _AAAA = 1, 28
_GOOD = (0, 3)
_HOT_NAMES = 200
_UNIQUE_EACH = 100
_STEP_S = 0.001
_ONE_SERVER_PATIENCE_S = 5.0
_NEXT_SERVER_S = 1.0
_ATTEMPTS = 2  # resolv.conf(5): attempts
_TCP_PAUSE_S = 0.1
_WORST = 8
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python names it not
_COUNTS = 10  # octets of a query between its ID and its question
_ROOM = socket.CMSG_SPACE(16)


def question(name: str, rdtype: int) -> bytes:
    """Returns a query without its ID: RD set, no EDNS."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x01\x00\x00\x01\0\0\0\0\0\0" + labels + b"\0" + struct.pack("!HH", rdtype, 1)


class Names:
    """Deals out the names to ask: hot ones in turn, every hundredth never asked before."""

    def __init__(self, suffix: str, label: str) -> None:
        self._hot = [
            (question(name, _A), question(name, _AAAA))
            for name in (f"h{number}.{suffix}" for number in range(_HOT_NAMES))
        ]
        self._unique = f"u%d-{label}.{suffix}"
        self._count = itertools.count()

    def next(self) -> tuple[bytes, bytes]:
        """Returns the questions of one lookup."""
        number = next(self._count)
        if number % _UNIQUE_EACH == 0:
            name = self._unique % number
            return question(name, _A), question(name, _AAAA)
        return self._hot[number % _HOT_NAMES]


@dataclass
class Tally:
    """What became of the queries of one kind.

    Attributes:
        lost: Queries without a good reply at the end of their patience.
        errors: What the kernel said of sockets -> how often.
        again: Queries asked again because a connection broke (RFC 7766 section 6.2.4).
        worst: Latency in ms and the second since the start, the longest first.
        longest_gap: Longest time in ms without a good answer of the first server, and when.
    """

    began: float
    sent: int = 0
    answered: int = 0
    lost: int = 0
    again: int = 0
    by_server: Counter[int] = field(default_factory=Counter)
    rcodes: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies: array[float] = field(default_factory=lambda: array("d"))
    worst: list[tuple[float, float]] = field(default_factory=list)
    longest_gap: tuple[float, float] = (0.0, 0.0)
    _good_at: float = 0.0

    def answer(self, rcode: int, latency_s: float, server: int = 0) -> None:
        """Counts the reply that ends a query."""
        now = monotonic()
        self.answered += 1
        self.rcodes[rcode] += 1
        self.by_server[server] += 1
        ms = latency_s * 1e3
        self.latencies.append(ms)
        if len(self.worst) < _WORST or ms > self.worst[-1][0]:
            self.worst = sorted([*self.worst, (ms, now - self.began)], reverse=True)[:_WORST]
        if server == 0 and rcode in _GOOD:
            gap = (now - (self._good_at or now)) * 1e3
            self.longest_gap = max(self.longest_gap, (gap, now - self.began))
            self._good_at = now

    def report(self) -> dict[str, Any]:
        """Returns everything as JSON can hold it; times in ms."""
        ordered = sorted(self.latencies) or [0.0]
        return {
            "sent": self.sent,
            "answered": self.answered,
            "lost": self.lost,
            "again": self.again,
            "by_server": {str(server): count for server, count in self.by_server.items()},
            "rcodes": {str(rcode): count for rcode, count in self.rcodes.items()},
            "errors": dict(self.errors),
            "median_ms": ordered[len(ordered) // 2],
            "p99_ms": ordered[len(ordered) * 99 // 100],
            "p999_ms": ordered[len(ordered) * 999 // 1000],
            "longest_ms": ordered[-1],
            "worst": self.worst,
            "longest_gap": self.longest_gap,
        }


class Lookup:
    """One pair of queries, and how far it has come through the list of servers."""

    __slots__ = ("asked_at", "attempt", "began", "sock", "waiting")

    def __init__(self, waiting: dict[int, bytes]) -> None:
        self.waiting = waiting
        self.attempt = -1
        self.began = self.asked_at = 0.0
        self.sock: socket.socket | None = None


class UdpStubs:
    """Begins lookups at a steady rate and sees each to its end."""

    def __init__(self, servers: list[str], rate: float, names: Names, tally: Tally) -> None:
        self._servers = servers
        self._attempts = len(servers) * _ATTEMPTS if len(servers) > 1 else 1
        self._patience_s = _NEXT_SERVER_S if len(servers) > 1 else _ONE_SERVER_PATIENCE_S
        self._pairs_per_s = rate / 2
        self._names = names
        self._tally = tally
        self._ids = itertools.count(1)
        self._selector = selectors.EpollSelector()
        self._due: deque[tuple[float, Lookup, int]] = deque()
        # The kernel stamps datagrams as long as one socket wants it: keep one all the time.
        self._stamping = self._socket(servers[0])

    def run(self, stopping: threading.Event) -> None:
        """Asks until ``stopping``, then waits for what is under way."""
        began, count = monotonic(), 0
        while not stopping.is_set():
            while count < (monotonic() - began) * self._pairs_per_s:
                self._begin()
                count += 1
            self._receive()
            self._expire()
        while self._due:
            self._receive()
            self._expire()

    def _socket(self, server: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.connect((server, 53))
        return sock

    def _begin(self) -> None:
        lookup = Lookup({next(self._ids) & 0xFFFF: rest for rest in self._names.next()})
        lookup.began = clock_gettime(CLOCK_REALTIME)
        self._tally.sent += len(lookup.waiting)
        self._advance(lookup)

    def _advance(self, lookup: Lookup) -> None:
        """Asks the next server for what is missing; after the last one it is lost."""
        self._drop(lookup)
        lookup.attempt += 1
        if lookup.attempt >= self._attempts:
            self._tally.lost += len(lookup.waiting)
            lookup.waiting = {}
            return
        lookup.sock = self._socket(self._servers[lookup.attempt % len(self._servers)])
        self._selector.register(lookup.sock, selectors.EVENT_READ, lookup)
        self._due.append((monotonic() + self._patience_s, lookup, lookup.attempt))
        for ident, rest in lookup.waiting.items():
            try:
                lookup.sock.send(ident.to_bytes(2, "big") + rest)
            except OSError as error:
                # An earlier query's ICMP error: this one was not sent. It counts as lost.
                self._tally.errors[errno.errorcode[error.errno or 0]] += 1

    def _drop(self, lookup: Lookup) -> None:
        if lookup.sock is not None:
            self._selector.unregister(lookup.sock)
            lookup.sock.close()
            lookup.sock = None

    def _receive(self) -> None:
        for key, _ in self._selector.select(_STEP_S):
            lookup: Lookup = key.data
            while lookup.sock is not None and lookup.waiting:
                try:
                    reply, ancillary, _, _ = lookup.sock.recvmsg(4096, _ROOM)
                except BlockingIOError:
                    break
                except OSError as error:
                    self._tally.errors[errno.errorcode[error.errno or 0]] += 1
                    self._fail(lookup)
                    break
                self._take(lookup, reply, ancillary)
            if not lookup.waiting:
                self._drop(lookup)

    def _take(self, lookup: Lookup, reply: bytes, ancillary: list[Any]) -> None:
        ident, rcode = int.from_bytes(reply[:2], "big"), reply[3] & 15
        if lookup.waiting.get(ident, b"")[_COUNTS:] != _question_of(reply):
            self._tally.errors["stray"] += 1
            return
        if rcode not in _GOOD and lookup.attempt + 1 < self._attempts:
            self._tally.errors[f"next server after rcode {rcode}"] += 1
            self._advance(lookup)
            return
        if rcode not in _GOOD and self._attempts > 1:
            self._tally.lost += 1
        del lookup.waiting[ident]
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        latency_s = seconds + nanoseconds / 1e9 - lookup.began
        self._tally.answer(rcode, latency_s, lookup.attempt % len(self._servers))

    def _fail(self, lookup: Lookup) -> None:
        """An ICMP error: on to the next server, or, with one server, wait for the other reply."""
        if self._attempts > 1:
            self._advance(lookup)

    def _expire(self) -> None:
        now = monotonic()
        while self._due and (self._due[0][0] <= now or not self._due[0][1].waiting):
            _, lookup, attempt = self._due.popleft()
            if lookup.waiting and lookup.attempt == attempt:
                self._advance(lookup)


def _question_of(reply: bytes) -> bytes:
    """Returns the question section of a reply to one uncompressed question."""
    return reply[12 : reply.find(b"\0", 12) + 5]


class TcpStub:
    """Asks one query after the other over TCP, each on a connection of its own or all on one."""

    def __init__(self, server: str, names: Names, tally: Tally, *, is_kept: bool) -> None:
        self._server = server
        self._names = names
        self._tally = tally
        self._is_kept = is_kept
        self._sock: socket.socket | None = None

    def run(self, stopping: threading.Event) -> None:
        """Asks ten times a second until ``stopping``."""
        while not stopping.wait(_TCP_PAUSE_S):
            for rest in self._names.next():
                self._lookup(b"\x12\x34" + rest)
        self._drop()

    def _lookup(self, query: bytes) -> None:
        self._tally.sent += 1
        began = monotonic()
        for again in (0, 1):
            self._tally.again += again
            try:
                rcode = self._exchange(query)
            except (OSError, EOFError) as error:
                self._tally.errors[f"{type(error).__name__}: {error}"] += 1
                self._drop()
                continue
            self._tally.answer(rcode, monotonic() - began)
            break
        else:
            self._tally.lost += 1
        if not self._is_kept:
            self._drop()

    def _exchange(self, query: bytes) -> int:
        if self._sock is not None and self._was_closed(self._sock):
            self._drop()
        if self._sock is None:
            self._sock = socket.create_connection((self._server, 53), _ONE_SERVER_PATIENCE_S)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(len(query).to_bytes(2, "big") + query)
        reply = b""
        while len(reply) < 2 or len(reply) < 2 + int.from_bytes(reply[:2], "big"):
            piece = self._sock.recv(4096)
            if not piece:
                raise EOFError("closed with a query on it")
            reply += piece
        return reply[5] & 15

    @staticmethod
    def _was_closed(sock: socket.socket) -> bool:
        """Tells whether the server closed the connection since the last reply."""
        return bool(select.select([sock], [], [], 0)[0])  # nothing but an end can be there

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="address of the first nameserver")
    parser.add_argument("--second-server", help="address to go on to; no TCP then")
    parser.add_argument("--rate", type=float, default=1000, help="UDP queries a second")
    parser.add_argument("--suffix", default="wild.example.test")
    parser.add_argument("--label", default="", help="makes the unique names differ between pods")
    return parser.parse_args()


def main() -> int:
    """Runs until SIGTERM; prints one line of JSON."""
    arguments = _arguments()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    servers = [arguments.server]
    if arguments.second_server:
        servers.append(arguments.second_server)
    began = monotonic()
    tallies = {kind: Tally(began) for kind in ("udp", "fresh", "kept")}
    threads = []
    for kind in () if arguments.second_server else ("fresh", "kept"):
        names = Names(arguments.suffix, f"{kind}{arguments.label}")
        stub = TcpStub(servers[0], names, tallies[kind], is_kept=kind == "kept")
        threads.append(threading.Thread(target=stub.run, args=(stopping,)))
    for thread in threads:
        thread.start()
    names = Names(arguments.suffix, arguments.label)
    with suppress(KeyboardInterrupt):
        UdpStubs(servers, arguments.rate, names, tallies["udp"]).run(stopping)
    for thread in threads:
        thread.join()
    report: dict[str, Any] = {kind: tally.report() for kind, tally in tallies.items()}
    report["seconds"] = monotonic() - began
    report["cpu_share"] = process_time() / report["seconds"]
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
