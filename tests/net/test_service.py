"""Looking for the upstream Service with real sockets, and what answers are believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from nodecache.config.model import CLUSTER_DOMAIN, Address
from nodecache.config.names import parse_name
from nodecache.net.service import find_service, read_address
from tests.loops import run
from tests.net.fake_upstream import FakeUpstream, Peer, running, unused_port

SERVICE = "kube-dns-upstream.kube-system.svc.cluster.local."
Answer = Callable[[bytes], bytes]


def answering(records: dict[tuple[str, str], list[str]], *, for_any: bool = False) -> Answer:
    """Answers from (name, type) -> RDATA; anything else is NXDOMAIN, or the Service's."""

    def answer(query: bytes) -> bytes:
        message = dns.message.from_wire(query)
        response = dns.message.make_response(message)
        (question,) = message.question
        qtype = "A" if question.rdtype == 1 else "AAAA"
        name = SERVICE if for_any else question.name.to_text()
        found = records.get((name, qtype))
        if found is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            response.answer.append(dns.rrset.from_text(question.name, 30, "IN", qtype, *found))
        return response.to_wire()

    return answer


def serve(server: FakeUpstream, answer: Answer, *, tcp: bool = True, udp: bool = True) -> None:
    if tcp:
        server.on_query = lambda peer, query: peer.send(answer(query))
    else:
        server.on_query = lambda peer, query: None
    server.on_datagram = lambda query: [answer(query)] if udp else []


async def find(*ports: int, timeout_s: float = 5.0) -> str | None:
    servers = [Address("127.0.0.1", port) for port in ports]
    return await find_service(
        "kube-dns-upstream", "kube-system", CLUSTER_DOMAIN, servers, timeout_s
    )


@pytest.mark.parametrize(("tcp", "udp"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(("qtype", "address"), [("A", "10.103.7.7"), ("AAAA", "fd00::7")])
def test_service_is_found_over_either_transport(
    tcp: bool, udp: bool, qtype: str, address: str
) -> None:
    async def scenario() -> None:
        async with running() as server:
            serve(server, answering({(SERVICE, qtype): [address]}), tcp=tcp, udp=udp)
            assert await find(server.port) == address

    run(scenario())


def test_queries_ask_for_the_full_name_with_ids_of_their_own() -> None:
    async def scenario() -> None:
        async with running() as server:
            serve(server, answering({}))
            assert await find(server.port) is None
            queries = [dns.message.from_wire(data) for data, _ in server.datagrams]
            asked = [(str(q.question[0].name), int(q.question[0].rdtype)) for q in queries]
            assert asked == [(SERVICE, 1), (SERVICE, 28)]
            assert all(q.flags & dns.flags.RD for q in queries)
            ports = {source[1] for _, source in server.datagrams}
            assert len(ports) == 2

    run(scenario())


def test_server_that_has_an_address_for_any_name_is_not_believed() -> None:
    async def scenario() -> None:
        async with running() as server, running() as honest:
            serve(server, answering({(SERVICE, "A"): ["192.0.2.66"]}, for_any=True))
            serve(honest, answering({(SERVICE, "A"): ["10.103.7.7"]}))
            assert await find(server.port) is None
            assert await find(server.port, honest.port) == "10.103.7.7"

    run(scenario())


def test_dead_and_silent_servers_do_not_keep_others_from_being_asked() -> None:
    async def scenario() -> None:
        async with running() as silent, running() as server:
            serve(silent, answering({}), tcp=False, udp=False)
            serve(server, answering({(SERVICE, "A"): ["10.103.7.7"]}))
            assert await find(unused_port(), silent.port, server.port) == "10.103.7.7"

    run(scenario())


def test_silence_ends_with_the_time_out() -> None:
    async def scenario() -> None:
        async with running() as silent:
            serve(silent, answering({}), tcp=False, udp=False)
            assert await find(silent.port, timeout_s=0.05) is None
            assert await find(unused_port()) is None
            assert await find() is None

    run(scenario())


def test_stray_datagrams_are_left_out() -> None:
    async def scenario() -> None:
        answer = answering({(SERVICE, "A"): ["10.103.7.7"]})

        def datagrams(query: bytes) -> list[bytes]:
            wrong_id = bytes([query[0] ^ 1, query[1]]) + answer(query)[2:]
            other = dns.message.make_query("other.example.", "A")
            other.id = int.from_bytes(query[:2], "big")
            return [
                b"",
                b"x" * 5,
                query,
                wrong_id,
                dns.message.make_response(other).to_wire(),
                answer(query),
            ]

        async with running() as server:
            serve(server, answer, tcp=False)
            server.on_datagram = datagrams
            assert await find(server.port) == "10.103.7.7"

    run(scenario())


def test_connection_that_is_cut_is_no_answer() -> None:
    def cut(peer: Peer, query: bytes) -> None:
        peer.send_raw(b"\0\x20abc")
        peer.close()

    async def scenario() -> None:
        async with running() as server:
            serve(server, answering({}), udp=False)
            server.on_query = cut
            assert await find(server.port, timeout_s=0.3) is None

    run(scenario())


@pytest.mark.parametrize("name", ["x" * 64, "a..b", ""])
def test_name_that_cannot_be_asked_for_is_not_found(name: str) -> None:
    async def scenario() -> None:
        servers = [Address("127.0.0.1", unused_port())]
        assert await find_service(name, "kube-system", CLUSTER_DOMAIN, servers, 1.0) is None

    run(scenario())


QUESTION = parse_name(SERVICE).wire + b"\0\1\0\1"


@pytest.mark.parametrize(
    ("found", "address"),
    [
        (["10.103.7.7"], "10.103.7.7"),
        (["10.103.7.7", "10.103.7.8"], None),
        (["127.0.0.1"], None),
        (["0.0.0.0"], None),
        (["224.0.0.1"], None),
        (["169.254.20.10"], None),
    ],
)
def test_one_plausible_address_is_believed(found: list[str], address: str | None) -> None:
    query = dns.message.make_query(SERVICE, "A").to_wire()
    response = answering({(SERVICE, "A"): found})(query)
    assert read_address(response, QUESTION) == address


@pytest.mark.parametrize("flag", [dns.flags.TC, dns.rcode.SERVFAIL])
def test_truncated_or_failed_response_is_not_believed(flag: int) -> None:
    query = dns.message.make_query(SERVICE, "A").to_wire()
    response = bytearray(answering({(SERVICE, "A"): ["10.103.7.7"]})(query))
    response[2] |= flag >> 8
    response[3] |= flag & 0xFF
    assert read_address(bytes(response), QUESTION) is None


def test_address_of_another_name_or_broken_message_is_not_believed() -> None:
    query = dns.message.make_query(SERVICE, "A").to_wire()
    whole = answering({(SERVICE, "A"): ["10.103.7.7"]})(query)
    other = parse_name("other.example").wire + b"\0\1\0\1"
    assert read_address(whole, other) is None
    assert all(read_address(whole[:end], QUESTION) is None for end in range(len(whole)))


def test_no_socket_is_left_open(recwarn: pytest.WarningsRecorder) -> None:
    async def scenario() -> None:
        async with running() as server:
            serve(server, answering({(SERVICE, "A"): ["10.103.7.7"]}), udp=False)
            assert await find(server.port) == "10.103.7.7"
            while server.lost < len(server.peers):  # noqa: ASYNC110 - looks at what knows no event
                await asyncio.sleep(0.005)
            assert server.peers

    run(scenario())
    assert [w for w in recwarn if w.category is ResourceWarning] == []
