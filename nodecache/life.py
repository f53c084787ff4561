"""The life of one serving process: what it inherits, in which order it starts, how it leaves.

Start: interface, sockets, a question to ourselves, rules. Stop: rules, lameduck, drain, interface.
A successor that takes over ends it without either: the node is the successor's from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

from nodecache import __version__
from nodecache.cache.snapshot import FORMAT
from nodecache.channel import KeeperLink
from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.daemon import Daemon
from nodecache.errors import HandoverError, RefusedError, SocketError
from nodecache.loading import Source, write_whole
from nodecache.net.handover import HANDOVER, Hello, network_id, open_handover_socket
from nodecache.net.listening import ListeningSockets
from nodecache.net.predecessor import HandoverServer
from nodecache.net.sockets import raise_descriptor_limit
from nodecache.net.successor import Inheritance, take_over
from nodecache.serving.node import Node
from nodecache.serving.warmth import Warmth
from nodecache.telemetry.loglines import configure_logging

logger = logging.getLogger("nodecache")

_TAKE_OVER_S = 3.0
# Both a terminal and the keeper may send the same signal: within this time it counts once.
_SAME_SIGNAL_S = 0.2
# A worker whose keeper is gone serves on for this long, for a successor to take over.
_ORPHAN_S = 30.0
_SELF_TEST_RETRY_S = 0.2
_THREADS = 2


class Leaving(enum.Enum):
    """How a process ends."""

    ORDERLY = enum.auto()
    AT_ONCE = enum.auto()
    HANDED_OVER = enum.auto()


def run(config: Config, source: Source, link: KeeperLink | None = None) -> int:
    """Serves until a signal or a successor ends it; returns the exit code.

    Raises:
        SocketError: An address to serve DNS on cannot be used.
        NodeError: The interface cannot be put up, and there is nothing to serve on.
    """
    configure_logging(config.log_format, logging.INFO)
    raise_descriptor_limit()
    _tune_collector()
    rundir, inheritance = _make_rundir(config.rundir), None
    if rundir is not None and not (link is not None and link.held):
        try:
            inheritance = take_over(rundir, _hello(config), _TAKE_OVER_S)
        except RefusedError as error:
            logger.warning("%s; give each a -rundir of its own. Going on without one", error)
            rundir = None
        except HandoverError as error:
            logger.warning("%s; starting without what it has", error)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_live(config, source, link, rundir, inheritance))


def _tune_collector() -> None:
    """Has Python look for reference cycles less often.

    A query makes none; with the default (every 700 new objects) the search took 8 % of a miss,
    and one through all cached messages would hold up queries for milliseconds.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Returns uvloop's factory, None for asyncio's own where uvloop does not exist."""
    try:
        import uvloop  # noqa: PLC0415 # platforms without it still serve
    except ImportError:
        return None
    return uvloop.new_event_loop


def _make_rundir(path: str) -> Path | None:
    """Returns the folder, None where there is none: then nothing is handed over or kept."""
    if not path:
        return None
    try:
        Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        logger.warning(
            "cannot make %s: %s; a restart will begin with an empty cache (see -rundir)",
            path,
            error.strerror,
        )
        return None
    return Path(path)


def _hello(config: Config) -> Hello:
    return Hello(__version__, config.node.addresses, FORMAT, network_id())


async def _live(
    config: Config,
    source: Source,
    link: KeeperLink | None,
    rundir: Path | None,
    inheritance: Inheritance | None,
) -> int:
    loop = asyncio.get_running_loop()
    # Reading files and importing is all there is to do aside; a thread more is 0.2 MB more.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, "aside"))
    life = Life(config, source, link, rundir, inheritance, loop)
    with life.signals():
        try:
            await life.start()
            how = await life.ended()
        except BaseException:
            await life.give_up()
            raise
        await life.end(how)
    return 0


class Life:
    """One process, from start to end."""

    def __init__(
        self,
        config: Config,
        source: Source,
        link: KeeperLink | None,
        rundir: Path | None,
        inheritance: Inheritance | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._config = config
        self._link = link
        self._rundir = rundir
        self._inheritance = inheritance
        self._loop = loop
        self._sockets = _listening_sockets(config, link, inheritance)
        self._daemon = Daemon(config, source, self._sockets, loop)
        self._node = Node(config, self._daemon.counters, loop)
        self._daemon.more_details = lambda: list(self._node.faults.values())
        self._daemon.elsewhere = lambda: self._node.elsewhere
        if link is not None:
            _take_history(link.history, self._daemon.counters)
        self._warmth = Warmth(self._daemon.blocks, rundir)
        self._handover: HandoverServer | None = None
        self._how: Leaving | None = None
        self._asked = asyncio.Event()
        self._in_haste = asyncio.Event()
        self._signalled_at = 0.0
        self._jobs: set[asyncio.Task[None]] = set()

    # Start.

    async def start(self) -> None:
        """Serves. Raises SocketError and NodeError."""
        if not self._sockets.has_inherited:
            await self._node.prepare()
        self._daemon.prepare()
        if self._inheritance is not None:
            await self._load_snapshot(self._inheritance)
        self._daemon.start()
        if self._inheritance is not None:
            await self._confirm(self._inheritance)
        else:
            self._do(self._load_file())
        self._do(self._come_forward())
        if self._rundir is not None:
            self._do(self._warmth.run())

    async def _load_snapshot(self, inheritance: Inheritance) -> None:
        """Takes the predecessor's cache before the first query: it serves meanwhile."""
        if inheritance.snapshot is not None:
            with inheritance.snapshot as snapshot:
                self._note_restored(await self._warmth.load(snapshot[:]))

    async def _load_file(self) -> None:
        """Takes what was kept for a restart, while queries are served already."""
        self._note_restored(await self._warmth.load_file())

    def _note_restored(self, count: int) -> None:
        self._daemon.counters.count_event("restored", count)

    async def _confirm(self, inheritance: Inheritance) -> None:
        """Tells the predecessor to go, and serves meanwhile."""
        try:
            await self._loop.run_in_executor(None, inheritance.confirm)
        except HandoverError as error:
            logger.warning("%s; both serve the same sockets now, so end one of them", error)
        else:
            logger.info("took over from nodecache %s", inheritance.version)

    async def _come_forward(self) -> None:
        """Once we answer ourselves: waits for a successor, has queries steered here."""
        self._open_handover()
        self._node.start()
        if self._link is not None:
            self._loop.add_reader(self._link.fileno(), self._on_keeper_gone)
        # Before the question to ourselves: a keeper that still refuses would answer in our place.
        self._tell_keeper()
        self._daemon.on_reload = self._tell_keeper
        await self._pass_self_test()
        await self._node.redirect()
        self._note_serving()
        await self._daemon.settle()
        self._sockets.drop_unused()

    async def _pass_self_test(self) -> None:
        """Returns once we answer ourselves on every address that leads to us already."""
        told = ""
        while complaints := await self._daemon.ask_itself():
            if complaints[0] != told:
                told = complaints[0]
                logger.warning("not serving yet: %s", told)
            await asyncio.sleep(_SELF_TEST_RETRY_S)

    def _tell_keeper(self) -> None:
        """Says where we answer; not where queries come only by the redirect.

        Who is refused there would turn to a next server that is us again, so those queries wait
        until we answer or the redirect is withdrawn.
        """
        if self._link is not None:
            withdraw, restore = self._node.commands
            redirected = self._config.node.redirected if withdraw else ()
            places = [(a.host, a.port) for a in self._daemon.addresses if a.host not in redirected]
            self._link.serving(self._daemon.probe, places, withdraw, restore)

    def _open_handover(self) -> None:
        if self._rundir is None:
            return
        rundir = self._rundir
        try:
            sock = self._sockets.take(HANDOVER, lambda: open_handover_socket(rundir))
        except SocketError as error:
            logger.warning("no successor can take over from us: %s", error)
            return
        self._handover = HandoverServer(
            sock,
            self._loop,
            _hello(self._config),
            lambda: self._sockets.all,
            self._warmth.snapshot_to_memfd,
            self._hand_over,
        )
        self._handover.start()

    def _note_serving(self) -> None:
        """Says who serves, for ``nodecache probe``: the pod, or the process where there is none."""
        if self._rundir is not None:
            who = os.environ.get("POD_UID") or f"process {os.getpid()}"
            with contextlib.suppress(OSError):
                write_whole(str(self._rundir / "serving"), f"{who}\n")

    def _note_gone(self) -> None:
        if self._rundir is not None:
            with contextlib.suppress(OSError):
                (self._rundir / "serving").unlink()

    def _do(self, job: Coroutine[Any, Any, object]) -> None:
        task = self._loop.create_task(self._see_through(job))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _see_through(self, job: Coroutine[Any, Any, object]) -> None:
        try:
            await job
        except Exception:
            self._daemon.counters.panics += 1
            logger.exception("serving goes on without what was under way")

    # What ends it.

    @contextlib.contextmanager
    def signals(self) -> Any:
        """While it lasts, signals end or reload; afterwards those that end are ignored."""
        ending = {
            signal.SIGTERM: Leaving.ORDERLY,
            signal.SIGINT: Leaving.ORDERLY,
            signal.SIGQUIT: Leaving.AT_ONCE,
        }
        for number, how in ending.items():
            self._loop.add_signal_handler(number, self._on_signal, how)
        for number in (signal.SIGUSR1, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._daemon.reload)
        try:
            yield
        finally:
            for number in ending:
                # Everything is done: who asks again must not make it look like a crash.
                self._loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, how: Leaving) -> None:
        now = monotonic()
        if self._how is None:
            self._signalled_at = now
            self._leave(how)
        elif now - self._signalled_at > _SAME_SIGNAL_S:
            logger.info("leaving at once, as asked again")
            self._in_haste.set()
        if how is Leaving.AT_ONCE:
            self._in_haste.set()

    def _hand_over(self) -> None:
        """A successor serves: from here on nothing more is read."""
        self._daemon.yield_sockets()
        if self._link is not None:
            self._link.handed_over()
        self._leave(Leaving.HANDED_OVER)

    def _on_keeper_gone(self) -> None:
        if self._link is None or not self._link.is_lost():
            return
        self._loop.remove_reader(self._link.fileno())
        logger.warning("the keeper is gone; serving on for %g s for a successor", _ORPHAN_S)
        self._loop.call_later(_ORPHAN_S, self._leave, Leaving.ORDERLY)

    def _leave(self, how: Leaving) -> None:
        if self._how is None:
            self._how = how
            self._asked.set()

    async def ended(self) -> Leaving:
        """Returns how to end, once somebody has asked for it."""
        await self._asked.wait()
        return self._how or Leaving.ORDERLY

    # End.

    async def end(self, how: Leaving) -> None:
        """Ends in order, each step bounded; somebody in haste cuts the waiting short."""
        await self._stop_jobs()
        if self._handover is not None:
            self._handover.close()
        if how is Leaving.HANDED_OVER:
            await self._node.stop()
            await self._unless_in_haste(self._daemon.drain(is_succeeded=True))
            await self._daemon.close(is_succeeded=True)
            self._sockets.close()
            return
        if self._link is not None:
            self._link.leaving()
        self._daemon.say_leaving()
        await self._node.leave()
        await self._unless_in_haste(self._daemon.lameduck())
        await self._unless_in_haste(self._daemon.drain())
        if self._rundir is not None:
            await self._warmth.save_now()
        await self._daemon.close()
        await self._node.take_down()
        self._sockets.close()
        self._note_gone()

    async def give_up(self) -> None:
        """Clears up after a start that failed."""
        await self._stop_jobs()
        await self._node.stop()
        if self._inheritance is not None:
            self._inheritance.abandon()
        await self._daemon.close()
        self._sockets.close()

    async def _stop_jobs(self) -> None:
        for task in list(self._jobs):
            task.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _unless_in_haste(self, job: Coroutine[Any, Any, None]) -> None:
        work = self._loop.create_task(job)
        haste = self._loop.create_task(self._in_haste.wait())
        await asyncio.wait({work, haste}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, haste):
            task.cancel()
        await asyncio.gather(work, haste, return_exceptions=True)


def _listening_sockets(
    config: Config, link: KeeperLink | None, inheritance: Inheritance | None
) -> ListeningSockets:
    inherited: Mapping[str, Any] = {}
    if link is not None and link.held:
        inherited = link.held
    elif inheritance is not None:
        inherited = inheritance.sockets
    hosts = config.node.addresses if config.node.has_interface else ()
    if link is None:
        return ListeningSockets(inherited, hosts)
    return ListeningSockets(inherited, hosts, link.hold, link.release)


def _take_history(history: Mapping[str, int], counters: Counters) -> None:
    """Counts what the keeper did until now."""
    counters.count_event("worker_restarts", history.get("restarts", 0))
    counters.count_event("keeper_refused", history.get("refused", 0))
    counters.count_event("keeper_dropped", history.get("dropped", 0))
    counters.count_event("redirect_withdrawn", history.get("withdrawn", 0))
