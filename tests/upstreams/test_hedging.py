"""When a query is asked again because its answer is late (over TCP)."""

from __future__ import annotations

from nodecache.upstreams.connection import Connection
from nodecache.upstreams.exchange import Failure
from nodecache.upstreams.hedging import HEDGE_BURST
from tests.upstreams.forwarding import (
    ONE,
    TCP,
    TCP2,
    TWO,
    Network,
    answer,
    asked,
    warm,
)


def test_a_late_answer_is_asked_for_on_a_second_connection_after_50_ms() -> None:
    bed = Network()
    warm(bed)
    bed.ask(ONE)
    bed.wait(0.049)
    assert len(bed.queries) == 1
    bed.wait(0.006)
    (first, _), (second, query) = bed.queries
    assert first is not second
    bed.deliver(second, answer(query))
    assert bed.outcomes == [answer(query)]
    assert bed.counters.events["hedged"] == 1


def test_an_upstream_that_nothing_is_known_of_is_asked_again_after_250_ms_for_one_name() -> None:
    bed = Network(are_known=False)
    for n in range(8):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.wait(0.245)
    assert len(bed.queries) == 8
    bed.wait(0.01)
    assert len(bed.queries) == 9


def test_for_the_others_after_1100_ms() -> None:
    bed = Network(are_known=False)
    for n in range(8):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.wait(1.09)
    assert len(bed.queries) == 9
    bed.wait(0.02)
    assert len(bed.queries) == 16


def test_it_gets_250_ms_if_it_answers_others_meanwhile() -> None:
    bed = Network(are_known=False)
    bed.ask(ONE)
    [(silent, _)] = bed.queries
    bed.now += 0.001
    bed.ask(ONE, "b.cluster.local")
    [(connection, query)] = [sent for sent in bed.queries if sent[1][12:14] == b"\1b"]
    bed.now += 0.001
    bed.deliver(connection, answer(query))
    bed.sent[silent].clear()
    bed.wait(0.245)
    assert [c for c, sent in bed.queries if sent[12:14] == b"\1a"] == []
    bed.wait(0.01)
    assert len([c for c, sent in bed.queries if sent[12:14] == b"\1a"]) == 1


def test_patience_grows_with_the_round_trip_time() -> None:
    bed = Network()
    for _ in range(60):
        bed.ask(ONE)
        bed.now += 0.03
        bed.reply_all()
    bed.ask(ONE)
    bed.wait(0.115)
    assert len(bed.queries) == 1
    bed.wait(0.01)
    assert len(bed.queries) == 2


def test_the_first_of_two_answers_counts_and_the_other_is_no_stray() -> None:
    bed = Network()
    warm(bed)
    bed.ask(ONE)
    bed.wait(0.06)
    (first, early), (second, late) = bed.queries
    bed.deliver(first, answer(early))
    bed.deliver(second, answer(late))
    assert bed.outcomes == [answer(early)]
    assert "upstream_strays" not in bed.counters.events


def test_hedges_are_a_twentieth_of_all_queries_after_a_burst() -> None:
    bed = Network()
    warm(bed)
    for n in range(4000):
        bed.ask(ONE, f"n{n}.cluster.local")
        bed.wait(0.001 if n % 8 else 0.2)
        bed.reply_all()
    assert len(bed.results) == 4000
    assert 0.05 * 4000 <= bed.counters.events["hedged"] <= 0.05 * 4000 + HEDGE_BURST + 1


def test_the_hedge_goes_to_another_upstream() -> None:
    bed = Network()
    bed.ask(TWO)
    bed.wait(0.3)
    assert asked(bed) == [TCP, TCP2]


def test_without_an_answer_a_query_is_asked_four_times_and_times_out() -> None:
    bed = Network()
    exchange = bed.ask(ONE)
    seen: set[tuple[Connection, bytes]] = set()
    while not bed.results:
        bed.wait(0.01)
        seen.update(bed.queries)
    assert bed.outcomes == [Failure.TIMED_OUT]
    assert exchange.deadline <= bed.results[0].at <= exchange.deadline + 0.01
    assert len(seen) == 4


def test_a_late_answer_after_all_is_the_answer() -> None:
    bed = Network()
    bed.ask(ONE)
    [(first, query)] = bed.queries
    bed.wait(0.9)
    bed.deliver(first, answer(query))
    assert bed.outcomes == [answer(query)]


def test_an_answer_after_the_deadline_is_dropped_without_harm() -> None:
    bed = Network()
    bed.ask(ONE, patience_s=0.5)
    [(connection, query)] = bed.queries
    bed.wait(0.6)
    bed.deliver(connection, answer(query))
    assert bed.outcomes == [Failure.TIMED_OUT]
    assert "upstream_strays" not in bed.counters.events


def test_a_black_hole_among_backends_costs_a_quarter_second_at_most() -> None:
    bed = Network()
    for n in range(24):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.reply_all()
    warm(bed, times=20)
    dark = set(bed.open[:3])
    for n in range(100):
        bed.ask(ONE, f"n{n}.cluster.local")
        for _ in range(4):
            for connection in bed.open:
                if connection not in dark:
                    for query in bed.sent[connection]:
                        bed.deliver(connection, answer(query))
                    bed.sent[connection].clear()
            bed.wait(0.003)
    bed.wait(0.3)
    bed.reply_all()
    assert len(bed.results) == 100
    assert max(result.at - result.exchange.started_at for result in bed.results) < 0.25
