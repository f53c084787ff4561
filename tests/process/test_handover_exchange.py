"""Whole hand-overs between a server on either loop and successors that block."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from nodecache.config.model import Address
from nodecache.errors import HandoverError
from nodecache.net.sockets import has_ipv6, open_tcp, open_udp
from nodecache.process import predecessor
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
    parse_message,
)
from nodecache.process.predecessor import HandoverServer
from nodecache.process.successor import Inheritance, take_over
from tests.loops import Run, until
from tests.process.memory import sealed

OLD = Hello("1.0.0", ("127.0.0.1", "::1"), 3, network_id())
NEW = replace(OLD, version="1.1.0")
WITHIN_S = 20.0
CACHE = b"message" * 10_000
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nodecache")


async def snapshot_of_cache() -> int | None:
    return sealed(CACHE)


async def no_snapshot() -> int | None:
    return None


@dataclass
class Old:
    """A predecessor: its sockets, and what happened to it."""

    rundir: Path
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    confirmed: int = 0
    identity: Hello = OLD
    make_snapshot: Callable[[], Coroutine[Any, Any, int | None]] = snapshot_of_cache
    on_confirmed: Callable[[], None] = lambda: None

    def open(self) -> None:
        hosts = ["127.0.0.1", "127.5.3.1", *(["::1"] if has_ipv6() else [])]
        for host in hosts:
            tcp = open_tcp(Address(host, 0))
            address = Address(host, tcp.getsockname()[1])
            self.sockets |= {f"tcp {address}": tcp, f"udp {address}": open_udp(address)}
        http = open_tcp(Address("0.0.0.0", 0))
        self.sockets[f"http 0.0.0.0:{http.getsockname()[1]}"] = http

    def confirm(self) -> None:
        self.confirmed += 1
        self.on_confirmed()

    @contextmanager
    def serving(self, listener: socket.socket | None = None) -> Iterator[HandoverServer]:
        listener = listener or open_handover_socket(self.rundir)
        server = HandoverServer(
            listener,
            asyncio.get_running_loop(),
            self.identity,
            lambda: self.sockets,
            self.make_snapshot,
            self.confirm,
        )
        server.start()
        try:
            yield server
        finally:
            server.close()
            listener.close()

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Old]:
    old = Old(tmp_path)
    old.open()
    yield old
    old.close()


async def inherit(old: Old, hello: Hello = NEW, within_s: float = WITHIN_S) -> Inheritance:
    found = await asyncio.to_thread(take_over, old.rundir, hello, within_s)
    assert found is not None
    return found


def close_all(inheritance: Inheritance) -> None:
    for sock in inheritance.sockets.values():
        sock.close()
    if inheritance.snapshot is not None:
        inheritance.snapshot.close()


def dial(old: Old) -> socket.socket:
    """Returns a raw connection, for successors that behave badly."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    sock.connect(str(old.rundir / SOCKET_FILE))
    return sock


async def hear(sock: socket.socket) -> Said | None:
    """Returns the next message; None when the other side has closed."""
    octets = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), 20)
    return parse_message(octets) if octets else None


async def hear_sockets(sock: socket.socket) -> None:
    assert isinstance(await hear(sock), Welcome)
    assert isinstance(await hear(sock), Batch)


def count_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_a_successor_gets_the_very_sockets_and_the_cache(run: Run, old: Old) -> None:
    async def main() -> None:
        with old.serving():
            inheritance = await inherit(old)
            try:
                assert inheritance.version == "1.0.0"
                assert inheritance.sockets.keys() == old.sockets.keys() | {HANDOVER}
                for name, sock in old.sockets.items():
                    new = inheritance.sockets[name]
                    assert os.fstat(new.fileno()).st_ino == os.fstat(sock.fileno()).st_ino
                    assert not new.getblocking()
                    assert not new.get_inheritable()
                assert inheritance.snapshot is not None
                assert inheritance.snapshot[:] == CACHE
                assert old.confirmed == 0
                assert await asyncio.to_thread(inheritance.confirm) is True
                assert old.confirmed == 1
                assert inheritance.confirm() is True
                inheritance.abandon()
                assert all(sock.fileno() >= 0 for sock in inheritance.sockets.values())
            finally:
                close_all(inheritance)

    run(main())


