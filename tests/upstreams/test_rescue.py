"""Upstreams that cannot be reached: where their queries go."""

from __future__ import annotations

from dataclasses import replace

from nodecache.upstreams.exchange import Failure
from tests.upstreams.forwarding import (
    ONE,
    TCP,
    TCP2,
    THREE,
    TWO,
    Network,
    asked,
)


def test_an_upstream_that_refuses_gets_a_few_tries_before_the_query_fails() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(2.0, refuse=True)
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert 0.3 <= bed.results[0].at - 1000.0 <= 0.5


def test_an_upstream_that_restarts_answers_the_query_that_waited() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(0.1, refuse=True)
    bed.connects = True
    bed.wait(0.1)
    bed.reply_all()
    assert isinstance(bed.outcomes[0], bytes)


def test_each_query_to_a_dead_upstream_is_tried_once_before_it_fails() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(0.45, refuse=True)
    bed.results.clear()
    bed.ask(ONE)
    assert bed.results == []
    started_at = bed.now
    bed.wait(0.2)
    assert len(bed.opened) > 0
    bed.refuse_all()
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert bed.results[0].at - started_at <= 0.201


def test_a_dead_upstream_that_is_back_answers_the_first_query() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(0.45, refuse=True)
    bed.results.clear()
    bed.connects = True
    bed.ask(ONE)
    bed.wait(0.1)
    bed.reply_all()
    assert isinstance(bed.outcomes[0], bytes)


def test_a_dead_upstream_is_dialled_twenty_times_a_second_under_load() -> None:
    bed = Network(connects=False)
    dials = 0
    for _ in range(1000):
        bed.ask(ONE)
        dials += len([c for c in bed.opened if not c.is_probe])
        bed.refuse_all()
        bed.wait(0.01, refuse=True)
    assert dials <= 205
    assert set(bed.outcomes) == {Failure.UNREACHABLE}


def test_a_dead_upstream_that_comes_back_is_used_again() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    bed.refuse_all()
    bed.wait(0.5, refuse=True)
    bed.connects = True
    bed.wait(1.1)
    bed.ask(ONE)
    bed.reply_all()
    assert isinstance(bed.outcomes[-1], bytes)


def test_no_answer_to_dials_fails_the_query_within_a_second() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    bed.wait(2.0)
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert bed.results[0].at - 1000.0 <= 1.0


def test_a_refused_query_goes_to_the_other_upstream_at_once() -> None:
    bed = Network(connects=False)
    bed.ask(TWO)
    assert [connection.upstream for connection in bed.opened] == [TCP]
    bed.refuse_all()
    assert [connection.upstream for connection in bed.opened] == [TCP2]
    bed.connect(bed.opened[0])
    bed.reply_all()
    assert bed.results[0].at == 1000.0


def test_while_one_upstream_pauses_queries_go_to_the_other() -> None:
    bed = Network(connects=False)
    bed.ask(TWO)
    bed.refuse_all()
    bed.connect(bed.opened[0])
    bed.reply_all()
    bed.ask(TWO)
    assert asked(bed) == [TCP2]


def test_a_query_that_waits_for_a_hanging_dial_is_asked_elsewhere() -> None:
    bed = Network(connects=False)
    bed.ask(TWO)
    bed.wait(0.26)
    assert TCP2 in {connection.upstream for connection in bed.opened}


def test_all_upstreams_dead_is_unreachable() -> None:
    bed = Network(connects=False)
    bed.ask(THREE)
    bed.refuse_all()
    bed.wait(2.0, refuse=True)
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert bed.results[0].at - 1000.0 <= 1.0


def test_max_connect_attempts_bounds_the_dials_of_a_query() -> None:
    bed = Network(connects=False)
    bed.ask(replace(THREE, max_connect_attempts=2))
    for _ in range(2):
        assert bed.results == []
        bed.refuse_all()
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert len({connection.upstream for connection in bed.sent}) == 2
