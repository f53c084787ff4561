"""A worker from start to end, with a daemon and a node that only note what they are asked to do."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from nodecache import __version__
from nodecache.cache.snapshot import FORMAT
from nodecache.config.model import Config
from nodecache.config.node import NodePlan
from nodecache.counters import Counters
from nodecache.errors import NodeError
from nodecache.net.listening import ListeningSockets
from nodecache.process import worker as module
from nodecache.process.channel import KeeperLink, WorkerLink
from nodecache.process.handover import Hello, network_id
from nodecache.process.leaving import Wish
from nodecache.process.successor import Inheritance, take_over
from nodecache.process.worker import Found, Worker
from nodecache.serving.blocks import Blocks
from nodecache.telemetry.http_server import Page
from tests.loops import run, until

PATIENCE_S = 20.0
PLAN = NodePlan("nodelocaldns", ("169.254.20.10",))
CONFIG = Config((), node=PLAN)
PLACE = (PLAN.addresses[0], 53)
SELF_CHECK = bytes(12) + b"a mark"

ALONE = ["say leaving", "serve on", "finish", "goodbye", "leave", "drain", "close", "take down"]


class Beat:
    is_heard = True

    def __init__(self, diary: list[str]) -> None:
        self._diary = diary

    def start(self) -> None:
        self._diary.append("beat")

    def stop(self) -> None:
        self._diary.append("no beat")

    def say_goodbye(self) -> None:
        self._diary.append("goodbye")


class Daemon:
    """Notes what it is asked to do; ``endless`` steps take until they are cancelled."""

    def __init__(self, diary: list[str], endless: set[str]) -> None:
        self.diary = diary
        self.endless = endless
        self.complaints: list[list[str]] = []
        self.counters = Counters()
        self.blocks = Blocks(1 << 20, self.counters)
        self.beat = Beat(diary)
        self.plan = PLAN
        self.places = [PLACE]
        self.probe = SELF_CHECK
        self.on_reload: Callable[[], None] = lambda: None
        self.views: dict[str, Page] = {}

    async def step(self, name: str) -> None:
        self.diary.append(name)
        if name in self.endless:
            await asyncio.Event().wait()

    async def look_up_hosts(self) -> None:
        await self.step("look up")

    def prepare(self) -> None:
        self.diary.append("open")

    def start(self) -> None:
        self.diary.append("read")

    async def ask_itself(self) -> list[str]:
        self.diary.append("ask")
        return self.complaints.pop(0) if self.complaints else []

    async def wait_for_pages(self) -> None:
        await self.step("pages")

    def say_leaving(self) -> None:
        self.diary.append("say leaving")

    async def serve_on(self, _wait_s: float) -> None:
        await self.step("serve on")

    def yield_sockets(self) -> None:
        self.diary.append("yield")

    async def drain(self, *, is_succeeded: bool = False, refuses_misses: bool = False) -> None:
        await self.step(f"drain{' succeeded' * is_succeeded}{' refusing' * refuses_misses}")

    async def close(self, *, is_succeeded: bool = False) -> None:
        await self.step(f"close{' succeeded' * is_succeeded}")


class Node:
    """Notes what it is asked to do."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.covered = PLAN.addresses
        self.has_redirect = True
        self.elsewhere = ()
        self.faults: dict[str, str] = {}
        self.on_redirect: Callable[[], None] = lambda: None
        self.is_there = True

    def doubt_rules(self) -> None:
        """Nothing is doubted here."""

    async def prepare(self) -> None:
        await self._daemon.step("interface")
        if not self.is_there:
            raise NodeError("no interface", "interface_add")

    def start(self) -> None:
        self._daemon.diary.append("look after")

    async def redirect(self) -> None:
        await self._daemon.step("rules")
        self.on_redirect()

    def follow(self, _plan: NodePlan) -> None:
        self._daemon.diary.append("follow")

    async def finish(self) -> None:
        await self._daemon.step("finish")

    async def leave(self) -> None:
        await self._daemon.step("leave")

    async def take_down(self) -> None:
        await self._daemon.step("take down")

    async def stop(self) -> None:
        self._daemon.diary.append("look away")


