"""A slow name is not a dead connection: its answer counts, and nobody is asked too often."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.config.model import SelectionPolicy, Upstream
from nodecache.upstreams.connection import Connection
from nodecache.upstreams.exchange import Failure
from nodecache.upstreams.room import MAX_CONNECTIONS
from tests.upstreams.forwarding import OPT, TCP, TCP2, UDP, Network, answer, policy
from tests.upstreams.simple_servers import Reaction, World

ONE = policy(TCP)


def slow_by(seconds: float) -> World:
    return World(lambda _connection, query: [(seconds, answer(query))])


@pytest.mark.parametrize("upstream", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("seconds", [1.2, 1.5, 3.0, 4.0])
def test_a_name_that_takes_long_is_answered(upstream: Upstream, seconds: float) -> None:
    world = slow_by(seconds)
    world.bed.ask(policy(upstream))
    world.run(seconds + 0.01)
    assert [type(outcome) for outcome in world.bed.outcomes] == [bytes]
    assert world.bed.results[0].at - 1000.0 <= seconds + 0.002


@pytest.mark.parametrize("upstream", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize(("seconds", "most"), [(1.0, 1.5), (3.0, 2.0)])
@pytest.mark.parametrize("at_once", [2, 20])
def test_one_that_is_slow_with_every_name_is_not_asked_much_more(
    upstream: Upstream, seconds: float, most: float, at_once: int
) -> None:
    world = slow_by(seconds)
    for turn in range(40 // at_once):
        for n in range(at_once):
            world.bed.ask(policy(upstream), f"n{turn}-{n}.cluster.local")
        world.run(seconds + 0.3)
    assert len(world.bed.results) == 40
    assert all(isinstance(outcome, bytes) for outcome in world.bed.outcomes)
    assert len(world.asked) <= most * 40


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_one_that_was_quick_and_gets_slow_is_understood_soon(seconds: float) -> None:
    world = slow_by(0.001)
    for n in range(20):
        world.bed.ask(ONE, f"quick{n}.cluster.local")
        world.run(0.01)
    world.asked.clear()
    world.server = lambda _connection, query: [(seconds, answer(query))]
    for n in range(40):
        world.bed.ask(ONE, f"slow{n}.cluster.local")
        world.run(seconds / 2)
    world.run(seconds)
    assert all(isinstance(outcome, bytes) for outcome in world.bed.outcomes)
    assert len(world.asked) <= (1.5 if seconds < 1.7 else 2.1) * 40


def test_slow_names_among_quick_ones_are_answered_and_hold_nobody_up() -> None:
    def react(_connection: Connection, query: bytes) -> Reaction:
        return [(1.5 if b"slow" in query else 0.001, answer(query))]

    world = World(react)
    for n in range(50):
        world.bed.ask(ONE, f"slow{n}.cluster.local")
        world.bed.ask(ONE, f"quick{n}.cluster.local")
        world.run(0.1)
    world.run(1.6)
    took = {r.exchange.question[1:5]: r.at - r.exchange.started_at for r in world.bed.results}
    assert len(world.bed.results) == 100
    assert all(isinstance(outcome, bytes) for outcome in world.bed.outcomes)
    assert took[b"quic"] < 0.01


def test_what_comes_over_a_late_connection_counts_for_all_that_it_carries() -> None:
    world = slow_by(1.4)
    exchanges = [world.bed.ask(ONE, f"n{n}.cluster.local") for n in range(3)]
    world.run(1.5)
    assert [result.exchange for result in world.bed.results] == exchanges


def test_a_hanging_upstream_is_asked_four_times_for_a_name() -> None:
    world = World(lambda _connection, _query: [])
    world.bed.ask(ONE)
    world.run(6.0)
    assert world.bed.outcomes == [Failure.TIMED_OUT]
    assert len(world.asked) <= 4


def test_of_two_the_other_answers_what_the_first_is_slow_with() -> None:
    two = replace(policy(TCP, TCP2), selection=SelectionPolicy.SEQUENTIAL)
    world = World(
        lambda connection, query: [(3.0 if connection.upstream is TCP else 0.001, answer(query))]
    )
    world.bed.ask(two)
    world.run(0.3)
    assert len(world.bed.results) == 1


# Late answers.


@pytest.mark.parametrize("upstream", [TCP, UDP], ids=["tcp", "udp"])
def test_an_answer_that_comes_after_the_failure_is_handed_in_once(upstream: Upstream) -> None:
    world = slow_by(5.0)
    exchange = world.bed.ask(policy(upstream))
    late: list[tuple[bytes, float]] = []
    exchange.on_late = lambda _, message, now: late.append((message[12:], round(now - 1000.0, 1)))
    world.run(9.0)
    assert world.bed.outcomes == [Failure.TIMED_OUT]
    assert late == [(exchange.question + OPT, 5.0)]


@pytest.mark.parametrize("rcode", [1, 2, 5])
def test_an_error_that_comes_late_is_of_no_use(rcode: int) -> None:
    world = World(lambda _connection, query: [(5.0, answer(query, rcode=rcode))])
    exchange = world.bed.ask(ONE)
    late: list[bytes] = []
    exchange.on_late = lambda _, message, now: late.append(message)
    world.run(9.0)
    assert late == []


def test_nothing_is_expected_after_ten_seconds() -> None:
    world = slow_by(11.0)
    world.bed.ask(ONE)
    world.run(15.0)
    assert world.bed.open == []


def test_a_shorter_read_timeout_is_the_users_word() -> None:
    bed = Network()
    bed.ask(replace(ONE, read_timeout_s=0.4))
    [(silent, _)] = bed.queries
    bed.wait(0.45)
    assert silent in bed.closed


# Bounds.


def test_where_every_connection_is_late_the_longest_silent_makes_room() -> None:
    def react(_connection: Connection, query: bytes) -> Reaction:
        return [] if b"slow" in query else [(0.001, answer(query))]

    world = World(react)
    for n in range(400):
        world.bed.ask(ONE, f"slow{n}.cluster.local")
        world.run(0.02)
        assert len(world.bed.open) <= MAX_CONNECTIONS
    world.bed.results.clear()
    for n in range(20):
        world.bed.ask(ONE, f"quick{n}.cluster.local")
        world.run(0.1)
    quick = [r for r in world.bed.results if r.exchange.question[1:6] == b"quick"]
    assert len([r for r in quick if isinstance(r.outcome, bytes)]) == 20


def test_one_that_answers_others_meanwhile_is_not_down() -> None:
    def react(_connection: Connection, query: bytes) -> Reaction:
        return [] if b"slow" in query else [(0.001, answer(query))]

    world = World(react)
    for n in range(30):
        world.bed.ask(ONE, f"slow{n}.cluster.local")
        world.bed.ask(ONE, f"quick{n}.cluster.local")
        world.run(0.2)
        assert not world.bed.forwarder.pool(TCP).health.is_down
