"""Predecessors that hang, lie or die: given up within the bound, and nothing stays open."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import pytest

from nodecache.config.model import Address
from nodecache.errors import HandoverError
from nodecache.net.sockets import has_ipv6, open_http, open_tcp, open_udp
from nodecache.process import successor
from nodecache.process.descriptors import open_memfd, send_once
from nodecache.process.handover import (
    HANDOVER,
    SOCKET_FILE,
    Batch,
    Declined,
    Hello,
    Said,
    Welcome,
    Word,
    compose_message,
    network_id,
    open_handover_socket,
)
from nodecache.process.successor import Inheritance, take_over
from tests.process.memory import sealed

HELLO = Hello("1.1.0", ("127.0.0.1",), 3, network_id())
LIAR = replace(HELLO, version="0.6.6")
WITHIN_S = 20.0
SILENCE_S = 0.3

Script = Callable[[socket.socket], None]
Part = bytes | tuple[Said, Sequence[int]]


def count_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def wait_for_descriptors(most: int) -> None:
    """Waits until no more are open: what the script of the other end holds closes in its time."""
    deadline = monotonic() + 10
    while count_descriptors() > most:
        assert monotonic() < deadline, "descriptors stay open"
        sleep(0.01)


class Predecessor:
    """Follows a script on the first connection, in a thread of its own, then waits to hang up."""

    def __init__(self, rundir: Path, script: Script) -> None:
        self.listener = open_handover_socket(rundir)
        self.listener.settimeout(20)
        self._script = script
        self._may_end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError), self.listener.accept()[0] as sock:
            sock.settimeout(20)
            self._script(sock)
            self._may_end.wait(20)

    def close(self) -> None:
        self._may_end.set()
        # For a script that nobody dialled.
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()


@contextmanager
def predecessor(rundir: Path, script: Script) -> Iterator[Predecessor]:
    with closing(Predecessor(rundir, script)) as found:
        yield found


def says(*parts: Part, hangs_up: bool = False) -> Script:
    """Returns a script that hears a hello and then says all parts."""

    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        for part in parts:
            if isinstance(part, bytes):
                sock.send(part)
            else:
                send_once(sock, *part)
        if hangs_up:
            sock.shutdown(socket.SHUT_RDWR)

    return script


def refused(rundir: Path, script: Script, within_s: float = WITHIN_S) -> str:
    """Returns why a take-over came to nothing; nothing may stay open, nor take too long."""
    with predecessor(rundir, script):
        before = count_descriptors()
        began_at = monotonic()
        with pytest.raises(HandoverError) as error:
            take_over(rundir, HELLO, within_s)
        assert monotonic() - began_at < WITHIN_S
        # The connection that the other end accepted is still open.
        wait_for_descriptors(before + 1)
    return str(error.value)


@pytest.fixture
def sockets() -> Iterator[dict[str, socket.socket]]:
    """One of each kind, by its right name."""
    udp, tcp = (opener(Address("127.0.0.1", 0)) for opener in (open_udp, open_tcp))
    http = open_tcp(Address("0.0.0.0", 0))
    yield {
        f"udp {Address(*udp.getsockname())}": udp,
        f"tcp {Address(*tcp.getsockname())}": tcp,
        f"http {Address(*http.getsockname())}": http,
    }
    for sock in (udp, tcp, http):
        sock.close()


def numbers(sockets: dict[str, socket.socket]) -> list[int]:
    return [sock.fileno() for sock in sockets.values()]


# What it says.


@pytest.mark.parametrize("hears", [True, False])
def test_silence_is_given_up_within_the_bound(tmp_path: Path, hears: bool) -> None:
    script = says() if hears else lambda sock: None
    assert refused(tmp_path, script, SILENCE_S) == "the predecessor gave no answer within 0.3 s"


def test_a_predecessor_that_never_accepts_is_given_up(tmp_path: Path) -> None:
    with closing(open_handover_socket(tmp_path)):
        before = count_descriptors()
        with pytest.raises(HandoverError, match="no answer within"):
            take_over(tmp_path, HELLO, SILENCE_S)
        assert count_descriptors() == before


def test_a_full_backlog_is_an_error_at_once(tmp_path: Path) -> None:
    with closing(open_handover_socket(tmp_path)):
        waiting: list[socket.socket] = []
        with suppress(BlockingIOError):
            while len(waiting) < 100:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(tmp_path / SOCKET_FILE))
        assert 5 < len(waiting) < 20
        with pytest.raises(HandoverError, match="too many others wait"):
            take_over(tmp_path, HELLO, WITHIN_S)
        for sock in waiting:
            sock.close()


WELCOME = compose_message(Welcome(LIAR, 1, 0))


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"\0" * 30, "no message"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no message"),
        (WELCOME[:40], "no message"),
        (b'{"a": "' + b"x" * 150_000 + b'"}', "more than 32768 octets at once"),
        (WELCOME.replace(b'"protocol": 1', b'"protocol": 2'), "speaks version 2 of the hand-over"),
        (WELCOME.replace(b'"sockets": 1', b'"sockets": 1025'), '"sockets" is not a number'),
        (WELCOME.replace(b'"snapshot_octets": 0', b'"snapshot_octets": 268435457'), "268435456"),
        (compose_message(HELLO), "spoke out of turn"),
        (compose_message(Word.LEAVING), "spoke out of turn"),
        (compose_message(Declined("not today\x1b[2J")), r"refuses: not today\x1b[2J"),
    ],
)
def test_a_wrong_welcome_is_refused(tmp_path: Path, octets: bytes, reason: str) -> None:
    assert reason in refused(tmp_path, says(octets))


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (replace(LIAR, network=1), "different network namespaces"),
        (replace(LIAR, addresses=("127.0.0.2",)), "no -localip in common"),
    ],
)
def test_a_welcome_from_a_stranger_is_refused(tmp_path: Path, identity: Hello, reason: str) -> None:
    assert reason in refused(tmp_path, says((Welcome(identity, 1, 0), [])))


@pytest.mark.parametrize("parts", [(), (WELCOME,)])
def test_a_predecessor_that_dies_in_between_is_named(
    tmp_path: Path, parts: tuple[bytes, ...]
) -> None:
    assert refused(tmp_path, says(*parts, hangs_up=True)) == "the other side went away"


def test_one_that_says_little_by_little_is_given_up_all_the_same(tmp_path: Path) -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        send_once(sock, Welcome(LIAR, 1024, 0))
        one = open_udp(Address("127.0.0.1", 0))
        with closing(one), suppress(OSError):
            for port in range(1, 1024):
                send_once(sock, Batch((f"udp 127.0.0.1:{port}",)), [one.fileno()])
                threading.Event().wait(0.05)

    assert "no answer within 0.3 s" in refused(tmp_path, script, SILENCE_S)


def test_a_refusal_among_the_sockets_is_named(tmp_path: Path) -> None:
    parts: list[Part] = [(Welcome(LIAR, 9, 0), []), (Declined("changed my mind"), [])]
    assert "refuses: changed my mind" in refused(tmp_path, says(*parts))


# What it sends along.


def test_descriptors_in_a_wrong_number_are_refused(
    tmp_path: Path, sockets: dict[str, socket.socket]
) -> None:
    names, right = tuple(sockets), numbers(sockets)
    for sent in ([], right[:2], [*right, right[0]], right * 50):
        parts: list[Part] = [(Welcome(LIAR, 3, 0), []), (Batch(names), sent)]
        reason = refused(tmp_path, says(*parts))
        assert "a wrong number of descriptors" in reason or "were lost" in reason


@pytest.mark.parametrize("octets", [0, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 200])
def test_a_welcome_with_a_wrong_number_of_descriptors_is_refused(
    tmp_path: Path, octets: int, count: int
) -> None:
    reason = refused(tmp_path, says((Welcome(LIAR, 1, octets), [0] * count), hangs_up=True))
    if count == bool(octets):
        assert reason == "the other side went away"
    else:
        assert "wrong number of descriptors" in reason or "were lost" in reason


def test_descriptors_beside_nonsense_are_closed(tmp_path: Path) -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        rights = socket.SCM_RIGHTS, b"\0" * 4 * 100
        sock.sendmsg([b"nonsense"], [(socket.SOL_SOCKET, *rights)])

    assert "no message" in refused(tmp_path, script)


@pytest.mark.parametrize("promised", [2, 4])
def test_other_sockets_than_promised_are_refused(
    tmp_path: Path, sockets: dict[str, socket.socket], promised: int
) -> None:
    batch = (Batch(tuple(sockets)), numbers(sockets))
    script = says((Welcome(LIAR, promised, 0), []), batch, batch)
    assert "other sockets than it promised" in refused(tmp_path, script)


def test_names_that_come_twice_and_a_missing_listener_are_refused(
    tmp_path: Path, sockets: dict[str, socket.socket]
) -> None:
    name, sock = next(iter(sockets.items()))
    twice = says((Welcome(LIAR, 2, 0), []), (Batch((name, name)), [sock.fileno()] * 2))
    assert "other sockets than it promised" in refused(tmp_path, twice)
    alone = says((Welcome(LIAR, 1, 0), []), (Batch((name,)), [sock.fileno()]))
    assert "other sockets than it promised" in refused(tmp_path, alone)


def test_an_empty_batch_ends_it(tmp_path: Path) -> None:
    script = says((Welcome(LIAR, 3, 0), []), (Batch(()), []))
    assert "a wrong number of descriptors" in refused(tmp_path, script)


def refused_beside_listener(tmp_path: Path, name: str, descriptor: int) -> str:
    """Returns why a socket is refused that comes together with the right listener."""

    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        send_once(sock, Welcome(LIAR, 2, 0))
        with closing(open_handover_socket(tmp_path / "other")) as listener:
            send_once(sock, Batch((name, HANDOVER)), [descriptor, listener.fileno()])

    return refused(tmp_path, script)


def test_a_file_under_the_name_of_a_socket_is_refused(tmp_path: Path) -> None:
    with Path("/dev/null").open("rb") as file:
        reason = refused_beside_listener(tmp_path, "udp 127.0.0.1:53", file.fileno())
    assert reason == "udp 127.0.0.1:53 from the predecessor is no socket"


@pytest.mark.parametrize(
    "name",
    [
        "udp 127.0.0.1:{tcp}",
        "tcp 127.0.0.1:{udp}",
        "http 127.0.0.1:{udp}",
        "udp 127.0.0.2:{udp}",
        "udp [::1]:{udp}",
        "udp [127.0.0.2]:{udp}",
        "udp localhost:{udp}",
        "udp 127.0.0.1:0",
        "udp 127.0.0.1:99999",
        "udp 127.0.0.1",
        "udp",
        "udp :{udp}",
        "udp []:{udp}",
        "quic 127.0.0.1:{udp}",
        "udp  127.0.0.1:{udp}",
        "udp 127.0.0.1:{udp}\n",
        "udp 127.0.0.1:\u0665\u0663",
        "udp [fe80::1%nowhere0]:{udp}",
        "udp [::1%\u00e9]:53",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_socket_under_another_name_is_refused(
    tmp_path: Path, sockets: dict[str, socket.socket], name: str, kind: str
) -> None:
    by_kind = {known.partition(" ")[0]: sock for known, sock in sockets.items()}
    ports = {known: sock.getsockname()[1] for known, sock in by_kind.items()}
    name = name.format(**ports)
    reason = refused_beside_listener(tmp_path, name, by_kind[kind].fileno())
    assert "is another socket than that" in reason
    assert "\n" not in reason


def test_sockets_that_do_not_listen_are_refused(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        name = f"tcp {Address(*bound.getsockname())}"
        assert "another socket" in refused_beside_listener(tmp_path, name, bound.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:
        name = "udp 0.0.0.0:1"
        assert "another socket" in refused_beside_listener(tmp_path, name, unbound.fileno())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        assert "another socket" in refused_beside_listener(tmp_path, name, unix.fileno())


def test_another_kind_of_listener_for_successors_is_refused(tmp_path: Path) -> None:
    kinds = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_SEQPACKET)
    places = (f"{SOCKET_FILE}.a", "elsewhere", f"{SOCKET_FILE}.b")
    for kind, place in zip(kinds, places, strict=True):
        with socket.socket(socket.AF_UNIX, kind) as sock:
            sock.bind(str(tmp_path / place))
            if place != f"{SOCKET_FILE}.b":
                sock.listen()
            script = says((Welcome(LIAR, 1, 0), []), (Batch((HANDOVER,)), [sock.fileno()]))
            assert "handover from the predecessor is another" in refused(tmp_path, script)
    with open_udp(Address("127.0.0.1", 0)) as sock:
        script = says((Welcome(LIAR, 1, 0), []), (Batch((HANDOVER,)), [sock.fileno()]))
        assert "handover from the predecessor is another" in refused(tmp_path, script)


# What is right comes through, whatever the snapshot is.


def inherit(
    tmp_path: Path, sockets: dict[str, socket.socket], octets: int, snapshot: int
) -> tuple[Inheritance, Predecessor]:
    """Returns a whole inheritance from a predecessor that then hears and says nothing."""

    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        send_once(sock, Welcome(LIAR, len(sockets) + 1, octets), [snapshot] if octets else [])
        own = [*numbers(sockets), old.listener.fileno()]
        send_once(sock, Batch((*sockets, HANDOVER)), own)

    old = Predecessor(tmp_path, script)
    found = take_over(tmp_path, HELLO, WITHIN_S)
    assert found is not None
    return found, old


@pytest.mark.parametrize("fault", ["size", "seals", "kind"])
def test_an_unfit_snapshot_is_left_out(
    tmp_path: Path,
    sockets: dict[str, socket.socket],
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    descriptor = open_memfd() if fault == "seals" else sealed(b"cache")
    if fault == "seals":
        os.write(descriptor, b"cache")
    if fault == "kind":
        os.close(descriptor)
        descriptor, writer = os.pipe()
        os.close(writer)
    inheritance, old = inherit(tmp_path, sockets, 6 if fault == "size" else 5, descriptor)
    os.close(descriptor)
    with closing(old), inheritance:
        assert inheritance.snapshot is None
        assert inheritance.sockets.keys() == sockets.keys() | {HANDOVER}
    assert "the predecessor's cache is left out" in caplog.text


def test_abandoning_closes_everything(tmp_path: Path, sockets: dict[str, socket.socket]) -> None:
    before = count_descriptors()
    descriptor = sealed(b"cache")
    inheritance, old = inherit(tmp_path, sockets, 5, descriptor)
    os.close(descriptor)
    assert inheritance.snapshot is not None
    assert bytes(inheritance.snapshot) == b"cache"
    inheritance.abandon()
    old.close()
    assert inheritance.snapshot.closed
    assert count_descriptors() == before


def test_abandoning_waits_for_no_reader_of_the_snapshot(
    tmp_path: Path, sockets: dict[str, socket.socket]
) -> None:
    descriptor = sealed(b"cache")
    inheritance, old = inherit(tmp_path, sockets, 5, descriptor)
    os.close(descriptor)
    assert inheritance.snapshot is not None
    with closing(old), memoryview(inheritance.snapshot) as view:
        inheritance.abandon()
        assert view.tobytes() == b"cache"


def test_a_predecessor_that_hangs_at_the_end_keeps_us_no_longer_than_the_bound(
    tmp_path: Path,
    sockets: dict[str, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(successor, "_CONFIRM_S", 0.2)
    inheritance, old = inherit(tmp_path, sockets, 0, 0)
    with closing(old):
        assert inheritance.confirm() is False
    assert "gave no answer within 0.2 s after we took over" in caplog.text
    for sock in inheritance.sockets.values():
        sock.close()


@pytest.mark.parametrize("octets", [b"nonsense", compose_message(Word.SERVING), b"x" * 100_000])
def test_nonsense_at_the_end_changes_nothing(
    tmp_path: Path, sockets: dict[str, socket.socket], octets: bytes
) -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        send_once(sock, Welcome(LIAR, 1, 0))
        send_once(sock, Batch((HANDOVER,)), [old.listener.fileno()])
        sock.recv(65536)
        rights = socket.SCM_RIGHTS, b"\0" * 4 * 10
        sock.sendmsg([octets], [(socket.SOL_SOCKET, *rights)])

    with predecessor(tmp_path, script) as old:
        inheritance = take_over(tmp_path, HELLO, WITHIN_S)
        assert inheritance is not None
        before = count_descriptors()
        assert inheritance.confirm() is False
        assert count_descriptors() < before
        inheritance.sockets[HANDOVER].close()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("written", ["[::1]", "[0:0::1]", "[::1%lo]"])
def test_an_ipv6_address_may_be_written_in_any_way(tmp_path: Path, written: str) -> None:
    with closing(open_udp(Address("::1", 0))) as sock:
        sockets = {f"udp {written}:{sock.getsockname()[1]}": sock}
        if "%" in written:
            name = next(iter(sockets))
            assert "another socket" in refused_beside_listener(tmp_path, name, sock.fileno())
            return
        inheritance, old = inherit(tmp_path, sockets, 0, 0)
        with closing(old), inheritance:
            assert inheritance.sockets.keys() == sockets.keys() | {HANDOVER}


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1"])
def test_pages_may_be_on_every_address(tmp_path: Path, host: str) -> None:
    with closing(open_http(Address(host, 0))) as sock:
        sockets = {f"http {Address(host, sock.getsockname()[1])}": sock}
        inheritance, old = inherit(tmp_path, sockets, 0, 0)
        with closing(old), inheritance:
            assert inheritance.sockets.keys() == sockets.keys() | {HANDOVER}


def test_a_predecessor_of_another_socket_type_is_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(tmp_path / SOCKET_FILE))
        sock.listen()
        with pytest.raises(HandoverError, match="cannot talk to the predecessor: protocol wrong"):
            take_over(tmp_path, HELLO, WITHIN_S)


def test_json_of_another_program_is_refused(tmp_path: Path) -> None:
    script = says(json.dumps({"jsonrpc": "2.0", "result": []}).encode())
    assert '"protocol" is not a number' in refused(tmp_path, script)
