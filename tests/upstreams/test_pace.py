"""Upstreams that may be asked only so often (``max_rate``), and who is left out first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.config.model import ForwardPolicy, SelectionPolicy
from nodecache.upstreams.exchange import Exchange, Failure
from nodecache.upstreams.pace import TURN_WITHIN_S, Pace
from tests.upstreams.forwarding import TCP, TCP2, UDP, UDP2, Network, answer, policy

RATE = 100
PACED = replace(UDP, max_rate=RATE)
ONE = policy(PACED)
# What goes out at once, and how many wait for their turn behind it.
BURST = 5
QUEUE = int(96 * TURN_WITHIN_S)


def ask_many(bed: Network, count: int, forward: ForwardPolicy = ONE) -> None:
    for n in range(count):
        bed.ask(forward, f"n{n}.cluster.local")


def spare_exchange(bed: Network, forward: ForwardPolicy = ONE) -> Exchange:
    """An exchange whose owner has something to serve, as a refresh has."""
    plain = bed.ask(policy(TCP2), "pattern.cluster.local")
    exchange = Exchange(
        plain.question,
        plain.query,
        forward,
        bed.now,
        bed.now + 4.5,
        bed._done,
    )
    exchange.is_spare = True
    bed.forwarder.submit(exchange, bed.now)
    bed.flush()
    return exchange


def sent_to(bed: Network, *upstreams: object) -> int:
    return sum(connection.upstream in upstreams for connection in bed.sent)


@pytest.mark.parametrize("rate", [2, 7, 19, 100, 1024])
def test_no_second_sees_more_queries_than_the_rate(rate: int) -> None:
    pace, sent, now = Pace(rate), [], 1000.0
    exchange = Network().ask(policy(TCP))
    while now < 1004.0:
        if pace.admits(exchange, now):
            sent.append(now)
        else:
            now += 1 / 4096
    assert max(sum(at <= other < at + 1.0 for other in sent) for at in sent) <= rate
    assert len(sent) >= 4 * rate * 0.9 - 1


def test_queries_beyond_the_burst_wait_and_leave_in_order_at_the_rate() -> None:
    bed = Network()
    ask_many(bed, 15)
    assert len(bed.queries) == BURST
    bed.wait(0.05)
    assert 4 <= len(bed.queries) - BURST <= 5
    bed.wait(0.1)
    names = [query[12 : query.index(b"\7cluster")] for _, query in bed.queries]
    assert names[:15] == [b"%c" % len(f"n{n}") + f"n{n}".encode() for n in range(15)]
    assert bed.outcomes == []


def test_who_would_get_no_turn_in_time_is_refused_at_once() -> None:
    bed = Network()
    ask_many(bed, BURST + QUEUE + 3)
    assert bed.outcomes == [Failure.PACED] * 3
    bed.wait(TURN_WITHIN_S + 0.01)
    assert sent_to(bed, PACED) >= BURST + QUEUE


def test_an_answer_ends_the_wait_of_nobody_else() -> None:
    bed = Network()
    ask_many(bed, BURST + 2)
    bed.reply_all()
    assert len(bed.results) == BURST
    bed.wait(0.03)
    bed.reply_all()
    assert len(bed.results) == BURST + 2


def test_what_waits_too_long_ends_with_its_deadline_and_leaves_the_queue() -> None:
    bed = Network()
    ask_many(bed, BURST)
    bed.ask(ONE, "late.cluster.local", patience_s=0.004)
    bed.wait(0.2)
    assert bed.outcomes[0] is Failure.TIMED_OUT
    pace = bed.forwarder.pool(PACED).pace
    assert pace is not None
    assert not pace.waiting


def test_an_upstream_with_room_is_asked_instead() -> None:
    bed, other = Network(), replace(UDP2, max_rate=RATE)
    both = replace(policy(PACED, other), selection=SelectionPolicy.SEQUENTIAL)
    ask_many(bed, 2 * BURST, both)
    assert (sent_to(bed, PACED), sent_to(bed, other)) == (BURST, BURST)
    ask_many(bed, 2 * QUEUE, both)
    assert bed.outcomes == []


def test_udp_and_tcp_of_one_server_share_its_pace() -> None:
    bed = Network()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    ask_many(bed, BURST - 1)
    bed.deliver(connection, answer(query, truncated=True))
    assert [c for c in bed.sent if c.pool.is_stream] == []
    bed.wait(0.05)
    assert len([c for c in bed.sent if c.pool.is_stream]) == 1


def test_what_can_be_done_without_is_left_out_before_the_rate_is_used_up() -> None:
    bed = Network()
    ask_many(bed, 3)
    spare_exchange(bed)
    assert bed.outcomes == [Failure.PACED]
    ask_many(bed, 2)
    assert sent_to(bed, PACED) == BURST
    assert bed.forwarder.pool(PACED).series.left_out == 1
    bed.wait(0.06)
    assert not spare_exchange(bed).is_done


def test_a_hedge_is_left_out_when_there_is_no_room_for_it() -> None:
    bed = Network()
    slow = policy(replace(UDP, max_rate=2))
    bed.ask(slow)
    bed.wait(0.26)
    assert len(bed.queries) == 1
    assert "hedged" not in bed.counters.events
    bed.wait(0.6)  # the retry that follows is no hedge: it has its turn
    assert sent_to(bed, *slow.upstreams) == 2


def test_a_probe_waits_for_room() -> None:
    bed = Network()
    upstream = replace(UDP, max_rate=2, max_fails=1)
    bed.ask(policy(upstream))
    bed.drop(bed.open[0])
    for _ in range(8):
        bed.wait(0.5)
        bed.ask(policy(upstream))
    asked = [c.opened_at for c in bed.sent]
    assert max(sum(at <= other < at + 1.0 for other in asked) for at in asked) <= 2


def test_another_rate_after_a_reload_begins_anew() -> None:
    bed = Network()
    ask_many(bed, BURST + 1)
    faster = replace(UDP, max_rate=10 * RATE)
    bed.forwarder.keep_only([faster], bed.now)
    ask_many(bed, BURST + 1, policy(faster))
    assert sent_to(bed, faster) == BURST + 1
    bed.wait(0.05)  # who waits still has its turn with the old one
    assert sent_to(bed, PACED) == BURST + 1


def test_without_max_rate_there_is_no_pace() -> None:
    assert Network().forwarder.pool(UDP).pace is None
