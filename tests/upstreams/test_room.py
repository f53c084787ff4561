"""Upstreams that take only so many connections (``max_conns``)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.config.model import Upstream
from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.exchange import Failure
from nodecache.upstreams.roster import MAX_DEPTH
from tests.upstreams.forwarding import TCP, Network, answer, policy


def limited(most: int) -> Upstream:
    return replace(TCP, max_connections=most)


def live(bed: Network) -> list[Connection]:
    """Connections that the upstream has, probes and those being opened included."""
    return [c for c in {*bed.sent, *bed.opened} if c.state is not State.CLOSED]


@pytest.mark.parametrize("most", [1, 3, 20, 64])
def test_a_flood_uses_no_more_connections_and_loses_no_query(most: int) -> None:
    bed = Network()
    for n in range(most * MAX_DEPTH + 200):
        bed.ask(policy(limited(most)), f"n{n}.cluster.local")
    assert len(live(bed)) == most
    while bed.queries:
        bed.reply_all()
    assert len(bed.results) == most * MAX_DEPTH + 200
    assert Failure.OVERLOADED not in bed.outcomes


@pytest.mark.parametrize("most", [1, 2])
def test_connections_in_use_are_replaced_without_one_too_many(most: int) -> None:
    bed, asked = Network(), 0
    used: set[Connection] = set()
    end = bed.now + 120
    while bed.now < end:
        for _ in range(3):
            asked += 1
            bed.ask(policy(limited(most)), f"n{asked}.cluster.local")
        bed.wait(0.2)
        assert len(live(bed)) <= most
        bed.reply_all()
        used.update(bed.sent)
    bed.wait(0.1)
    bed.reply_all()
    assert len(used) >= 3 * most
    assert len(bed.results) == asked
    assert all(isinstance(outcome, bytes) for outcome in bed.outcomes)


def test_who_waits_for_the_end_of_an_aged_connection_survives_its_death() -> None:
    bed, forward = Network(), policy(limited(1))
    bed.ask(forward)
    [connection] = bed.open
    bed.reply_all()
    connection.expires_at = bed.now
    bed.ask(forward, "slow.cluster.local")
    connection.look_at = bed.now
    bed.forwarder._see_to(connection.pool, connection.pool.check(connection, bed.now), bed.now)
    assert connection.state is State.DRAINING
    bed.ask(forward, "next.cluster.local")
    assert len(live(bed)) == 1
    bed.drop(connection)
    assert len(live(bed)) == 1
    for _ in range(2):  # what a connection ended over has one for itself that has answered since
        bed.now += 0.001
        bed.reply_all()
    assert len(bed.results) == 3
    assert all(isinstance(outcome, bytes) for outcome in bed.outcomes)


def test_no_hedge_follows_on_the_connection_that_is_late() -> None:
    bed = Network()
    bed.ask(policy(limited(1)))
    bed.wait(0.3)
    [(connection, query)] = bed.queries
    assert "hedged" not in bed.counters.events
    assert connection.pool.series.left_out == 1
    bed.deliver(connection, answer(query))
    assert bed.outcomes == [answer(query)]


def test_a_hedge_takes_a_connection_that_is_open_anyway() -> None:
    bed = Network()
    for name in ("a", "b"):
        bed.ask(policy(limited(2)), f"{name}.cluster.local")
    first, second = bed.open
    assert [len(bed.sent[first]), len(bed.sent[second])] == [2, 0]
    bed.wait(0.3)
    assert len(bed.sent[second]) == 2
    assert len(live(bed)) == 2


def test_a_probe_counts_as_a_connection() -> None:
    bed = Network(connects=False)
    upstream = replace(limited(1), max_fails=1)
    for n in range(20):
        bed.ask(policy(upstream), f"n{n}.cluster.local")
        bed.refuse_all()
        bed.wait(0.3)
        assert len([c for c in bed.opened if c.state is not State.CLOSED]) <= 1
