"""A query's way through the whole daemon, from socket to socket: which files it enters, in order.

docs/architecture.md draws the ways; here they are measured, by a profiler in the daemon's loop.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import nodecache
from nodecache.config.flags import parse_flags
from nodecache.loading import Source
from nodecache.net.listening import ListeningSockets
from nodecache.serving.daemon import Daemon
from nodecache.wire.query import name_end
from tests.cache.building import a, opt, query, response
from tests.loops import run
from tests.net.fake_upstream import Peer, running, unused_port

PACKAGE = f"{Path(nodecache.__file__).parent}/"
# Files that hand a query on to another one: what a reader follows. The others read, keep, count or
# compose something and return.
MOST_HANDS_OF_A_MISS, MOST_HANDS_OF_A_HIT = 14, 8
# With those; docs/architecture.md says how many there are.
MOST_FILES_OF_A_MISS, MOST_FILES_OF_A_HIT = 32, 20
ROUNDS = 5


class Call(NamedTuple):
    """One function that was entered, and the file of ours that called it, "" for none."""

    file: str
    name: str
    caller: str


class WalkedDaemon:
    """A daemon on loopback, and a stub resolver that asks it."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.daemon = daemon
        self._port = port
        self._calls: list[Call] = []

    def _note(self, frame: FrameType, event: str, _arg: object) -> None:
        file = file_of(frame) if event == "call" else ""
        if not file:
            return
        caller, name = frame.f_back, frame.f_code.co_name
        while caller is not None and not file_of(caller):
            caller = caller.f_back
        self._calls.append(Call(file, name, "" if caller is None else file_of(caller)))

    async def ask(self, host: str) -> list[Call]:
        """Returns the functions that were entered from the query to its reply, by their files."""
        await asyncio.sleep(0.02)  # what the last one began has come to an end
        self._calls = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(("127.0.0.1", self._port))
            sys.setprofile(self._note)
            try:
                sock.send(query(host))
                async with asyncio.timeout(20):
                    reply = await asyncio.get_running_loop().sock_recv(sock, 4096)
            finally:
                sys.setprofile(None)
        assert reply[3] & 0xF == 0
        return self._calls


def answer(peer: Peer, asked: bytes) -> None:
    """Answers as cluster DNS does, with one address."""
    question = asked[12 : name_end(asked, 12) + 4]
    peer.send(asked[:2] + response(question + b"\1", [a(300)], additional=[opt()])[2:])


def live(
    folder: Path, directives: str, body: Callable[[WalkedDaemon], Coroutine[None, None, None]]
) -> None:
    """Runs ``body`` in the loop of a daemon whose one server block has ``directives``, too."""

    async def main() -> None:
        async with running() as upstream:
            upstream.on_query = answer
            port = unused_port()
            path = folder / "Corefile"
            path.write_text(
                f".:{port} {{\n bind 127.0.0.1\n errors\n cache 300\n {directives}\n"
                f" forward . 127.0.0.1:{upstream.port} {{\n force_tcp\n }}\n}}\n"
            )
            words = ["-localip", "127.0.0.1", "-setupinterface=false", "-setupiptables=false"]
            words += ["-conf", str(path), "-basecorefile", str(path), "-rundir", ""]
            flags, faults = parse_flags([*words, "-metrics-listen-address", ""])
            assert faults == []
            source = Source(flags, {})
            loop = asyncio.get_running_loop()
            sockets = ListeningSockets({})
            daemon = Daemon(source.load(), source, sockets, loop)
            daemon.prepare()
            daemon.start()
            try:
                await body(WalkedDaemon(daemon, port))
            finally:
                await daemon.close()
                sockets.close()

    run(main())


def file_of(frame: FrameType) -> str:
    """Returns the file of ours that a frame runs, "" for anybody else's."""
    path = frame.f_code.co_filename
    return path.removeprefix(PACKAGE) if path.startswith(PACKAGE) else ""


def files_of(calls: list[Call]) -> list[str]:
    """Returns each file once, in the order in which they were entered first."""
    return list(dict.fromkeys(call.file for call in calls))


def hands_of(calls: list[Call]) -> list[str]:
    """Returns the files from which another one was entered, for more than to make an object."""
    callers = {c.caller for c in calls if c.caller != c.file and c.name != "__init__"}
    return [file for file in files_of(calls) if file in callers]


def shortest(walks: list[list[Call]]) -> list[Call]:
    """Returns the walk with the fewest files: others were crossed by a timer."""
    return min(walks, key=lambda calls: len(files_of(calls)))


def test_a_query_is_handed_on_by_few_files_and_never_by_the_composition_root(
    tmp_path: Path,
) -> None:
    async def body(house: WalkedDaemon) -> None:
        misses, tier_2, tier_1 = [], [], []
        for n in range(ROUNDS):
            await house.ask(f"warm{n}")  # the connections are open from here on
        for n in range(ROUNDS):
            misses.append(await house.ask(f"n{n}"))
            tier_2.append(await house.ask(f"n{n}"))
            tier_1.append(await house.ask(f"n{n}"))
        walks = [shortest(each) for each in (misses, tier_2, tier_1)]
        for calls in walks:
            print(len(files_of(calls)), *files_of(calls))
            print("  handed on by", len(hands_of(calls)), *hands_of(calls))
            assert "serving/daemon.py" not in files_of(calls)
        miss, hit_2, hit_1 = walks
        assert len(hands_of(miss)) <= MOST_HANDS_OF_A_MISS
        assert len(hands_of(hit_2)) <= MOST_HANDS_OF_A_HIT
        assert len(files_of(miss)) <= MOST_FILES_OF_A_MISS
        assert len(files_of(hit_2)) <= MOST_FILES_OF_A_HIT
        assert files_of(hit_1) == ["net/udp.py", "net/mmsg.py", "counters.py"]

    live(tmp_path, "", body)


def test_a_query_is_scanned_once_whatever_stands_before_the_cache(tmp_path: Path) -> None:
    async def body(house: WalkedDaemon) -> None:
        for _ in range(2):  # a miss, a hit
            entered = [(call.file, call.name) for call in await house.ask("a")]
            assert ("resolve/before_cache.py", "query") in entered
            assert entered.count(("wire/query.py", "scan_query")) == 1

    live(tmp_path, "loadbalance", body)
