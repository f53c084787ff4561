"""The life of one serving process: what it inherits, in which order it starts, how it leaves.

Start: interface, sockets, a question to ourselves, beat, rules. Stop: serve on for a successor,
goodbye, drain, interface; the rules stay, and lead to the cluster's DNS. A successor that takes
over, at whatever step of that, ends it at once: the node is the successor's from then on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodecache import __version__
from nodecache.cache.snapshot import FORMAT
from nodecache.config.model import Config
from nodecache.counters import Counters
from nodecache.errors import HandoverError, SocketError
from nodecache.host.listeners import who_serves
from nodecache.loading import Source
from nodecache.net.listening import ListeningSockets
from nodecache.process.channel import KeeperLink
from nodecache.process.handover import HANDOVER, Hello, network_id, open_handover_socket
from nodecache.process.jobs import Job, Jobs, first_of
from nodecache.process.leaving import Leaving, Wish
from nodecache.process.predecessor import HandoverServer
from nodecache.process.rundir import note_gone, note_serving
from nodecache.process.successor import Inheritance
from nodecache.process.warm_start import WarmStart
from nodecache.process.window import Window
from nodecache.serving.daemon import Daemon
from nodecache.serving.last_good import LastGood
from nodecache.serving.node import Node

logger = logging.getLogger("nodecache")

# A worker whose keeper is gone serves on for this long, for a successor to take over.
_ORPHAN_S = 30.0
_SELF_TEST_RETRY_S = 0.2


def hello(config: Config) -> Hello:
    """Returns who we are to a predecessor or successor."""
    return Hello(__version__, config.node.addresses, FORMAT, network_id())


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker comes upon.

    Attributes:
        link: To its keeper, and what that held; None without a keeper.
        rundir: Where it may keep files; None for nowhere.
        inheritance: Of a predecessor that serves at present.
    """

    link: KeeperLink | None
    rundir: Path | None
    inheritance: Inheritance | None


