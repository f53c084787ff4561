from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodecache.keeper.errand import LIMIT_S, Errand
from nodecache.keeper.lines import Lines
from nodecache.keeper.redirect import Redirect
from nodecache.keeper.restart import Restarts, describe_end

NOW = 1000.0


class HeardLines(Lines):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def _write(self, level: str, text: str) -> None:
        self.heard.append(f"{level} {text}")


class Node:
    """A redirect whose commands write what they do to a file."""

    def __init__(self, folder: Path) -> None:
        self.lines = HeardLines()
        self.redirect = Redirect(self.lines)
        self.file = folder / "deeds"

    def command(self, deed: str) -> list[str]:
        return ["sh", "-c", f"echo {deed} >> {self.file}"]

    def settle(self, now: float = NOW) -> list[str]:
        """Lets commands run until nothing is left to do; returns what was done so far."""
        deadline = time.monotonic() + 20
        while not self.redirect.is_settled and time.monotonic() < deadline:
            self.redirect.step(now)
            self.reap(now)
        return self.file.read_text().split() if self.file.exists() else []

    def reap(self, now: float) -> bool:
        """Waits for the command that runs; returns whether there was one."""
        errand = self.redirect._errand  # the only child that is ours: other tests have some, too
        if errand is None:
            return False
        pid, status = os.waitpid(errand.pid, 0)
        assert self.redirect.take_end(pid, os.waitstatus_to_exitcode(status), now)
        return True


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    node.redirect.set_commands(node.command("withdraw"), node.command("restore"))
    yield node
    while node.reap(NOW):
        pass
    node.redirect.close()


def test_nothing_is_done_without_a_reason(node: Node) -> None:
    node.redirect.restore()
    assert node.redirect.is_settled
    assert node.settle() == []


def test_each_wish_is_done_once(node: Node) -> None:
    for _ in range(3):
        node.redirect.withdraw("silence")
    assert node.settle() == ["withdraw"]
    for _ in range(3):
        node.redirect.restore()
    assert node.settle() == ["withdraw", "restore"]
    assert node.redirect.withdrawn == 1
    assert len(node.lines.heard) == 2


def test_last_wish_wins_over_a_command_that_runs(node: Node) -> None:
    node.redirect.withdraw("silence")
    node.redirect.step(NOW)
    node.redirect.restore()
    assert not node.redirect.is_settled
    assert node.settle() == ["withdraw", "restore"]


def test_worker_that_starts_anew_may_have_put_it_back(node: Node) -> None:
    node.redirect.withdraw("silence")
    node.settle()
    node.redirect.set_commands(node.command("withdraw"), node.command("restore"))
    assert node.redirect.is_settled
    node.redirect.withdraw("silence")
    assert node.settle() == ["withdraw", "withdraw"]


def test_without_commands_there_is_nothing_to_withdraw(node: Node) -> None:
    node.redirect.set_commands([], [])
    node.redirect.withdraw("silence")
    assert node.redirect.is_settled


def test_command_that_cannot_be_started_is_tried_again_after_five_seconds(node: Node) -> None:
    node.redirect.set_commands(["/proc/no/such/program"], ["true"])
    node.redirect.withdraw("silence")
    for _ in range(3):
        node.redirect.step(NOW)
    assert len(node.lines.heard) == 1
    assert "could not be withdrawn" in node.lines.heard[0]
    node.redirect.set_commands(node.command("withdraw"), node.command("restore"))
    node.redirect.withdraw("silence")
    assert node.settle(NOW + 6) == ["withdraw"]


def test_command_that_hangs_is_killed_with_all_it_started(node: Node) -> None:
    node.redirect.set_commands(["sh", "-c", "sleep 1000 & sleep 1000"], ["true"])
    node.redirect.withdraw("silence")
    node.redirect.step(NOW)
    node.redirect.step(NOW + LIMIT_S)
    assert node.reap(NOW + LIMIT_S)
    assert "it took longer than 5 s" in node.lines.heard[0]
    node.redirect.set_commands([], [])


def test_handing_over_ends_what_runs_and_starts_nothing(node: Node) -> None:
    node.redirect.set_commands(["sleep", "1000"], ["true"])
    node.redirect.withdraw("silence")
    node.redirect.step(NOW)
    node.redirect.forget()
    assert node.reap(NOW)
    assert node.redirect.is_settled
    assert node.lines.heard == []


def test_leaving_ends_what_puts_it_back_and_the_end_withdraws_again(node: Node) -> None:
    node.redirect.withdraw("silence")
    node.settle()
    node.redirect.set_commands(node.command("withdraw"), ["sleep", "1000"])
    node.redirect.restore()
    node.redirect.step(NOW)
    node.redirect.pause()
    assert node.reap(NOW)
    assert node.redirect.is_settled
    node.redirect.withdraw("the end")
    assert node.settle() == ["withdraw", "withdraw"]


def test_output_of_a_program_is_bounded() -> None:
    errand = Errand(["sh", "-c", "yes no | head -c 9000; exit 3"], NOW)
    _, status = os.waitpid(errand.pid, 0)
    complaint = errand.complaint(os.waitstatus_to_exitcode(status))
    assert complaint.startswith("exit code 3: no")
    assert len(complaint) < 400


def test_delay_doubles_to_five_seconds_and_a_good_life_resets_it() -> None:
    restarts = Restarts()
    delays = [restarts.next_delay_s(NOW, NOW + 1) for _ in range(9)]
    assert delays == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])
    assert restarts.next_delay_s(None, NOW + 100) == 5
    assert restarts.next_delay_s(NOW, NOW + 60) == 0
    assert restarts.next_delay_s(NOW, NOW + 1) == 0.1


@pytest.mark.parametrize(
    ("code", "text"),
    [(1, "exit code 1"), (2, "configuration"), (-9, "SIGKILL, as the"), (-63, "signal 63")],
)
def test_end_is_told_in_words(code: int, text: str) -> None:
    assert text in describe_end(code)
