"""Stub resolvers of one pod, or of one node process, under steady load; says in JSON what they met.

They ask as stubs in containers do: glibc two questions from a connected socket, again after 5 s,
twice in all; musl both from an unconnected one at all its servers at once, again after 2.5 s, for
5 s in all. No two look-ups share a source port. Some ask over TCP, each on a connection of its own,
three times in all, 0.1 s after one that broke: at once, as some do, they would only meet the same
dying process again.

A query is lost when it has no good answer within a second of being sent: silence, an ICMP error, a
broken connection, or an RCODE other than NOERROR and NXDOMAIN. Its look-up has failed when it is
lost after all that the stub does about it.

Standard library only, and no import of the tests: it is a program of its own.
"""

from __future__ import annotations

import argparse
import errno
import heapq
import itertools
import json
import selectors
import signal
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, process_time, sleep
from typing import Any, NamedTuple

_A, _AAAA = 1, 28
_GOOD = (0, 3)
_LOST_S = 1.0
_GLIBC_RETRY_S, _MUSL_RETRY_S = 5.0, 2.5
_TCP_PAUSE_S = 0.1
_STEP_S = 0.002
_HOT_NAMES = 200
_FRESH_EACH = 10  # look-ups: one is for a name that nobody asked before
_NODE_TTL_S = 30  # the cluster's DNS says 600
_BROKEN = (ConnectionError, EOFError, TimeoutError, OSError)


class Kind(NamedTuple):
    """What a stub is made of: "glibc", "musl" or "tcp", and its resolv.conf."""

    manner: str
    servers: tuple[str, ...]


@dataclass
class Tally:
    """What became of it all.

    Attributes:
        sent: Queries, without those that were sent again.
        lost: When, with which stub and how a query was lost; seconds since the start.
        failed: When, with which stub a query's look-up ended without an answer.
        by: Who answered.
        longest_s: The longest look-up that ended well.
    """

    began: float
    sent: int = 0
    answered: int = 0
    lost: list[tuple[float, str, str]] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)
    by: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def lose(self, lookup: Lookup, how: str) -> None:
        """Counts an attempt; ``at`` is when its query was sent."""
        self.lost.append((round(lookup.sent_at - self.began, 3), lookup.label, how))

    def fail(self, lookup: Lookup, count: int) -> None:
        self.failed += [(round(lookup.began - self.began, 3), lookup.label)] * count

    def answer(self, lookup: Lookup, reply: bytes) -> None:
        """Counts a good answer."""
        self.answered += 1
        now = monotonic()
        self.longest_s = max(self.longest_s, now - lookup.began)
        who = _answerer(reply)
        if who:
            self.by[who] += 1


