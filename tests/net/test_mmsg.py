from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from nodecache.net.mmsg import SLOT_OCTETS, SLOTS, Batch, seal
from nodecache.net.pktinfo import keep_destination


class Sockets:
    """A batch on a bound socket, and one client of it."""

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((host, 0))
        self.client = socket.socket(family, socket.SOCK_DGRAM)
        self.client.settimeout(5)
        self.client.connect(self.sock.getsockname())
        self.batch = Batch(self.sock, keeps_destination=False)

    def received(self) -> list[bytes]:
        lengths = self.batch.receive()
        starts = [span[2] for span in self.batch.spans]
        return [
            self.batch.octets[start : start + length]
            for start, length in zip(starts, lengths, strict=False)
        ]

    def set_reply(self, slot: int, reply: bytes) -> None:
        self.batch.iovecs[self.batch.spans[slot][3]] = seal(reply)


@pytest.fixture(params=["127.0.0.1", "::1"])
def bed(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    bed = Sockets(request.param)
    yield bed
    bed.sock.close()
    bed.client.close()


def test_nothing_there_is_an_empty_batch(bed: Sockets) -> None:
    assert bed.batch.receive() == ()


def test_datagrams_come_in_order_whatever_their_length(bed: Sockets) -> None:
    sent = [b"", b"1", bytes(512), b"\xff" * SLOT_OCTETS]
    for octets in sent:
        bed.client.send(octets)
    assert bed.received() == sent
    assert bed.batch.receive() == ()


def test_longer_datagram_is_cut_and_leaves_its_neighbours_alone(bed: Sockets) -> None:
    for octets in (b"before", b"\xee" * 9000, b"behind"):
        bed.client.send(octets)
    assert bed.received() == [b"before", b"\xee" * SLOT_OCTETS, b"behind"]


def test_more_than_a_batch_waits_for_the_next(bed: Sockets) -> None:
    sent = [n.to_bytes(2, "big") for n in range(SLOTS + 5)]
    for octets in sent:
        bed.client.send(octets)
    assert bed.received() == sent[:SLOTS]
    assert bed.received() == sent[SLOTS:]


def test_reply_is_the_id_received_and_the_sealed_octets(bed: Sockets) -> None:
    replies = [f"reply {n}".encode() * (n + 1) for n in range(SLOTS)]
    for n in range(SLOTS):
        bed.client.send(n.to_bytes(2, "big") + b"query")
    assert len(bed.received()) == SLOTS
    for n, reply in enumerate(replies):
        bed.set_reply(n, reply)
        assert bed.batch.reply(n) == n.to_bytes(2, "big") + reply
    assert bed.batch.send(0, SLOTS) == SLOTS
    expected = [n.to_bytes(2, "big") + reply for n, reply in enumerate(replies)]
    assert [bed.client.recv(4096) for _ in range(SLOTS)] == expected


def test_run_in_the_middle_is_sent_alone(bed: Sockets) -> None:
    for n in range(4):
        bed.client.send(bytes([0, n]))
    bed.received()
    reply = b"x"
    for n in (1, 2):
        bed.set_reply(n, reply)
    assert bed.batch.send(1, 2) == 2
    assert [bed.client.recv(16) for _ in range(2)] == [b"\0\1x", b"\0\2x"]


def test_send_late_answers_peers_of_an_earlier_batch(bed: Sockets) -> None:
    bed.client.send(b"first")
    bed.received()
    peer = bed.batch.peer(0)
    with socket.socket(bed.sock.family, socket.SOCK_DGRAM) as other:
        other.sendto(b"second", bed.sock.getsockname())
        bed.received()
    replies = [(b"reply %d" % n, peer) for n in range(70)]
    assert bed.batch.send_late(replies) == 64
    assert bed.batch.send_late(replies[64:]) == 6
    assert [bed.client.recv(64) for _ in range(70)] == [reply for reply, _ in replies]


def test_unsendable_reply_raises_the_errno(bed: Sockets) -> None:
    bed.client.send(b"query")
    bed.received()
    too_long = bytes(70_000)
    bed.set_reply(0, too_long)
    with pytest.raises(OSError, match="EMSGSIZE"):
        bed.batch.send(0, 1)
    with pytest.raises(OSError, match="EMSGSIZE"):
        bed.batch.send_late([(too_long, bed.batch.peer(0))])
    assert bed.batch.send_late([(b"good", bed.batch.peer(0)), (too_long, bed.batch.peer(0))]) == 1


def test_sending_stops_before_an_unsendable_reply(bed: Sockets) -> None:
    for n in range(3):
        bed.client.send(bytes([0, n]))
    bed.received()
    good, too_long = b"good", bytes(70_000)
    for n, reply in enumerate([good, too_long, good]):
        bed.set_reply(n, reply)
    assert bed.batch.send(0, 3) == 1
    assert bed.batch.send(2, 1) == 1


def test_peer_with_port_0_raises_instead_of_being_waited_for() -> None:
    bed = Sockets("127.0.0.1")
    bed.client.send(b"query")
    bed.received()
    peer = bytearray(bed.batch.peer(0))
    peer[2:4] = b"\0\0"
    with pytest.raises(OSError, match="EINVAL"):
        bed.batch.send_late([(b"reply", bytes(peer))])
    bed.sock.close()
    bed.client.close()


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.9"), ("::", "::1")])
def test_destination_is_kept_without_the_interface(host: str, asked: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sock,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        keep_destination(sock)
        sock.bind((host, 0))
        batch = Batch(sock, keeps_destination=True)
        client.sendto(b"query", (asked, sock.getsockname()[1]))
        assert batch.receive() == (5,)
        info = batch.peer(0)[32 + 16 :]
        address, interface = (info[:16], info[16:20]) if ":" in host else (info[4:8], info[:4])
    assert address == socket.inet_pton(family, asked)
    assert interface == bytes(4)


def test_closed_socket_raises() -> None:
    bed = Sockets("127.0.0.1")
    bed.sock.close()
    bed.client.close()
    with pytest.raises(OSError, match="EBADF"):
        bed.batch.receive()