def test_what_waits_in_the_kernel_is_read_by_the_successor(run: Run, old: Old) -> None:
    async def main() -> None:
        with old.serving():
            for name, sock in old.sockets.items():
                if name.startswith("udp"):
                    with socket.socket(sock.family, socket.SOCK_DGRAM) as client:
                        client.sendto(b"before " + name.encode(), sock.getsockname())
            inheritance = await inherit(old)
            await asyncio.to_thread(inheritance.confirm)
        old.close()
        try:
            for name, sock in inheritance.sockets.items():
                if name.startswith("udp"):
                    assert sock.recv(512) == b"before " + name.encode()
                elif name.startswith("tcp"):
                    with socket.create_connection(sock.getsockname()[:2], timeout=20):
                        pass
        finally:
            close_all(inheritance)

    run(main())


def test_daemons_follow_each_other_on_one_listening_socket(run: Run, old: Old) -> None:
    async def main() -> None:
        listener = None
        inode = 0
        for generation in range(4):
            with old.serving(listener):
                inheritance = await inherit(old)
                assert await asyncio.to_thread(inheritance.confirm) is True
            listener = inheritance.sockets.pop(HANDOVER)
            assert inode in (0, os.fstat(listener.fileno()).st_ino)
            inode = os.fstat(listener.fileno()).st_ino
            old.close()
            old.sockets = dict(inheritance.sockets)
            if inheritance.snapshot is not None:
                inheritance.snapshot.close()
            assert old.confirmed == generation + 1
        assert listener is not None
        listener.close()

    run(main())


def test_four_hundred_sockets_come_in_batches(run: Run, old: Old) -> None:
    for port_of in range(400):
        sock = open_udp(Address(f"127.9.{port_of // 200}.{port_of % 200}", 0))
        old.sockets[f"udp {Address(*sock.getsockname())}"] = sock

    async def main() -> None:
        with old.serving():
            inheritance = await inherit(old)
            assert inheritance.sockets.keys() == old.sockets.keys() | {HANDOVER}
            inheritance.abandon()

    run(main())


# No hand-over, and nobody is worse off.


