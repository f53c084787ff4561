"""What a daemon does that is told to end while a successor may come, over real sockets."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon.conftest import corefile
from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import HOST, PATIENCE_S, Daemon, free_port, wait_until
from tests.daemon.stubs import addresses, ask, make_query, udp_socket

WAIT = "-leavewait=60s"
Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path, scripted: ScriptedUpstream) -> Iterator[Start]:
    """Starts daemons of one place: same addresses, same -rundir."""
    port, metrics_port = free_port(), free_port()
    with ExitStack() as stack:
        count = 0

        def start(*flags: str, more: str = "", keeper: bool = False) -> Daemon:
            nonlocal count
            count += 1
            folder = tmp_path / str(count)
            folder.mkdir()
            target = f"{scripted.host}:{scripted.port}"
            text = corefile(port, metrics_port, target, "300", "force_tcp")
            words = (f"-rundir={tmp_path / 'run'}", f"-keeper={str(keeper).lower()}", *flags)
            text = text.replace("errors\n", f"errors\n    {more}\n")
            daemon = Daemon(folder, text, port=port, metrics_port=metrics_port, flags=words)
            stack.callback(daemon.kill)
            daemon.wait_until_serving()
            # Only then it waits for a successor.
            wait_until((tmp_path / "run" / "serving").exists, daemon.log)
            return daemon

        yield start


def test_who_is_told_to_end_serves_on_until_a_successor_has_taken_over(start: Start) -> None:
    first = start(WAIT)
    assert addresses(ask(first, "one.test")) == [right_address("one.test")]
    first.process.terminate()
    first.wait_for_log("serving on for 60 s, or until a successor has taken over")
    # A miss, too, is answered and not refused.
    assert addresses(ask(first, "two.test")) == [right_address("two.test")]
    second = start(WAIT)
    assert first.process.wait(PATIENCE_S) == 0
    assert "successor" in first.log()
    assert addresses(ask(second, "one.test")) == [right_address("one.test")]
    assert "took over from nodecache" in second.log()
    second.process.send_signal(signal.SIGQUIT)
    assert second.process.wait(PATIENCE_S) == 0


def test_keeper_that_was_told_to_end_does_not_stand_by_after_the_hand_over(start: Start) -> None:
    first = start(WAIT, keeper=True)
    first.process.terminate()
    first.wait_for_log("serving on for 60 s")
    second = start(keeper=True)
    assert first.process.wait(PATIENCE_S) == 0
    assert addresses(ask(second, "one.test")) == [right_address("one.test")]
    assert second.stop() == 0


def test_successor_takes_over_during_lameduck(start: Start) -> None:
    first = start(more=f"health {HOST}:{free_port()} {{\n lameduck 60s\n }}")
    first.process.terminate()
    first.wait_for_log("serving on for 60 s")
    second = start()
    assert first.process.wait(PATIENCE_S) == 0
    assert addresses(ask(second, "one.test")) == [right_address("one.test")]
    assert second.stop() == 0


def test_successor_takes_over_while_an_upstream_hangs(
    start: Start, scripted: ScriptedUpstream
) -> None:
    first = start("-leavewait=0s")
    with udp_socket(first) as stub:
        stub.send(make_query("slow.wait-3000.test").to_wire())
        wait_until(lambda: len(scripted.asked) > 0, "asked")
        first.process.terminate()
        # It drains now, and its door is open all the while.
        second = start()
        assert first.process.wait(PATIENCE_S) == 0
        assert "took over from nodecache" in second.log()
        stub.settimeout(PATIENCE_S)
        assert stub.recv(512)
    assert addresses(ask(second, "one.test")) == [right_address("one.test")]
    assert second.stop() == 0


@pytest.mark.parametrize("flags", [(), (WAIT,)])
def test_told_twice_it_waits_for_nobody(start: Start, flags: tuple[str, ...]) -> None:
    daemon = start(*flags)
    daemon.process.terminate()
    if flags:
        daemon.wait_for_log("serving on for 60 s")
        time.sleep(0.3)  # the same signal twice within 0.2 s counts once
        daemon.process.terminate()
    assert daemon.process.wait(PATIENCE_S) == 0


def test_without_a_successor_it_ends_when_its_time_is_over(start: Start) -> None:
    daemon = start("-leavewait=500ms")
    daemon.process.terminate()
    daemon.wait_for_log("serving on for 0.5 s")
    assert addresses(ask(daemon, "one.test")) == [right_address("one.test")]
    assert daemon.process.wait(PATIENCE_S) == 0
