"""The worker's sockets, and what is done with them while no worker answers.

Asks whether one does, refuses queries, leaves them to the cluster's DNS: as ``holding`` decides.
Knows no process. Times are monotonic seconds.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from nodecache.host.beat import say_goodbye
from nodecache.process.channel import Serving
from nodecache.process.keeper.refuse import Polled, Refuser
from nodecache.process.keeper.silence import SILENCE_S, Silence, place_text

MAX_HELD = 512


class Held:
    """What the keeper holds for its worker.

    Attributes:
        socks: Listening sockets, by name.
        silence: Whether the worker answers.
        is_refusing: Whether queries are refused at present.
    """

    def __init__(self) -> None:
        self.socks: dict[str, socket.socket] = {}
        self.silence = Silence()
        self.is_refusing = False
        self._refuser = Refuser()
        # Addresses that the rules lead elsewhere while nobody says that he serves, and the places
        # of the sockets that answer there.
        self._led_elsewhere: list[tuple[str, str]] = []
        self._away_since: float | None = None  # since when no worker serves
        self._refused_before = 0

    def hold(self, name: str, sock: socket.socket) -> None:
        """Takes a socket, in place of one of that name."""
        self.release(name)
        if len(self.socks) < MAX_HELD:
            self.socks[name] = sock
        else:
            sock.close()

    def release(self, name: str) -> None:
        """Closes a socket."""
        sock = self.socks.pop(name, None)
        if sock is not None:
            sock.close()

    def forget(self) -> None:
        """Lets go of everything: it is a successor's."""
        self._led_elsewhere = []
        self._away_since = None
        self.close()

    # Whether somebody answers

    def ask(self, serving: Serving, now: float) -> None:
        """Asks where the worker says that it answers."""
        self._away_since = None
        self._led_elsewhere = [
            (host, self._place_of(host, port))
            for host, port in serving.addresses
            if (host, port) not in serving.refusing
        ]
        refusing = {self._place_of(host, port) for host, port in serving.refusing}
        self._refuser.question = serving.question
        self._refuser.places = refusing - {place for _, place in self._led_elsewhere}
        self.silence.begin(serving.question, serving.addresses, serving.stuck_after_s, now)

    def count_silence(self, now: float) -> None:
        """Counts from the worker's last answer on, until one serves."""
        if self._away_since is None:
            self._away_since = self.silence.unanswered_since or now

    def is_silent(self, now: float) -> bool:
        """Whether nobody has answered for so long that somebody else has to."""
        away_s = 0.0 if self._away_since is None else now - self._away_since
        return away_s >= SILENCE_S or self.silence.is_silent(now)

    # What is due

    def is_calm(self) -> bool:
        """Whether nothing changes soon unless something comes in."""
        return self._away_since is None and self.silence.unanswered_since is None

    def moments(self) -> list[float]:
        """Returns when ``turn`` is wanted."""
        due = self.silence.next_at()
        return [self.silence.quiet_until] + ([] if due is None else [due])

    def turn(self, now: float) -> None:
        """Does what is due."""
        self.silence.step(now)
        self._refuser.expire(now)

    def polled(self, now: float) -> list[Polled]:
        """Returns what is to be polled for, and what to call then."""
        polled: list[Polled] = [
            (sock.fileno(), select.POLLIN, self._answers_of(sock)) for sock in self.silence.socks()
        ]
        if self.is_refusing and now >= self.silence.quiet_until:
            polled += self._refuser.polled(self.socks, now)
        polled += self._refuser.polled_connections()
        return polled

    # What is done for queries

    def say_goodbye(self) -> None:
        """Has the node's rules lead to the cluster's DNS at once, instead of a second later."""
        for host, place in self._led_elsewhere:
            sock = self.socks.get(f"udp {place}")
            if sock is not None:
                say_goodbye(sock, host)

    def refuse_once(self, now: float) -> None:
        """Refuses what waits where the rules lead elsewhere: who asked asks again, and is led."""
        self._refused_before = self._refuser.refused
        places = {place for _, place in self._led_elsewhere}
        led = {name: s for name, s in self.socks.items() if name.partition(" ")[2] in places}
        self._refuser.sweep(led, now)

    def refuse_all(self, now: float) -> None:
        """Refuses what waits in the sockets, before they are closed for good."""
        self._refuser.sweep(self.socks, now)

    def ways(self) -> str:
        """Returns what becomes of queries that nobody answers, for the log."""
        ways = ["are refused at once"] if self._refuser.places else []
        ways += ["go to the cluster's DNS"] if self._led_elsewhere else []
        return " or ".join(ways) or "wait"

    def refused_meanwhile(self) -> int:
        """Returns how many queries were refused since ``refuse_once``, these included."""
        return self._refuser.refused - self._refused_before

    def counts(self) -> dict[str, int]:
        """Returns "refused" and "dropped"."""
        return {"refused": self._refuser.refused, "dropped": self._refuser.dropped}

    # The end

    def let_go(self) -> None:
        """Closes in a forked worker what is the keeper's alone; its sockets stay."""
        self._refuser.close()
        self.silence.close()

    def close(self) -> None:
        """Closes everything."""
        self.let_go()
        for name in list(self.socks):
            self.release(name)

    def _answers_of(self, sock: socket.socket) -> Callable[[float], None]:
        return lambda _now: self.silence.read(sock)

    def _place_of(self, host: str, port: int) -> str:
        """Returns the place of the socket that answers there: its own, or every address."""
        place = place_text(host, port)
        if f"udp {place}" in self.socks:
            return place
        return place_text("::" if ":" in host else "0.0.0.0", port)  # noqa: S104 # not bound to
