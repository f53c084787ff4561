"""An upstream that does what a test says: right answers, late ones, and all kinds of wrong ones.

Right answers follow from the question alone, so a test knows them without asking; whatever a
fault sends carries ``POISON``, so a test knows when a wrong answer was served.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.daemon.processes import HOST, free_port

POISON = "203.0.113.66"
_LINGER_NOT = struct.pack("ii", 1, 0)
_RULE = re.compile(r"(wait|ttl)-(\d+)")


class Fault(enum.Enum):
    """What happens to every query of one connection."""

    NONE = "answers as it should"
    WRONG_ID = "another ID"
    WRONG_QUESTION = "another question"
    WRONG_TYPE = "the right name with another type"
    ECHO = "the query itself, QR not set"
    HALF = "half a message, then FIN"
    HALF_AND_SILENCE = "half a message, then nothing"
    FIN = "FIN at once"
    RESET = "a reset"
    ANSWER_AND_RESET = "an answer, and a reset behind it"
    SILENCE = "nothing at all"
    GARBAGE = "random octets"
    EMPTY = "a message of no octets"
    BROKEN = "a matching header, records that end too early"


@dataclass(frozen=True, slots=True)
class Asked:
    """One query as it arrived; ``connection`` is 0 for UDP."""

    name: str
    rdtype: str
    transport: str
    connection: int
    at: float


def right_address(name: str) -> str:
    """Returns the address that ``name`` has."""
    number = zlib.crc32(name.lower().rstrip(".").encode())
    return f"198.18.{number >> 8 & 0xFF}.{number & 0xFF}"


def _answer(query: dns.message.Message, address: str | None = None) -> dns.message.Message:
    question = query.question[0]
    name = question.name.to_text()
    rules = {rule: int(number) for rule, number in _RULE.findall(name)}
    response = dns.message.make_response(query, recursion_available=True)
    if question.rdtype == dns.rdatatype.A:
        address = address or right_address(name)
        response.answer.append(dns.rrset.from_text(name, rules.get("ttl", 60), "IN", "A", address))
    else:
        soa = "ns.invalid. root.invalid. 1 2 3 4 60"
        response.authority.append(dns.rrset.from_text(".", 60, "IN", "SOA", soa))
    return response


def _wait_s(query: dns.message.Message) -> float:
    rules = dict(_RULE.findall(query.question[0].name.to_text()))
    return int(rules.get("wait", 0)) / 1000


def _frame(octets: bytes) -> bytes:
    return struct.pack("!H", len(octets)) + octets


def _wrong_octets(fault: Fault, query: dns.message.Message) -> bytes:
    """Returns what a fault writes, framed; GARBAGE has no frame."""
    if fault is Fault.GARBAGE:
        return random.randbytes(600)
    octets = _wrong_message(fault, query)
    if fault in (Fault.HALF, Fault.HALF_AND_SILENCE):
        return _frame(octets)[: len(octets) // 2]
    return _frame(octets)


def _wrong_message(fault: Fault, query: dns.message.Message) -> bytes:
    """Returns the message that a fault is about."""
    if fault is Fault.EMPTY:
        return b""
    if fault is Fault.ECHO:
        return query.to_wire()
    asked, name = query, query.question[0].name.to_text()
    if fault is Fault.WRONG_QUESTION:
        asked = dns.message.make_query("wrong." + name, "A")
    elif fault is Fault.WRONG_TYPE:
        asked = dns.message.make_query(name, "MX")
    response = _answer(asked, POISON)
    response.id = query.id ^ (0x0101 if fault is Fault.WRONG_ID else 0)
    octets = response.to_wire()
    return octets[:-3] if fault is Fault.BROKEN else octets


@dataclass
class ScriptedUpstream:
    """Serves UDP and TCP on one address, from a thread of its own.

    Attributes:
        asked: All queries so far, in order of arrival.
        faults: Taken one by one by connections as they are accepted; then ``later``.
        later: What connections do when ``faults`` is used up.
        udp_noise: Sends wrong responses before each right one.
        udp_truncates: Answers over UDP with TC only.
        fails: Answers SERVFAIL over TCP.
    """

    host: str = HOST
    port: int = field(default_factory=free_port)
    asked: list[Asked] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    later: Fault = Fault.NONE
    udp_noise: bool = False
    udp_truncates: bool = False
    fails: bool = False
    connections: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def asked_for(self, name: str) -> list[Asked]:
        """Returns the queries for ``name``."""
        return [asked for asked in list(self.asked) if asked.name == name]

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, backlog=512)
        self._udp, _ = await self._loop.create_datagram_endpoint(
            lambda: _UdpSide(self), (self.host, self.port)
        )

    async def _close(self) -> None:
        assert self._server is not None
        assert self._udp is not None
        self._server.close()
        self._udp.close()
        me, others = asyncio.current_task(), asyncio.all_tasks()
        while others:
            # Connections that were accepted just now get as far as _accept, which closes them.
            await asyncio.sleep(0.01)
            others = {task for task in asyncio.all_tasks() if task is not me}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Lets ``work`` go on beside everything else until the server ends."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def takes_datagram(self) -> bool:
        """Whether a datagram that arrived is looked at; asked once for each."""
        return True

    def note(self, query: dns.message.Message, transport: str, connection: int) -> None:
        """Keeps what was asked."""
        question = query.question[0]
        name = question.name.to_text().rstrip(".")
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(Asked(name, rdtype, transport, connection, time.monotonic()))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        fault = self.faults.popleft() if self.faults else self.later
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    query = dns.message.from_wire(await reader.readexactly(size))
                    self.note(query, "tcp", number)
                    if not self._react(fault, query, writer):
                        break
        except asyncio.CancelledError:
            pass  # the server ends; asyncio's streams would call it an error
        finally:
            writer.close()
            self._tasks.discard(task)

    def _react(
        self, fault: Fault, query: dns.message.Message, writer: asyncio.StreamWriter
    ) -> bool:
        """Does what the connection's fault says; returns whether it goes on."""
        if fault is Fault.NONE:
            self.begin(self._fail(query, writer) if self.fails else self._reply(query, writer))
        elif fault in (Fault.RESET, Fault.ANSWER_AND_RESET):
            if fault is Fault.ANSWER_AND_RESET:
                writer.write(_frame(_answer(query).to_wire()))
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            writer.transport.abort()
        elif fault not in (Fault.SILENCE, Fault.FIN):
            writer.write(_wrong_octets(fault, query))
        return fault not in (Fault.RESET, Fault.ANSWER_AND_RESET, Fault.FIN, Fault.HALF)

    async def _fail(self, query: dns.message.Message, writer: asyncio.StreamWriter) -> None:
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.SERVFAIL)
        writer.write(_frame(response.to_wire()))

    async def _reply(self, query: dns.message.Message, writer: asyncio.StreamWriter) -> None:
        wait_s = _wait_s(query)
        if wait_s:
            await asyncio.sleep(wait_s)
        if not writer.is_closing():
            writer.write(_frame(_answer(query).to_wire()))


class _UdpSide(asyncio.DatagramProtocol):
    """The UDP half of a ScriptedUpstream."""

    def __init__(self, owner: ScriptedUpstream) -> None:
        self._owner = owner
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._owner.takes_datagram():
            return
        query = dns.message.from_wire(data)
        self._owner.note(query, "udp", 0)
        self._owner.begin(self._reply(query, addr))

    async def _reply(self, query: dns.message.Message, addr: tuple[str, int]) -> None:
        transport = self._transport
        assert transport is not None
        if self._owner.udp_noise:
            for fault in (Fault.WRONG_ID, Fault.WRONG_QUESTION, Fault.WRONG_TYPE, Fault.GARBAGE):
                transport.sendto(_wrong_octets(fault, query)[2:], addr)
        wait_s = _wait_s(query)
        if wait_s:
            await asyncio.sleep(wait_s)
        response = _answer(query)
        if self._owner.udp_truncates:
            response.answer.clear()
            response.flags |= dns.flags.TC
        transport.sendto(response.to_wire(), addr)