class WorkerBed:
    """One worker, with its keeper's end of the link."""

    def __init__(self, rundir: Path | None, endless: set[str]) -> None:
        self.diary: list[str] = []
        self.rundir = rundir
        self.daemon = Daemon(self.diary, endless)
        self.node = Node(self.daemon)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.keeper = WorkerLink(ours)
        self.link = KeeperLink(theirs, history={"restarts": 2, "refused": 5, "dropped": 1})
        self.inheritance: Inheritance | None = None
        self.sockets = ListeningSockets({}, (), self.link.hold, self.link.release)

    def worker(self) -> Worker:
        source = cast("Any", type("Source", (), {"take_recording": lambda _self: None})())
        found = Found(self.link, self.rundir, self.inheritance)
        daemon, node = cast("Any", self.daemon), cast("Any", self.node)
        loop = asyncio.get_running_loop()
        return Worker(CONFIG, source, found, self.sockets, daemon, node, loop)

    def said(self) -> list[str]:
        """Returns what the keeper heard since it was asked last."""
        kinds = []
        while (notice := self.keeper.receive()) is not None:
            kinds.append(notice.kind)
            if notice.sock is not None:
                notice.sock.close()
        return kinds

    async def until(self, *lines: str) -> None:
        """Returns when the diary has these lines."""
        await until(lambda: set(lines) <= set(self.diary))

    async def until_serving(self, worker: Worker) -> None:
        await worker.start()
        await self.until("pages")

    def succeed(self) -> bool:
        """Takes over, as another process does; returns whether the worker says that it left."""
        assert self.rundir is not None
        hello = Hello(__version__, PLAN.addresses, FORMAT, network_id())
        inheritance = take_over(self.rundir, hello, PATIENCE_S)
        assert inheritance is not None
        has_left = inheritance.confirm()
        for sock in inheritance.sockets.values():
            sock.close()
        return has_left

    def close(self) -> None:
        self.keeper.close()
        self.link.close()
        self.sockets.close()


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who else serves here: nobody, unless a test says so."""
    others: list[str] = []
    monkeypatch.setattr(module, "who_serves", lambda _plan, _ours: others)
    return others


def live(
    body: Callable[[WorkerBed], Awaitable[None]],
    rundir: Path | None = None,
    endless: set[str] | None = None,
) -> list[str]:
    """Runs ``body``; returns the diary."""

    async def main() -> list[str]:
        bed = WorkerBed(rundir, endless or set())
        try:
            await body(bed)
        finally:
            bed.close()
        return bed.diary

    return run(main())


def test_start_is_in_order_and_leads_queries_here_last() -> None:
    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        await bed.until_serving(worker)
        assert bed.said() == ["serving", "serving"]
        await worker.give_up()

    assert live(body)[:11] == [
        "interface", "look up", "open", "goodbye", "read", "look after", "ask", "beat", "rules",
        "beat", "pages",
    ]  # fmt: skip


def test_rules_wait_until_we_answer_ourselves(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bed: WorkerBed) -> None:
        bed.daemon.complaints = [["no answer over UDP"], ["no answer over UDP"]]
        worker = bed.worker()
        await bed.until_serving(worker)
        assert bed.diary.count("ask") == 3
        assert bed.diary.index("rules") > bed.diary.index("ask") + 2
        await worker.give_up()

    live(body)
    assert caplog.text.count("not serving yet: no answer over UDP") == 1


def test_what_the_keeper_counted_goes_on_counting() -> None:
    async def body(bed: WorkerBed) -> None:
        bed.worker()
        events = bed.daemon.counters.events
        assert (events["worker_restarts"], events["keeper_refused"]) == (2, 5)

    live(body)


def test_end_is_in_order_and_takes_the_interface_down_last(tmp_path: Path) -> None:
    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        await bed.until_serving(worker)
        assert (tmp_path / "serving").exists()
        bed.diary.clear()
        bed.said()
        worker.leaving.want(Wish.END)
        await worker.end()
        assert bed.said() == ["leaving"]
        assert not (tmp_path / "serving").exists()

    assert live(body, tmp_path) == ALONE


def test_who_leaves_where_queries_lead_nowhere_else_refuses_what_it_does_not_know() -> None:
    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        bed.node.covered = ()
        await bed.until_serving(worker)
        bed.diary.clear()
        worker.leaving.want(Wish.END)
        await worker.end()

    diary = live(body)
    assert "drain refusing" in diary
    assert "goodbye" not in diary


def test_node_is_left_as_it_is_where_others_serve(
    nobody_else: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nodecache")
    nobody_else.append("169.254.20.10:53")

    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        await bed.until_serving(worker)
        worker.leaving.want(Wish.END)
        await worker.end()

    assert "take down" not in live(body)
    assert "others serve at 169.254.20.10:53" in caplog.text


@pytest.mark.parametrize("step", ["serve on", "drain"])
def test_haste_cuts_short_what_only_waits_and_nothing_else(step: str) -> None:
    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        await bed.until_serving(worker)
        bed.diary.clear()
        worker.leaving.want(Wish.END)
        ending = asyncio.ensure_future(worker.end())
        await bed.until(step)
        assert not ending.done()
        worker.leaving.want(Wish.END_AT_ONCE)
        await asyncio.wait_for(ending, PATIENCE_S)

    assert live(body, endless={step}) == ALONE


@pytest.mark.parametrize("step", ["pages", "serve on", "finish", "leave", "drain"])
def test_successor_that_comes_at_any_step_ends_the_leaving(tmp_path: Path, step: str) -> None:
    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        await worker.start()
        if step != "pages":
            await bed.until("pages")
            worker.leaving.want(Wish.END)
        ending = asyncio.ensure_future(end_when_asked(worker))
        await bed.until(step)
        bed.said()
        assert await asyncio.to_thread(bed.succeed)
        await asyncio.wait_for(ending, PATIENCE_S)
        assert bed.said() == ["handed_over"]
        assert (tmp_path / "serving").exists()  # the successor's to change

    async def end_when_asked(worker: Worker) -> None:
        await worker.leaving.begun()
        await worker.end()

    diary = live(body, tmp_path, endless={step})
    assert diary[-5:] == ["no beat", "yield", "look away", "drain succeeded", "close succeeded"]
    assert "take down" not in diary


def test_orphan_serves_on_for_a_successor_before_it_leaves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_ORPHAN_S", 0.05)

    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        await bed.until_serving(worker)
        bed.keeper.close()
        async with asyncio.timeout(PATIENCE_S):
            await worker.leaving.begun()
        await worker.end()

    assert live(body)[-len(ALONE) :] == ALONE
    assert "the keeper is gone; serving on for 0.05 s" in caplog.text


def test_start_without_an_interface_leaves_nothing_behind() -> None:
    async def body(bed: WorkerBed) -> None:
        bed.node.is_there = False
        worker = bed.worker()
        with pytest.raises(NodeError):
            await worker.start()
        await worker.give_up()

    assert live(body) == ["interface", "look away", "close"]


def test_reload_tells_keeper_and_node() -> None:
    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        await bed.until_serving(worker)
        bed.said()
        bed.daemon.on_reload()
        assert bed.said() == ["serving"]
        assert bed.diary[-1] == "follow"
        await worker.give_up()

    live(body)


def test_job_that_fails_is_counted_and_serving_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bed: WorkerBed) -> None:
        worker = bed.worker()
        bed.daemon.wait_for_pages = None  # type: ignore[method-assign,assignment]
        await worker.start()
        await bed.until("rules")
        async with asyncio.timeout(PATIENCE_S):
            while not bed.daemon.counters.panics:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert not worker.leaving.is_succeeded
        await worker.give_up()

    live(body)
    assert "serving goes on without what was under way" in caplog.text