def _question(name: str, rdtype: int) -> bytes:
    """Returns a query without its ID: RD set, no EDNS."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x01\x00\x00\x01\0\0\0\0\0\0" + labels + b"\0" + struct.pack("!HH", rdtype, 1)


def _answerer(reply: bytes) -> str:
    """Returns who made a reply that has an answer: its TTL shows it."""
    end = reply.find(b"\0", 12) + 5
    if reply[6:8] == b"\0\0" or len(reply) < end + 10:
        return ""
    ttl = int.from_bytes(reply[end + 6 : end + 10], "big")
    return "node" if ttl <= _NODE_TTL_S else "cluster"


class Names:
    """Deals out the questions to ask, an A and an AAAA each."""

    def __init__(self, suffix: str, label: str) -> None:
        self._suffix, self._label = suffix, label
        self._hot = [self._pair(f"h{number}") for number in range(_HOT_NAMES)]
        self._counts = itertools.count()

    def _pair(self, host: str) -> tuple[bytes, bytes]:
        name = f"{host}.{self._suffix}"
        return _question(name, _A), _question(name, _AAAA)

    def next(self) -> tuple[bytes, bytes]:
        """Returns the questions of one look-up."""
        number = next(self._counts)
        if number % _FRESH_EACH == 0:
            return self._pair(f"f{number}-{self._label}")
        return self._hot[number % _HOT_NAMES]


class Lookup:
    """An A and an AAAA question, and what a stub does to have them answered."""

    attempts = 2
    retry_s = _GLIBC_RETRY_S

    def __init__(self, stubs: Stubs, kind: Kind, waiting: dict[int, bytes]) -> None:
        self.label = f"{kind.manner} {'+'.join(kind.servers)}"
        self.waiting = waiting
        self.tried = 0
        self.began = self.sent_at = monotonic()
        self._bad: set[int] = set()
        self._lost: set[int] = set()
        self._servers = kind.servers
        self._stubs = stubs
        self._sock: socket.socket | None = None

    def attempt(self) -> None:
        """Sends what is not answered, or gives up."""
        if self.tried == self.attempts:
            self._stubs.tally.fail(self, len(self.waiting))
            self.waiting.clear()
            self.close()
            return
        self.tried += 1
        self._bad, self._lost = set(), set()
        self.sent_at = monotonic()
        self._stubs.expect(self, self.sent_at + _LOST_S, self.tried, "no answer in 1 s")
        self._stubs.expect(self, self.sent_at + self.retry_s, self.tried, "")
        try:
            self._send()
        except OSError as error:
            self._break(error)

    def expire(self, attempt: int, how: str) -> None:
        """The time of an attempt is over, to be counted (``how``) or to be made again ("")."""
        if attempt != self.tried or not self.waiting:
            return
        if how:
            self._lose(self.waiting.keys(), how)
        else:
            self.attempt()

    def receive(self) -> None:
        """Takes all that has come."""
        while self._sock is not None and self.waiting:
            try:
                reply = self._read(self._sock)
            except BlockingIOError:
                return
            except _BROKEN as error:
                self._break(error)
                return
            if reply:
                self._take(reply)
        if not self.waiting:
            self.close()

    def close(self) -> None:
        """Lets go of the socket."""
        if self._sock is not None:
            self._stubs.selector.unregister(self._sock)
            self._sock.close()
            self._sock = None

    def _open(self, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._servers[0] else socket.AF_INET
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        self._stubs.selector.register(sock, selectors.EVENT_READ, self)
        self._sock = sock
        return sock

    def _send(self) -> None:
        if self._sock is None:
            self._open(socket.SOCK_DGRAM).connect((self._servers[0], 53))
        assert self._sock is not None
        for ident, rest in self.waiting.items():
            self._sock.send(ident.to_bytes(2, "big") + rest)

    def _read(self, sock: socket.socket) -> bytes:
        return sock.recv(4096)

    def _take(self, reply: bytes) -> None:
        ident, rcode = int.from_bytes(reply[:2], "big"), reply[3] & 15
        if ident not in self.waiting:
            return
        if rcode in _GOOD:
            del self.waiting[ident]
            self._stubs.tally.answer(self, reply)
        else:
            self._lose({ident}, f"rcode {rcode}")
            self._bad.add(ident)
            self._refused(ident, rcode)

    def _refused(self, ident: int, rcode: int) -> None:
        """glibc goes on to the next server, here the same again, when nothing else can come."""
        if self._bad >= self.waiting.keys():
            self.close()
            self.attempt()

    def _break(self, error: Exception) -> None:
        """An error of the socket ends the attempt; the next one begins at once."""
        number = error.errno if isinstance(error, OSError) else None
        self._lose(self.waiting.keys(), errno.errorcode.get(number or 0, type(error).__name__))
        self.close()
        self._again()

    def _again(self) -> None:
        self.attempt()

    def _lose(self, idents: Any, how: str) -> None:
        for ident in set(idents) - self._lost:
            self._lost.add(ident)
            self._stubs.tally.lose(self, how)


class MuslLookup(Lookup):
    """All servers at once from one unconnected socket; what is no answer is waited out."""

    retry_s = _MUSL_RETRY_S

    def _send(self) -> None:
        sock = self._sock or self._open(socket.SOCK_DGRAM)
        for ident, rest in self.waiting.items():
            for server in self._servers:
                sock.sendto(ident.to_bytes(2, "big") + rest, (server, 53))

    def _refused(self, ident: int, rcode: int) -> None:
        pass

    def _break(self, error: Exception) -> None:
        pass  # res_msend.c looks at no error of sendto


class TcpLookup(Lookup):
    """Both questions on a connection of their own, again on another."""

    attempts = 3
    _written = False
    _input = b""

    def _again(self) -> None:
        self._stubs.expect(self, monotonic() + _TCP_PAUSE_S, self.tried, "")

    def _send(self) -> None:
        self.close()
        self._written, self._input = False, b""
        sock = self._open(socket.SOCK_STREAM)
        self._stubs.selector.modify(sock, selectors.EVENT_WRITE, self)
        with suppress(BlockingIOError):
            sock.connect((self._servers[0], 53))

    def _read(self, sock: socket.socket) -> bytes:
        if not self._written:
            messages = [ident.to_bytes(2, "big") + rest for ident, rest in self.waiting.items()]
            sock.sendall(b"".join(len(text).to_bytes(2, "big") + text for text in messages))
            self._written = True
            self._stubs.selector.modify(sock, selectors.EVENT_READ, self)
        end = 2 + int.from_bytes(self._input[:2], "big")
        if len(self._input) < max(end, 3):
            piece = sock.recv(4096)
            if not piece:
                raise EOFError
            self._input += piece
            end = 2 + int.from_bytes(self._input[:2], "big")
        reply = self._input[2:end] if len(self._input) >= end else b""
        self._input = self._input[end:] if reply else self._input
        return reply


_LOOKUPS = {"glibc": Lookup, "musl": MuslLookup, "tcp": TcpLookup}


class Stubs:
    """Begins look-ups at a steady rate and sees each to its end."""

    def __init__(self, kinds: list[Kind], names: Names, tally: Tally) -> None:
        self.selector = selectors.EpollSelector()
        self.tally = tally
        self._kinds = itertools.cycle(kinds)
        self._names = names
        self._idents = itertools.count(1)
        self._serials = itertools.count()
        self._due: list[tuple[float, int, Lookup, int, str]] = []

    def expect(self, lookup: Lookup, at: float, attempt: int, how: str) -> None:
        """Has an attempt looked at again at a time."""
        heapq.heappush(self._due, (at, next(self._serials), lookup, attempt, how))

    def run(self, rate: float, seconds: float) -> None:
        """Sends so many queries a second for so long, then waits for what is under way."""
        began, count, pairs = self.tally.began, 0, int(rate * seconds / 2)
        while count < pairs or self._due:
            while count < min(pairs, (monotonic() - began) * rate / 2):
                self._begin()
                count += 1
            for key, _ in self.selector.select(_STEP_S):
                key.data.receive()
            self._expire()

    def _begin(self) -> None:
        kind = next(self._kinds)
        waiting = {next(self._idents) & 0xFFFF: rest for rest in self._names.next()}
        self.tally.sent += len(waiting)
        _LOOKUPS[kind.manner](self, kind, waiting).attempt()

    def _expire(self) -> None:
        now = monotonic()
        while self._due and (self._due[0][0] <= now or not self._due[0][2].waiting):
            _, _, lookup, attempt, how = heapq.heappop(self._due)
            lookup.expire(attempt, how)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="+", help="MANNER=SERVER[,SERVER], in turn")
    parser.add_argument("--rate", type=float, required=True, help="queries a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--start", type=float, required=True, help="when, in monotonic seconds")
    parser.add_argument("--suffix", default="wild.example.test")
    parser.add_argument("--label", required=True, help="makes its fresh names its own")
    return parser.parse_args()


def main() -> int:
    """Prints one line of JSON at the end; SIGTERM ends it without."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    kinds = []
    for text in arguments.kinds:
        manner, _, servers = text.partition("=")
        kinds.append(Kind(manner, tuple(servers.split(","))))
    tally = Tally(arguments.start)
    sleep(max(0.0, arguments.start - monotonic()))
    names = Names(arguments.suffix, arguments.label)
    Stubs(kinds, names, tally).run(arguments.rate, arguments.seconds)
    report = {
        "sent": tally.sent,
        "answered": tally.answered,
        "lost": tally.lost,
        "failed": tally.failed,
        "by": dict(tally.by),
        "longest_s": tally.longest_s,
        "cpu_s": process_time(),
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
