"""What the keeper does: a method for each action of ``holding``, and what it needs for that."""

from __future__ import annotations

import signal
from collections.abc import Callable

from nodecache.process.channel import Notice
from nodecache.process.keeper.child import Child
from nodecache.process.keeper.held import Held
from nodecache.process.keeper.holding import EXIT_GOOD, EXIT_MACHINE, Action
from nodecache.process.keeper.log import Log
from nodecache.process.keeper.restart import CONFIGURATION_DELAY_S, Restarts, describe_end

_LEAST_DELAY_S = 0.5  # of another attempt, where not even a process could be had


class About:
    """What is known of an event, beside that it happened.

    Attributes:
        now: Monotonic seconds.
        number: Of the signal.
        code: How the worker ended, as ``os.waitstatus_to_exitcode`` gives it.
        notice: What the worker said.
        error: Why no worker could be started.
    """

    __slots__ = ("code", "error", "notice", "now", "number")

    def __init__(
        self,
        now: float,
        *,
        number: int = 0,
        code: int = EXIT_GOOD,
        notice: Notice | None = None,
        error: str = "",
    ) -> None:
        self.now = now
        self.number = number
        self.code = code
        self.notice = notice
        self.error = error


class Acting:
    """Carries out what is decided; decides nothing.

    Attributes:
        worker: The one that runs.
        held: Its sockets.
        restarts: Of workers so far.
        start_at: When the next one is to be started, monotonic seconds; None for never.
        exit_code: The keeper's, as soon as it is to end.
    """

    def __init__(self, log: Log) -> None:
        self.worker: Child | None = None
        self.held = Held()
        self.restarts = Restarts()
        self.start_at: float | None = 0.0
        self.exit_code: int | None = None
        self._log = log
        self._methods: dict[Action, Callable[[About], None]] = {
            action: getattr(self, f"_{action.name.lower()}") for action in Action
        }

    def do(self, action: Action, about: About) -> None:
        """Does one thing."""
        self._methods[action](about)

    # With the worker.

    def _forward(self, about: About) -> None:
        if self.worker is not None:
            self.worker.send_signal(about.number, about.now)

    def _kill(self, about: About) -> None:
        if self.worker is not None:
            silence_s = self.held.silence.silence_s(about.now)
            self._log.error(f"the worker has not answered for {silence_s:.1f} s: killing it")
            self.worker.kill()

    def _note_serving(self, about: About) -> None:
        if self.worker is not None:
            self.worker.served_at = self.worker.served_at or about.now

    def _start_now(self, about: About) -> None:
        self.start_at = about.now

    def _start_later(self, about: About) -> None:
        served_at = None if self.worker is None else self.worker.served_at
        delay = self.restarts.next_delay_s(served_at, about.now)
        self._start_in(
            delay, f"starting it again {f'in {delay:g} s' if delay else 'at once'}", about
        )

    def _start_with_files(self, about: About) -> None:
        delay = CONFIGURATION_DELAY_S
        self._start_in(delay, f"trying again every {delay:g} s and at SIGHUP", about)

    def _start_in(self, delay_s: float, step: str, about: About) -> None:
        self.restarts.count += 1
        self.start_at = about.now + delay_s
        was_ours = self.worker is not None and self.worker.is_killed
        self._log.error(f"the worker {describe_end(about.code, was_ours=was_ours)}: {step}")

    def _try_again(self, about: About) -> None:
        delay = max(self.restarts.next_delay_s(None, about.now), _LEAST_DELAY_S)
        self.start_at = about.now + delay
        self._log.error(f"no worker could be started: {about.error}; trying again in {delay:g} s")

    def _end(self, about: About) -> None:
        self.exit_code = about.code if about.code >= 0 else EXIT_MACHINE

    # With the sockets.

    def _hold(self, about: About) -> None:
        if about.notice is not None and about.notice.sock is not None:
            self.held.hold(about.notice.name, about.notice.sock)

    def _forget(self, _about: About) -> None:
        self.held.forget()

    def _ask(self, about: About) -> None:
        if about.notice is not None and about.notice.serving is not None:
            self.held.ask(about.notice.serving, about.now)

    def _ask_successor(self, about: About) -> None:
        self.held.silence.resume(about.now)

    def _ask_no_more(self, _about: About) -> None:
        self.held.silence.stop()

    def _count_silence(self, about: About) -> None:
        self.held.count_silence(about.now)

    def _say_goodbye(self, _about: About) -> None:
        self.held.say_goodbye()

    def _refuse_once(self, about: About) -> None:
        self.held.refuse_once(about.now)

    def _refuse_all(self, about: About) -> None:
        self.held.refuse_all(about.now)

    # For the log.

    def _tell_silent(self, _about: About) -> None:
        self._log.warning(f"the worker is silent: queries {self.held.ways()} meanwhile")

    def _tell_nobody(self, _about: About) -> None:
        self._log.warning(f"no worker serves: queries {self.held.ways()} meanwhile")

    def _tell_answered(self, _about: About) -> None:
        count = self.held.refused_meanwhile()
        self._log.info(f"the worker answers again; {count} queries were refused meanwhile")

    def _tell_cut_short(self, about: About) -> None:
        if about.code < 0:
            end = describe_end(about.code)
            self._log.error(f"the worker {end} before it had ended properly")

    def _tell_hopeless(self, about: About) -> None:
        self._log.error(f"the worker {describe_end(about.code)} before it served, as those before")

    def _tell_idle(self, about: About) -> None:
        name = signal.Signals(about.number).name
        self._log.info(f"{name} came while no worker ran: ending")

    def _tell_standing_by(self, _about: About) -> None:
        self._log.info("a successor serves: standing by until we are told to end")

    def _tell_deserted(self, _about: About) -> None:
        self._log.warning("the successor answers no more: serving again")
