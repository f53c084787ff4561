"""The network between node and upstreams behaves as Linux and TCP do."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from nodecache.config.model import Address, Transport, Upstream
from nodecache.counters import Counters
from nodecache.upstreams.connection import Connection, State
from nodecache.upstreams.forwarder import Forwarder
from nodecache.wire.framing import Deframer
from tests.cache.building import query
from tests.simulator.clock import Clock
from tests.simulator.history import Fault, Place
from tests.simulator.network import Network
from tests.simulator.servers import Asked
from tests.simulator.zone import Saying, Sense, Zone

TCP = Upstream(Address("192.0.2.1", 53), Transport.TCP)
UDP = Upstream(Address("192.0.2.1", 53), Transport.UDP)


@dataclass
class Cable:
    """A network, and a node that only takes notes."""

    place: Place = field(default_factory=Place)
    got: list[tuple[float, bytes]] = field(default_factory=list)
    ended_at: float | None = None
    opened_at: float | None = None
    said: list[Saying] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Clock(0.0)
        self.network = Network((self.place,), Zone(), self.clock, random.Random(1), self)
        self.network.node = self
        self._pool = Forwarder(Counters(), random.random, lambda: 0)

    def open(self, upstream: Upstream = TCP, out: bytes = b"") -> Connection:
        connection = Connection(self._pool.pool(upstream), self.clock.now)
        if out:
            connection.become(State.READY)
            connection.out.append(out)
        self.network.open(connection, 0)
        return connection

    def write(self, connection: Connection, octets: bytes) -> None:
        connection.out.append(len(octets).to_bytes(2, "big") + octets)
        self.network.write(connection)

    def run(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.next_at <= end:
            self.clock.step()
        self.clock.now = end

    def begin(self, kind: str, value: float = 0.0) -> Fault:
        fault = Fault(kind, 0.0, 0.0, value=value)
        self.network.begin(fault)
        return fault

    # What the network tells the node, and who watches.

    def connected(self, connection: Connection) -> None:
        connection.become(State.READY)
        self.opened_at = self.clock.now

    def received(self, connection: Connection, octets: bytes) -> None:
        self.got.append((self.clock.now, octets))

    def closed(self, connection: Connection) -> None:
        connection.state = State.CLOSED
        self.ended_at = self.clock.now

    def sent(self, asked: Asked, connection: Connection) -> None:
        self.asked.append(asked)

    def arrived(self, saying: Saying, connection: Connection) -> None:
        self.said.append(saying)

    def lost(self, connection: Connection) -> None: ...

    def opened(self, place: int) -> None: ...


@pytest.fixture
def bed() -> Cable:
    return Cable()


def messages(bed: Cable) -> list[bytes]:
    deframer = Deframer()
    return [each for _, octets in bed.got for each in deframer.feed(octets)]


def test_a_connection_opens_after_a_round_trip_and_answers_after_another(bed: Cable) -> None:
    connection = bed.open()
    bed.run(0.1)
    assert bed.opened_at == pytest.approx(0.001)
    bed.write(connection, query("n1.sim"))
    bed.run(1)
    assert bed.got[-1][0] == pytest.approx(0.1012)
    assert [saying.sense for saying in bed.said] == [Sense.TRUE]


def test_octets_are_cut_anywhere_and_stay_in_order(bed: Cable) -> None:
    connection = bed.open()
    bed.run(0.1)
    for number in range(40):
        bed.write(connection, query(f"n{number}.sim", ident=number))
    bed.run(1)
    assert len(bed.got) > 40
    assert sorted(message[1] for message in messages(bed)) == list(range(40))


def test_in_order_a_slow_answer_holds_up_those_behind_it() -> None:
    bed = Cable(Place(is_ordered=True))
    connection = bed.open()
    bed.run(0.1)
    slow = bed.begin("slow", 2.0)
    bed.write(connection, query("n1.sim", ident=1))
    bed.run(0.1)
    bed.network.end(slow)
    bed.write(connection, query("n2.sim", ident=2))
    bed.run(1)
    assert bed.got == []
    bed.run(2)
    assert [message[1] for message in messages(bed)] == [1, 2]


def test_octets_that_nobody_acknowledges_end_a_connection_after_2_s(bed: Cable) -> None:
    connection = bed.open()
    bed.run(1)
    bed.begin("black_hole")
    bed.run(0.5)
    bed.write(connection, query("n1.sim"))
    bed.run(10)
    assert bed.ended_at == pytest.approx(3.5)


def test_a_black_hole_that_ends_in_time_costs_retransmissions_only(bed: Cable) -> None:
    connection = bed.open()
    bed.run(1)
    hole = bed.begin("black_hole")
    bed.write(connection, query("n1.sim"))
    bed.run(1)
    bed.network.end(hole)
    bed.run(1)
    assert bed.ended_at is None
    assert 2 <= bed.got[-1][0] <= 2.6


def test_keepalive_ends_an_idle_connection_into_a_black_hole(bed: Cable) -> None:
    bed.open()
    bed.run(1)
    bed.begin("black_hole")
    bed.run(10)
    assert bed.ended_at == pytest.approx(4.0)


def test_a_server_that_stands_still_keeps_its_connections(bed: Cable) -> None:
    connection = bed.open()
    bed.run(1)
    hangs = bed.begin("hangs")
    bed.write(connection, query("n1.sim"))
    bed.run(100)
    assert bed.ended_at is None
    assert bed.got == []
    bed.network.end(hangs)
    bed.run(1)
    assert len(messages(bed)) == 1


def test_a_killed_server_resets_and_refuses(bed: Cable) -> None:
    bed.open()
    bed.run(1)
    bed.begin("dies")
    bed.run(1)
    assert bed.ended_at == pytest.approx(1.0005)
    bed.ended_at = None
    bed.open()
    bed.run(1)
    assert bed.ended_at == pytest.approx(2.001)


def test_a_lost_syn_is_repeated_after_a_second(bed: Cable) -> None:
    bed.begin("syn_lost", 0.5)
    bed.network.dice = Lucky()
    bed.open()
    bed.run(5)
    assert bed.opened_at == pytest.approx(1.001)


class Lucky(random.Random):
    """Chooses the first, loses one packet and no other."""

    def __init__(self) -> None:
        super().__init__(1)
        self._throws = [0.0, 0.0]

    def random(self) -> float:
        return self._throws.pop() if self._throws else 0.9


def test_what_the_node_closed_is_noted_and_not_delivered(bed: Cable) -> None:
    connection = bed.open()
    bed.run(1)
    bed.begin("slow", 2.0)
    bed.write(connection, query("n1.sim"))
    bed.run(1)
    connection.state = State.CLOSED
    bed.network.close(connection)
    bed.run(5)
    assert bed.got == []
    assert len(bed.said) == 1


def test_a_datagram_to_a_dead_server_is_refused(bed: Cable) -> None:
    bed.begin("refuses")
    bed.open(UDP, query("n1.sim"))
    bed.run(1)
    assert bed.ended_at == pytest.approx(0.001)


def test_datagrams_above_the_limit_are_lost(bed: Cable) -> None:
    bed.begin("udp_limit", 512)
    edns = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    for name in ("n1.sim", "big1.sim"):
        bed.open(UDP, query(name, edns=edns))
    bed.run(1)
    assert len(bed.got) == 1


def test_without_edns_what_is_too_long_is_truncated(bed: Cable) -> None:
    bed.open(UDP, query("big1.sim"))
    bed.run(1)
    assert [saying.sense for saying in bed.said] == [Sense.TRUNCATED]
