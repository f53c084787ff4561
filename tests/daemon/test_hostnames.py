"""A host name as upstream, in a running daemon: followed when it moves, kept when it is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.faulty import ScriptedUpstream, right_address
from tests.daemon.processes import HOST, free_port, own_host, wait_until
from tests.daemon.stubs import addresses, ask

NAME = "dns.example"
OTHER_HOST = own_host(3)


class Directory:
    """A DNS server that knows where one host is, and for how long."""

    def __init__(self) -> None:
        self.where: list[str] = []
        self.is_silent = False
        self.asked = 0
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((HOST, 0))
        self._sock.settimeout(0.05)
        self.port: int = self._sock.getsockname()[1]
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        self._sock.close()

    def _serve(self) -> None:
        while not self._ends.is_set():
            with suppress(TimeoutError):
                octets, client = self._sock.recvfrom(4096)
                self.asked += 1
                if not self.is_silent:
                    self._sock.sendto(self._answer(dns.message.from_wire(octets)), client)

    def _answer(self, query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        (question,) = query.question
        if question.rdtype.name == "A" and self.where:
            rrset = dns.rrset.from_text(question.name, 1, "IN", "A", *self.where)
            response.answer.append(rrset)
        return response.to_wire()


@pytest.fixture
def directory() -> Iterator[Directory]:
    directory = Directory()
    yield directory
    directory.close()


@pytest.mark.slow
def test_upstream_by_name_is_asked_from_the_first_query_on_and_followed_when_it_moves(
    daemon_for: StartDaemon, directory: Directory, tmp_path: Path
) -> None:
    port = free_port()
    directory.where = [HOST]
    options = f"force_tcp\n        resolver {HOST}:{directory.port}"
    with ScriptedUpstream(host=HOST, port=port) as first:
        daemon = daemon_for(f"{NAME}:{port}", options=options)
        assert addresses(ask(daemon, "a.test")) == [right_address("a.test")]
        directory.is_silent = True
        asked = directory.asked
        wait_until(lambda: directory.asked >= asked + 2, daemon.log)
        assert addresses(ask(daemon, "b.test")) == [right_address("b.test")]
        with ScriptedUpstream(host=OTHER_HOST, port=port) as second:
            directory.where = [OTHER_HOST]
            directory.is_silent = False
            wait_until(lambda: f"is at {OTHER_HOST}" in daemon.log(), daemon.log)
            assert addresses(ask(daemon, "c.test")) == [right_address("c.test")]
            assert len(second.asked_for("c.test")) == 1
            assert addresses(ask(daemon, "a.test")) == [right_address("a.test")]
            assert len(first.asked_for("a.test")) == 1
            assert second.asked_for("a.test") == []
