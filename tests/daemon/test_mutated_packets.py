"""200,000 packets made of valid queries by flipping, cutting and inserting: service goes on."""

from __future__ import annotations

import random
import select
import socket
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.processes import Daemon
from tests.daemon.servers import Upstream
from tests.daemon.stubs import (
    Samples,
    addresses,
    ask,
    framed,
    make_query,
    read_message,
    scrape,
    tcp_socket,
    total,
    udp_socket,
)
from tests.daemon.zone import ORIGIN

PACKETS = 200_000
WARM_PACKETS = 40_000
BATCH = 100
STREAMS = 2000
GROWTH_OCTETS = 15 * 1024 * 1024
# Small, so that it is full, and its memory taken, before growth is measured.
CACHE = "300 {\n        success 500\n        denial 500\n    }"


def make_seeds() -> list[bytes]:
    """Returns valid queries of all shapes."""
    names = ["plain", "dual", "many", "short", "chain1", "nowhere", "x.wild", "odd", "ipv6"]
    queries = [make_query(f"{name}.{ORIGIN}", rdtype)
               for name in names for rdtype in ("A", "AAAA", "TXT")]  # fmt: skip
    queries += [make_query(f"{name}.{ORIGIN}", payload=4096) for name in names]
    for query in queries[-4:]:
        query.want_dnssec()
    return [query.to_wire() for query in queries]


def mutate(octets: bytes, chance: random.Random) -> bytes:
    """Returns a packet that differs from ``octets`` in one to three places."""
    packet = bytearray(octets)
    for _ in range(chance.randrange(1, 4)):
        kind = chance.random()
        place = chance.randrange(len(packet) + 1)
        if kind < 0.6:
            if place < len(packet):
                packet[place] ^= 1 << chance.randrange(8)
        elif kind < 0.8:
            del packet[place:]
        else:
            packet[place:place] = chance.randbytes(chance.choice((1, 2, 4, 11, 300)))
    return bytes(packet)


def is_answered(packet: bytes) -> bool:
    """Whether a reply is due: to all but fragments of a header, and responses."""
    return len(packet) >= 12 and not packet[2] & 0x80


def read_batch(sock: socket.socket, expected: Counter[bytes]) -> int:
    """Takes all replies that are due, and none that is not; returns their number."""
    count = expected.total()
    while expected:
        reply = sock.recv(65535)
        assert len(reply) >= 12
        assert reply[2] & 0x80
        expected[reply[:2]] -= 1
        assert expected[reply[:2]] >= 0, "a reply that nobody is waiting for"
        if not expected[reply[:2]]:
            del expected[reply[:2]]
    return count


