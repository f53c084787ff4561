"""Upstreams that end connections: over one name, after some answers, or beyond some connections."""

from __future__ import annotations

import pytest

from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.exchange import Failure
from tests.upstreams.forwarding import TCP, answer, policy
from tests.upstreams.simple_servers import Reaction, World

ONE = policy(TCP)


def hang_up_over_poison(_connection: Connection, query: bytes) -> Reaction:
    if b"poison" in query:
        return [(0.001, None)]
    return [(0.002, answer(query))]


def outcomes_of(world: World, label: bytes) -> list[bytes | Failure]:
    return [r.outcome for r in world.bed.results if r.exchange.question[1:].startswith(label)]


def test_a_poisonous_name_fails_alone_after_two_connections() -> None:
    world = World(hang_up_over_poison)
    world.bed.ask(ONE, "poison.cluster.local")
    world.run(1.0)
    assert world.bed.outcomes == [Failure.HUNG_UP]
    assert len(world.asked) == 2


def test_others_do_not_notice() -> None:
    world = World(hang_up_over_poison)
    for n in range(200):
        if n % 5 == 0:
            world.bed.ask(ONE, "poison.cluster.local")
        world.bed.ask(ONE, f"good{n}.cluster.local")
        world.run(0.01)
        assert not world.bed.forwarder.pool(TCP).health.is_down
    world.run(1.0)
    assert all(isinstance(outcome, bytes) for outcome in outcomes_of(world, b"good"))
    assert set(outcomes_of(world, b"poison")) == {Failure.HUNG_UP}
    poisoned = [query for _, query in world.asked if b"poison" in query]
    assert 2 * 40 <= len(poisoned) <= 2.4 * 40  # now and then another was the next to be answered


def test_nor_while_it_is_poisonous_for_a_and_aaaa() -> None:
    world = World(hang_up_over_poison)
    for n in range(20):
        world.bed.ask(ONE, "poison.cluster.local")
        world.bed.ask(ONE, "poison.cluster.local")
        world.bed.ask(ONE, f"good{n}.cluster.local")
        world.run(0.1)
    assert all(isinstance(outcome, bytes) for outcome in outcomes_of(world, b"good"))


def test_two_poisonous_names_are_given_up_too() -> None:
    world = World(hang_up_over_poison)
    for n in range(20):
        world.bed.ask(ONE, "poison1.cluster.local")
        world.bed.ask(ONE, "poison2.cluster.local")
        world.bed.ask(ONE, f"good{n}.cluster.local")
        world.run(0.3)
    world.run(1.0)
    assert all(isinstance(outcome, bytes) for outcome in outcomes_of(world, b"good"))
    assert len(outcomes_of(world, b"poison")) == 40


# So many queries on a connection.


class Counting:
    """Ends each connection with its ``most``th answer, or right behind it."""

    def __init__(self, most: int, gap_s: float) -> None:
        self.most = most
        self.gap_s = gap_s
        self.answers: dict[Connection, int] = {}

    def __call__(self, connection: Connection, query: bytes) -> Reaction:
        count = self.answers[connection] = self.answers.get(connection, 0) + 1
        if count > self.most:
            return []
        reaction: Reaction = [(0.001, answer(query))]
        if count == self.most:
            reaction.append((0.001 + self.gap_s, None))
        return reaction


@pytest.mark.parametrize("most", [1, 2, 7])
@pytest.mark.parametrize("gap_s", [0.0, 0.001, 0.02])
@pytest.mark.parametrize("at_once", [1, 20])
def test_each_query_is_answered_where_connections_end_after_some(
    most: int, gap_s: float, at_once: int
) -> None:
    world = World(Counting(most, gap_s))
    for turn in range(300 // at_once):
        for n in range(at_once):
            world.bed.ask(ONE, f"n{turn}-{n}.cluster.local")
        world.run(0.03)
    world.run(1.0)
    assert len(world.bed.results) == 300
    assert all(isinstance(outcome, bytes) for outcome in world.bed.outcomes)


def test_after_the_first_few_nothing_is_asked_twice() -> None:
    world = World(Counting(1, 0.0))
    for turn in range(20):
        for n in range(20):
            world.bed.ask(ONE, f"n{turn}-{n}.cluster.local")
        world.run(0.1)
        if turn == 2:
            world.asked.clear()
    assert len(world.asked) <= 17 * 20 + 4


# So many connections at once.


class Crowded:
    """Ends each connection beyond ``most`` open ones, before or after its first query."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.world: World | None = None
        self.admitted: set[Connection] = set()

    def __call__(self, connection: Connection, query: bytes) -> Reaction:
        self.admitted = {c for c in self.admitted if c.state is not State.CLOSED}
        if connection not in self.admitted and len(self.admitted) >= self.most:
            return [(0.0, None)]
        self.admitted.add(connection)
        return [(0.003, answer(query))]


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("at_once", [5, 20])
def test_each_query_is_answered_where_only_some_connections_are_taken(
    most: int, at_once: int
) -> None:
    world = World(Crowded(most))
    for turn in range(600 // at_once):
        for n in range(at_once):
            world.bed.ask(ONE, f"n{turn}-{n}.cluster.local")
        world.run(0.02)
    world.run(1.0)
    assert len(world.bed.results) == 600
    assert all(isinstance(outcome, bytes) for outcome in world.bed.outcomes)


def test_silent_queries_on_connections_of_one_query_leave_room_to_others() -> None:
    world = World(Counting(1, 0.0))
    for n in range(40):
        world.bed.ask(ONE, f"n{n}.cluster.local")
        world.run(0.01)
    counting = world.server
    world.server = lambda c, query: [] if b"silent" in query else counting(c, query)
    for n in range(150):
        world.bed.ask(ONE, f"silent{n}.cluster.local")
        world.run(0.01)
    for n in range(5):
        world.bed.ask(ONE, f"good{n}.cluster.local")
        world.run(0.5)
    world.run(2.5)
    good = outcomes_of(world, b"good")
    assert len(good) == 5
    assert all(isinstance(outcome, bytes) for outcome in good)
