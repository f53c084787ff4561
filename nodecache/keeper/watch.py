"""Asks the worker through the addresses that pods ask, and knows for how long nobody answered.

Knows nothing of processes and rules. Times are monotonic seconds, handed in.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

INTERVAL_S = 0.5
# How often a worker that does not answer is asked whether it does again, and for how long its
# sockets are left alone each time, so that the question waits for it and not for the keeper.
INTERVAL_OF_SILENCE_S = 0.25
QUIET_S = 0.04
SILENCE_S = 0.5
WITHDRAW_AFTER_S = 1.0
_HEADER_OCTETS = 12
_QR = 0x80
_IDS_KEPT = 8
_ANSWERS_AT_ONCE = 1024
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # not bound to


class _Target:
    """One address, with the IDs of the last probes and the time of the last answer."""

    __slots__ = ("answered_at", "family", "has_answered", "ids", "place", "text")

    def __init__(self, family: int, place: tuple[object, ...], text: str, now: float) -> None:
        self.family = family
        self.place = place
        self.text = text
        self.ids: list[bytes] = []
        self.has_answered = True
        self.answered_at = now


class Watch:
    """Probes of one worker after the other.

    Attributes:
        good_rounds: How many times in a row an address answered before the next probe.
        unanswered_since: When the first probe was sent that nobody answered; None if there is none.
        quiet_until: Until then nobody but the worker may read its sockets.
    """

    def __init__(self) -> None:
        self.good_rounds = 0
        self.unanswered_since: float | None = None
        self.quiet_until = 0.0
        self._probe = b""
        self._targets: list[_Target] = []
        self._socks: dict[int, socket.socket] = {}
        self._next_at = 0.0
        self._is_on = False

    def begin(self, probe: bytes, addresses: Sequence[tuple[str, int]], now: float) -> None:
        """Asks at these addresses from now on; silence counts from now on, too."""
        self._probe = probe
        self._targets = [t for host, port in addresses for t in _targets_at(host, port, now)]
        self.unanswered_since = None
        self.good_rounds = 0
        self._next_at = now
        self._is_on = True

    def resume(self, now: float) -> None:
        """Asks again at the same addresses, whoever answers there now."""
        for target in self._targets:
            target.answered_at = now
        self.unanswered_since = None
        self._next_at = now
        self._is_on = True

    def stop(self) -> None:
        """Asks no more; what is known of the silence stays."""
        self._is_on = False

    def forgive(self, now: float) -> None:
        """Begins to measure anew: it was the keeper who did not listen."""
        if self.unanswered_since is not None:
            self.unanswered_since = now
        for target in self._targets:
            target.answered_at = max(target.answered_at, now - QUIET_S)

    def is_silent(self, now: float) -> bool:
        """Whether no address answered for so long that queries are to be refused."""
        since = self.unanswered_since
        return self._is_on and since is not None and now - since >= SILENCE_S

    def longest_silence(self, now: float) -> tuple[float, str]:
        """Returns for how many seconds no address answered, and which was the last to answer.

        One that answers is enough: who lost an address repairs that. (0, "") without any address.
        """
        if not self._targets:
            return 0.0, ""
        last = max(self._targets, key=lambda target: target.answered_at)
        return now - last.answered_at, last.text

    def next_at(self) -> float | None:
        """Returns when ``step`` has to be called next; None if there is nothing to ask."""
        return self._next_at if self._is_on and self._targets else None

    def socks(self) -> list[socket.socket]:
        """Returns what answers come in by."""
        return list(self._socks.values()) if self._is_on else []

    def step(self, now: float) -> None:
        """Asks again if it is time to."""
        due = self.next_at()
        if due is None or now < due:
            return
        is_good = any(target.has_answered for target in self._targets)
        self.good_rounds = self.good_rounds + 1 if is_good and self._has_asked() else 0
        for target in self._targets:
            self._ask(target)
        if self.unanswered_since is None:
            self.unanswered_since = now
        silent = self.is_silent(now)
        self.quiet_until = now + QUIET_S if silent else 0.0
        self._next_at = now + (INTERVAL_OF_SILENCE_S if silent else INTERVAL_S)

    def read(self, sock: socket.socket, now: float) -> None:
        """Takes the answers that are there."""
        for _ in range(_ANSWERS_AT_ONCE):
            try:
                octets, place = sock.recvfrom(_HEADER_OCTETS)
            except OSError:  # nothing there, or an error report of a former probe
                return
            if len(octets) >= _HEADER_OCTETS and octets[2] & _QR:
                self._note(octets[:2], place, now)

    def close(self) -> None:
        """Closes its sockets."""
        self.stop()
        for sock in self._socks.values():
            sock.close()
        self._socks.clear()

    def _has_asked(self) -> bool:
        return any(target.ids for target in self._targets)

    def _ask(self, target: _Target) -> None:
        message_id = os.urandom(2)
        target.ids = [*target.ids[1 - _IDS_KEPT :], message_id]
        target.has_answered = False
        try:
            if target.family not in self._socks:
                sock = socket.socket(target.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                self._socks[target.family] = sock
            self._socks[target.family].sendto(message_id + self._probe[2:], target.place)
        except OSError:  # no such address any more, a full buffer: no answer either way
            pass

    def _note(self, message_id: bytes, place: tuple[object, ...], now: float) -> None:
        for target in self._targets:
            if target.place[:2] == place[:2] and message_id in target.ids:
                target.has_answered = message_id == target.ids[-1] or target.has_answered
                target.answered_at = now
                self.unanswered_since = None
                return


def place_text(host: str, port: int) -> str:
    """Returns a place as the names of sockets and the log have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _targets_at(host: str, port: int, now: float) -> list[_Target]:
    """Returns the target at a literal; none if it is no address here."""
    text = place_text(host, port)
    try:
        # As octets: a str would load the IDNA tables.
        literal = _LOOPBACK.get(host, host).encode("ascii")
        found = socket.getaddrinfo(
            literal, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return []
    return [_Target(family, place, text, now) for family, _, _, _, place in found[:1]]
