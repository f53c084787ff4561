"""What asks the daemon: dnspython, raw sockets, dig, kdig and Node as they are."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Protocol

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.processes import PATIENCE_S, Daemon, wait_until
from tests.daemon.servers import program

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

_ids = count(1)


def make_query(
    name: str, rdtype: str = "A", rdclass: str = "IN", *, payload: int = 0
) -> dns.message.Message:
    """Returns a query with an ID of its own; ``payload`` above 0 adds EDNS."""
    query = dns.message.make_query(
        name, rdtype, rdclass, use_edns=0 if payload else -1, payload=payload or 1232
    )
    query.id = next(_ids) % 65536
    return query


class Place(Protocol):
    """Where somebody answers."""

    host: str
    port: int


def ask(
    daemon: Place,
    name: str,
    rdtype: str = "A",
    *,
    tcp: bool = False,
    payload: int = 0,
    timeout_s: float = PATIENCE_S,
) -> dns.message.Message:
    """Returns the reply to one query, its ID and question checked by dnspython."""
    send = dns.query.tcp if tcp else dns.query.udp
    return send(make_query(name, rdtype, payload=payload), daemon.host, timeout_s, daemon.port)


def texts(reply: dns.message.Message, rdtype: str) -> list[str]:
    """Returns the RDATA of all answers of a type, sorted."""
    wanted = dns.rdatatype.from_text(rdtype)
    return sorted(rdata.to_text() for rrset in reply.answer for rdata in rrset
                  if rrset.rdtype == wanted)  # fmt: skip


def addresses(reply: dns.message.Message) -> list[str]:
    """Returns the A records of a reply, sorted."""
    return texts(reply, "A")


def run(program_name: str, *arguments: str, within: Sequence[str] = ()) -> str:
    """Runs a client program to its end and returns what it printed."""
    command = [*within, program(program_name), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False
    )
    return done.stdout + done.stderr


def dig(daemon: Daemon, *arguments: str) -> str:
    """Runs dig at the daemon; two tries of 5 s are enough for anybody."""
    return run("dig", f"@{daemon.host}", "-p", str(daemon.port), "+tries=1", *arguments)


def kdig(daemon: Daemon, *arguments: str) -> str:
    """Runs kdig at the daemon."""
    return run("kdig", f"@{daemon.host}", "-p", str(daemon.port), *arguments)


@contextmanager
def udp_socket(daemon: Daemon) -> Iterator[socket.socket]:
    """A socket from which only the daemon's replies are taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        sock.connect((daemon.host, daemon.port))
        sock.settimeout(PATIENCE_S)
        yield sock


@contextmanager
def tcp_socket(daemon: Daemon) -> Iterator[socket.socket]:
    """A connection to the daemon."""
    with socket.create_connection((daemon.host, daemon.port), PATIENCE_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def framed(messages: Iterable[bytes]) -> bytes:
    """Returns the messages as TCP carries them."""
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


def read_message(sock: socket.socket) -> bytes:
    """Returns the next message of a stream; b"" at its end."""
    head = _read_exactly(sock, 2)
    return _read_exactly(sock, int.from_bytes(head, "big")) if head else b""


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    octets = b""
    while len(octets) < size:
        piece = sock.recv(size - len(octets))
        if not piece:
            assert not octets, f"the stream ended inside a message: {octets!r}"
            return b""
        octets += piece
    return octets


def scrape(daemon: Daemon) -> Samples:
    """Returns all samples of /metrics; waits for the listener, which opens after DNS serves."""
    text = ""

    def is_there() -> bool:
        nonlocal text
        url = f"http://{daemon.host}:{daemon.metrics_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
                text = response.read().decode()
        except OSError:
            return False
        return True

    wait_until(is_there, "a scrape")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """Returns the sum of all samples of ``name`` that carry ``labels``."""
    wanted = set(labels.items())
    return sum(value for (found, pairs), value in samples.items()
               if found == name and wanted <= pairs)  # fmt: skip


def wait_until_answering(daemon: Daemon, name: str) -> None:
    """Returns when ``name`` gets an answer with data."""

    def answers() -> bool:
        try:
            return bool(ask(daemon, name, timeout_s=1).answer)
        except dns.exception.Timeout:
            return False

    wait_until(answers, f"an answer for {name}")


def timed_ask(daemon: Daemon, name: str) -> tuple[dns.message.Message, float]:
    """Returns the reply and the seconds that it took."""
    begun_at = time.monotonic()
    reply = ask(daemon, name)
    return reply, time.monotonic() - begun_at
