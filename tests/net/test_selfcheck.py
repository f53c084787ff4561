"""Questions to ourselves on real sockets: listeners that answer, lie, stall, or are missing.

So net/dial.py is tested here, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from nodecache.config.model import Address
from nodecache.net.selfcheck import ask_ourselves, make_probe
from nodecache.net.sockets import has_ipv6
from tests.loops import Run

TIMEOUT_S = 0.15
# Where others must answer meanwhile, on a busy machine, too.
LONG_TIMEOUT_S = 1.0
Answer = Callable[[bytes], list[bytes]]


def reflect(query: bytes) -> list[bytes]:
    """Answers any message with its own header, QR set and NOTIMP."""
    return [query[:2] + bytes([query[2] | 0x80, 4]) + query[4:12]]


def keep_silent(_query: bytes) -> list[bytes]:
    return []


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.queries: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.queries.append(data)
        for reply in self._answer(data):
            self._transport.sendto(reply, addr)


class Ourselves:
    """A listening address with both transports.

    Attributes:
        queries: What arrived, per transport.
    """

    def __init__(self, address: Address, udp: list[bytes], tcp: list[bytes]) -> None:
        self.address = address
        self.queries = {"UDP": udp, "TCP": tcp}


@contextlib.asynccontextmanager
async def listening(
    udp: Answer = reflect, tcp: Answer = reflect, host: str = "127.0.0.1"
) -> AsyncIterator[Ourselves]:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(2), "big")
            asked.append(await reader.readexactly(length))
            for reply in tcp(asked[-1]):
                framed = len(reply).to_bytes(2, "big") + reply
                for octet in framed:  # as slowly as a stream may be cut
                    writer.write(bytes([octet]))
                    await writer.drain()
            if tcp is keep_silent:
                await reader.read()
        writer.close()

    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = await asyncio.start_server(serve, host, 0, family=family)
    port = server.sockets[0].getsockname()[1]
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Datagrams(udp), local_addr=(host, port), family=family
    )
    try:
        yield Ourselves(Address(host, port), protocol.queries, asked)
    finally:
        transport.close()
        server.close()


def test_listener_that_answers_both_ways_is_well(run: Run) -> None:
    async def scene() -> None:
        async with listening() as house:
            assert await ask_ourselves([house.address], make_probe(), 5) == []

    run(scene())


def test_probe_arrives_as_made_with_an_id_of_its_own_each_time(run: Run) -> None:
    async def scene() -> None:
        probe = make_probe()
        async with listening() as house:
            for _ in range(8):
                assert await ask_ourselves([house.address], probe, 5) == []
        for queries in house.queries.values():
            assert {query[2:] for query in queries} == {probe[2:]}
            assert len({query[:2] for query in queries}) > 1

    run(scene())


def test_probe_is_a_header_with_an_unassigned_opcode_and_a_secret() -> None:
    probe = make_probe()
    assert len(probe) == 12 + 16
    assert probe[2] >> 3 == 15
    assert probe[4:12] == bytes(8)
    assert make_probe()[12:] != probe[12:]


@pytest.mark.parametrize("silent", ["UDP", "TCP"])
def test_silence_is_told_with_address_and_transport(run: Run, silent: str) -> None:
    answers = {"UDP": reflect, "TCP": reflect, silent: keep_silent}

    async def scene() -> None:
        async with listening(answers["UDP"], answers["TCP"]) as house:
            complaints = await ask_ourselves([house.address], make_probe(), LONG_TIMEOUT_S)
        text = f"{house.address} over {silent}: no answer within {LONG_TIMEOUT_S:g} s"
        assert complaints == [text]

    run(scene())


def test_nobody_there_is_a_refusal_and_no_wait(run: Run) -> None:
    async def scene() -> None:
        async with listening() as house:
            pass
        await asyncio.sleep(0)
        complaints = await ask_ourselves([house.address], make_probe(), 5)
        assert complaints == [
            f"{house.address} over {transport}: connection refused" for transport in ("UDP", "TCP")
        ]

    run(scene())


@pytest.mark.parametrize(
    "lie",
    [
        lambda query: [bytes([query[0] ^ 1]) + reflect(query)[0][1:]],
        lambda query: [query],
        lambda query: [reflect(query)[0][:11]],
    ],
    ids=["wrong ID", "QR clear", "too short"],
)
def test_what_is_no_answer_to_the_probe_does_not_count(run: Run, lie: Answer) -> None:
    async def scene() -> None:
        async with listening(lie, lie) as house:
            complaints = await ask_ourselves([house.address], make_probe(), TIMEOUT_S)
        assert [text.split(" over ")[1][:3] for text in complaints] == ["UDP", "TCP"]

    run(scene())


def test_stray_datagram_before_the_answer_is_passed_over(run: Run) -> None:
    async def scene() -> None:
        async with listening(lambda query: [b"", b"stray", *reflect(query)]) as house:
            assert await ask_ourselves([house.address], make_probe(), 5) == []

    run(scene())


def test_connection_that_closes_without_an_answer_is_told(run: Run) -> None:
    def hang_up(_query: bytes) -> list[bytes]:
        return []

    async def scene() -> None:
        async with listening(tcp=hang_up) as house:
            complaints = await ask_ourselves([house.address], make_probe(), 5)
        assert complaints == [f"{house.address} over TCP: closed without an answer"]

    run(scene())


def test_all_addresses_are_asked_at_once(run: Run) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with listening(keep_silent) as one, listening(keep_silent) as other:
            begun_at = loop.time()
            addresses = [one.address, other.address]
            complaints = await ask_ourselves(addresses, make_probe(), LONG_TIMEOUT_S)
            assert loop.time() - begun_at < 2 * LONG_TIMEOUT_S
        assert [text.partition(" ")[0] for text in complaints] == [str(a) for a in addresses]

    run(scene())


@pytest.mark.parametrize(
    ("wildcard", "loopback"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("", "127.0.0.1")]
)
def test_wildcard_is_asked_through_loopback(run: Run, wildcard: str, loopback: str) -> None:
    if loopback == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")

    async def scene() -> None:
        async with listening(host=loopback) as house:
            address = Address(wildcard, house.address.port)
            assert await ask_ourselves([address], make_probe(), 5) == []
            assert {len(queries) for queries in house.queries.values()} == {1}

    run(scene())


def test_many_addresses_cost_a_bounded_number_of_sockets(run: Run) -> None:
    async def scene() -> None:
        async with listening() as house:
            assert await ask_ourselves([house.address] * 500, make_probe(), 5) == []
            assert {len(queries) for queries in house.queries.values()} == {32}

    run(scene())


def test_no_addresses_are_no_complaint(run: Run) -> None:
    async def scene() -> None:
        assert await ask_ourselves([], make_probe(), TIMEOUT_S) == []

    run(scene())
