"""Keeps a worker alive: starts it, forwards signals, reaps, and starts it again.

One loop of poll(2), at most half a second a turn. What happens to queries meanwhile is decided in
``standin``, when to start again in ``restart``.
"""

from __future__ import annotations

import os
import select
import signal
from time import monotonic

from nodecache.channel import Message
from nodecache.keeper.lines import Lines
from nodecache.keeper.refuse import Watched
from nodecache.keeper.restart import CONFIGURATION_DELAY_S, Restarts, describe_end
from nodecache.keeper.signals import SignalPipe
from nodecache.keeper.standin import StandIn
from nodecache.keeper.worker import ENDING, RunWorker, Worker, start_worker

_TURN_S = 0.5
_TURN_OF_TROUBLE_S = 0.05
# A keeper that slept longer than this between two turns was itself stopped or starved.
_OWN_SLEEP_S = 1.0
_END_WITHIN_S = 5.0
# After so many restarts of workers that never served, the next one will not either.
_RESTARTS_IN_VAIN = 4
_MESSAGES_AT_ONCE = 4096
EXIT_GOOD, EXIT_MACHINE, EXIT_CONFIGURATION = 0, 1, 2


def supervise(
    run_worker: RunWorker, lines: Lines | None = None, *, stays_by: bool | None = None
) -> int:
    """Runs workers until one ends for good or a signal ends the keeper; returns the exit code.

    Args:
        run_worker: Serves; called in a forked process, with the worker's end of the link. Its
            result is the exit code of that process: 0 ended as asked, 1 the machine refused
            something, 2 the configuration is wrong, anything else is a crash.
        lines: Where the log goes.
        stays_by: Whether the keeper stays when a successor has taken over, to serve again should
            nobody else; None to stay as PID 1 only. If that ended, the kubelet would start the
            container again at once, which would then take over from its own successor.

    Changes signal dispositions and reaps every child of the process, so it is for a process of
    its own.
    """
    if stays_by is None:
        stays_by = os.getpid() == 1
    return Keeper(run_worker, lines or Lines(), stays_by).run()


