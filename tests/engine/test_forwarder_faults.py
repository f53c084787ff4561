"""Whatever the network does, each exchange ends once, in time, and no table keeps anything."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nodecache.config.model import ForwardPolicy, SelectionPolicy
from nodecache.engine.exchange import Exchange
from nodecache.engine.streams import StreamPool
from nodecache.engine.upstream import State
from tests.engine.forwarding import TCP, TCP2, UDP, UDP2, Bed, answer, policy

POLICIES = (
    policy(TCP),
    policy(TCP, TCP2),
    policy(UDP),
    replace(policy(TCP, UDP2), selection=SelectionPolicy.SEQUENTIAL),
    replace(policy(TCP, TCP2), failover_rcodes=frozenset({2, 5})),
    replace(policy(UDP, TCP2), max_connect_attempts=1, failfast_all_unhealthy=True),
)


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


def misbehave(bed: Bed, dice: random.Random) -> None:
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


def check_tables(bed: Bed, policies: tuple[ForwardPolicy, ...]) -> None:
    for upstream in {upstream for each in policies for upstream in each.upstreams}:
        pool = bed.forwarder.pool(upstream)
        if not isinstance(pool, StreamPool):
            continue
        for load, level in enumerate(pool._levels):
            for connection in level:
                assert len(connection.pending) == load
                assert connection.state is State.READY
                assert not connection.has_late_query
        alive = [*pool._connections, *pool._draining]
        assert pool._load == sum(len(connection.pending) for connection in alive)
        assert pool._late == sum(c.has_late_query for c in pool._connections)
        assert pool._connecting == sum(c.state is State.CONNECTING for c in pool._connections)
        for exchange in pool.waiting:
            assert exchange.waiting_in is pool
            assert not exchange.is_done


@given(st.integers(0, 2**32))
def test_each_exchange_ends_once_and_in_time(seed: int) -> None:
    dice = random.Random(seed)
    bed = Bed(connects=dice.random() < 0.5, seed=seed)
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
    assert {id(result.exchange) for result in bed.results} == {id(e) for e in submitted}
    for result in bed.results:
        assert result.at <= result.exchange.deadline + 0.01
    bed.forwarder.keep_only([], bed.now)
    bed.flush()
    bed.wait(10.0)
    assert [c for c in bed.sent if c.state is not State.CLOSED] == []
    assert bed.forwarder.next_timer() is None
