"""Whether the node's rules steer queries to us, and the commands that change it.

Knows what is wanted and what was done last; the commands are the worker's. One runs at a time, in
the background, and one that failed is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence

from nodecache.keeper.errand import Errand
from nodecache.keeper.lines import Lines

_RETRY_S = 5.0


class Redirect:
    """The redirect of one node.

    Attributes:
        withdrawn: How many times it was withdrawn.
    """

    def __init__(self, lines: Lines) -> None:
        self.withdrawn = 0
        self._lines = lines
        self._commands: dict[bool, list[str]] = {}
        # None: nobody knows, and no opinion.
        self._stands: bool | None = True
        self._is_wanted: bool | None = True
        self._why = ""
        self._errand: Errand | None = None
        self._aim = True
        self._has_complained = False
        self._retry_at = 0.0

    def set_commands(self, withdraw: Sequence[str], restore: Sequence[str]) -> None:
        """Takes the commands of a worker that serves; without either there is nothing to do.

        If the redirect was withdrawn, this worker may have put it back when it started.
        """
        both = bool(withdraw and restore)
        self._commands = {False: list(withdraw), True: list(restore)} if both else {}
        if not self._is_wanted:
            self._is_wanted = self._stands = None
            if self._errand is not None and not self._aim:
                self._errand.kill()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do, now or later."""
        if self._errand is not None:
            return False
        return not self._commands or self._is_wanted in (None, self._stands)

    def doubt(self) -> None:
        """Takes it as unknown whether it was left withdrawn: workers put it back, too."""
        if not self._stands:
            self._stands = None

    def withdraw(self, why: str) -> None:
        """Has it withdrawn; ``why`` is for the log."""
        self._want(False, why)

    def restore(self) -> None:
        """Has it put back."""
        self._want(True, "answers are back")

    def forget(self) -> None:
        """Leaves it to somebody else from now on: what runs is ended, nothing else is started."""
        self._commands = {}
        if self._errand is not None:
            self._errand.kill()

    def pause(self) -> None:
        """Leaves it to the worker until something is wanted again; ends what puts it back."""
        self._is_wanted = None
        if self._errand is not None and self._aim:
            self._errand.kill()

    def let_go(self) -> None:
        """Closes what a forked process has of it; what runs goes on."""
        if self._errand is not None:
            self._errand.close()

    def step(self, now: float) -> None:
        """Starts what is to be done, ends what takes too long."""
        if self._errand is not None:
            self._errand.kill_if_late(now)
            return
        if self.is_settled or now < self._retry_at:
            return
        self._aim = bool(self._is_wanted)
        try:
            self._errand = Errand(self._commands[self._aim], now)
        except OSError as error:
            self._fail(str(error), now)

    def take_end(self, pid: int, code: int, now: float) -> bool:
        """Takes note that a child ended; returns whether it was ours."""
        errand = self._errand
        if errand is None or errand.pid != pid:
            return False
        self._errand = None
        complaint = errand.complaint(code)
        # Without a wish, a worker has begun to see to it meanwhile.
        self._stands = None if complaint or self._is_wanted is None else self._aim
        if not self._commands:
            return True
        if not complaint:
            self._tell()
        elif self._aim == self._is_wanted:
            self._fail(complaint, now)
        return True

    def close(self) -> None:
        """Ends what still runs."""
        if self._errand is not None:
            self._errand.kill()
            self._errand.close()

    def _want(self, is_wanted: bool, why: str) -> None:
        if self._is_wanted != is_wanted:
            self._is_wanted = is_wanted
            self._why = why
            self._has_complained = False
            self._retry_at = 0.0

    def _tell(self) -> None:
        if self._aim:
            self._lines.info(f"{self._why}: the redirect of queries is back in place")
        else:
            self.withdrawn += 1
            self._lines.error(
                f"{self._why}: the redirect of queries is withdrawn, so pods that ask the"
                " cluster's DNS reach it; it comes back when answers do"
            )

    def _fail(self, complaint: str, now: float) -> None:
        self._retry_at = now + _RETRY_S
        if not self._has_complained:
            self._has_complained = True
            deed = "put back" if self._aim else "withdrawn"
            self._lines.error(
                f"{self._why}, but the redirect of queries could not be {deed}: {complaint};"
                f" trying again every {_RETRY_S:g} s"
            )
