"""The addresses of a host are found whatever its servers do, within a time that is known."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from nodecache.config.model import Address, HostName
from nodecache.config.names import parse_name
from nodecache.net import hostnames
from nodecache.net.hostnames import Found, find_addresses
from tests.loops import run

NAME = "up.test."
# Query and transport -> messages to send back.
Script = Callable[[dns.message.Message, str], list[bytes]]


def answer(query: dns.message.Message, *texts: str, ttl: int = 60) -> dns.message.Message:
    """A response with those of ``texts``, "A 192.0.2.1", that are of QTYPE, or are aliases."""
    response = dns.message.make_response(query)
    (question,) = query.question
    for text in texts:
        rdtype, rdata = text.split(" ", 1)
        if rdtype in (question.rdtype.name, "CNAME"):
            response.answer.append(dns.rrset.from_text(question.name, ttl, "IN", rdtype, rdata))
    return response


def says(*texts: str, ttl: int = 60) -> Script:
    return lambda query, _transport: [answer(query, *texts, ttl=ttl).to_wire()]


def truncated_over_udp(query: dns.message.Message, transport: str) -> list[bytes]:
    response = answer(query, *(("A 192.0.2.1",) if transport == "tcp" else ()))
    if transport == "udp":
        response.flags |= dns.flags.TC
    return [response.to_wire()]


def says_nxdomain(query: dns.message.Message, _transport: str) -> list[bytes]:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.NXDOMAIN)
    return [response.to_wire()]


def is_silent(_query: dns.message.Message, _transport: str) -> list[bytes]:
    return []


def is_silent_about_ipv6(query: dns.message.Message, transport: str) -> list[bytes]:
    return says("A 192.0.2.1")(query, transport) if query.question[0].rdtype == 1 else []


def sends_forgeries_first(query: dns.message.Message, transport: str) -> list[bytes]:
    (good,) = says("A 192.0.2.1")(query, transport)
    (bad,) = says("A 192.0.2.66")(query, transport)
    other = dns.message.make_query("other.test", "A", id=query.id)
    (stray,) = says("A 192.0.2.66")(other, transport)
    wrong_id = struct.pack("!H", query.id ^ 1) + bad[2:]
    return [b"", b"x", wrong_id, query.to_wire(), stray, good]


def says_nonsense(query: dns.message.Message, _transport: str) -> list[bytes]:
    (good,) = says("A 192.0.2.1")(query, "udp")
    return [good[:-3]]


class Server:
    """A server on loopback, over UDP and TCP on one port, while its ``with`` lasts."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._ends = threading.Event()
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(self._tcp.getsockname())
        self.address = Address("127.0.0.1", self._tcp.getsockname()[1])
        self._threads = [
            threading.Thread(target=self._serve, args=(sock, answer_one))
            for sock, answer_one in ((self._udp, self._answer_udp), (self._tcp, self._answer_tcp))
        ]

    def __enter__(self) -> Address:
        for thread in self._threads:
            thread.start()
        return self.address

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _serve(self, sock: socket.socket, answer_one: Callable[[], None]) -> None:
        sock.settimeout(0.02)
        while not self._ends.is_set():
            with suppress(TimeoutError):
                answer_one()

    def _answer_udp(self) -> None:
        octets, client = self._udp.recvfrom(4096)
        for reply in self._script(dns.message.from_wire(octets), "udp"):
            self._udp.sendto(reply, client)

    def _answer_tcp(self) -> None:
        client, _ = self._tcp.accept()
        with client:
            query = dns.message.from_wire(client.recv(4096)[2:])
            for reply in self._script(query, "tcp"):
                client.sendall(struct.pack("!H", len(reply)) + reply)


def find(*scripts: Script) -> Found:
    with ExitStack() as stack:
        servers = tuple(stack.enter_context(Server(script)) for script in scripts)
        return run(find_addresses(HostName(parse_name(NAME), servers)))


def test_both_families_are_found_in_a_stable_order_with_the_least_ttl() -> None:
    texts = ("AAAA 2001:db8::2", "A 192.0.2.9", "A 192.0.2.10", "CNAME real.test.")
    assert find(says(*texts, ttl=7)) == Found(("192.0.2.9", "192.0.2.10", "2001:db8::2"), 7)


@pytest.mark.parametrize(
    "script",
    [truncated_over_udp, sends_forgeries_first],
    ids=lambda script: script.__name__,
)
def test_right_address_is_found_all_the_same(script: Script) -> None:
    assert find(script).hosts == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        (is_silent, "does not answer"),
        (says_nxdomain, "answers with RCODE 3"),
        (says("TXT x"), "knows no address"),
        (says("A 0.0.0.0", "AAAA ff02::1"), "knows no address"),
        (says_nonsense, "answers with what is no DNS message"),
    ],
)
def test_next_server_is_asked_where_one_has_no_address(
    script: Script, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostnames, "_SERVER_S", 1.0 if script is is_silent else 10.0)
    assert find(script, says("A 192.0.2.1")).hosts == ("192.0.2.1",)
    found = find(script)
    assert found.hosts == ()
    assert trouble in found.trouble


def test_answer_for_one_family_is_enough_where_the_other_is_never_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hostnames, "_SERVER_S", 1.0)
    began_at = time.monotonic()
    assert find(is_silent_about_ipv6).hosts == ("192.0.2.1",)
    assert time.monotonic() - began_at < 3.0


def test_server_that_is_not_there_is_told() -> None:
    with Server(is_silent) as server:
        pass
    found = run(find_addresses(HostName(parse_name(NAME), (server,))))
    assert found.hosts == ()
    assert "cannot be asked: Connection refused" in found.trouble


def test_host_without_anybody_to_ask_has_no_address() -> None:
    assert find() == Found(trouble="there is nobody to ask")
