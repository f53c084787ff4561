"""Which TCP connection carries a query, and what becomes of connections."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from nodecache.config.model import Transport
from nodecache.engine.exchange import Failure
from nodecache.engine.streams import MAX_CONNECTIONS, MAX_DEPTH, TARGET_CONNECTIONS
from nodecache.engine.upstream import MAX_WAITING, Connection
from nodecache.wire.framing import frame
from tests.engine.forwarding import TCP, TCP2, Bed, answer, policy, question

ONE = policy(TCP)


def ask_and_answer(bed: Bed, times: int) -> Counter[Connection]:
    used: Counter[Connection] = Counter()
    for _ in range(times):
        bed.ask(ONE)
        used.update(connection for connection, _ in bed.queries)
        bed.reply_all()
    return used


def test_a_query_is_answered_over_a_new_connection() -> None:
    bed = Bed()
    exchange = bed.ask(ONE)
    [(connection, query)] = bed.queries
    assert query[2:] == exchange.query
    response = answer(query)
    bed.deliver(connection, response)
    assert bed.outcomes == [response]


def test_a_query_waits_while_the_only_connection_is_opened() -> None:
    bed = Bed(connects=False)
    bed.ask(ONE)
    assert repr(bed.forwarder.pool(TCP)) == (
        "<1 connecting, 0 idle, 0 busy, 0 draining; 0 pending, 1 waiting>"
    )
    bed.connect(bed.opened[0])
    assert len(bed.queries) == 1


def test_one_query_after_another_uses_one_connection() -> None:
    bed = Bed()
    assert list(ask_and_answer(bed, 20).values()) == [20]


def test_queries_at_once_open_more_connections_up_to_the_target() -> None:
    bed = Bed()
    for n in range(TARGET_CONNECTIONS * 3):
        bed.ask(ONE, f"n{n}.cluster.local")
    assert len(bed.open) == TARGET_CONNECTIONS
    assert len(bed.queries) == TARGET_CONNECTIONS * 3


def test_a_query_does_not_wait_for_a_connection_while_another_is_ready() -> None:
    bed = Bed()
    bed.ask(ONE)
    bed.connects = False
    bed.ask(ONE, "b.cluster.local")
    assert len(bed.opened) == 1
    assert len(bed.queries) == 2


def test_idle_connections_take_turns() -> None:
    bed = Bed()
    for n in range(5):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.reply_all()
    connections = bed.open
    used = ask_and_answer(bed, 10 * len(connections))
    assert used == Counter(connections * 10)


def test_the_least_loaded_connection_is_taken() -> None:
    bed = Bed()
    for n in range(TARGET_CONNECTIONS * 2):
        bed.ask(ONE, f"n{n}.cluster.local")
    connection = bed.open[3]
    bed.deliver(connection, answer(bed.sent[connection].pop(0)))
    bed.ask(ONE, "last.cluster.local")
    assert [len(bed.sent[c]) for c in bed.open] == [2] * TARGET_CONNECTIONS


def test_more_connections_than_the_target_only_when_each_has_four_queries() -> None:
    bed = Bed()
    for n in range(TARGET_CONNECTIONS * 4):
        bed.ask(ONE, f"n{n}.cluster.local")
    assert len(bed.open) == TARGET_CONNECTIONS
    bed.ask(ONE, "more.cluster.local")
    assert len(bed.open) == TARGET_CONNECTIONS + 1


def test_a_flood_is_bounded_in_connections_depth_and_waiting_exchanges() -> None:
    bed = Bed()
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
    bed = Bed()
    ids = iter([5, 5, 5, 9, 5, 9, 11])
    bed.forwarder._means.message_id = lambda: next(ids)
    bed.connects = False
    for n in range(3):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.connect(bed.opened[0])
    assert [query[:2] for _, query in bed.queries] == [b"\0\5", b"\0\11", b"\0\13"]


def test_queries_of_one_turn_are_written_at_once() -> None:
    bed = Bed()
    bed.connects = False
    for n in range(4):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.connect(bed.opened[0])
    assert bed.writes == 1
    assert len(bed.queries) == 4


def test_policies_share_the_connections_of_equal_upstreams() -> None:
    bed = Bed()
    bed.ask(policy(TCP))
    bed.reply_all()
    bed.ask(policy(replace(TCP)))
    assert len(bed.open) == 1


# The end of connections.


def test_an_idle_connection_is_closed_before_coredns_does_it() -> None:
    bed = Bed()
    ask_and_answer(bed, 1)
    bed.wait(7.1)
    assert bed.closed == []
    bed.wait(0.95)
    assert len(bed.closed) == 1


@pytest.mark.parametrize("expire_s", [1.0, 3.0])
def test_expire_is_honoured_within_a_second(expire_s: float) -> None:
    bed = Bed()
    short = policy(replace(TCP, expire_s=expire_s))
    for _ in range(7):
        bed.ask(short)
        bed.reply_all()
        bed.wait(0.3)
    bed.wait(expire_s * 0.9 - 0.31)
    assert bed.closed == []
    bed.wait(0.5)
    assert len(bed.closed) == 1


def test_an_unused_connection_is_closed_before_coredns_does_it() -> None:
    bed = Bed()
    bed.ask(ONE)
    bed.ask(ONE, "b.cluster.local")
    bed.reply_all()
    assert len(bed.open) == 2
    bed.wait(2.4)
    assert len(bed.open) == 2
    bed.wait(0.2)
    assert len(bed.open) == 1


def test_no_more_idle_connections_are_kept_than_allowed() -> None:
    bed = Bed()
    frugal = policy(replace(TCP, max_idle_connections=2))
    for n in range(9):
        bed.ask(frugal, f"n{n}.cluster.local")
    assert len(bed.open) > 2
    bed.reply_all()
    assert len(bed.open) == 2
    assert len(bed.results) == 9


def test_connections_in_use_are_replaced_at_about_thirty_seconds() -> None:
    bed = Bed()
    bed.ask(ONE)
    bed.reply_all()
    [first] = bed.open
    for _ in range(22):
        bed.wait(1.0)
        bed.ask(ONE)
        bed.reply_all()
    assert first not in bed.closed
    for _ in range(17):
        bed.wait(1.0)
        bed.ask(ONE)
        bed.reply_all()
    assert first in bed.closed
    assert all(isinstance(outcome, bytes) for outcome in bed.outcomes)


def test_connections_with_much_to_do_are_replaced_early_and_grow_to_the_target() -> None:
    bed = Bed()
    for _ in range(350):
        bed.ask(ONE)
        bed.reply_all()
        bed.wait(0.002)
    assert not bed.closed  # nothing is replaced in its first 0.75 s
    while bed.now < 1010.0:
        bed.ask(ONE)
        bed.reply_all()
        bed.wait(0.002)
        bed.results.clear()
    assert len(bed.open) == TARGET_CONNECTIONS
    assert all(bed.now - connection.opened_at <= 2.5 for connection in bed.open)


def test_tls_connections_are_kept_under_load() -> None:
    bed = Bed()
    secure = policy(replace(TCP, transport=Transport.TLS))
    while bed.now < 1010.0:
        bed.ask(secure)
        bed.reply_all()
        bed.wait(0.002)
        bed.results.clear()
    assert len(bed.open) == 1
    assert not bed.closed


def test_connections_are_kept_while_backends_die() -> None:
    bed = Bed()
    while bed.now < 1012.0:
        bed.ask(ONE)
        bed.reply_all()
        bed.wait(0.002)
        if not int(bed.now) % 3:  # nobody takes the next connection
            bed.connects = False
            bed.refuse_all()
        bed.results.clear()
    assert max(bed.now - connection.opened_at for connection in bed.open) > 5.0


def test_a_connection_is_not_older_than_max_age() -> None:
    bed = Bed()
    aged = policy(replace(TCP, max_age_s=5.0))
    for _ in range(60):
        bed.ask(aged)
        bed.reply_all()
        bed.wait(0.1)
    assert bed.closed
    for connection in bed.open:
        assert bed.now - connection.opened_at <= 5.0


def test_the_successor_of_the_only_connection_is_opened_before_it_goes() -> None:
    bed = Bed()
    aged = policy(replace(TCP, max_age_s=5.0))
    bed.ask(aged)
    bed.reply_all()
    [first] = bed.open
    bed.connects = False
    while not bed.opened:
        bed.wait(0.05)
        bed.ask(aged)
        bed.reply_all()
    assert first not in bed.closed
    bed.ask(aged)
    assert [connection for connection, _ in bed.queries] == [first]
    bed.reply_all()
    bed.connect(bed.opened[0])
    bed.wait(1.0)
    assert first in bed.closed


def test_an_aged_connection_answers_what_it_was_asked() -> None:
    bed = Bed()
    bed.ask(ONE)
    bed.ask(ONE, "b.cluster.local")
    bed.reply_all()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    connection.expires_at = bed.now
    bed.wait(0.9)
    bed.deliver(connection, answer(query))
    bed.wait(0.5)
    assert connection in bed.closed
    assert bed.outcomes[-1] == answer(query)


# Death.


def test_queries_of_a_dead_connection_move_at_once() -> None:
    bed = Bed()
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
    bed = Bed()
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
    bed = Bed()
    ask_and_answer(bed, 1)
    bed.drop(bed.open[0])
    assert repr(bed.forwarder.pool(TCP).health) == "up, 0 fails"


def test_a_silent_connection_is_dead_after_a_second() -> None:
    bed = Bed()
    bed.ask(ONE)
    [(silent, _)] = bed.queries
    bed.wait(0.98)
    assert silent not in bed.closed
    bed.wait(0.05)
    assert silent in bed.closed


def test_a_shorter_read_timeout_holds() -> None:
    bed = Bed()
    bed.ask(replace(ONE, read_timeout_s=0.4))
    [(silent, _)] = bed.queries
    bed.wait(0.45)
    assert silent in bed.closed


def test_a_connection_with_a_late_query_takes_no_more_until_it_answers() -> None:
    bed = Bed()
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
    bed = Bed()
    bed.ask(ONE)
    [(dripping, query)] = bed.queries
    framed = frame(answer(query, octets=bytes(100)))
    for n in range(12):
        bed.forwarder.received(dripping, framed[n : n + 1], bed.now)
        bed.wait(0.5)
    assert dripping in bed.closed


def test_connect_time_out_is_400_ms_and_a_second_dial_starts_after_100() -> None:
    bed = Bed(connects=False)
    bed.ask(ONE)
    [first] = bed.opened
    bed.wait(0.11)
    assert len(bed.opened) == 2
    bed.wait(0.28)
    assert first not in bed.closed
    bed.wait(0.02)
    assert first in bed.closed


def test_a_reset_connection_attempt_backs_off_before_the_next() -> None:
    bed = Bed(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    assert bed.opened == []
    bed.wait(0.04)
    assert bed.opened == []
    bed.wait(0.02)
    assert len(bed.opened) == 1


def test_a_server_that_accepts_and_hangs_up_is_not_dialled_in_a_loop() -> None:
    bed = Bed()
    bed.ask(ONE)
    dials = 0
    for _ in range(100):
        for connection in bed.open:
            bed.drop(connection)
            dials += 1
        bed.wait(0.01)
    assert dials <= 6
    assert bed.outcomes == [Failure.UNREACHABLE]


# Strays.


@pytest.mark.parametrize(
    "spoil",
    [
        lambda query: bytes([query[0] ^ 1]) + answer(query)[1:],
        lambda query: query[:2] + answer(b"\0" * 12 + question("b.cluster.local"))[2:],
        lambda query: query[:2] + answer(b"\0" * 12 + question("a.cluster.local", 28))[2:],
        lambda query: query,
        lambda query: answer(query)[:11],
        lambda query: answer(query)[:20],
        lambda query: query[:2] + b"\x81\x80" + bytes(8),
        lambda query: query[:2] + b"\x81\x83" + bytes(8),
        lambda query: b"",
    ],
    ids=[
        "wrong ID",
        "wrong QNAME",
        "wrong QTYPE",
        "our own query",
        "no header",
        "cut question",
        "no question, NOERROR",
        "no question, NXDOMAIN",
        "nothing",
    ],
)
def test_a_stray_is_counted_and_does_not_hurt(spoil: object) -> None:
    assert callable(spoil)
    bed = Bed()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    bed.deliver(connection, spoil(query))
    assert bed.outcomes == []
    assert bed.counters.events["upstream_strays"] == 1
    bed.deliver(connection, answer(query))
    assert bed.outcomes == [answer(query)]


def test_a_response_in_other_case_is_the_answer() -> None:
    bed = Bed()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    response = answer(query).replace(b"cluster", b"CLUster")
    bed.deliver(connection, response)
    assert bed.outcomes == [response]


def test_responses_out_of_order_and_cut_anywhere_find_their_queries() -> None:
    bed = Bed(connects=False)
    exchanges = [bed.ask(ONE, f"n{n}.cluster.local") for n in range(3)]
    bed.connect(bed.opened[0])
    connection = bed.queries[0][0]
    responses = [answer(query) for _, query in bed.queries]
    for octet in b"".join(frame(response) for response in reversed(responses)):
        bed.forwarder.received(connection, bytes([octet]), bed.now)
    assert [result.exchange for result in bed.results] == exchanges[::-1]
    assert bed.outcomes == responses[::-1]


# Reload and figures.


def test_connections_to_upstreams_that_left_the_configuration_drain() -> None:
    bed = Bed()
    bed.ask(ONE)
    bed.reply_all()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    bed.forwarder.keep_only([TCP2], bed.now)
    bed.flush()
    assert bed.closed == []
    bed.deliver(connection, answer(query))
    assert bed.closed == [connection]
    assert bed.outcomes[-1] == answer(query)


def test_connections_to_upstreams_that_stay_are_kept() -> None:
    bed = Bed()
    ask_and_answer(bed, 1)
    bed.forwarder.keep_only([TCP, TCP2], bed.now)
    bed.flush()
    assert bed.closed == []
    assert list(ask_and_answer(bed, 1)) == bed.open


def test_a_dead_connection_of_a_retired_pool_still_loses_no_query() -> None:
    bed = Bed()
    ask_and_answer(bed, 1)
    bed.ask(ONE)
    [(connection, _)] = bed.queries
    bed.forwarder.keep_only([TCP2], bed.now)
    bed.drop(connection)
    bed.reply_all()
    assert isinstance(bed.outcomes[-1], bytes)
    assert bed.open == []


def test_series_tell_reused_dialled_durations_and_connections() -> None:
    bed = Bed()
    ask_and_answer(bed, 5)
    bed.ask(ONE)
    bed.wait(0.01)
    bed.reply_all(rcode=3)
    bed.counters.fold()
    bed.counters.fold()
    [series] = bed.counters.upstreams
    assert series.to == "10.0.0.1:53"
    assert series.reused == {"tcp": 5}
    assert series.dialled == {"tcp": 1}
    assert sum(series.durations[0].counts) == 5
    assert sum(series.durations[3].counts) == 1
    assert round(series.durations[3].total, 3) == 0.01
    assert series.connections == {"connecting": 0, "idle": 1, "busy": 0, "draining": 0}


def test_series_of_an_upstream_outlive_a_reload() -> None:
    bed = Bed()
    ask_and_answer(bed, 1)
    bed.forwarder.keep_only([TCP2], bed.now)
    bed.flush()
    ask_and_answer(bed, 1)
    bed.counters.fold()
    assert [series.to for series in bed.counters.upstreams] == ["10.0.0.1:53"]
    assert bed.counters.upstreams[0].dialled == {"tcp": 2}