class Worker:
    """One process, from start to end.

    Attributes:
        leaving: How it ends; to be told what others want.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        found: Found,
        sockets: ListeningSockets,
        daemon: Daemon,
        node: Node,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.leaving = Leaving()
        self._config = config
        self._source = source
        self._link = found.link
        self._rundir = found.rundir
        self._inheritance = found.inheritance
        self._sockets = sockets
        self._daemon = daemon
        self._node = node
        self._loop = loop
        daemon.more_details = self._details
        daemon.elsewhere = lambda: node.elsewhere
        daemon.beat.on_unheard = node.doubt_rules
        if found.link is not None:
            _take_history(found.link.history, daemon.counters)
        self._warm_start = WarmStart(daemon.blocks, found.rundir)
        self._last_good = LastGood(found.rundir)
        self._handover: HandoverServer | None = None
        self._door: socket.socket | None = None
        self._window = None if found.rundir is None else Window(found.rundir, daemon.views, loop)
        self._jobs = Jobs(daemon.counters, loop)

    # Start.

    async def start(self) -> None:
        """Serves. Raises SocketError and NodeError."""
        if not self._sockets.has_inherited:
            await self._node.prepare()
        await self._daemon.look_up_hosts()
        self._daemon.prepare()
        if self._config.node.wants_beat and not self._sockets.has_inherited:
            # Who was killed a moment ago may still be believed to serve.
            self._daemon.beat.say_goodbye()
        if self._inheritance is not None:
            await self._load_snapshot(self._inheritance)
        self._daemon.start()
        if self._inheritance is not None:
            await self._confirm(self._inheritance)
        else:
            self._jobs.begin(self._load_file())
        self._jobs.begin(self._come_forward())
        if self._rundir is not None:
            self._jobs.begin(self._warm_start.run())

    async def _load_snapshot(self, inheritance: Inheritance) -> None:
        """Takes the predecessor's cache before the first query: it serves meanwhile."""
        if inheritance.snapshot is not None:
            with inheritance.snapshot as snapshot:
                self._note_restored(await self._warm_start.load(snapshot[:]))

    async def _load_file(self) -> None:
        """Takes what was kept for a restart, while queries are served already."""
        self._note_restored(await self._warm_start.load_file())

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
        self._daemon.on_reload = self._on_reload
        await self._pass_self_test()
        if self._config.node.wants_beat:
            self._daemon.beat.start()  # rules may stand from before
        self._node.on_redirect = self._on_redirect
        await self._node.redirect()
        note_serving(self._rundir)
        self._keep_configuration()
        await self._daemon.wait_for_pages()
        self._sockets.drop_unused()
        if self._window is not None:
            await self._window.open()

    def _on_reload(self) -> None:
        self._node.follow(self._daemon.plan)
        self._tell_keeper()
        self._keep_configuration()

    def _keep_configuration(self) -> None:
        """Keeps what is in force for a start with files that are wrong."""
        self._jobs.begin(asyncio.to_thread(self._last_good.keep, self._source.take_recording()))

    async def _pass_self_test(self) -> None:
        """Returns once we answer ourselves on every address that leads to us already."""
        told = ""
        while complaints := await self._daemon.ask_itself():
            if complaints[0] != told:
                told = complaints[0]
                logger.warning("not serving yet: %s", told)
            await asyncio.sleep(_SELF_TEST_RETRY_S)

    def _details(self) -> list[str]:
        """Returns what /ready tells of the node."""
        faults = list(self._node.faults.values())
        if self._node.has_redirect and self._node.covered and not self._daemon.beat.is_heard:
            where = ", ".join(self._node.covered)
            faults.append(f"queries for {where} are led to the cluster's DNS at present")
        return faults

    def _on_redirect(self) -> None:
        """Speaks to rules that listen, and leaves to the keeper what they do not cover."""
        if self._node.covered:
            self._daemon.beat.start()
        elif self._node.has_redirect:
            self._daemon.beat.stop()
        self._tell_keeper()

    def _tell_keeper(self) -> None:
        """Says where we answer, and where queries lead nowhere else while we do not."""
        if self._link is not None:
            places = self._daemon.places
            refusing = [place for place in places if place[0] not in self._node.covered]
            self._link.serving(self._daemon.probe, places, refusing, self._config.stuck_after_s)

    def _open_handover(self) -> None:
        if self._rundir is None:
            return
        rundir = self._rundir
        try:
            self._door = self._sockets.take(HANDOVER, lambda: open_handover_socket(rundir))
        except SocketError as error:
            logger.warning("no successor can take over from us: %s", error)
            return
        self._handover = HandoverServer(
            self._door,
            self._loop,
            hello(self._config),
            lambda: self._sockets.all,
            self._warm_start.snapshot_to_memfd,
            self._hand_over,
        )
        self._handover.start()

    def _close_door(self) -> None:
        """Hears no successor any more."""
        if self._handover is not None:
            self._handover.close()
        if self._door is not None:
            self._door.close()
        if self._window is not None:
            self._window.close()

    # What ends it.

    def _hand_over(self) -> None:
        """A successor serves: from here on nothing more is read."""
        self._daemon.beat.stop()
        self._daemon.yield_sockets()
        if self._link is not None:
            self._link.handed_over()
        self.leaving.want(Wish.BE_SUCCEEDED)

    def _on_keeper_gone(self) -> None:
        if self._link is None or not self._link.is_lost():
            return
        self._loop.remove_reader(self._link.fileno())
        logger.warning("the keeper is gone; serving on for %g s for a successor", _ORPHAN_S)
        self._loop.call_later(_ORPHAN_S, self.leaving.want, Wish.BE_ORPHANED)

    # End.

    async def end(self) -> None:
        """Ends in order, each step bounded; somebody in haste cuts the waiting short."""
        await self._jobs.stop()
        if not self.leaving.is_succeeded:
            await first_of(self._end_alone(), self.leaving.succeeded())
        if self.leaving.is_succeeded:
            await self._end_succeeded()

    async def _end_succeeded(self) -> None:
        await self._node.stop()
        await self._unless_in_haste(self._daemon.drain(is_succeeded=True))
        await self._daemon.close(is_succeeded=True)
        self._close_door()
        self._sockets.close()

    async def _end_alone(self) -> None:
        """Ends; whoever takes over before the door is closed ends this, too."""
        self._daemon.say_leaving()
        await self._unless_in_haste(self._daemon.serve_on(self._config.leave_wait_s))
        await self._node.finish()
        if self._link is not None:
            self._link.leaving()
        if self._node.covered:
            self._daemon.beat.say_goodbye()
        await self._node.leave()
        await self._unless_in_haste(self._daemon.drain(refuses_misses=not self._node.covered))
        if self._rundir is not None:
            await self._warm_start.save_now()
        self._close_door()
        await self._daemon.close()
        if not self._find_others():
            await self._node.take_down()
            note_gone(self._rundir)
        self._sockets.close()

    def _find_others(self) -> list[str]:
        """Returns who else serves here by now: the node is theirs then."""
        try:
            others = who_serves(self._config.node, self._sockets.inodes)
        except OSError:
            return []
        if others:
            logger.info("others serve at %s: the node is left as it is", ", ".join(others[:4]))
        return others

    async def give_up(self) -> None:
        """Clears up after a start that failed."""
        await self._jobs.stop()
        await self._node.stop()
        if self._inheritance is not None:
            self._inheritance.abandon()
        self._close_door()
        await self._daemon.close()
        self._sockets.close()

    async def _unless_in_haste(self, job: Job) -> None:
        try:
            await first_of(job, self.leaving.hurried())
        except Exception:
            logger.exception("the end goes on without what was under way")


def _take_history(history: Mapping[str, int], counters: Counters) -> None:
    """Counts what the keeper did until now."""
    counters.count_event("worker_restarts", history.get("restarts", 0))
    counters.count_event("keeper_refused", history.get("refused", 0))
    counters.count_event("keeper_dropped", history.get("dropped", 0))