def test_nobody_there_is_no_error(tmp_path: Path) -> None:
    assert take_over(tmp_path, NEW, 1) is None
    assert take_over(tmp_path / "missing", NEW, 1) is None
    open_handover_socket(tmp_path).close()
    assert take_over(tmp_path, NEW, 1) is None


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (replace(NEW, addresses=("127.0.0.9",)), "no -localip in common"),
        (replace(NEW, network=NEW.network + 1), "different network namespaces"),
    ],
)
def test_a_stranger_is_refused_with_the_reason(
    run: Run, old: Old, hello: Hello, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with old.serving():
            before = count_descriptors()
            with pytest.raises(HandoverError, match=reason):
                await inherit(old, hello)
            await until(lambda: reason in caplog.text)
            assert count_descriptors() == before
            (await inherit(old)).abandon()

    run(main())


def test_versions_that_differ_end_with_the_reason_on_both_sides(
    run: Run, old: Old, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with old.serving(), closing(dial(old)) as sock:
            sock.send(compose_message(NEW).replace(b'"protocol": 1', b'"protocol": 2'))
            answer = await hear(sock)
            assert isinstance(answer, Declined)
            assert "speaks version 2 of the hand-over, this program 1" in answer.reason
        assert "speaks version 2 of the hand-over, this program 1" in caplog.text

    run(main())


@pytest.mark.parametrize(
    "goes", ["before hello", "after hello", "with the sockets", "abandoning", "in a with"]
)
def test_a_successor_that_goes_away_changes_nothing(run: Run, old: Old, goes: str) -> None:
    async def main() -> None:
        with old.serving():
            before = count_descriptors()
            if goes in ("abandoning", "in a with"):
                inheritance = await inherit(old)
                if goes == "abandoning":
                    inheritance.abandon()
                    inheritance.abandon()
                with suppress(ZeroDivisionError), inheritance:
                    _ = 1 / 0
            else:
                sock = dial(old)
                if goes != "before hello":
                    sock.send(compose_message(NEW))
                if goes == "with the sockets":
                    await hear_sockets(sock)
                sock.close()
            await until(lambda: count_descriptors() == before)
            for sock in old.sockets.values():
                assert sock.getsockname()
            inheritance = await inherit(old)
            assert old.confirmed == 0
            assert await asyncio.to_thread(inheritance.confirm) is True
            close_all(inheritance)
            assert old.confirmed == 1

    run(main())


SUCCESSOR = """
import pathlib, sys, time
from nodecache.process.handover import Hello, network_id
from nodecache.process.successor import take_over
hello = Hello("1.1.0", ("127.0.0.1",), 3, network_id())
inheritance = take_over(pathlib.Path(sys.argv[1]), hello, 20)
print(len(inheritance.sockets), flush=True)
time.sleep(60)
"""


def test_a_successor_killed_with_the_sockets_in_hand_costs_nothing(run: Run, old: Old) -> None:
    async def main() -> None:
        with old.serving():
            command = [sys.executable, "-c", SUCCESSOR, str(old.rundir)]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert int(await process.stdout.readline()) == len(old.sockets) + 1
            sock = next(sock for name, sock in old.sockets.items() if name.startswith("udp"))
            with socket.socket(sock.family, socket.SOCK_DGRAM) as client:
                client.sendto(b"before", sock.getsockname())
                process.kill()
                await process.wait()
                client.sendto(b"after", sock.getsockname())
            assert [sock.recv(512), sock.recv(512)] == [b"before", b"after"]
            inheritance = await inherit(old)
            assert old.confirmed == 0
            assert await asyncio.to_thread(inheritance.confirm) is True
            close_all(inheritance)

    run(main())


@pytest.mark.parametrize("stalls", ["before hello", "before serving"])
def test_a_successor_that_stalls_is_given_up(
    run: Run, old: Old, stalls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessor, "_HELLO_S", 0.2)
    monkeypatch.setattr(predecessor, "_CONFIRM_S", 0.2)

    async def main() -> None:
        with old.serving(), closing(dial(old)) as sock:
            if stalls == "before serving":
                sock.send(compose_message(NEW))
                await hear_sockets(sock)
            answer = await hear(sock)
            assert isinstance(answer, Declined)
            assert "nothing came within 0.2 s" in answer.reason
            assert await hear(sock) is None
            assert old.confirmed == 0
            (await inherit(old)).abandon()

    run(main())


def test_a_successor_that_is_too_late_hears_that_the_predecessor_goes_on(
    run: Run, old: Old, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(predecessor, "_CONFIRM_S", 0.1)

    async def main() -> None:
        with old.serving():
            inheritance = await inherit(old)
            await until(lambda: "no hand-over, we go on" in caplog.text)
            with pytest.raises(HandoverError, match="the predecessor goes on: nothing came"):
                await asyncio.to_thread(inheritance.confirm)
            assert all(sock.fileno() >= 0 for sock in inheritance.sockets.values())
            inheritance.abandon()
            assert old.confirmed == 0

    run(main())


def test_a_word_that_came_while_the_predecessor_was_stopped_counts(
    run: Run, old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessor, "_CONFIRM_S", 0.3)

    async def main() -> None:
        with old.serving(), closing(dial(old)) as sock:
            sock.send(compose_message(NEW))
            await hear_sockets(sock)
            sock.send(compose_message(Word.SERVING))
            time.sleep(0.5)  # noqa: ASYNC251 # nothing runs, as after SIGSTOP
            assert await hear(sock) is Word.LEAVING
            assert old.confirmed == 1

    run(main())


NONSENSE = [
    b"{",
    b"GET / HTTP/1.1\r\n\r\n",
    b"x" * 100_000,
    compose_message(Word.LEAVING),
    compose_message(Batch(("udp 127.0.0.1:53",))),
    json.dumps({"protocol": 1, "type": "hello"}).encode(),
]


@pytest.mark.parametrize(
    ("when", "octets"),
    [
        *(("first", octets) for octets in [*NONSENSE, compose_message(Word.SERVING)]),
        *(("for serving", octets) for octets in [*NONSENSE, compose_message(NEW)]),
    ],
)
def test_a_successor_that_talks_nonsense_is_refused(
    run: Run, old: Old, when: str, octets: bytes
) -> None:
    async def main() -> None:
        with old.serving():
            before = count_descriptors()
            with closing(dial(old)) as sock:
                if when == "for serving":
                    sock.send(compose_message(NEW))
                    await hear_sockets(sock)
                sock.send(octets)
                assert isinstance(await hear(sock), Declined)
            await until(lambda: count_descriptors() == before)
            assert old.confirmed == 0

    run(main())


def test_descriptors_that_a_successor_sends_are_not_kept(run: Run, old: Old) -> None:
    async def main() -> None:
        with old.serving():
            before = count_descriptors()
            with closing(dial(old)) as sock:
                send_once(sock, NEW, [0] * 253)
                assert isinstance(await hear(sock), Declined)
            await until(lambda: count_descriptors() == before)

    run(main())


def test_of_two_successors_at_once_one_wins(run: Run, old: Old) -> None:
    async def main() -> None:
        with old.serving():
            first = await inherit(old)
            with pytest.raises(HandoverError, match="another successor is taking over"):
                await inherit(old)
            assert await asyncio.to_thread(first.confirm) is True
            with pytest.raises(HandoverError, match="no answer within"):
                await inherit(old, within_s=0.3)
            close_all(first)
            assert old.confirmed == 1

    run(main())


def test_a_crowd_of_successors_gets_one_winner_and_clear_errors(run: Run, old: Old) -> None:
    async def main() -> None:
        with old.serving():
            found = await asyncio.gather(*(inherit(old) for _ in range(5)), return_exceptions=True)
            winners = [one for one in found if isinstance(one, Inheritance)]
            errors = [str(one) for one in found if isinstance(one, HandoverError)]
            assert len(winners) == 1
            assert len(errors) == 4
            assert all("another successor is taking over" in error for error in errors)
            assert await asyncio.to_thread(winners[0].confirm) is True
            close_all(winners[0])

    run(main())


# The ends of the predecessor.


def test_on_confirmed_may_close_the_server(run: Run, old: Old) -> None:
    async def main() -> None:
        with old.serving() as server:
            old.on_confirmed = server.close
            inheritance = await inherit(old)
            assert await asyncio.to_thread(inheritance.confirm) is True
            close_all(inheritance)
            server.close()

    run(main())


def test_a_predecessor_that_ends_in_between_leaves_all_to_the_successor(
    run: Run, old: Old, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with old.serving():
            inheritance = await inherit(old)
        old.close()
        assert await asyncio.to_thread(inheritance.confirm) is False
        assert "did not say that it left" in caplog.text
        for name, sock in inheritance.sockets.items():
            if name.startswith("udp"):
                with socket.socket(sock.family, socket.SOCK_DGRAM) as client:
                    client.sendto(b"after", sock.getsockname())
                assert sock.recv(512) == b"after"
        close_all(inheritance)

    run(main())


def test_a_mistake_when_leaving_is_told_and_ends_the_conversation(
    run: Run, old: Old, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        old.on_confirmed = fail
        with old.serving():
            inheritance = await inherit(old)
            assert await asyncio.to_thread(inheritance.confirm) is False
            close_all(inheritance)
        assert "mistake of ours: ZeroDivisionError()" in caplog.text

    run(main())


def test_a_socket_closed_meanwhile_ends_the_hand_over(run: Run, old: Old) -> None:
    async def main() -> None:
        with old.serving():
            before = count_descriptors()
            gone = open_udp(Address("127.0.0.1", 0))
            gone.close()
            old.sockets["udp 127.0.0.1:5353"] = gone
            with pytest.raises(HandoverError, match="cannot send: Bad file descriptor"):
                await inherit(old)
            await until(lambda: count_descriptors() == before)

    run(main())


def test_more_sockets_than_the_bound_are_not_handed_over(run: Run, old: Old) -> None:
    one = next(iter(old.sockets.values()))
    old.sockets |= {f"udp 127.0.0.1:{port}": one for port in range(1, 1025)}

    async def main() -> None:
        with old.serving(), pytest.raises(HandoverError, match="more than can be handed over"):
            await inherit(old)

    run(main())


def test_a_want_of_descriptors_delays_the_successor_only(
    run: Run, old: Old, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(predecessor, "_ACCEPT_RETRY_S", 0.1)

    class Short(socket.socket):
        failures = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if self.failures:
                self.failures -= 1
                raise OSError(24, "Too many open files")
            return super().accept()

    async def main() -> None:
        listener = open_handover_socket(old.rundir)
        with old.serving(Short(fileno=listener.detach())):
            (await inherit(old)).abandon()
        assert caplog.text.count("cannot accept a successor: Too many open files") == 2

    run(main())


# Snapshots.


async def late_snapshot() -> int | None:
    descriptor = sealed(CACHE)
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return descriptor


async def failing_snapshot() -> int | None:
    raise OSError(28, "No space left on device")


async def empty_snapshot() -> int | None:
    return sealed(b"")


async def loose_snapshot() -> int | None:
    descriptor = open_memfd()
    os.write(descriptor, CACHE)
    return descriptor


async def huge_snapshot() -> int | None:
    descriptor = open_memfd()
    os.ftruncate(descriptor, 256 * 1024 * 1024 + 1)
    return descriptor


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (no_snapshot, ""),
        (late_snapshot, "no snapshot within 0.1 s"),
        (failing_snapshot, "not handed over: [Errno 28] No space left on device"),
        (empty_snapshot, "its snapshot has 0 octets"),
        (huge_snapshot, "its snapshot has 268435457 octets"),
        (loose_snapshot, "cache is left out: it is not sealed"),
    ],
)
def test_a_hand_over_without_cache_is_cold_and_complete(
    run: Run,
    old: Old,
    make: Callable[[], Coroutine[Any, Any, int | None]],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(predecessor, "_SNAPSHOT_S", 0.1)

    async def main() -> None:
        old.make_snapshot = make
        with old.serving():
            before = count_descriptors()
            with await inherit(old) as inheritance:
                assert inheritance.snapshot is None
                assert inheritance.sockets.keys() == old.sockets.keys() | {HANDOVER}
            await until(lambda: count_descriptors() == before)
        assert line in caplog.text

    run(main())


def test_a_snapshot_of_another_format_is_not_even_made(run: Run, old: Old) -> None:
    async def main() -> None:
        old.make_snapshot = failing_snapshot
        other = replace(NEW, snapshot_format=4)
        with old.serving(), await inherit(old, other) as inheritance:
            assert inheritance.snapshot is None

    run(main())


# Other users.


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_house() -> Iterator[Path]:
    """A directory that file modes keep from nobody."""
    with TemporaryDirectory() as path:
        Path(path).chmod(0o777)
        yield Path(path)


@pytest.mark.root
@needs_root
def test_a_successor_of_another_user_is_refused(
    run: Run, old: Old, open_house: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        old.rundir = open_house
        with old.serving():
            (open_house / SOCKET_FILE).chmod(0o666)
            with acting_as(NOBODY):
                sock = dial(old)
            with closing(sock):
                answer = await hear(sock)
            assert isinstance(answer, Declined)
            assert "runs as user 65534, this daemon as 0" in answer.reason
        assert "runs as user 65534" in caplog.text

    run(main())


@pytest.mark.root
@needs_root
def test_a_predecessor_of_another_user_is_not_heard(open_house: Path) -> None:
    with acting_as(NOBODY):
        sock = open_handover_socket(open_house)
    with closing(sock):
        before = count_descriptors()
        with pytest.raises(HandoverError, match="runs as user 65534, this one as 0; stop it"):
            take_over(open_house, NEW, 5)
        assert count_descriptors() == before
