"""When a query is asked again, where, and what counts as its answer (over TCP)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from nodecache.config.model import (
    ForwardPolicy,
    HealthCheck,
    Name,
    SelectionPolicy,
    Upstream,
)
from nodecache.engine.doubt import MOST_OPINIONS, OPINION_BURST
from nodecache.engine.exchange import Failure
from nodecache.engine.forwarder import HEDGE_BURST
from nodecache.engine.upstream import Connection
from tests.engine.forwarding import MALFORMED, TCP, TCP2, TCP3, Bed, answer, policy

ONE = policy(TCP)
TWO = replace(policy(TCP, TCP2), selection=SelectionPolicy.SEQUENTIAL)
THREE = policy(TCP, TCP2, TCP3)


def warm(bed: Bed, forward: ForwardPolicy = ONE, times: int = 3) -> None:
    """Lets the smoothed round-trip time settle at 1 ms."""
    for _ in range(times):
        bed.ask(forward)
        bed.now += 0.001
        bed.reply_all()
    bed.results.clear()


def asked(bed: Bed) -> list[Upstream]:
    return [connection.upstream for connection, _ in bed.queries]


# Hedging and retries.


def test_a_late_answer_is_asked_for_on_a_second_connection_after_50_ms() -> None:
    bed = Bed()
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


def test_an_unknown_upstream_gets_250_ms() -> None:
    bed = Bed()
    bed.ask(ONE)
    bed.wait(0.245)
    assert len(bed.queries) == 1
    bed.wait(0.01)
    assert len(bed.queries) == 2


def test_patience_grows_with_the_round_trip_time() -> None:
    bed = Bed()
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
    bed = Bed()
    warm(bed)
    bed.ask(ONE)
    bed.wait(0.06)
    (first, early), (second, late) = bed.queries
    bed.deliver(first, answer(early))
    bed.deliver(second, answer(late))
    assert bed.outcomes == [answer(early)]
    assert "upstream_strays" not in bed.counters.events


def test_hedges_are_a_twentieth_of_all_queries_after_a_burst() -> None:
    bed = Bed()
    warm(bed)
    for n in range(4000):
        bed.ask(ONE, f"n{n}.cluster.local")
        bed.wait(0.001 if n % 8 else 0.2)
        bed.reply_all()
    assert len(bed.results) == 4000
    assert 0.05 * 4000 <= bed.counters.events["hedged"] <= 0.05 * 4000 + HEDGE_BURST + 1


def test_the_hedge_goes_to_another_upstream() -> None:
    bed = Bed()
    bed.ask(TWO)
    bed.wait(0.3)
    assert asked(bed) == [TCP, TCP2]


def test_without_an_answer_a_query_is_asked_six_times_and_times_out() -> None:
    bed = Bed()
    exchange = bed.ask(ONE)
    seen: set[tuple[Connection, bytes]] = set()
    while not bed.results:
        bed.wait(0.01)
        seen.update(bed.queries)
    assert bed.outcomes == [Failure.TIMED_OUT]
    assert exchange.deadline <= bed.results[0].at <= exchange.deadline + 0.01
    assert 5 <= len(seen) <= 8


def test_a_late_answer_after_all_is_the_answer() -> None:
    bed = Bed()
    bed.ask(ONE)
    [(first, query)] = bed.queries
    bed.wait(0.9)
    bed.deliver(first, answer(query))
    assert bed.outcomes == [answer(query)]


def test_an_answer_after_the_deadline_is_dropped_without_harm() -> None:
    bed = Bed()
    bed.ask(ONE, patience_s=0.5)
    [(connection, query)] = bed.queries
    bed.wait(0.6)
    bed.deliver(connection, answer(query))
    assert bed.outcomes == [Failure.TIMED_OUT]
    assert "upstream_strays" not in bed.counters.events


def test_a_black_hole_among_backends_costs_a_quarter_second_at_most() -> None:
    bed = Bed()
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


# Upstreams that cannot be reached.


def test_an_upstream_that_refuses_gets_a_few_tries_before_the_query_fails() -> None:
    bed = Bed(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(2.0, refuse=True)
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert 0.3 <= bed.results[0].at - 1000.0 <= 0.5


def test_an_upstream_that_restarts_answers_the_query_that_waited() -> None:
    bed = Bed(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(0.1, refuse=True)
    bed.connects = True
    bed.wait(0.1)
    bed.reply_all()
    assert isinstance(bed.outcomes[0], bytes)


def test_queries_to_a_dead_upstream_fail_at_once() -> None:
    bed = Bed(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(0.5, refuse=True)
    before = len(bed.results)
    bed.ask(ONE)
    assert len(bed.results) == before + 1
    assert bed.outcomes[-1] is Failure.UNREACHABLE


def test_a_dead_upstream_is_dialled_about_once_a_second_under_load() -> None:
    bed = Bed(connects=False)
    dials = 0
    for _ in range(1000):
        bed.ask(ONE)
        dials += len([c for c in bed.opened if not c.is_probe])
        bed.refuse_all()
        bed.wait(0.01, refuse=True)
    assert dials <= 20
    assert set(bed.outcomes) == {Failure.UNREACHABLE}


def test_a_dead_upstream_that_comes_back_is_used_again() -> None:
    bed = Bed(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(0.5, refuse=True)
    bed.connects = True
    bed.wait(1.1)
    bed.ask(ONE)
    bed.reply_all()
    assert isinstance(bed.outcomes[-1], bytes)


def test_no_answer_to_dials_fails_the_query_within_a_second() -> None:
    bed = Bed(connects=False)
    bed.ask(ONE)
    bed.wait(2.0)
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert bed.results[0].at - 1000.0 <= 1.0


def test_a_refused_query_goes_to_the_other_upstream_at_once() -> None:
    bed = Bed(connects=False)
    bed.ask(TWO)
    assert [connection.upstream for connection in bed.opened] == [TCP]
    bed.refuse_all()
    assert [connection.upstream for connection in bed.opened] == [TCP2]
    bed.connect(bed.opened[0])
    bed.reply_all()
    assert bed.results[0].at == 1000.0


def test_while_one_upstream_pauses_queries_go_to_the_other() -> None:
    bed = Bed(connects=False)
    bed.ask(TWO)
    bed.refuse_all()
    bed.connect(bed.opened[0])
    bed.reply_all()
    bed.ask(TWO)
    assert asked(bed) == [TCP2]


def test_a_query_that_waits_for_a_hanging_dial_is_asked_elsewhere() -> None:
    bed = Bed(connects=False)
    bed.ask(TWO)
    bed.wait(0.26)
    assert TCP2 in {connection.upstream for connection in bed.opened}


def test_all_upstreams_dead_is_unreachable() -> None:
    bed = Bed(connects=False)
    bed.ask(THREE)
    bed.refuse_all()
    bed.wait(2.0, refuse=True)
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert bed.results[0].at - 1000.0 <= 0.8


def test_max_connect_attempts_bounds_the_dials_of_a_query() -> None:
    bed = Bed(connects=False)
    bed.ask(replace(THREE, max_connect_attempts=2))
    for _ in range(2):
        assert bed.results == []
        bed.refuse_all()
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert len({connection.upstream for connection in bed.sent}) == 2


# Which upstream.


def count_first_choices(bed: Bed, forward: ForwardPolicy, times: int) -> Counter[Upstream]:
    chosen: Counter[Upstream] = Counter()
    for _ in range(times):
        bed.ask(forward)
        chosen.update(asked(bed))
        bed.reply_all()
    return chosen


def test_round_robin_takes_turns() -> None:
    forward = replace(THREE, selection=SelectionPolicy.ROUND_ROBIN)
    assert count_first_choices(Bed(), forward, 30) == {TCP: 10, TCP2: 10, TCP3: 10}


def test_sequential_prefers_the_first() -> None:
    assert count_first_choices(Bed(), TWO, 10) == {TCP: 10}


def test_random_asks_all_alike() -> None:
    chosen = count_first_choices(Bed(), THREE, 600)
    assert sum(chosen.values()) == 600
    assert min(chosen[upstream] for upstream in (TCP, TCP2, TCP3)) > 150


def take_down(bed: Bed, upstream: Upstream) -> None:
    for _ in range(3):
        bed.forwarder.pool(upstream).health.count_failure()


@pytest.mark.parametrize("selection", list(SelectionPolicy))
def test_an_upstream_that_is_down_is_not_chosen(selection: SelectionPolicy) -> None:
    bed = Bed()
    take_down(bed, TCP)
    chosen = count_first_choices(bed, replace(THREE, selection=selection), 40)
    assert chosen[TCP] == 0
    assert sum(chosen.values()) == 40


def test_when_all_are_down_one_is_asked_at_random() -> None:
    bed = Bed()
    for upstream in (TCP, TCP2):
        take_down(bed, upstream)
    bed.ask(TWO)
    assert len(asked(bed)) == 1
    assert bed.counters.healthcheck_broken == 1
    bed.reply_all()
    assert isinstance(bed.outcomes[0], bytes)


def test_failfast_fails_at_once_when_all_are_down() -> None:
    bed = Bed()
    for upstream in (TCP, TCP2):
        take_down(bed, upstream)
    bed.ask(replace(TWO, failfast_all_unhealthy=True))
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert bed.counters.healthcheck_broken == 1


# RCODEs.


def test_servfail_is_the_answer_unless_failover_says_otherwise() -> None:
    bed = Bed()
    bed.ask(TWO)
    for _ in range(MOST_OPINIONS):
        assert asked(bed) == [TCP]
        bed.reply_all(rcode=2)
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [2]
    assert bed.counters.events["doubted"] == MOST_OPINIONS - 1


@pytest.mark.parametrize("ill", [{"rcode": 2}, {"truncated": True}])
def test_an_ill_backend_among_others_is_asked_once(ill: dict[str, Any]) -> None:
    bed = Bed()
    for n in range(3):
        bed.ask(ONE, f"n{n}.cluster.local")
    bed.reply_all()
    count = len(bed.open)
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    bed.deliver(connection, answer(query, **ill))
    [(other, query)] = bed.queries
    assert other is not connection
    bed.deliver(other, answer(query))
    assert bed.outcomes[-1] == answer(query)
    assert connection in bed.closed
    assert len(bed.open) == count - 1 > 0


def test_second_opinions_are_a_hundredth_of_all_queries_after_a_burst() -> None:
    bed = Bed()
    for n in range(1000):
        bed.ask(ONE, f"n{n}.cluster.local")
        while bed.queries:
            bed.reply_all(rcode=2)
        bed.results.clear()
    assert OPINION_BURST + 9 <= bed.counters.events["doubted"] <= OPINION_BURST + 11


def test_an_error_that_nobody_contradicts_in_time_is_the_answer() -> None:
    bed = Bed()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    bed.deliver(connection, answer(query, rcode=2))
    bed.wait(5.0)
    assert bed.outcomes == [answer(query, rcode=2)]


def test_failover_moves_to_the_next_untried_upstream() -> None:
    bed = Bed()
    bed.ask(replace(TWO, failover_rcodes=frozenset({2})))
    bed.reply_all(rcode=2)
    assert asked(bed) == [TCP2]
    bed.reply_all()
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [0]


def test_the_last_failover_response_is_the_answer() -> None:
    bed = Bed()
    bed.ask(replace(TWO, failover_rcodes=frozenset({2, 5})))
    bed.reply_all(rcode=2)
    bed.reply_all(rcode=5)
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [5]


def test_a_failover_response_is_better_than_a_time_out() -> None:
    bed = Bed()
    bed.ask(replace(TWO, failover_rcodes=frozenset({2})))
    bed.reply_all(rcode=2)
    bed.wait(5.0)
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [2]


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_an_error_without_question_hands_the_query_to_another_upstream(rcode: int) -> None:
    bed = Bed()
    bed.ask(TWO)
    [(connection, query)] = bed.queries
    bare = query[:2] + bytes([0x81, 0x80 | rcode]) + bytes(8)
    if rcode == 1:  # first without EDNS
        bed.deliver(connection, bare)
        query = bed.sent[connection][-1]
        bare = query[:2] + bare[2:]
    bed.sent[connection].clear()
    bed.deliver(connection, bare)
    assert asked(bed) == [TCP2]


def test_an_error_without_question_from_the_only_upstream_is_a_failure() -> None:
    bed = Bed()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    bed.deliver(connection, query[:2] + b"\x81\x82" + bytes(8))
    assert bed.outcomes == [Failure.UNREACHABLE]


def test_formerr_is_retried_without_edns_and_remembered_for_minutes() -> None:
    bed = Bed()
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
    bed = Bed()
    bed.ask(ONE)
    bed.reply_all(rcode=1)
    bed.reply_all(rcode=1)
    assert [outcome[3] & 0xF for outcome in bed.outcomes if isinstance(outcome, bytes)] == [1]


def test_formerr_from_a_server_that_knows_edns_is_the_answer() -> None:
    bed = Bed()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    response = answer(query, rcode=1, octets=opt)
    response = response[:10] + b"\0\1" + response[12:]
    bed.deliver(connection, response)
    assert bed.outcomes == [response]


def test_a_truncated_response_over_tcp_is_the_answer() -> None:
    bed = Bed()
    bed.ask(ONE)
    for _ in range(MOST_OPINIONS):
        [(connection, query)] = bed.queries
        bed.deliver(connection, answer(query, truncated=True))
    assert bed.outcomes == [answer(query, truncated=True)]


# Health probes.


def fail_first(bed: Bed, forward: ForwardPolicy = TWO) -> None:
    """Has the first upstream refuse a connection, the second answer the query."""
    bed.connects = False
    bed.ask(forward)
    bed.refuse_all()
    bed.connect(bed.opened[0])
    bed.reply_all()
    bed.connects = True


def probe_names(bed: Bed) -> list[bytes]:
    return [query for probe in bed.probes for query in bed.sent[probe]]


def test_after_a_failure_the_upstream_is_probed_until_it_answers() -> None:
    bed = Bed()
    fail_first(bed)
    assert bed.probes == []
    bed.wait(0.51)
    [probe] = bed.probes
    assert probe.upstream is TCP
    [query] = bed.sent[probe]
    assert query[2:] == b"\1\0\0\1\0\0\0\0\0\0\0\0\2\0\1"
    bed.deliver(probe, answer(query, rcode=5))
    assert bed.closed == [probe]
    assert repr(bed.forwarder.pool(TCP).health) == "up, 0 fails"
    bed.wait(3.0)
    assert len(bed.probes) == 1


def test_probes_follow_the_configured_name_and_rd() -> None:
    bed = Bed()
    check = HealthCheck(0.5, recursion_desired=False, name=Name("x.", b"\1x\0"))
    upstream = replace(TCP, health_check=check)
    bed.connects = False
    bed.ask(policy(upstream))
    bed.refuse_all()
    bed.connects = True
    bed.wait(0.51)
    assert [query[2:] for query in probe_names(bed)] == [b"\0\0\0\1\0\0\0\0\0\0" + b"\1x\0\0\2\0\1"]


def test_at_most_one_probe_is_in_flight_and_each_failure_is_counted() -> None:
    bed = Bed()
    fail_first(bed)
    bed.wait(0.51)
    assert len(bed.probes) == 1
    bed.wait(0.9)
    assert len(bed.probes) == 1
    bed.wait(0.2)
    assert bed.forwarder.pool(TCP).series.healthcheck_failures == 1
    bed.wait(0.5)
    assert len(bed.probes) == 2


def test_failed_probes_take_an_upstream_down_and_an_answer_brings_it_back() -> None:
    bed = Bed()
    fail_first(bed)
    bed.connects = False
    bed.wait(2.5, refuse=True)
    pool = bed.forwarder.pool(TCP)
    assert pool.health.is_down
    bed.connects = True
    bed.wait(0.6)
    probe = bed.probes[-1]
    bed.deliver(probe, answer(bed.sent[probe][0]))
    assert not pool.health.is_down


def test_a_probe_whose_connection_dies_is_a_failure() -> None:
    bed = Bed()
    fail_first(bed)
    bed.wait(0.51)
    bed.drop(bed.probes[0])
    assert bed.forwarder.pool(TCP).series.healthcheck_failures == 1
    bed.wait(0.51)
    assert len(bed.probes) == 2


def test_an_ordinary_answer_ends_the_probing() -> None:
    bed = Bed()
    warm(bed)
    bed.ask(ONE)
    bed.wait(1.1)
    assert bed.forwarder.pool(TCP).health.fails == 2
    bed.reply_all()
    bed.wait(5.0)
    assert bed.probes == []


def test_max_fails_0_sends_no_probes() -> None:
    bed = Bed()
    fail_first(bed, replace(TWO, upstreams=(replace(TCP, max_fails=0), TCP2)))
    bed.wait(3.0)
    assert bed.probes == []


def test_an_upstream_that_left_the_configuration_is_not_probed() -> None:
    bed = Bed()
    fail_first(bed)
    bed.forwarder.keep_only([TCP2], bed.now)
    bed.wait(3.0)
    assert bed.probes == []


def test_an_exchange_may_be_submitted_from_within_on_done() -> None:
    bed = Bed()
    first = bed.ask(ONE)
    on_done = first.on_done

    def ask_next(*args: object) -> bool:
        on_done(*args)  # type: ignore[arg-type]
        bed.ask(ONE, "b.cluster.local")
        return True

    first.on_done = ask_next
    bed.reply_all()
    bed.reply_all()
    assert len(bed.results) == 2


def test_a_malformed_response_ends_the_connection_and_the_next_one_answers() -> None:
    bed = Bed()
    first = bed.ask(ONE)
    bed.ask(ONE, "b.cluster.local")
    (connection, *_) = [open_ for open_ in bed.open if bed.sent[open_]]
    query = bed.sent[connection].pop(0)
    bed.deliver(connection, answer(query, octets=MALFORMED))
    assert connection not in bed.open
    assert not first.is_done
    assert bed.counters.events["upstream_malformed"] == 1
    bed.reply_all()
    bed.reply_all()
    assert len(bed.results) == 2
    assert all(isinstance(result.outcome, bytes) for result in bed.results)


def test_an_upstream_that_only_sends_nonsense_is_given_up() -> None:
    bed = Bed()
    exchange = bed.ask(ONE)
    for _ in range(40):
        for connection in list(bed.open):
            queries, bed.sent[connection] = bed.sent[connection], []
            for query in queries:
                bed.deliver(connection, answer(query, octets=MALFORMED))
        bed.wait(0.1)
    assert exchange.is_done
    assert [result.outcome for result in bed.results] == [Failure.UNREACHABLE]


def test_without_any_upstream_an_exchange_fails_at_once() -> None:
    bed = Bed()
    exchange = bed.ask(policy())
    assert exchange.is_done
    assert bed.outcomes == [Failure.UNREACHABLE]
