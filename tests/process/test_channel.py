from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodecache.process.channel import MAX_MESSAGE_OCTETS, KeeperLink, Notice, WorkerLink

SELF_CHECK = b"\0\0\x78" + bytes(9) + b"a mark"
Ends = tuple[KeeperLink, WorkerLink, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The worker's end, the keeper's end, and the worker's bare socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link, peer = KeeperLink(theirs), WorkerLink(ours)
    yield link, peer, theirs
    link.close()
    peer.close()


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def next_notice(peer: WorkerLink) -> Notice:
    message = peer.receive()
    assert message is not None
    return message


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # what iterdir would open counts too


def test_held_socket_is_the_very_same_to_the_kernel(ends: Ends, udp: socket.socket) -> None:
    link, peer, _ = ends
    assert link.hold("udp 127.0.0.1:53", udp)
    message = next_notice(peer)
    assert (message.kind, message.name) == ("hold", "udp 127.0.0.1:53")
    assert message.sock is not None
    with message.sock as sock:
        assert os.fstat(sock.fileno()).st_ino == os.fstat(udp.fileno()).st_ino
        assert sock.getsockname() == udp.getsockname()
        assert not os.get_inheritable(sock.fileno())
        assert not sock.getblocking()


def test_worker_says_where_it_serves(ends: Ends) -> None:
    link, peer, _ = ends
    assert link.serving(SELF_CHECK, [("fd00::a", 53), ("10.0.0.1", 53)], [("10.0.0.1", 53)], 2.5)
    serving = next_notice(peer).serving
    assert serving is not None
    assert serving.question == SELF_CHECK
    assert serving.addresses == [("fd00::a", 53), ("10.0.0.1", 53)]
    assert serving.refusing == [("10.0.0.1", 53)]
    assert serving.stuck_after_s == 2.5


def test_messages_come_in_order_and_end_with_the_worker(ends: Ends) -> None:
    link, peer, _ = ends
    assert link.release("handover")
    assert link.leaving()
    assert link.handed_over()
    kinds = [next_notice(peer).kind for _ in range(3)]
    assert kinds == ["release", "leaving", "handed_over"]
    assert not has_ended(peer)
    link.close()
    assert has_ended(peer)
    assert peer.broken == 0


def has_ended(peer: WorkerLink) -> bool:
    assert peer.receive() is None
    return peer.has_ended


def test_worker_notices_that_the_keeper_is_gone(ends: Ends) -> None:
    link, peer, _ = ends
    seen = [link.is_lost()]
    peer.close()
    seen += [link.is_lost(), link.leaving()]
    link.close()
    seen += [link.is_lost(), link.leaving()]
    assert seen == [False, True, False, True, False]


def test_keeper_that_does_not_read_costs_half_a_second_at_most(ends: Ends) -> None:
    link, _, _ = ends
    for _ in range(10_000):
        if not link.serving(bytes(512), [("10.0.0.1", 53)] * 256, [("x" * 30_000, 53)], 3):
            break
    else:
        pytest.fail("a link without end")
    assert not link.is_lost()


def test_message_that_is_too_large_is_not_sent(ends: Ends) -> None:
    link, peer, _ = ends
    assert not link.serving(SELF_CHECK, [], [("x" * MAX_MESSAGE_OCTETS, 53)], 3)
    assert peer.receive() is None
    assert peer.broken == 0


@pytest.mark.parametrize(
    "octets",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 60_000,
        b'{"say": "sing"}',
        b'{"say": ["hold"]}',
        b'{"say": "hold", "name": "udp x"}',
        b'{"say": "release"}',
        b'{"say": "release", "name": ""}',
        b'{"say": "release", "name": 5}',
        b'{"say": "release", "name": "' + b"x" * 201 + b'"}',
        b"x" * (MAX_MESSAGE_OCTETS + 1),
    ],
)
def test_broken_messages_are_passed_over(ends: Ends, octets: bytes) -> None:
    link, peer, bare = ends
    bare.send(octets)
    assert link.leaving()
    assert next_notice(peer).kind == "leaving"
    assert peer.broken == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question", "no hex"),
        ("question", "00" * 11),
        ("question", "00" * 513),
        ("addresses", None),
        ("addresses", [["10.0.0.1"]]),
        ("addresses", [["10.0.0.1", 0]]),
        ("addresses", [["10.0.0.1", True]]),
        ("addresses", [[1, 53]]),
        ("addresses", [["10.0.0.1", 53]] * 257),
        ("refusing", "words"),
        ("refusing", ["10.0.0.1"]),
        ("refusing", [["10.0.0.1", 53]] * 257),
        ("stuck_after_s", "3"),
        ("stuck_after_s", True),
        ("stuck_after_s", -1),
        ("stuck_after_s", 3601),
        ("stuck_after_s", float("nan")),
        ("stuck_after_s", 10**400),
    ],
)
def test_serving_with_nonsense_in_it_is_passed_over(ends: Ends, field: str, value: object) -> None:
    _, peer, bare = ends
    fields = {"question": SELF_CHECK.hex(), "addresses": [], "refusing": [], "stuck_after_s": 3}
    bare.send(json.dumps({"say": "serving", **fields}).encode())
    bare.send(json.dumps({"say": "serving", **fields, field: value}).encode())
    assert next_notice(peer).kind == "serving"
    assert peer.receive() is None
    assert peer.broken == 1


def test_descriptors_of_messages_without_use_for_them_are_closed(
    ends: Ends, udp: socket.socket
) -> None:
    _, peer, bare = ends
    before = open_descriptors()
    hold = b'{"say": "hold", "name": "udp x"}'
    tcp_hold = b'{"say": "hold", "name": "tcp x"}'
    read_end, write_end = os.pipe()
    for octets, numbers in [
        (b'{"say": "leaving"}', [udp.fileno()]),
        (hold, [udp.fileno()] * 2),
        (hold, [udp.fileno()] * 20),
        (hold, [read_end]),
        (tcp_hold, [udp.fileno()]),
        (b"", [udp.fileno()]),
    ]:
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))]
        bare.sendmsg([octets], control)
    os.close(read_end)
    os.close(write_end)
    assert next_notice(peer).kind == "leaving"
    assert peer.receive() is None
    assert peer.broken == 5
    assert not peer.has_ended
    assert open_descriptors() == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
KINDS = st.sampled_from(["hold", "release", "serving", "leaving", "handed_over"]) | JSON
FIELDS = st.fixed_dictionaries(
    {"say": KINDS},
    optional=dict.fromkeys(("name", "question", "addresses", "refusing", "stuck_after_s"), JSON),
)


@given(st.binary(min_size=1, max_size=200) | FIELDS.map(lambda fields: json.dumps(fields).encode()))
def test_whatever_comes_is_a_message_or_broken(octets: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer = WorkerLink(ours)
    with theirs:
        theirs.send(octets)
        message = peer.receive()
        assert (message is None) == (peer.broken == 1)
        assert not peer.has_ended
    peer.close()


def test_closing_the_link_closes_what_was_not_taken(udp: socket.socket) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        link = KeeperLink(theirs, {"udp x": udp}, {"restarts": 1})
        assert link.history == {"restarts": 1}
        link.close()
        assert udp.fileno() == -1
        assert link.fileno() == -1
