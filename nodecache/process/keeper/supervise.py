"""Keeps a worker alive: starts it, forwards signals, reaps, and starts it again.

One loop of poll(2), at most half a second a turn, that sees what happens and carries out what
``holding`` makes of it. How is in ``acting``, when to start again in ``restart``.
"""

from __future__ import annotations

import os
import select
import signal
from time import monotonic

from nodecache.process.channel import Notice
from nodecache.process.keeper.acting import About, Acting
from nodecache.process.keeper.child import ENDING, Child, RunWorker, start_worker
from nodecache.process.keeper.holding import BEGIN, Event, Phase, end_of, is_refusing, step
from nodecache.process.keeper.log import Log
from nodecache.process.keeper.refuse import Polled
from nodecache.process.keeper.signals import SignalPipe

_TURN_S = 0.5
_TURN_OF_TROUBLE_S = 0.05
# A keeper that slept longer than this between two turns was itself stopped or starved.
_OWN_SLEEP_S = 0.75
_NOTICES_AT_ONCE = 4096
_EVENTS = {
    "hold": Event.OFFERED, "serving": Event.SERVES, "leaving": Event.LEAVES,
    "handed_over": Event.HANDED_OVER,
}  # fmt: skip


def supervise(
    run_worker: RunWorker, log: Log | None = None, *, stays_by: bool | None = None
) -> int:
    """Runs workers until one ends for good or a signal ends the keeper; returns the exit code.

    Args:
        run_worker: Serves; called in a forked process, with the worker's end of the link. Its
            result is the exit code of that process: 0 ended as asked, 1 the machine refused
            something, 2 the configuration is wrong, anything else is a crash.
        log: Where the log goes.
        stays_by: Whether the keeper stays when a successor has taken over, to serve again should
            nobody else; None to stay as PID 1 only. If that ended, the kubelet would start the
            container again at once, which would then take over from its own successor.

    Changes signal dispositions and reaps every child of the process, so it is for a process of
    its own.
    """
    if stays_by is None:
        stays_by = os.getpid() == 1
    return Keeper(run_worker, log or Log(), stays_by).run()


class Keeper:
    """The parent of one worker at a time."""

    def __init__(self, run_worker: RunWorker, log: Log, stays_by: bool) -> None:
        self._run_worker = run_worker
        self._log = log
        self._stays_by = stays_by
        self._state = BEGIN
        self._signals = SignalPipe()
        self._acting = Acting(log)
        self._held = self._acting.held
        self._turned_at = monotonic()

    def run(self) -> int:
        """See ``supervise``."""
        try:
            while self._acting.exit_code is None:
                self._turn()
            self._happened(Event.CLOSING, About(monotonic()))
            return self._acting.exit_code
        finally:
            self._close()

    # What happens.

    def _turn(self) -> None:
        self._maybe_start(monotonic())
        self._poll(monotonic())
        now = monotonic()
        if now - self._turned_at > _OWN_SLEEP_S:
            self._held.silence.forgive(now)
        self._turned_at = now
        for number in self._signals.take():
            self._happened(_event_of(number), About(now, number=number))
        self._receive(now)
        self._reap(now)
        self._held.turn(now)
        self._listen(now)

    def _happened(self, event: Event, about: About) -> None:
        """Has the tables say what an event means, and does that."""
        self._state, actions = step(self._state, event, stays_by=self._stays_by)
        self._held.is_refusing = is_refusing(self._state)
        for action in actions:
            self._acting.do(action, about)

    def _listen(self, now: float) -> None:
        """Says what the silence tells."""
        about = About(now)
        silence = self._held.silence
        self._happened(Event.SILENT if self._held.is_silent(now) else Event.HEARD, about)
        if self._state[0] is Phase.STANDING_BY and silence.is_deserted(now):
            self._happened(Event.DESERTED, about)
        worker = self._acting.worker
        if worker is not None and not worker.is_killed:
            is_deaf = worker.ignores_signals(now) and silence.is_silent(now)
            if is_deaf or silence.is_stuck(now):
                self._happened(Event.STUCK, about)

    def _poll(self, now: float) -> None:
        """Waits until something comes in or is due, and has what came in read."""
        polled = {fd: (events, call) for fd, events, call in self._polled(now)}
        poll = select.poll()
        for descriptor, (events, _) in polled.items():
            poll.register(descriptor, events)
        ready = poll.poll(self._patience_s(now) * 1000)
        now = monotonic()
        for descriptor, _ in ready:
            polled[descriptor][1](now)

    def _polled(self, now: float) -> list[Polled]:
        polled: list[Polled] = [(self._signals.fileno(), select.POLLIN, _later)]
        worker = self._acting.worker
        if worker is not None and not worker.link.has_ended:
            polled.append((worker.link.fileno(), select.POLLIN, _later))
        return polled + self._held.polled(now)

    def _patience_s(self, now: float) -> float:
        """Returns how long nothing is to be done unless something comes in."""
        most = _TURN_S if self._held.is_calm() else _TURN_OF_TROUBLE_S
        moments = self._held.moments()
        if self._acting.start_at is not None:
            moments.append(self._acting.start_at)
        return min([most, *(moment - now for moment in moments if moment > now)])

    def _receive(self, now: float) -> None:
        """Takes what the worker said."""
        worker = self._acting.worker
        if worker is None:
            return
        was_broken = worker.link.broken
        for _ in range(_NOTICES_AT_ONCE):
            notice = worker.link.receive()
            if notice is None:
                break
            self._take(notice, now)
        if worker.link.broken and not was_broken:
            self._log.warning("the worker said something that makes no sense; it is ignored")

    def _take(self, notice: Notice, now: float) -> None:
        if notice.kind == "release":
            self._held.release(notice.name)
            return
        self._happened(_EVENTS[notice.kind], About(now, notice=notice))
        if notice.sock is not None and self._held.socks.get(notice.name) is not notice.sock:
            notice.sock.close()

    def _reap(self, now: float) -> None:
        """Takes the exit status of every child that ended; a PID 1 inherits foreign ones."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if self._acting.worker is not None and pid == self._acting.worker.pid:
                self._on_end(self._acting.worker, code, now)

    def _on_end(self, worker: Child, code: int, now: float) -> None:
        self._receive(now)  # what it said before it died
        worker.link.close()
        event = end_of(code, self._state[1], self._acting.restarts.in_vain)
        self._happened(event, About(now, code=code))
        self._acting.worker = None

    def _maybe_start(self, now: float) -> None:
        if self._acting.start_at is None or now < self._acting.start_at:
            return
        self._acting.start_at = None
        history = {"restarts": self._acting.restarts.count, **self._held.counts()}
        try:
            self._acting.worker = start_worker(
                self._run_worker, self._held.socks, history, self._let_go
            )
        except OSError as error:
            self._happened(Event.NOT_STARTED, About(now, error=str(error)))
        else:
            self._happened(Event.STARTED, About(now))

    def _let_go(self) -> None:
        """Closes, in a new worker, what is the keeper's alone."""
        self._signals.close()
        self._held.let_go()

    def _close(self) -> None:
        self._held.close()
        if self._acting.worker is not None:
            self._acting.worker.link.close()
        self._signals.close()


def _event_of(number: int) -> Event:
    """Returns what a signal wants."""
    if number in ENDING:
        return Event.TOLD
    return Event.RELOAD if number in (signal.SIGHUP, signal.SIGUSR1) else Event.SIGNALLED


def _later(_now: float) -> None:
    """What woke the loop is looked at in each turn anyway."""
