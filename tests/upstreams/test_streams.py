"""Which TCP connection carries a query, and what becomes of those whose peer is gone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from nodecache.upstreams.exchange import Failure
from nodecache.upstreams.pool import MAX_WAITING
from nodecache.upstreams.room import MAX_CONNECTIONS, TARGET_CONNECTIONS
from nodecache.upstreams.roster import MAX_DEPTH
from nodecache.wire.framing import frame
from tests.upstreams.forwarding import ONE, TCP, Network, answer, ask_and_answer, policy


def test_a_query_is_answered_over_a_new_connection() -> None:
    bed = Network()
    exchange = bed.ask(ONE)
    [(connection, query)] = bed.queries
    assert query[2:] == exchange.query
    response = answer(query)
    bed.deliver(connection, response)
    assert bed.outcomes == [response]


def test_a_query_waits_while_the_only_connection_is_opened() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    assert repr(bed.forwarder.pool(TCP)) == (
        "<1 connecting, 0 idle, 0 busy, 0 draining; 0 pending, 1 waiting>"
    )
    bed.connect(bed.opened[0])
    assert len(bed.queries) == 1


def test_one_query_after_another_uses_one_connection() -> None:
    bed = Network()
    assert list(ask_and_answer(bed, 20).values()) == [20]


def test_queries_at_once_open_more_connections_up_to_the_target() -> None:
    bed = Network()
    for n in range(TARGET_CONNECTIONS * 3):
        bed.ask(ONE, f"n{n}.cluster.local")
    assert len(bed.open) == TARGET_CONNECTIONS
    assert len(bed.queries) == TARGET_CONNECTIONS * 3


def test_a_query_does_not_wait_for_a_connection_while_another_is_ready() -> None:
    bed = Network()
    bed.ask(ONE)
    bed.connects = False
    bed.ask(ONE, "b.cluster.local")
    assert len(bed.opened) == 1
    assert len(bed.queries) == 2


def test_idle_connections_take_turns() -> None:
    bed = Network()
    for n in range(5):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.reply_all()
    connections = bed.open
    used = ask_and_answer(bed, 10 * len(connections))
    assert used == Counter(connections * 10)


def test_the_least_loaded_connection_is_taken() -> None:
    bed = Network()
    for n in range(TARGET_CONNECTIONS * 2):
        bed.ask(ONE, f"n{n}.cluster.local")
    connection = bed.open[3]
    bed.deliver(connection, answer(bed.sent[connection].pop(0)))
    bed.ask(ONE, "last.cluster.local")
    assert [len(bed.sent[c]) for c in bed.open] == [2] * TARGET_CONNECTIONS


def test_more_connections_than_the_target_only_when_each_has_four_queries() -> None:
    bed = Network()
    for n in range(TARGET_CONNECTIONS * 4):
        bed.ask(ONE, f"n{n}.cluster.local")
    assert len(bed.open) == TARGET_CONNECTIONS
    bed.ask(ONE, "more.cluster.local")
    assert len(bed.open) == TARGET_CONNECTIONS + 1


def test_a_flood_is_bounded_in_connections_depth_and_waiting_exchanges() -> None:
    bed = Network()
    room = MAX_CONNECTIONS * MAX_DEPTH
    for n in range(room + MAX_WAITING + 3):
        bed.ask(ONE, f"n{n}.cluster.local")
    assert len(bed.open) == MAX_CONNECTIONS
    assert {len(bed.sent[c]) for c in bed.open} == {MAX_DEPTH}
    assert bed.outcomes == [Failure.OVERLOADED] * 3
    while bed.queries:
        bed.reply_all()
    assert len(bed.results) == room + MAX_WAITING + 3
    assert bed.outcomes.count(Failure.OVERLOADED) == 3


def test_ids_on_one_connection_are_unique() -> None:
    bed = Network()
    ids = iter([5, 5, 5, 9, 5, 9, 11])
    bed.forwarder._outside.message_id = lambda: next(ids)
    bed.connects = False
    for n in range(3):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.connect(bed.opened[0])
    assert [query[:2] for _, query in bed.queries] == [b"\0\5", b"\0\11", b"\0\13"]


def test_queries_of_one_turn_are_written_at_once() -> None:
    bed = Network()
    bed.connects = False
    for n in range(4):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.connect(bed.opened[0])
    assert bed.writes == 1
    assert len(bed.queries) == 4


def test_policies_share_the_connections_of_equal_upstreams() -> None:
    bed = Network()
    bed.ask(policy(TCP))
    bed.reply_all()
    bed.ask(policy(replace(TCP)))
    assert len(bed.open) == 1


# Death.


def test_queries_of_a_dead_connection_move_at_once() -> None:
    bed = Network()
    ask_and_answer(bed, 1)
    exchange = bed.ask(ONE)
    [(dead, _)] = bed.queries
    bed.drop(dead)
    [(connection, query)] = bed.queries
    assert connection is not dead
    bed.deliver(connection, answer(query))
    assert [result.exchange for result in bed.results][-1] is exchange
    assert isinstance(bed.outcomes[-1], bytes)
    assert bed.results[-1].at == exchange.started_at


def test_every_query_survives_the_death_of_all_connections() -> None:
    bed = Network()
    ask_and_answer(bed, 3)
    for n in range(40):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.reply_all()
    for n in range(40):
        bed.ask(ONE, f"n{n}.cluster.local")
    for connection in bed.open:
        bed.drop(connection)
    bed.wait(0.06)
    bed.reply_all()
    assert len(bed.results) == 83
    assert all(isinstance(outcome, bytes) for outcome in bed.outcomes)


def test_an_idle_connection_that_dies_is_no_failure() -> None:
    bed = Network()
    ask_and_answer(bed, 1)
    bed.drop(bed.open[0])
    assert repr(bed.forwarder.pool(TCP).health) == "up, 0 fails"


def test_a_silent_connection_is_late_not_dead() -> None:
    bed = Network()
    bed.ask(ONE)
    [(silent, _)] = bed.queries
    bed.wait(9.9)
    assert silent not in bed.closed
    bed.wait(0.2)
    assert silent in bed.closed


def test_a_silent_connection_is_dead_a_second_after_the_answer_came_another_way() -> None:
    bed = Network()
    bed.ask(ONE)
    [(silent, _)] = bed.queries
    bed.wait(0.3)
    other, query = bed.queries[-1]
    assert other is not silent
    bed.deliver(other, answer(query))
    bed.wait(0.68)
    assert silent not in bed.closed
    bed.wait(0.1)
    assert silent in bed.closed


def test_a_shorter_read_timeout_holds() -> None:
    bed = Network()
    bed.ask(replace(ONE, read_timeout_s=0.4))
    [(silent, _)] = bed.queries
    bed.wait(0.45)
    assert silent in bed.closed


def test_a_connection_with_a_late_query_takes_no_more_until_it_answers() -> None:
    bed = Network()
    bed.ask(ONE)
    [(late, query)] = bed.queries
    bed.wait(0.3)
    bed.sent[late].clear()
    for n in range(5):
        bed.ask(ONE, f"n{n}.cluster.local")
    assert bed.sent[late] == []
    bed.deliver(late, answer(query))
    bed.reply_all()
    bed.ask(ONE, "x.cluster.local")
    bed.ask(ONE, "y.cluster.local")
    assert len(bed.open) <= 8
    assert late.level is not None


def test_half_a_message_does_not_keep_a_connection_alive_for_ever() -> None:
    bed = Network()
    bed.ask(ONE)
    [(dripping, query)] = bed.queries
    framed = frame(answer(query, octets=bytes(100)))
    for n in range(21):
        bed.forwarder.received(dripping, framed[n : n + 1], bed.now)
        bed.wait(0.5)
    assert dripping in bed.closed


def test_connect_time_out_is_400_ms_and_a_second_dial_starts_after_100() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    [first] = bed.opened
    bed.wait(0.11)
    assert len(bed.opened) == 2
    bed.wait(0.28)
    assert first not in bed.closed
    bed.wait(0.02)
    assert first in bed.closed


def test_a_reset_connection_attempt_backs_off_before_the_next() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    assert bed.opened == []
    bed.wait(0.04)
    assert bed.opened == []
    bed.wait(0.02)
    assert len(bed.opened) == 1


def test_a_server_that_accepts_and_hangs_up_is_not_dialled_in_a_loop() -> None:
    bed = Network()
    bed.ask(ONE)
    dials = 0
    for _ in range(100):
        for connection in bed.open:
            bed.drop(connection)
            dials += 1
        bed.wait(0.01)
    assert dials == 2
    assert bed.outcomes == [Failure.HUNG_UP]


def test_nor_while_it_does_so_over_many_questions() -> None:
    bed = Network()
    dials = 0
    for n in range(100):
        bed.ask(ONE, f"n{n}.cluster.local")
        for connection in bed.open:
            bed.drop(connection)
            dials += 1
        bed.wait(0.01)
    assert dials <= 100  # fewer than there are questions