class Keeper:
    """The parent of one worker at a time."""

    def __init__(self, run_worker: RunWorker, lines: Lines, stays_by: bool) -> None:
        self._run_worker = run_worker
        self._lines = lines
        self._stays_by = stays_by
        self._is_standing_by = False
        self._signals = SignalPipe()
        self._stand_in = StandIn(lines)
        self._restarts = Restarts()
        self._worker: Worker | None = None
        self._start_at: float | None = 0.0
        self._waits_for_configuration = False
        self._exit_code: int | None = None
        self._exit_by = 0.0
        self._turned_at = monotonic()

    def run(self) -> int:
        """See ``supervise``."""
        try:
            while not self._is_over(monotonic()):
                self._turn()
            self._stand_in.sweep()
            return self._exit_code or EXIT_GOOD
        finally:
            self._close()

    def _is_over(self, now: float) -> bool:
        if self._exit_code is None:
            return False
        return self._stand_in.is_settled or now >= self._exit_by

    def _turn(self) -> None:
        self._maybe_start(monotonic())
        self._poll(monotonic())
        now = monotonic()
        if now - self._turned_at > _OWN_SLEEP_S:
            self._stand_in.forgive(now)
        self._turned_at = now
        for number in self._signals.take():
            self._on_signal(number, now)
        self._receive(now)
        self._reap(now)
        self._stand_in.turn(now)
        if self._is_standing_by and self._stand_in.is_deserted(now):
            self._lines.warning("the successor answers no more: serving again")
            self._is_standing_by = False
            self._stand_in.on_handed_over()  # lets go of what was being asked
            self._stand_in.on_gone(now)
            self._start_at = now
        worker = self._worker
        if worker is not None and worker.is_stuck(now) and self._stand_in.is_silent(now):
            self._lines.error("the worker does not answer and does not end either: killing it")
            worker.kill()

    def _poll(self, now: float) -> None:
        """Waits until something comes in or is due, and has what came in read."""
        watched = {fd: (events, call) for fd, events, call in self._watched(now)}
        poll = select.poll()
        for descriptor, (events, _) in watched.items():
            poll.register(descriptor, events)
        ready = poll.poll(self._patience_s(now) * 1000)
        now = monotonic()
        for descriptor, _ in ready:
            watched[descriptor][1](now)

    def _watched(self, now: float) -> list[Watched]:
        watched: list[Watched] = [(self._signals.fileno(), select.POLLIN, _later)]
        if self._worker is not None and not self._worker.link.has_ended:
            watched.append((self._worker.link.fileno(), select.POLLIN, _later))
        return watched + self._stand_in.watched(now)

    def _patience_s(self, now: float) -> float:
        """Returns how long nothing is to be done unless something comes in."""
        is_calm = self._exit_code is None and self._stand_in.is_calm()
        most = _TURN_S if is_calm else _TURN_OF_TROUBLE_S
        moments = self._stand_in.moments()
        if self._start_at is not None:
            moments.append(self._start_at)
        return min([most, *(moment - now for moment in moments if moment > now)])

    def _on_signal(self, number: int, now: float) -> None:
        if self._worker is not None:
            self._worker.send_signal(number, now)
        elif number in ENDING and self._exit_code is not None:
            self._exit_by = now  # asked twice
        elif number in ENDING:
            self._lines.info(f"{signal.Signals(number).name} came while no worker ran: ending")
            self._end(EXIT_GOOD, now, withdraw=not self._is_standing_by)
        elif number in (signal.SIGHUP, signal.SIGUSR1) and self._waits_for_configuration:
            self._start_at = now

    def _receive(self, now: float) -> None:
        """Takes what the worker said."""
        worker = self._worker
        if worker is None:
            return
        was_broken = worker.link.broken
        for _ in range(_MESSAGES_AT_ONCE):
            message = worker.link.receive()
            if message is None:
                break
            self._take(message, worker, now)
        if worker.link.broken and not was_broken:
            self._lines.warning("the worker said something that makes no sense; it is ignored")

    def _take(self, message: Message, worker: Worker, now: float) -> None:
        if message.kind == "release":
            self._stand_in.release(message.name)
        elif message.kind == "leaving":
            worker.has_left = True
            self._stand_in.on_leaving()
        elif message.kind == "handed_over":
            worker.has_handed_over = True
            self._stand_in.on_handed_over()
        elif message.sock is not None:
            if worker.has_handed_over:
                message.sock.close()
            else:
                self._stand_in.hold(message.name, message.sock)
        elif message.serving is not None and not (worker.has_left or worker.has_handed_over):
            worker.served_at = worker.served_at or now
            self._waits_for_configuration = False
            self._stand_in.on_serving(message.serving, now)

    def _maybe_start(self, now: float) -> None:
        if self._exit_code is not None or self._start_at is None or now < self._start_at:
            return
        self._start_at = None
        history = {"restarts": self._restarts.count, **self._stand_in.counts()}
        try:
            self._worker = start_worker(
                self._run_worker, self._stand_in.held, history, self._let_go
            )
        except OSError as error:
            delay = max(self._restarts.next_delay_s(None, now), _TURN_S)
            self._start_at = now + delay
            self._lines.error(f"no worker could be started: {error}; trying again in {delay:g} s")

    def _let_go(self) -> None:
        """Closes, in a new worker, what is the keeper's alone."""
        self._signals.close()
        self._stand_in.let_go()

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
            if self._worker is not None and pid == self._worker.pid:
                self._on_end(self._worker, code, now)
            else:
                self._stand_in.on_child_end(pid, code, now)

    def _on_end(self, worker: Worker, code: int, now: float) -> None:
        self._receive(now)  # what it said before it died
        self._worker = None
        worker.link.close()
        self._stand_in.on_gone(now, had_served=worker.served_at is not None)
        has_served = self._stand_in.has_served
        if worker.has_handed_over and self._stays_by and self._exit_code is None:
            self._lines.info("a successor serves: standing by until we are told to end")
            self._is_standing_by = True
            self._stand_in.stand_by(now)
        elif worker.has_handed_over or code == EXIT_GOOD:
            self._end(code if code >= 0 else EXIT_MACHINE, now, withdraw=False)
        elif worker.has_left or worker.asked_at is not None:
            if code < 0:
                self._lines.error(f"the worker {describe_end(code)} before it had ended properly")
            self._end(code if code > 0 else EXIT_MACHINE, now, withdraw=True)
        elif code in (EXIT_MACHINE, EXIT_CONFIGURATION) and not has_served:
            self._end(code, now, withdraw=False)
        elif not has_served and self._restarts.in_vain >= _RESTARTS_IN_VAIN:
            self._lines.error(f"the worker {describe_end(code)} before it served, as those before")
            self._end(code if code > 0 else EXIT_MACHINE, now, withdraw=False)
        else:
            self._plan_restart(worker, code, now)

    def _plan_restart(self, worker: Worker, code: int, now: float) -> None:
        self._restarts.count += 1
        self._waits_for_configuration = code == EXIT_CONFIGURATION
        if self._waits_for_configuration:
            delay = CONFIGURATION_DELAY_S
            step = f"queries are refused; trying again every {delay:g} s and at SIGHUP"
            self._stand_in.withdraw_for("the worker refuses its configuration")
        else:
            delay = self._restarts.next_delay_s(worker.served_at, now)
            step = f"starting it again {f'in {delay:g} s' if delay else 'at once'}"
        self._start_at = now + delay
        self._lines.error(f"the worker {describe_end(code)}: {step}")

    def _end(self, code: int, now: float, *, withdraw: bool) -> None:
        """Has the loop end with this exit code, at the latest when the time is over."""
        self._exit_code = code
        self._exit_by = now + _END_WITHIN_S
        self._start_at = None
        self._stand_in.begin_to_end(withdraw=withdraw)

    def _close(self) -> None:
        self._stand_in.close()
        if self._worker is not None:
            self._worker.link.close()
        self._signals.close()


def _later(_now: float) -> None:
    """What woke the loop is looked at in each turn anyway."""
