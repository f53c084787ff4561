"""How long connections live; test_balance.py shows what that is good for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodecache.config.model import Transport
from nodecache.upstreams.room import TARGET_CONNECTIONS
from tests.upstreams.forwarding import ONE, TCP, Network, answer, ask_and_answer, policy


def test_an_idle_connection_is_closed_before_coredns_does_it() -> None:
    bed = Network()
    ask_and_answer(bed, 1)
    bed.wait(7.1)
    assert bed.closed == []
    bed.wait(0.95)
    assert len(bed.closed) == 1


@pytest.mark.parametrize("expire_s", [1.0, 3.0])
def test_expire_is_honoured_within_a_second(expire_s: float) -> None:
    bed = Network()
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
    bed = Network()
    bed.ask(ONE)
    bed.ask(ONE, "b.cluster.local")
    bed.reply_all()
    assert len(bed.open) == 2
    bed.wait(2.4)
    assert len(bed.open) == 2
    bed.wait(0.2)
    assert len(bed.open) == 1


def test_no_more_idle_connections_are_kept_than_allowed() -> None:
    bed = Network()
    frugal = policy(replace(TCP, max_idle_connections=2))
    for n in range(9):
        bed.ask(frugal, f"n{n}.cluster.local")
    assert len(bed.open) > 2
    bed.reply_all()
    assert len(bed.open) == 2
    assert len(bed.results) == 9


def test_connections_in_use_are_replaced_at_about_thirty_seconds() -> None:
    bed = Network()
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
    bed = Network()
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
    bed = Network()
    secure = policy(replace(TCP, transport=Transport.TLS))
    while bed.now < 1010.0:
        bed.ask(secure)
        bed.reply_all()
        bed.wait(0.002)
        bed.results.clear()
    assert len(bed.open) == 1
    assert not bed.closed


def test_connections_are_kept_while_backends_die() -> None:
    bed = Network()
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
    bed = Network()
    aged = policy(replace(TCP, max_age_s=5.0))
    for _ in range(60):
        bed.ask(aged)
        bed.reply_all()
        bed.wait(0.1)
    assert bed.closed
    for connection in bed.open:
        assert bed.now - connection.opened_at <= 5.0


def test_the_successor_of_the_only_connection_is_opened_before_it_goes() -> None:
    bed = Network()
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
    bed = Network()
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
