"""Pods' stubs under steady load: a program that asks until SIGTERM and then tells in JSON.

Each query goes out once. One without a right, whole answer after five seconds (glibc's patience)
has failed, and so has one that was answered with anything else.
"""

from __future__ import annotations

import argparse
import json
import random
import selectors
import signal
import socket
import sys
from collections import Counter
from time import monotonic

from tests.scenarios.names import AAAA, A, is_right, question

SOCKETS = 16
PATIENCE_S = 5.0
_STEP_S = 0.001
_RCODES = {2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}


class Client:
    """Asks hot names again and again, and others once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._rate = arguments.rate
        self._share = arguments.unique
        self._dice = random.Random(arguments.seed)
        types = (A, AAAA) if arguments.aaaa else (A,)
        self._types = types
        self._label = arguments.label
        self._hot = [question(f"h{n}.test", t) for n in range(arguments.hot) for t in types]
        self._selector = selectors.EpollSelector()
        self._waiting: list[dict[int, tuple[float, bool]]] = [{} for _ in range(SOCKETS)]
        self._sockets: list[socket.socket] = []
        self._number = 0
        self.unique = 0
        self.failures: Counter[str] = Counter()
        self.hot_failures = 0
        self.over_1s = 0
        self.hot_longest_s = 0.0
        self.failed_at: list[float] = []
        self.latencies: list[float] = []
        self.is_stopping = False
        self.began = monotonic()
        for number in range(SOCKETS):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.connect((arguments.host, 53))
            self._sockets.append(sock)
            self._selector.register(sock, selectors.EVENT_READ, number)

    def run(self) -> None:
        """Asks until told to stop, then waits for what is under way."""
        self.began = monotonic()
        while not self.is_stopping:
            due = int((monotonic() - self.began) * self._rate)
            while self._number < due:
                self._send()
            self._receive()
        end = monotonic() + PATIENCE_S
        while any(self._waiting) and monotonic() < end:
            self._receive()
        self._expire(monotonic() + PATIENCE_S)

    def _send(self) -> None:
        number = self._number = self._number + 1
        is_unique = self._dice.random() < self._share
        if is_unique:
            self.unique += 1
            name = f"u{number}-{self._label}.test"
            rest = question(name, self._types[number % len(self._types)])
        else:
            rest = self._hot[number % len(self._hot)]
        waiting = self._waiting[number % SOCKETS]
        ident = number // SOCKETS & 0xFFFF
        waiting[ident] = (monotonic(), not is_unique)
        try:
            self._sockets[number % SOCKETS].send(ident.to_bytes(2, "big") + rest)
        except OSError as error:  # an ICMP error that an earlier query met
            self._fail(type(error).__name__, *waiting.pop(ident))

    def _receive(self) -> None:
        for key, _ in self._selector.select(_STEP_S):
            number: int = key.data
            try:
                while True:
                    self._take(self._waiting[number], self._sockets[number].recv(65535))
            except BlockingIOError:
                pass
            except OSError as error:
                self.failures[f"socket: {type(error).__name__}"] += 0
        if self._number % 64 == 0:
            self._expire(monotonic())

    def _take(self, waiting: dict[int, tuple[float, bool]], reply: bytes) -> None:
        asked = waiting.pop(int.from_bytes(reply[:2], "big"), None)
        if asked is None:
            return
        latency_s = monotonic() - asked[0]
        self.latencies.append(latency_s)
        self.over_1s += latency_s > 1.0
        if asked[1]:
            self.hot_longest_s = max(self.hot_longest_s, latency_s)
        if not is_right(reply):
            kind = "truncated" if reply[2] & 2 else _RCODES.get(reply[3] & 15, "wrong answer")
            self._fail(kind, *asked)

    def _fail(self, kind: str, asked_at: float, is_hot: bool) -> None:
        self.failures[kind] += 1
        self.hot_failures += is_hot
        self.failed_at.append(round(asked_at - self.began, 1))

    def _expire(self, now: float) -> None:
        for waiting in self._waiting:
            while waiting:
                ident, asked = next(iter(waiting.items()))
                if now - asked[0] < PATIENCE_S:
                    break
                del waiting[ident]
                self.over_1s += 1
                self._fail("lost", *asked)

    def report(self) -> dict[str, object]:
        """Returns what came of it all; times in ms."""
        ordered = sorted(self.latencies) or [0.0]
        return {
            "sent": self._number,
            "unique": self.unique,
            "failures": sum(self.failures.values()),
            "hot_failures": self.hot_failures,
            "over_1s": self.over_1s,
            "kinds": dict(self.failures),
            "failed_at": self.failed_at[:40],
            "median_ms": ordered[len(ordered) // 2] * 1e3,
            "p95_ms": ordered[len(ordered) * 95 // 100] * 1e3,
            "p99_ms": ordered[len(ordered) * 99 // 100] * 1e3,
            "longest_ms": ordered[-1] * 1e3,
            "hot_longest_ms": self.hot_longest_s * 1e3,
        }


def main() -> None:
    """Runs until SIGTERM; prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--hot", type=int, default=200)
    parser.add_argument("--unique", type=float, default=0.3)
    parser.add_argument("--aaaa", action="store_true")
    parser.add_argument("--label", default="x")
    parser.add_argument("--seed", type=int, default=1)
    client = Client(parser.parse_args())

    def stop(*_: object) -> None:
        client.is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    client.run()
    sys.stdout.write(json.dumps(client.report()) + "\n")


if __name__ == "__main__":
    main()
