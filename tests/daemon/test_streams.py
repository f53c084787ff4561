"""Stubs that use TCP: pipelines, order, pieces, ends."""

from __future__ import annotations

import socket
import time

import dns.message

from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import Daemon, wait_until
from tests.daemon.servers import Upstream
from tests.daemon.stubs import (
    addresses,
    ask,
    framed,
    make_query,
    read_message,
    scrape,
    tcp_socket,
    total,
)
from tests.daemon.zone import LONG_STRINGS, MANY, ORIGIN


def read_replies(sock: socket.socket, count: int) -> list[dns.message.Message]:
    return [dns.message.from_wire(read_message(sock)) for _ in range(count)]


def names_of(replies: list[dns.message.Message]) -> list[str]:
    return [reply.question[0].name.to_text().rstrip(".") for reply in replies]


def test_a_slow_name_does_not_hold_up_a_fast_one_behind_it(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    with tcp_socket(daemon) as sock:
        names = ["slow.wait-800.test", "fast.test", "faster.test"]
        queries = [make_query(name) for name in names]
        sock.sendall(framed(query.to_wire() for query in queries))
        replies = read_replies(sock, 3)
    assert names_of(replies)[-1] == names[0]
    assert {reply.id for reply in replies} == {query.id for query in queries}
    for reply, name in zip(replies, names_of(replies), strict=True):
        assert addresses(reply) == [right_address(name)]


def test_a_cached_name_overtakes_a_cold_one(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    ask(daemon, "hot.test", tcp=True)
    with tcp_socket(daemon) as sock:
        names = ["cold.wait-500.test", "hot.test"]
        sock.sendall(framed(make_query(name).to_wire() for name in names))
        assert names_of(read_replies(sock, 2)) == ["hot.test", "cold.wait-500.test"]


def test_a_thousand_pipelined_queries_are_all_answered(
    daemon_for: StartDaemon, knot: Upstream
) -> None:
    daemon = daemon_for(knot)
    queries = [make_query(f"p{number % 300}.wild.{ORIGIN}") for number in range(1000)]
    with tcp_socket(daemon) as sock:
        sock.sendall(framed(query.to_wire() for query in queries))
        replies = read_replies(sock, len(queries))
    asked = {query.id: query.question[0].name for query in queries}
    assert {reply.id: reply.question[0].name for reply in replies} == asked
    assert all(addresses(reply) == ["192.0.2.77"] for reply in replies)


def test_queries_may_arrive_octet_by_octet(served: Daemon) -> None:
    queries = [make_query(f"plain.{ORIGIN}"), make_query(f"dual.{ORIGIN}")]
    octets = framed(query.to_wire() for query in queries)
    with tcp_socket(served) as sock:
        for position in range(len(octets)):
            sock.sendall(octets[position : position + 1])
            time.sleep(0.001)
        replies = read_replies(sock, 2)
    assert {reply.id for reply in replies} == {query.id for query in queries}


def test_a_length_prefix_may_be_split_behind_a_whole_query(served: Daemon) -> None:
    first, second = make_query(f"plain.{ORIGIN}"), make_query(f"dual.{ORIGIN}")
    octets = framed([first.to_wire(), second.to_wire()])
    cut = len(first.to_wire()) + 3
    with tcp_socket(served) as sock:
        sock.sendall(octets[:cut])
        assert read_replies(sock, 1)[0].id == first.id
        sock.sendall(octets[cut:])
        assert read_replies(sock, 1)[0].id == second.id


def test_a_half_closed_connection_gets_its_answers_and_then_the_end(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    with tcp_socket(daemon) as sock:
        sock.sendall(framed(make_query(f"h{n}.wait-200.test").to_wire() for n in range(5)))
        sock.shutdown(socket.SHUT_WR)
        assert len(read_replies(sock, 5)) == 5
        assert read_message(sock) == b""


def test_big_answers_are_pipelined_whole(served: Daemon) -> None:
    queries = [make_query(f"many.{ORIGIN}"), make_query(f"long.{ORIGIN}", "TXT")] * 10
    with tcp_socket(served) as sock:
        for number, query in enumerate(queries):
            query.id = number
        sock.sendall(framed(query.to_wire() for query in queries))
        replies = {reply.id: reply for reply in read_replies(sock, len(queries))}
    for query in queries:
        [rrset] = replies[query.id].answer
        assert len(rrset) == (len(MANY) if query.id % 2 == 0 else len(LONG_STRINGS))


def test_a_stub_that_goes_away_before_its_answer_harms_nobody(
    daemon_for: StartDaemon, scripted: ScriptedUpstream
) -> None:
    daemon = daemon_for(scripted)
    for number in range(20):
        with tcp_socket(daemon) as sock:
            sock.sendall(framed([make_query(f"gone{number}.wait-100.test").to_wire()]))
    name = "stays.wait-200.test"
    assert addresses(ask(daemon, name, tcp=True)) == [right_address(name)]


def test_a_hundred_connections_are_served_side_by_side(served: Daemon) -> None:
    socks = [socket.create_connection((served.host, served.port), 20) for _ in range(100)]
    try:
        for number, sock in enumerate(socks):
            sock.sendall(framed([make_query(f"c{number}.wild.{ORIGIN}").to_wire()]))
        for sock in socks:
            assert addresses(read_replies(sock, 1)[0]) == ["192.0.2.77"]
    finally:
        for sock in socks:
            sock.close()


def test_closed_connections_leave_the_gauge(daemon_for: StartDaemon, knot: Upstream) -> None:
    daemon = daemon_for(knot)
    with tcp_socket(daemon) as sock:
        sock.sendall(framed([make_query(f"plain.{ORIGIN}").to_wire()]))
        read_message(sock)
        assert total(scrape(daemon), "nodecache_tcp_connections") == 1
    wait_until(lambda: total(scrape(daemon), "nodecache_tcp_connections") == 0, daemon.log)
