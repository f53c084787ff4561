"""Names that take an upstream long, and upstreams that end each connection, over real sockets."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import dns.rcode
import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import Fault, ScriptedUpstream, right_address
from tests.daemon.stubs import addresses, ask, timed_ask

OVER = pytest.mark.parametrize("options", ["force_tcp", "max_fails 2"], ids=["tcp", "udp"])


@pytest.mark.slow
@OVER
def test_a_name_that_takes_a_second_and_a_half_is_answered(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, options: str
) -> None:
    daemon = daemon_for(scripted, options=options)
    for number in range(3):
        name = f"n{number}.wait-1500.test"
        reply, seconds = timed_ask(daemon, name)
        assert addresses(reply) == [right_address(name)]
        assert seconds < 2
    asked = [each for each in scripted.asked if "wait-1500" in each.name]
    assert len(asked) <= 6


@pytest.mark.slow
@OVER
def test_an_answer_that_came_too_late_is_there_for_who_asks_again(
    daemon_for: StartDaemon, scripted: ScriptedUpstream, options: str
) -> None:
    daemon = daemon_for(scripted, options=options)
    name = "late.wait-5000.test"
    began = time.monotonic()
    assert ask(daemon, name).rcode() == dns.rcode.SERVFAIL
    time.sleep(max(0.0, began + 5.3 - time.monotonic()))
    reply, seconds = timed_ask(daemon, name)
    assert addresses(reply) == [right_address(name)]
    assert seconds < 1


def test_no_query_fails_where_each_connection_ends_behind_its_first_answer(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    scripted.later = Fault.ANSWER_AND_RESET
    daemon = daemon_for(scripted)
    names = [f"r{number}.test" for number in range(600)]
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda name: ask(daemon, name), names))
    for name, reply in zip(names, replies, strict=True):
        assert addresses(reply) == [right_address(name)]
