"""Whatever the network does, each exchange ends once, in time, and no table keeps anything."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache import upstreams
from nodecache.config.model import ForwardPolicy, SelectionPolicy
from nodecache.upstreams.connection import TRANSITIONS, Connection, State
from nodecache.upstreams.exchange import Exchange
from nodecache.upstreams.streams import StreamPool
from tests.upstreams.forwarding import TCP, TCP2, UDP, UDP2, Network, answer, policy

POLICIES = (
    policy(TCP),
    policy(TCP, TCP2),
    policy(UDP),
    replace(policy(TCP, UDP2), selection=SelectionPolicy.SEQUENTIAL),
    replace(policy(TCP, TCP2), failover_rcodes=frozenset({2, 5})),
    replace(policy(UDP, TCP2), max_connect_attempts=1, failfast_all_unhealthy=True),
)
SEEDS_THAT_SHOW_ALL = 10


def hostile_answer(query: bytes, dice: random.Random) -> bytes:
    whole = answer(query, rcode=dice.choice((0, 0, 1, 2, 3, 5)), truncated=dice.random() < 0.1)
    kind = dice.randrange(8)
    if kind == 0:
        return query[:2] + bytes([0x81, 0x80 | dice.randrange(6)]) + bytes(8)
    if kind == 1:
        return whole[: dice.randrange(len(whole))]
    if kind == 2:
        spoiled = bytearray(whole)
        spoiled[dice.randrange(len(spoiled))] ^= 1 << dice.randrange(8)
        return bytes(spoiled)
    return whole


def misbehave(bed: Network, dice: random.Random) -> None:
    """One event on a connection, of those that a peer or the machine can cause."""
    if bed.opened and dice.random() < 0.5:
        connection = dice.choice(bed.opened)
        if dice.random() < 0.5:
            bed.connect(connection)
        else:
            bed.opened.remove(connection)
            bed.drop(connection)
        return
    live = [connection for connection in bed.sent if connection.state is not State.CLOSED]
    if not live:
        return
    connection = dice.choice(live)
    if dice.random() < 0.1 and connection not in bed.opened:
        bed.drop(connection)
    elif bed.sent[connection]:
        query = bed.sent[connection].pop(dice.randrange(len(bed.sent[connection])))
        bed.deliver(connection, hostile_answer(query, dice))


def check_tables(bed: Network, policies: tuple[ForwardPolicy, ...]) -> None:
    for upstream in {upstream for each in policies for upstream in each.upstreams}:
        pool = bed.forwarder.pool(upstream)
        if not isinstance(pool, StreamPool):
            continue
        roster = pool._roster
        for load, level in enumerate(roster.levels):
            for connection in level:
                assert len(connection.pending) == load
                assert connection.state is State.READY
        alive = [*roster.connections, *roster.draining]
        assert pool._load == sum(len(connection.pending) for connection in alive)
        assert roster.late == sum(c.state is State.LATE for c in roster.connections)
        connecting = sum(c.state is State.CONNECTING for c in roster.connections)
        assert roster.connecting == connecting
        for exchange in pool.waiting:
            assert exchange.waiting_in is pool
            assert not exchange.is_done


def live(seed: int) -> tuple[Network, list[Exchange]]:
    """Returns a bed after 120 exchanges or so in the worst of company, and all of them."""
    dice = random.Random(seed)
    bed = Network(connects=dice.random() < 0.5, seed=seed)
    submitted: list[Exchange] = []
    for n in range(120):
        if dice.random() < 0.4:
            submitted.append(bed.ask(dice.choice(POLICIES), f"n{n}.cluster.local"))
        misbehave(bed, dice)
        if dice.random() < 0.5:
            bed.wait(dice.choice((0.001, 0.02, 0.3)))
        if dice.random() < 0.01:
            bed.forwarder.keep_only([TCP, UDP], bed.now)
            bed.flush()
        check_tables(bed, POLICIES)
    bed.wait(5.0)
    return bed, submitted


@given(st.integers(0, 2**32))
def test_each_exchange_ends_once_and_in_time(seed: int) -> None:
    bed, submitted = live(seed)
    assert {id(result.exchange) for result in bed.results} == {id(e) for e in submitted}
    for result in bed.results:
        assert result.at <= result.exchange.deadline + 0.01
    bed.forwarder.keep_only([], bed.now)
    bed.flush()
    bed.wait(10.0)
    assert [c for c in bed.sent if c.state is not State.CLOSED] == []
    assert bed.forwarder.next_timer() is None


def test_connections_go_from_state_to_state_as_the_table_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[tuple[State, State]] = set()

    def become(connection: Connection, state: State) -> None:
        seen.add((connection.state, state))
        connection.state = state

    monkeypatch.setattr(Connection, "become", become)
    for seed in range(SEEDS_THAT_SHOW_ALL):
        live(seed)
    assert seen == TRANSITIONS.keys()


def test_no_other_line_changes_the_state_of_a_connection() -> None:
    changes = [
        (path.name, line.strip())
        for path in Path(upstreams.__path__[0]).glob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\.state = ", line)
    ]
    assert sorted(changes) == [
        ("connection.py", "self.state = State.CONNECTING"),
        ("connection.py", "self.state = state"),
    ]