def send_mutated(sock: socket.socket, packets: Iterator[bytes], count: int) -> tuple[int, int]:
    """Sends packets, a batch at a time; returns how many replies came, and how many were due not.

    A batch has passed when every reply that is due has come.
    """
    replies = silences = 0
    for _ in range(count // BATCH):
        batch = [next(packets) for _ in range(BATCH)]
        for packet in batch:
            sock.send(packet)
        expected = Counter(packet[:2] for packet in batch if is_answered(packet))
        silences += BATCH - expected.total()
        replies += read_batch(sock, expected)
    return replies, silences


def received(samples: Samples) -> float:
    """Returns the number of messages that the counters know of, over UDP."""
    return total(samples, "coredns_dns_requests_total", proto="udp") + total(
        samples, "nodecache_drops_total"
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_mutated_packet_is_answered_or_dropped_and_counted(
    daemon_for: StartDaemon, knot: Upstream
) -> None:
    daemon = daemon_for(knot, cache=CACHE)
    process = psutil.Process(daemon.pid)
    chance = random.Random(20_260_821)
    seeds = make_seeds()
    packets = (mutate(chance.choice(seeds), chance) for _ in range(PACKETS))
    with udp_socket(daemon) as sock:
        replies, silences = send_mutated(sock, packets, WARM_PACKETS)
        before = process.memory_info().rss
        for _ in range(4):
            part = send_mutated(sock, packets, (PACKETS - WARM_PACKETS) // 4)
            replies, silences = replies + part[0], silences + part[1]
            assert addresses(ask(daemon, f"plain.{ORIGIN}")) == ["192.0.2.1"]
        assert not select.select([sock], [], [], 0.2)[0], "a reply too many"
    assert process.memory_info().rss - before < GROWTH_OCTETS
    assert replies + silences == PACKETS
    samples = scrape(daemon)
    assert received(samples) == PACKETS + 4
    assert total(samples, "nodecache_drops_total") == silences
    assert total(samples, "coredns_dns_responses_total") == replies + 4
    assert total(samples, "coredns_panics_total") == 0
    assert "[ERROR]" not in daemon.log()


# Everything that may answer, change or look at a query, in one block.
DIRECTIVES = f"""force_tcp
    }}
    log
    bufsize 1100
    dns64 {{
        allow_ipv4
    }}
    loadbalance
    rewrite name regex ^(.*)\\.wild\\.{ORIGIN.replace(".", "[.]")}\\.$ {{1}}.{ORIGIN} answer auto
    rewrite ttl suffix .{ORIGIN}. 5-90
    template IN TXT {ORIGIN} {{
        match ^short[.]
        answer "{{{{ .Name }}}} 60 IN TXT {{{{ .Type }}}}"
        fallthrough
    }}
    hosts {{
        192.0.2.99 odd.{ORIGIN}
        fallthrough
    }}
    whoami
    timeouts {{
        idle 9s"""


@pytest.mark.timeout(240)
def test_mutated_packets_do_no_harm_to_any_directive(
    daemon_for: StartDaemon, knot: Upstream
) -> None:
    daemon = daemon_for(knot, cache=CACHE, options=DIRECTIVES)
    chance = random.Random(20_261_121)
    seeds = make_seeds()
    packets = (mutate(chance.choice(seeds), chance) for _ in range(WARM_PACKETS))
    with udp_socket(daemon) as sock:
        replies, silences = send_mutated(sock, packets, WARM_PACKETS)
    assert replies + silences == WARM_PACKETS
    samples = scrape(daemon)
    assert total(samples, "nodecache_drops_total") == silences
    assert total(samples, "coredns_panics_total") == 0
    assert total(samples, "coredns_dns_responses_total", plugin="template") > 0
    assert total(samples, "coredns_dns_responses_total", plugin="hosts") > 0
    assert total(samples, "coredns_dns64_requests_translated_total") > 0
    assert all(line.startswith("[INFO] ") for line in daemon.log().splitlines())


def test_mutated_messages_over_tcp_leave_the_daemon_serving(
    daemon_for: StartDaemon, knot: Upstream
) -> None:
    daemon = daemon_for(knot, cache=CACHE)
    chance = random.Random(7)
    seeds = make_seeds()
    for number in range(STREAMS // 2):
        packet = mutate(chance.choice(seeds), chance)
        send_one(daemon, packet)
        if number % 100 == 0:
            assert addresses(ask(daemon, f"plain.{ORIGIN}", tcp=True)) == ["192.0.2.1"]
    for _ in range(STREAMS // 2):
        send_mutated_stream(daemon, mutate(framed([chance.choice(seeds)] * 2), chance))
    assert addresses(ask(daemon, f"plain.{ORIGIN}", tcp=True)) == ["192.0.2.1"]
    samples = scrape(daemon)
    assert total(samples, "coredns_panics_total") == 0
    assert total(samples, "nodecache_pending_exchanges") == 0


def send_one(daemon: Daemon, packet: bytes) -> None:
    """Sends a mutated message in a sound frame: its reply, if due, then the end."""
    with tcp_socket(daemon) as sock:
        sock.sendall(framed([packet]))
        sock.shutdown(socket.SHUT_WR)
        reply = read_message(sock)
        if packet and is_answered(packet):
            assert reply[:2] == packet[:2]
            assert reply[2] & 0x80
        else:
            assert reply == b""


def send_mutated_stream(daemon: Daemon, octets: bytes) -> None:
    """Sends a stream whose frames are broken too: whatever comes back is whole messages."""
    with tcp_socket(daemon) as sock:
        sock.sendall(octets)
        sock.shutdown(socket.SHUT_WR)
        while reply := read_message(sock):
            assert len(reply) >= 12
            assert reply[2] & 0x80
