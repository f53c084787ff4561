"""From a configuration to a worker that lives: what it comes upon, and the loop that it runs on."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from nodecache.config.model import Config
from nodecache.errors import HandoverError, RefusedError
from nodecache.loading import Source
from nodecache.net.listening import ListeningSockets
from nodecache.net.loop import loop_factory
from nodecache.net.sockets import raise_descriptor_limit
from nodecache.process.channel import KeeperLink
from nodecache.process.rundir import make_rundir
from nodecache.process.successor import take_over
from nodecache.process.worker import Found, Worker, hello
from nodecache.serving.daemon import Daemon
from nodecache.serving.node import Node
from nodecache.telemetry.loglines import configure_logging

logger = logging.getLogger("nodecache")

_TAKE_OVER_S = 3.0
_THREADS = 2
_LOCK_S = 0.0005


def run(config: Config, source: Source, link: KeeperLink | None = None) -> int:
    """Serves until a signal or a successor ends it; returns the exit code.

    Raises:
        SocketError: An address to serve DNS on cannot be used.
        NodeError: The interface cannot be put up, and there is nothing to serve on.
    """
    configure_logging(config.log_format, logging.INFO)
    raise_descriptor_limit()
    _tune_collector()
    _tune_threads()
    rundir, inheritance = make_rundir(config.rundir), None
    if rundir is not None and not (link is not None and link.held):
        try:
            inheritance = take_over(rundir, hello(config), _TAKE_OVER_S)
        except RefusedError as error:
            logger.warning("%s; give each a -rundir of its own. Going on without one", error)
            rundir = None
        except HandoverError as error:
            logger.warning("%s; starting without what it has", error)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_live(config, source, Found(link, rundir, inheritance)))


def _tune_collector() -> None:
    """Has Python look for reference cycles less often.

    A query makes none; with the default (every 700 new objects) the search took 8 % of a miss,
    and one through all cached messages would hold up queries for as long as a reload may not. What
    is new is looked through twice, 60,000 objects at most, then hardly ever again.
    """
    gc.freeze()
    gc.set_threshold(20_000, 2, 2_500)


def _tune_threads() -> None:
    """Has a thread that reads files give way to the loop sooner.

    The loop wants Python's lock back after each wait for queries; by default whoever computes may
    keep it for 5 ms, and each query of that time would wait as long.
    """
    sys.setswitchinterval(_LOCK_S)


async def _live(config: Config, source: Source, found: Found) -> int:
    loop = asyncio.get_running_loop()
    # Reading files and importing is all there is to do aside; a thread more is 0.2 MB more.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, "aside"))
    sockets = _listening_sockets(config, found)
    daemon = Daemon(config, source, sockets, loop)
    node = Node(config, daemon.counters, loop)
    worker = Worker(config, source, found, sockets, daemon, node, loop)
    with worker.leaving.signals(loop, daemon.reload):
        try:
            await worker.start()
            await worker.leaving.begun()
        except BaseException:
            await worker.give_up()
            raise
        await worker.end()
    return 0


def _listening_sockets(config: Config, found: Found) -> ListeningSockets:
    """Returns what was inherited, of the keeper first, and what is opened beside it."""
    link = found.link
    inherited: Mapping[str, socket.socket] = {}
    if link is not None and link.held:
        inherited = link.held
    elif found.inheritance is not None:
        inherited = found.inheritance.sockets
    hosts = config.node.addresses if config.node.has_interface else ()
    if link is None:
        return ListeningSockets(inherited, hosts)
    return ListeningSockets(inherited, hosts, link.hold, link.release)
