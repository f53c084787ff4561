"""Servers that dislike EDNS, networks that lose large datagrams, answers that are cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nodecache.config.model import SelectionPolicy, Upstream
from nodecache.upstreams.connection import Connection
from nodecache.upstreams.exchange import Failure
from nodecache.upstreams.forms import Form, compose, extended_rcode
from nodecache.upstreams.second_opinion import OPINION_BURST
from nodecache.wire.reply import compose_upstream_query
from tests.upstreams.forwarding import (
    MALFORMED,
    TCP,
    TCP2,
    UDP,
    UDP2,
    Network,
    answer,
    policy,
    question,
)
from tests.upstreams.simple_servers import Reaction, World

BADVERS_OPT = b"\0\0\x29\x04\xd0\1\0\0\0\0\0"


def without_opt(query: bytes, rcode: int = 0) -> bytes:
    return answer(query, rcode=rcode, knows_edns=False)


def badvers(query: bytes) -> bytes:
    response = without_opt(query)
    return response[:11] + b"\1" + response[12:] + BADVERS_OPT


def bare(query: bytes, rcode: int) -> bytes:
    return query[:2] + bytes([0x81, 0x80 | rcode]) + bytes(8)


def echo(query: bytes, rcode: int) -> bytes:
    return query[:2] + bytes([0x81, 0x80 | rcode]) + query[4:]


DISLIKES: dict[str, Callable[[bytes], bytes | None]] = {
    "FORMERR": lambda query: without_opt(query, 1),
    "FORMERR with OPT": lambda query: answer(query, rcode=1),
    "FORMERR, the query echoed": lambda query: echo(query, 1),
    "FORMERR, header only": lambda query: bare(query, 1),
    "NOTIMP": lambda query: without_opt(query, 4),
    "NOTIMP, header only": lambda query: bare(query, 4),
    "REFUSED": lambda query: without_opt(query, 5),
    "REFUSED, header only": lambda query: bare(query, 5),
    "SERVFAIL": lambda query: without_opt(query, 2),
    "SERVFAIL, header only": lambda query: bare(query, 2),
    "BADVERS": badvers,
    "silence": lambda _query: None,
}


def asks_with_opt(query: bytes) -> bool:
    return query[11] == 1


def disliking(dislike: Callable[[bytes], bytes | None]) -> World:
    def react(_connection: Connection, query: bytes) -> Reaction:
        if not asks_with_opt(query):
            return [(0.001, without_opt(query))]
        said = dislike(query)
        return [] if said is None else [(0.001, said)]

    world = World(react)
    refuse_malformed(world.bed)
    return world


def refuse_malformed(bed: Network) -> None:
    """Lets the owner refuse what speaks about our OPT record, as the resolver does."""
    done = bed._done

    def take(exchange: object, outcome: bytes | Failure, now: float) -> bool:
        if isinstance(outcome, bytes) and extended_rcode(outcome) > 15:
            return False
        return done(exchange, outcome, now)  # type: ignore[arg-type]

    bed._done = take  # type: ignore[method-assign]


@pytest.mark.parametrize("dislike", DISLIKES.values(), ids=DISLIKES)
@pytest.mark.parametrize("upstream", [TCP, UDP], ids=["tcp", "udp"])
def test_who_dislikes_edns_is_asked_without_it(
    upstream: Upstream, dislike: Callable[[bytes], bytes | None]
) -> None:
    world = disliking(dislike)
    for n in range(10):
        world.bed.ask(policy(upstream), f"n{n}.cluster.local")
        world.run(1.5)
    assert len(world.bed.results) == 10
    assert all(isinstance(o, bytes) and o[3] & 0xF == 0 for o in world.bed.outcomes)
    assert len(world.asked) <= 13
    took = [result.at - result.exchange.started_at for result in world.bed.results]
    assert max(took) < 0.3
    assert max(took[3:]) < 0.01


def test_it_is_tried_again_after_five_minutes() -> None:
    world = disliking(DISLIKES["REFUSED"])
    world.bed.ask(policy(TCP))
    world.run(0.1)
    world.bed.wait(300)
    world.asked.clear()
    world.bed.ask(policy(TCP))
    world.run(0.1)
    assert [asks_with_opt(query) for _, query in world.asked] == [True, False]


@pytest.mark.parametrize("rcode", [2, 4, 5])
def test_errors_of_one_that_knows_edns_are_believed(rcode: int) -> None:
    world = World(lambda _connection, query: [(0.001, answer(query))])
    world.bed.ask(policy(UDP))
    world.run(0.1)
    world.asked.clear()
    world.server = lambda _connection, query: [(0.001, answer(query, rcode=rcode))]
    world.bed.ask(policy(UDP))
    world.run(0.1)
    assert len(world.asked) == 1


@pytest.mark.parametrize("rcode", [2, 4, 5])
def test_but_not_without_its_opt_record(rcode: int) -> None:
    world = World(lambda _connection, query: [(0.001, answer(query))])
    world.bed.ask(policy(UDP))
    world.run(0.1)
    world.asked.clear()
    world.server = lambda _connection, query: [
        (0.001, without_opt(query, rcode if asks_with_opt(query) else 0))
    ]
    world.bed.ask(policy(UDP))
    world.run(0.1)
    assert world.bed.outcomes[-1] == without_opt(world.asked[-1][1])


@pytest.mark.parametrize("rcode", [2, 4, 5])
def test_errors_that_are_the_same_without_edns_are_asked_about_for_a_while_only(rcode: int) -> None:
    world = World(lambda _connection, query: [(0.001, without_opt(query, rcode))])
    for n in range(200):
        world.bed.ask(policy(UDP), f"n{n}.cluster.local")
        world.run(0.1)
    assert 201 + OPINION_BURST <= len(world.asked) <= 204 + OPINION_BURST
    assert {o[3] & 0xF for o in world.bed.outcomes if isinstance(o, bytes)} == {rcode}


@pytest.mark.parametrize("rcode", [0, 3])
def test_one_lost_datagram_does_not_turn_edns_off(rcode: int) -> None:
    bed = Network(are_known=False)
    bed.ask(policy(UDP))
    bed.wait(0.3)
    (_lost, (second, query)) = bed.queries
    assert not asks_with_opt(query)
    bed.deliver(second, without_opt(query, rcode))
    bed.sent.clear()
    bed.ask(policy(UDP))
    assert [asks_with_opt(query) for _, query in bed.queries] == [True]


def test_of_two_the_one_that_takes_edns_is_asked() -> None:
    both = policy(UDP, UDP2)

    def react(connection: Connection, query: bytes) -> Reaction:
        if connection.upstream == UDP and asks_with_opt(query):
            return [(0.001, without_opt(query, 1))]
        return [(0.001, answer(query))]

    world = World(react)
    for n in range(10):
        world.bed.ask(both, f"n{n}.cluster.local")
        world.run(0.01)
    world.asked.clear()
    for n in range(30):
        world.bed.ask(both, f"m{n}.cluster.local")
        world.run(0.01)
    assert {connection.upstream for connection, _ in world.asked} == {UDP2}


def test_in_order_they_are_asked_all_the_same() -> None:
    both = replace(policy(UDP, UDP2), selection=SelectionPolicy.SEQUENTIAL)
    world = disliking(DISLIKES["FORMERR"])
    for n in range(5):
        world.bed.ask(both, f"n{n}.cluster.local")
        world.run(0.01)
    assert {connection.upstream for connection, _ in world.asked} == {UDP}


# What does not arrive.


def sized(query: bytes) -> int:
    return int.from_bytes(query[-8:-6]) if asks_with_opt(query) else 512


def losing(way: str, octets: int = 900) -> World:
    """A server whose answers of more than 512 octets do not arrive whole over UDP."""

    def react(connection: Connection, query: bytes) -> Reaction:
        whole = answer(query, octets=bytes(octets))
        if connection.pool.is_stream or len(whole) <= 512:
            return [(0.001, whole)]
        if sized(query) <= 512:
            return [(0.001, answer(query, truncated=True))]
        return [(0.001, answer(query, octets=MALFORMED))] if way == "cut" else []

    world = World(react)
    world.bed.ask(policy(UDP), "first.cluster.local")  # known, and quick
    world.bed.reply_all()
    world.bed.results.clear()
    return world


@pytest.mark.parametrize("way", ["lost", "cut"])
def test_large_answers_that_do_not_arrive_over_udp_come_over_tcp(way: str) -> None:
    world = losing(way)
    for n in range(10):
        world.bed.ask(policy(UDP), f"n{n}.cluster.local")
        world.run(1.5)
    assert len(world.bed.results) == 10
    assert all(isinstance(o, bytes) and len(o) > 512 for o in world.bed.outcomes)
    took = [result.at - result.exchange.started_at for result in world.bed.results]
    assert max(took) < 1.0
    assert max(took[2:]) < 0.01, "the size that works is remembered"


def test_without_tcp_the_truncated_answer_is_handed_on() -> None:
    world = losing("lost")
    world.bed.connects = False
    world.bed.ask(policy(UDP))
    for _ in range(20):
        world.run(0.1)
        world.bed.refuse_all()
    [result] = world.bed.results
    assert isinstance(result.outcome, bytes)
    assert result.outcome[2] & 2
    assert result.at - result.exchange.started_at <= 2.0


def test_small_answers_stay_on_udp() -> None:
    world = losing("lost", octets=100)
    for n in range(20):
        world.bed.ask(policy(UDP), f"n{n}.cluster.local")
        world.run(0.01)
    assert not any(connection.pool.is_stream for connection, _ in world.asked)


# How often.


@pytest.mark.parametrize("upstream", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("known", [False, True])
def test_a_malformed_answer_is_asked_again_twice(upstream: Upstream, known: bool) -> None:
    world = World(
        lambda _connection, query: [(0.001, answer(query, octets=MALFORMED))],
        Network(are_known=known),
    )
    world.bed.ask(policy(upstream))
    world.run(1.0)
    assert world.bed.outcomes == [Failure.MALFORMED]
    assert len(world.asked) == 3


def test_of_two_upstreams_the_other_one_is_asked_next() -> None:
    both = replace(policy(TCP, TCP2), selection=SelectionPolicy.SEQUENTIAL)

    def react(connection: Connection, query: bytes) -> Reaction:
        bad = connection.upstream == TCP
        return [(0.001, answer(query, octets=MALFORMED if bad else b""))]

    world = World(react)
    world.bed.ask(both)
    world.run(0.1)
    assert [connection.upstream for connection, _ in world.asked] == [TCP, TCP2]


def test_badvers_is_asked_about_at_most_three_times() -> None:
    world = World(lambda _connection, query: [(0.001, badvers(query))])
    refuse_malformed(world.bed)
    world.bed.ask(policy(UDP))
    world.run(1.0)
    assert world.bed.outcomes == [Failure.MALFORMED]
    assert len(world.asked) <= 4


# The octets.


@pytest.mark.parametrize("dnssec_ok", [False, True])
def test_the_three_forms_of_a_query(dnssec_ok: bool) -> None:
    asked = question("a.cluster.local")
    whole = compose_upstream_query(asked, 0x0100, dnssec_ok)
    assert compose(whole, asked, Form.WHOLE) == whole
    small = compose_upstream_query(asked, 0x0100, dnssec_ok, payload_octets=512)
    assert compose(whole, asked, Form.SMALL) == small
    assert compose(whole, asked, Form.PLAIN) == whole[:8] + b"\0\0" + asked


def test_a_query_without_opt_has_one_form() -> None:
    asked = question("a.cluster.local")
    plain = compose_upstream_query(asked, 0x0100, dnssec_ok=False)[:8] + b"\0\0" + asked
    assert {compose(plain, asked, form) for form in Form} == {plain}
