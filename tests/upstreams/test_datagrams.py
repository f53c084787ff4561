"""Upstreams that are asked over UDP."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.config.model import SelectionPolicy, Transport
from nodecache.upstreams.connection import State
from nodecache.upstreams.datagrams import MAX_SOCKETS
from nodecache.upstreams.exchange import Failure
from tests.upstreams.forwarding import UDP, UDP2, Network, answer, policy

ONE = policy(UDP)
TWO = replace(policy(UDP, UDP2), selection=SelectionPolicy.SEQUENTIAL)


def test_each_query_has_its_own_socket_that_is_closed_with_the_answer() -> None:
    bed = Network()
    bed.ask(ONE)
    bed.ask(ONE, "b.cluster.local")
    first, second = bed.open
    assert first is not second
    bed.reply_all()
    assert bed.closed == [first, second]
    assert len(bed.results) == 2


def test_strays_leave_the_socket_open() -> None:
    bed = Network()
    bed.ask(ONE)
    [(socket, query)] = bed.queries
    bed.deliver(socket, bytes([query[0] ^ 1]) + answer(query)[1:])
    bed.deliver(socket, answer(query).replace(b"cluster", b"clustes"))
    bed.deliver(socket, query[:2] + b"\x81\x83" + bytes(8))
    bed.deliver(socket, query[:2] + b"\xa1" + answer(query)[3:])
    assert bed.outcomes == []
    assert bed.counters.events["upstream_strays"] == 4
    bed.deliver(socket, answer(query))
    assert bed.outcomes == [answer(query)]


def test_a_lost_datagram_is_sent_again_from_another_socket() -> None:
    bed = Network()
    bed.ask(ONE)
    bed.wait(0.3)
    first, second = bed.open
    query = bed.sent[second][0]
    assert query[:2] != bed.sent[first][0][:2]
    bed.deliver(second, answer(query))
    assert bed.outcomes == [answer(query)]


def test_an_answer_that_comes_after_the_hedge_still_counts() -> None:
    bed = Network()
    bed.ask(ONE)
    [(first, query)] = bed.queries
    bed.wait(0.4)
    bed.deliver(first, answer(query))
    assert bed.outcomes == [answer(query)]


def test_a_refused_datagram_goes_to_the_next_upstream() -> None:
    bed = Network()
    bed.ask(TWO)
    bed.drop(bed.open[0])
    assert [socket.upstream for socket, _ in bed.queries] == [UDP2]


def test_refusals_from_all_upstreams_end_the_query_soon() -> None:
    bed = Network()
    bed.ask(TWO)
    sockets = 0
    for _ in range(100):
        for socket in bed.open:
            sockets += 1
            bed.drop(socket)
        bed.wait(0.01)
    assert bed.outcomes == [Failure.UNREACHABLE]
    assert bed.results[0].at - 1000.0 < 0.8
    assert sockets < 16


def test_silence_times_out_and_takes_the_upstream_down() -> None:
    bed = Network()
    bed.ask(ONE)
    bed.wait(5.0)
    assert bed.outcomes == [Failure.TIMED_OUT]
    assert bed.forwarder.pool(UDP).health.is_down
    bed.wait(10.0)
    assert bed.open == []


def test_a_truncated_response_is_asked_for_over_tcp() -> None:
    bed = Network()
    exchange = bed.ask(ONE)
    [(socket, query)] = bed.queries
    bed.deliver(socket, answer(query, truncated=True))
    assert bed.outcomes == []
    [(stream, query)] = bed.queries
    assert stream.upstream == replace(UDP, transport=Transport.TCP)
    assert query[2:] == exchange.query
    bed.deliver(stream, answer(query))
    assert bed.outcomes == [answer(query)]


def test_the_stream_for_truncated_responses_survives_a_reload() -> None:
    bed = Network()
    bed.ask(ONE)
    [(socket, query)] = bed.queries
    bed.deliver(socket, answer(query, truncated=True))
    [stream] = bed.open
    bed.reply_all()
    bed.forwarder.keep_only([UDP], bed.now)
    bed.flush()
    assert stream.state is State.READY


def test_a_truncated_response_is_handed_on_at_once_where_tcp_is_refused() -> None:
    bed = Network(connects=False)
    bed.ask(ONE)
    [(socket, query)] = bed.queries
    bed.deliver(socket, answer(query, truncated=True))
    bed.refuse_all()
    assert bed.outcomes == [answer(query, truncated=True)]


@pytest.mark.parametrize("connects", [False, True], ids=["no SYN is answered", "no query is"])
def test_a_truncated_response_is_handed_on_within_2_s_where_tcp_hangs(connects: bool) -> None:
    bed = Network(connects=connects)
    bed.ask(ONE)
    [(socket, query)] = bed.queries
    bed.deliver(socket, answer(query, truncated=True))
    bed.wait(2.0)
    assert bed.outcomes == [answer(query, truncated=True)]


def test_the_other_upstream_is_asked_for_the_whole_first() -> None:
    bed = Network(connects=False)
    bed.ask(TWO)
    [(socket, query)] = bed.queries
    bed.deliver(socket, answer(query, truncated=True))
    bed.refuse_all()
    assert bed.outcomes == []
    [other] = bed.opened
    assert other.upstream == replace(UDP2, transport=Transport.TCP)
    bed.refuse_all()
    assert bed.outcomes == [answer(query, truncated=True)]


def test_formerr_without_question_turns_edns_off() -> None:
    bed = Network()
    exchange = bed.ask(ONE)
    [(socket, query)] = bed.queries
    bed.deliver(socket, query[:2] + b"\x81\x81" + bytes(8))
    [(_, plain)] = bed.queries
    assert plain[10:] == b"\0\0" + exchange.question


def test_probes_go_over_udp_too() -> None:
    bed = Network()
    bed.ask(TWO)
    bed.drop(bed.open[0])
    bed.wait(0.51)
    [probe] = bed.probes
    bed.deliver(probe, answer(bed.sent[probe][0]))
    assert bed.forwarder.pool(UDP).health.fails == 0


def test_sockets_are_bounded_and_the_rest_waits() -> None:
    bed = Network()
    for n in range(MAX_SOCKETS + 10):
        bed.ask(ONE, f"n{n}.cluster.local")
    assert repr(bed.forwarder.pool(UDP)) == f"<{MAX_SOCKETS} busy, 10 waiting>"
    bed.reply_all()
    bed.reply_all()
    assert len(bed.results) == MAX_SOCKETS + 10


def test_series_count_every_socket_as_dialled() -> None:
    bed = Network()
    for _ in range(3):
        bed.ask(ONE)
        bed.reply_all()
    bed.counters.fold()
    [series] = bed.counters.upstreams
    assert series.dialled == {"udp": 3}
    assert series.reused == {"udp": 0}
