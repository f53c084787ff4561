"""Which octets answer which query; test_forwarder_faults.py walks the states of connections."""

from __future__ import annotations

import pytest

from nodecache.wire.framing import frame
from tests.upstreams.forwarding import ONE, Network, answer, question


@pytest.mark.parametrize(
    "spoil",
    [
        lambda query: bytes([query[0] ^ 1]) + answer(query)[1:],
        lambda query: query[:2] + answer(b"\0" * 12 + question("b.cluster.local"))[2:],
        lambda query: query[:2] + answer(b"\0" * 12 + question("a.cluster.local", 28))[2:],
        lambda query: query,
        lambda query: answer(query)[:11],
        lambda query: answer(query)[:20],
        lambda query: query[:2] + b"\x81\x80" + bytes(8),
        lambda query: query[:2] + b"\x81\x83" + bytes(8),
        lambda query: b"",
    ],
    ids=[
        "wrong ID",
        "wrong QNAME",
        "wrong QTYPE",
        "our own query",
        "no header",
        "cut question",
        "no question, NOERROR",
        "no question, NXDOMAIN",
        "nothing",
    ],
)
def test_a_stray_is_counted_and_does_not_hurt(spoil: object) -> None:
    assert callable(spoil)
    bed = Network()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    bed.deliver(connection, spoil(query))
    assert bed.outcomes == []
    assert bed.counters.events["upstream_strays"] == 1
    bed.deliver(connection, answer(query))
    assert bed.outcomes == [answer(query)]


def test_a_response_in_other_case_is_the_answer() -> None:
    bed = Network()
    bed.ask(ONE)
    [(connection, query)] = bed.queries
    response = answer(query).replace(b"cluster", b"CLUster")
    bed.deliver(connection, response)
    assert bed.outcomes == [response]


def test_responses_out_of_order_and_cut_anywhere_find_their_queries() -> None:
    bed = Network(connects=False)
    exchanges = [bed.ask(ONE, f"n{n}.cluster.local") for n in range(3)]
    bed.connect(bed.opened[0])
    connection = bed.queries[0][0]
    responses = [answer(query) for _, query in bed.queries]
    for octet in b"".join(frame(response) for response in reversed(responses)):
        bed.forwarder.received(connection, bytes([octet]), bed.now)
    assert [result.exchange for result in bed.results] == exchanges[::-1]
    assert bed.outcomes == responses[::-1]
