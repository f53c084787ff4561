"""What pools do at a reload, and what users see of them."""

from __future__ import annotations

from tests.upstreams.forwarding import ONE, TCP, TCP2, Network, answer, ask_and_answer


def test_connections_to_upstreams_that_left_the_configuration_drain() -> None:
    bed = Network()
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
    bed = Network()
    ask_and_answer(bed, 1)
    bed.forwarder.keep_only([TCP, TCP2], bed.now)
    bed.flush()
    assert bed.closed == []
    assert list(ask_and_answer(bed, 1)) == bed.open


def test_a_dead_connection_of_a_retired_pool_still_loses_no_query() -> None:
    bed = Network()
    ask_and_answer(bed, 1)
    bed.ask(ONE)
    [(connection, _)] = bed.queries
    bed.forwarder.keep_only([TCP2], bed.now)
    bed.drop(connection)
    bed.reply_all()
    assert isinstance(bed.outcomes[-1], bytes)
    assert bed.open == []


def test_series_tell_reused_dialled_durations_and_connections() -> None:
    bed = Network()
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
    bed = Network()
    ask_and_answer(bed, 1)
    bed.forwarder.keep_only([TCP2], bed.now)
    bed.flush()
    ask_and_answer(bed, 1)
    bed.counters.fold()
    assert [series.to for series in bed.counters.upstreams] == ["10.0.0.1:53"]
    assert bed.counters.upstreams[0].dialled == {"tcp": 2}
