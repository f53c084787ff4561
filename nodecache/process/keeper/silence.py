"""Asks the worker at the addresses that pods ask, and knows for how long nobody answered.

Asks from the loopback address, since the node's rules leave that alone: from anywhere else the
cluster's DNS could answer in the worker's place. Knows nothing of processes. Times are monotonic
seconds, handed in.
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
# Another keeper ends a worker that is stuck, and has another one serving after that.
_DESERTED_S = 2.0
# A worker that is about to be taken for stuck has its sockets for itself for so long: one on a busy
# machine needs more than QUIET_S to come round to the question.
LAST_CHANCE_S = 1.0
_HEADER_OCTETS = 12
_QR = 0x80
# An answer counts however late it comes: within 16 s, at four questions a second.
_IDS_KEPT = 64
_ANSWERS_AT_ONCE = 1024
_LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_WILDCARDS = {
    "": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",  # noqa: S104 # not bound to
    "::": "::1",
}


class _Target:
    """One address, with the IDs of the last questions, and where these come from."""

    __slots__ = ("family", "ids", "place", "source")

    def __init__(self, family: int, place: tuple[object, ...]) -> None:
        self.family = family
        self.place = place
        # From ::1 there is no way back from a link-local address; no rule leads that elsewhere.
        has_zone = family == socket.AF_INET6 and bool(place[3])
        self.source = "::" if has_zone else _LOOPBACK[family]
        self.ids: list[bytes] = []


class Silence:
    """The questions to one worker after the other, and what their answers tell.

    Attributes:
        unanswered_since: When the first question was sent that nobody answered; None without one.
        quiet_until: Until then nobody but the worker may read its sockets.
    """

    def __init__(self) -> None:
        self.unanswered_since: float | None = None
        self.quiet_until = 0.0
        self._question = b""
        self._stuck_after_s = 0.0
        self._targets: list[_Target] = []
        self._socks: dict[str, socket.socket] = {}
        self._has_answered = False
        self._mute_at = 0.0
        self._next_at = 0.0
        self._is_on = False

    def begin(
        self,
        question: bytes,
        addresses: Sequence[tuple[str, int]],
        stuck_after_s: float,
        now: float,
    ) -> None:
        """Asks at these addresses from now on; silence counts from now on, too."""
        self._question = question
        self._stuck_after_s = stuck_after_s
        self._targets = [t for host, port in addresses for t in _targets_at(host, port)]
        self.resume(now)

    def resume(self, now: float) -> None:
        """Asks again at the same addresses, whoever answers there now."""
        self.unanswered_since = None
        self.quiet_until = 0.0
        self._next_at = now
        self._is_on = True

    def stop(self) -> None:
        """Asks no more, and leaves the sockets to others; what is known of the silence stays."""
        self._is_on = False
        self._has_answered = False
        self.quiet_until = 0.0

    def forgive(self, now: float) -> None:
        """Begins to measure anew: it was the keeper who did not listen."""
        if self.unanswered_since is not None:
            self.unanswered_since = now

    def silence_s(self, now: float) -> float:
        """Returns for how long no address has answered.

        One that answers is enough: who lost an address repairs that.
        """
        if not self._is_on or self.unanswered_since is None:
            return 0.0
        return now - self.unanswered_since

    def is_silent(self, now: float) -> bool:
        """Whether nobody answered for so long that somebody else has to."""
        return self.silence_s(now) >= SILENCE_S

    def is_stuck(self, now: float) -> bool:
        """Whether who has answered before did not for so long that he never will.

        Not while nothing can be asked, for want of an address, nor if no answer ever comes
        through: then it is the way that is wrong, not the worker.
        """
        silence_s = min(self.silence_s(now), now - self._mute_at)
        return self._has_answered and 0 < self._stuck_after_s <= silence_s

    def is_deserted(self, now: float) -> bool:
        """Whether nobody answered for so long that not even another keeper can be there."""
        return self.silence_s(now) >= self._stuck_after_s + _DESERTED_S

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
        asked = [self._ask(target) for target in self._targets]
        if not any(asked):
            self._mute_at = now
        if self.unanswered_since is None:
            self.unanswered_since = now
        silent = self.is_silent(now)
        self.quiet_until = self._quiet_until(now) if silent else 0.0
        self._next_at = now + (INTERVAL_OF_SILENCE_S if silent else INTERVAL_S)

    def read(self, sock: socket.socket) -> None:
        """Takes the answers that are there."""
        for _ in range(_ANSWERS_AT_ONCE):
            try:
                octets, place = sock.recvfrom(_HEADER_OCTETS)
            except OSError:  # nothing there, or an error report of a former question
                return
            if len(octets) >= _HEADER_OCTETS and octets[2] & _QR:
                self._note(octets[:2], place)

    def close(self) -> None:
        """Closes its sockets."""
        self.stop()
        for sock in self._socks.values():
            sock.close()
        self._socks.clear()

    def _quiet_until(self, now: float) -> float:
        left_s = self._stuck_after_s - self.silence_s(now)
        return now + (left_s if QUIET_S < left_s <= LAST_CHANCE_S else QUIET_S)

    def _ask(self, target: _Target) -> bool:
        """Returns whether the question is on its way."""
        message_id = os.urandom(2)
        target.ids = [*target.ids[1 - _IDS_KEPT :], message_id]
        try:
            sock = self._sock(target.family, target.source)
            sock.sendto(message_id + self._question[2:], target.place)
        except OSError:  # no such address any more, a full buffer
            return False
        return True

    def _sock(self, family: int, source: str) -> socket.socket:
        """Returns what questions leave by. Raises OSError."""
        if source not in self._socks:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                sock.bind((source, 0))
            except OSError:
                sock.close()
                raise
            self._socks[source] = sock
        return self._socks[source]

    def _note(self, message_id: bytes, place: tuple[object, ...]) -> None:
        for target in self._targets:
            if target.place[:2] == place[:2] and message_id in target.ids:
                self._has_answered = True
                self.unanswered_since = None
                return


def place_text(host: str, port: int) -> str:
    """Returns a place as the names of sockets and the log have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _targets_at(host: str, port: int) -> list[_Target]:
    """Returns the target at a literal; none if it is no address here."""
    try:
        # As octets: a str would load the IDNA tables.
        literal = _WILDCARDS.get(host, host).encode("ascii")
        found = socket.getaddrinfo(
            literal, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return []
    return [_Target(family, place) for family, _, _, _, place in found[:1]]
