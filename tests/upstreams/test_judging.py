"""What counts as the answer (over TCP); what is about EDNS is in test_forms.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.upstreams.exchange import Failure
from nodecache.upstreams.second_opinion import MOST_OPINIONS
from tests.upstreams.forwarding import (
    MALFORMED,
    ONE,
    TCP,
    TCP2,
    TWO,
    Network,
    answer,
    asked,
)


def test_servfail_is_the_answer_unless_failover_says_otherwise() -> None:
    bed = Network()
    bed.ask(TWO)
    for _ in range(MOST_OPINIONS):
        assert asked(bed) == [TCP]
        bed.reply_all(rcode=2)
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [2]
    assert bed.counters.events["doubted"] == MOST_OPINIONS - 1


def test_failover_moves_to_the_next_untried_upstream() -> None:
    bed = Network()
    bed.ask(replace(TWO, failover_rcodes=frozenset({2})))
    bed.reply_all(rcode=2)
    assert asked(bed) == [TCP2]
    bed.reply_all()
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [0]


def test_the_last_failover_response_is_the_answer() -> None:
    bed = Network()
    bed.ask(replace(TWO, failover_rcodes=frozenset({2, 5})))
    bed.reply_all(rcode=2)
    bed.reply_all(rcode=5)
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [5]


def test_a_failover_response_is_better_than_a_time_out() -> None:
    bed = Network()
    bed.ask(replace(TWO, failover_rcodes=frozenset({2})))
    bed.reply_all(rcode=2)
    bed.wait(5.0)
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [2]


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_an_error_without_question_hands_the_query_to_another_upstream(rcode: int) -> None:
    bed = Network()
    bed.ask(TWO)
    [(connection, query)] = bed.queries
    bare = query[:2] + bytes([0x81, 0x80 | rcode]) + bytes(8)
    bed.deliver(connection, bare)  # it may be about EDNS
    query = bed.sent[connection][-1]
    bare = query[:2] + bare[2:]
    bed.sent[connection].clear()
    bed.deliver(connection, bare)
    assert asked(bed) == [TCP2]


@pytest.mark.parametrize("rcode", [2, 4, 5])
def test_an_error_without_question_from_the_only_upstream_is_its_answer(rcode: int) -> None:
    bed = Network()
    bed.ask(ONE)
    for _ in range(MOST_OPINIONS + 1):
        for connection, query in bed.queries:
            bed.sent[connection].clear()
            bed.deliver(connection, query[:2] + bytes([0x81, 0x80 | rcode]) + bytes(8))
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [rcode]


def test_formerr_is_retried_without_edns_and_remembered_for_minutes() -> None:
    bed = Network()
    exchange = bed.ask(ONE)
    bed.reply_all(rcode=1)
    [(_, plain)] = bed.queries
    assert plain[10:] == b"\0\0" + exchange.question
    bed.reply_all()
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [0]
    bed.ask(ONE)
    assert bed.queries[0][1][10:] == b"\0\0" + exchange.question
    bed.reply_all()
    bed.wait(301)
    bed.ask(ONE)
    assert bed.queries[0][1][2:] == exchange.query


def test_formerr_to_a_query_without_edns_is_the_answer() -> None:
    bed = Network()
    bed.ask(ONE)
    bed.reply_all(rcode=1)
    bed.reply_all(rcode=1)
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [1]


def test_a_truncated_response_over_tcp_is_the_answer() -> None:
    bed = Network()
    bed.ask(ONE)
    for _ in range(MOST_OPINIONS):
        [(connection, query)] = bed.queries
        bed.deliver(connection, answer(query, truncated=True))
    assert bed.outcomes == [answer(query, truncated=True)]


def test_a_malformed_response_ends_the_connection_and_the_next_one_answers() -> None:
    bed = Network()
    first = bed.ask(ONE)
    bed.ask(ONE, "b.cluster.local")
    (connection, *_) = [open_ for open_ in bed.open if bed.sent[open_]]
    query = bed.sent[connection].pop(0)
    bed.deliver(connection, answer(query, octets=MALFORMED))
    assert connection.level is None
    assert not first.is_done
    assert bed.counters.events["upstream_malformed"] == 1
    bed.reply_all()
    bed.reply_all()
    assert len(bed.results) == 2
    assert all(isinstance(result.outcome, bytes) for result in bed.results)


def test_an_upstream_that_only_sends_nonsense_is_given_up() -> None:
    bed = Network()
    exchange = bed.ask(ONE)
    for _ in range(40):
        for connection in list(bed.open):
            queries, bed.sent[connection] = bed.sent[connection], []
            for query in queries:
                bed.deliver(connection, answer(query, octets=MALFORMED))
        bed.wait(0.1)
    assert exchange.is_done
    assert [result.outcome for result in bed.results] == [Failure.MALFORMED]
    assert bed.counters.events["upstream_malformed"] == 3
