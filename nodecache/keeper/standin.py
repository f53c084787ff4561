"""What is done for queries while no worker answers: refuse them, and have the redirect withdrawn.

Holds the sockets and judges the silence; knows no process. Times are monotonic seconds.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from nodecache.channel import Serving
from nodecache.keeper.lines import Lines
from nodecache.keeper.redirect import Redirect
from nodecache.keeper.refuse import Refuser, Watched
from nodecache.keeper.watch import SILENCE_S, WITHDRAW_AFTER_S, Watch, place_text

MAX_HELD = 512
_GOOD_ROUNDS = 3


class StandIn:
    """Stands in for the worker.

    Attributes:
        held: The worker's listening sockets, by name.
        has_served: A worker of this keeper served, so it is for us to refuse. Before, the sockets
            may be those of a predecessor who still answers.
    """

    def __init__(self, lines: Lines) -> None:
        self.held: dict[str, socket.socket] = {}
        self.has_served = False
        self._lines = lines
        self._refuser = Refuser()
        self._watch = Watch()
        self._redirect = Redirect(lines)
        # Since when no worker serves, and whether one takes care of everything until its end.
        self._away_since: float | None = None
        self._is_off = False
        self._is_refusing = False
        self._refused_before = 0
        self._withdraw_because = ""

    # What the worker says and what becomes of it

    def hold(self, name: str, sock: socket.socket) -> None:
        """Takes a socket, in place of one of that name."""
        self.release(name)
        if len(self.held) < MAX_HELD:
            self.held[name] = sock
        else:
            sock.close()

    def release(self, name: str) -> None:
        """Closes a socket."""
        sock = self.held.pop(name, None)
        if sock is not None:
            sock.close()

    def on_serving(self, serving: Serving, now: float) -> None:
        """A worker answers from now on."""
        self.has_served = True
        self._away_since = None
        self._withdraw_because = ""
        self._refuser.probe = serving.probe
        self._refuser.places = {place_text(host, port) for host, port in serving.addresses}
        self._redirect.set_commands(serving.withdraw, serving.restore)
        self._watch.begin(serving.probe, serving.addresses, now)

    def on_leaving(self) -> None:
        """The worker takes down everything by itself."""
        self._is_off = True
        self._watch.stop()
        self._redirect.pause()

    def on_handed_over(self) -> None:
        """A successor serves; nothing here is ours any more."""
        self._is_off = True
        self.has_served = False
        self._watch.close()
        self._redirect.forget()
        self._refuser.close()
        for name in list(self.held):
            self.release(name)

    def stand_by(self, now: float) -> None:
        """Begins to ask whether the successor answers; its sockets are not ours."""
        self._away_since = None
        self._watch.resume(now)

    def is_deserted(self, now: float) -> bool:
        """Whether a successor has not answered for so long that it must be gone."""
        silence_s, _ = self._watch.longest_silence(now)
        return self._watch.is_silent(now) and silence_s >= WITHDRAW_AFTER_S

    def on_gone(self, now: float, *, had_served: bool = False) -> None:
        """The worker ended; one that served may have put back what was withdrawn."""
        self._is_off = False
        if self._away_since is None:  # else it never served: still the same silence
            self._away_since = self._watch.unanswered_since or now
        self._watch.stop()
        if had_served:
            self._redirect.doubt()

    def withdraw_for(self, why: str) -> None:
        """Has the redirect withdrawn until a worker serves again."""
        self._withdraw_because = why

    def begin_to_end(self, *, withdraw: bool) -> None:
        """Has the redirect withdrawn if it may stand, or leaves it alone, and starts no more."""
        self._is_off = True
        if withdraw:
            self._redirect.pause()
            self._redirect.withdraw("the worker ended without taking its rules away")
        else:
            self._redirect.forget()

    # Time

    @property
    def is_settled(self) -> bool:
        """Whether no command runs or is still to be run."""
        return self._redirect.is_settled

    def is_calm(self) -> bool:
        """Whether nothing changes soon unless something comes in."""
        if self._away_since is not None or self._watch.unanswered_since is not None:
            return False
        return self._redirect.is_settled

    def moments(self) -> list[float]:
        """Returns when ``turn`` is wanted."""
        due = self._watch.next_at()
        return [self._watch.quiet_until] + ([] if due is None else [due])

    def is_silent(self, now: float) -> bool:
        """Whether a worker that should answer does not."""
        return self._watch.is_silent(now)

    def forgive(self, now: float) -> None:
        """The keeper itself slept until now, so it cannot tell who was silent."""
        self._watch.forgive(now)

    def turn(self, now: float) -> None:
        """Does what is due."""
        self._watch.step(now)
        self._refuser.expire(now)
        self._note_refusing(now)
        if self.has_served and not self._is_off:
            self._steer(now)
        self._redirect.step(now)

    def watched(self, now: float) -> list[Watched]:
        """Returns what is to be polled for, and what to call then."""
        watched: list[Watched] = [
            (sock.fileno(), select.POLLIN, self._answers_of(sock)) for sock in self._watch.socks()
        ]
        if self._is_refusing and now >= self._watch.quiet_until:
            watched += self._refuser.watched(self.held, now)
        watched += self._refuser.watched_connections()
        return watched

    def on_child_end(self, pid: int, code: int, now: float) -> None:
        """A child ended that was no worker: a command of ours, or somebody's orphan."""
        self._redirect.take_end(pid, code, now)

    def counts(self) -> dict[str, int]:
        """Returns "refused", "dropped" and "withdrawn"."""
        return {
            "refused": self._refuser.refused,
            "dropped": self._refuser.dropped,
            "withdrawn": self._redirect.withdrawn,
        }

    def sweep(self) -> None:
        """Refuses what waits in the sockets, before they are closed for good."""
        if self.has_served:
            self._refuser.sweep(self.held)

    def let_go(self) -> None:
        """Closes in a forked worker what is the keeper's alone; its sockets stay."""
        self._refuser.close()
        self._watch.close()
        self._redirect.let_go()

    def close(self) -> None:
        """Closes everything, and ends a command that runs."""
        self._redirect.close()
        self._refuser.close()
        self._watch.close()
        for name in list(self.held):
            self.release(name)

    def _answers_of(self, sock: socket.socket) -> Callable[[float], None]:
        return lambda now: self._watch.read(sock, now)

    def _away_s(self, now: float) -> float:
        return 0.0 if self._away_since is None else now - self._away_since

    def _note_refusing(self, now: float) -> None:
        is_silent = self._away_s(now) >= SILENCE_S or self._watch.is_silent(now)
        # A worker that leaves refuses by itself; one that is gone does not, not even at the end.
        may_refuse = not self._is_off or self._away_since is not None
        is_refusing = self.has_served and is_silent and may_refuse
        if is_refusing == self._is_refusing:
            return
        self._is_refusing = is_refusing
        if is_refusing:
            self._refused_before = self._refuser.refused
            why = "no worker serves" if self._away_since is not None else "the worker is silent"
            self._lines.warning(f"{why}: queries are refused at once meanwhile")
        elif not self._is_off:
            count = self._refuser.refused - self._refused_before
            self._lines.info(f"the worker answers again; {count} queries were refused meanwhile")

    def _steer(self, now: float) -> None:
        """Withdraws the redirect when nobody answers, and has it put back when somebody does."""
        silence_s, place = self._watch.longest_silence(now)
        if self._withdraw_because:
            self._redirect.withdraw(self._withdraw_because)
        elif max(silence_s, self._away_s(now)) >= WITHDRAW_AFTER_S:
            self._redirect.withdraw(
                f"no answer{' from ' + place if place else ''} for {WITHDRAW_AFTER_S:g} s"
            )
        elif self._watch.good_rounds >= _GOOD_ROUNDS and self._away_since is None:
            self._redirect.restore()
