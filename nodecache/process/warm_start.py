"""Keeps the message cache where a successor or a restarted worker finds it, and loads it.

Everything that takes long is done in slices on the serving loop, so that queries are answered in
between, and whatever waits for the file system is done in a thread. What goes wrong here costs
warmth and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from nodecache.cache.snapshot import MOST_OCTETS, Snapshot, read, restore, write
from nodecache.cache.store import MessageCache
from nodecache.config.model import ServerBlock
from nodecache.errors import SnapshotError
from nodecache.process.descriptors import open_memfd, seal_memfd
from nodecache.resolve.block import BlockState
from nodecache.serving.blocks import Blocks
from nodecache.serving.identity import identify_rules

logger = logging.getLogger("nodecache")

FILE_NAME = "cache"
_DRAFT_NAME = ".cache.new"
_SAVE_S = 15.0


class WarmStart:
    """The message caches of all server blocks, in and out.

    Args:
        blocks: Whose they are.
        rundir: Directory of the file, only ours to write; None for no file.
    """

    def __init__(self, blocks: Blocks, rundir: Path | None) -> None:
        self._blocks = blocks
        self._boot_id = _read_boot_id()
        # Without knowing the boot, times in a file mean nothing.
        self._rundir = rundir if self._boot_id else None
        self._identities: dict[BlockState, tuple[ServerBlock, bytes | None, bytes]] = {}
        self._saved_count = 0
        self._saving = asyncio.Lock()
        self._replacing: asyncio.Future[bool] | None = None
        self._has_complained = False

    async def snapshot_to_memfd(self) -> int | None:
        """Returns the caller's new descriptor of a sealed snapshot; None if none is had."""
        descriptor = -1
        try:
            descriptor = open_memfd()
            with open(descriptor, "wb", closefd=False) as file:  # noqa: ASYNC230 - memory
                await self._compose(file.write)
            os.lseek(descriptor, 0, os.SEEK_SET)
            seal_memfd(descriptor)
        except BaseException as error:
            if descriptor >= 0:
                os.close(descriptor)
            if not isinstance(error, OSError):
                raise
            logger.warning("the cache is not handed over: %s", error)
            return None
        return descriptor

    async def load(self, source: bytes | int) -> int:
        """Returns how many messages of a snapshot were taken into the caches.

        Queries may be served meanwhile. Raises nothing: what is damaged is logged and ignored.

        Args:
            source: The octets, or a descriptor of them, read from its start; it stays the caller's.
        """
        limit = self._limit_octets()
        if isinstance(source, bytes):
            return await self._load(lambda: source)
        try:
            own = os.dup(source)  # so that nobody closes it under the thread
        except OSError as error:
            logger.warning("the start is cold: %s", error)
            return 0
        return await self._load(lambda: _read_descriptor(own, limit))

    async def load_file(self) -> int:
        """Returns how many messages were taken over from the file; raises nothing."""
        if self._rundir is None:
            return 0
        path, limit = self._rundir / FILE_NAME, self._limit_octets()
        return await self._load(lambda: _read_file(path, limit))

    async def run(self) -> None:
        """Writes the file now and then, if anything was admitted since; never returns."""
        while True:
            await asyncio.sleep(_SAVE_S)
            if self._blocks.budget.admission_count != self._saved_count:
                await self.save_now()

    async def save_now(self) -> None:
        """Writes the file, at an orderly end; not for who has handed over to a successor.

        Raises nothing.
        """
        try:
            await self._save()
        except Exception:
            # Ours to mend; but neither an orderly end nor the next save may fail of it.
            logger.exception("the cache is not kept for a restart")

    def _limit_octets(self) -> int:
        """What is kept takes more octets in a cache than in a snapshot."""
        return min(MOST_OCTETS, self._blocks.budget.limit_octets)

    async def _compose(self, take: Callable[[bytes], object]) -> None:
        while self._blocks.sweep(monotonic()):  # noqa: ASYNC110 - it is this that moves them
            await asyncio.sleep(0)
        sections: list[tuple[bytes, MessageCache]] = []
        for state in self._blocks.states:
            block, messages = state.block, state.messages
            if messages is not None:
                identity = await self._identify(state, block, messages)
                sections.append((identity, messages))
        for chunk in write(sections, self._boot_id, monotonic(), self._limit_octets()):
            take(chunk)
            await asyncio.sleep(0)

    async def _identify(
        self, state: BlockState, block: ServerBlock, messages: MessageCache
    ) -> bytes:
        zone = messages.nxdomain_zone
        known = self._identities.get(state)
        if known is not None and known[0] is block and known[1] == zone:
            return known[2]
        # A hosts table may have a hundred thousand entries.
        identity = await asyncio.to_thread(identify_rules, block, zone)
        self._identities[state] = (block, zone, identity)
        for gone in self._identities.keys() - set(self._blocks.states):
            del self._identities[gone]
        return identity

    async def _load(self, fetch: Callable[[], bytes]) -> int:
        try:
            snapshot = await asyncio.to_thread(lambda: read(fetch(), self._boot_id, monotonic()))
        except FileNotFoundError:
            return 0
        except (OSError, SnapshotError) as error:
            logger.warning("the kept cache is not used, the start is cold: %s", error)
            return 0
        count = 0
        for state in self._blocks.states:
            count += await self._restore(snapshot, state)
        logger.info("took over %d cached messages", count)
        return count

    async def _restore(self, snapshot: Snapshot, state: BlockState) -> int:
        block, messages = state.block, state.messages
        if messages is None:
            return 0
        section = snapshot.sections.get(await self._identify(state, block, messages))
        if section is None or state.block is not block:
            return 0
        total = 0
        steps = restore(section, messages, monotonic())
        while state.messages is messages:  # else a reload has retired it
            count = next(steps, None)
            if count is None:
                break
            total += count
            await asyncio.sleep(0)
        return total

    async def _save(self) -> None:
        if self._rundir is None:
            return
        async with self._saving:
            if self._replacing is not None and not self._replacing.done():
                await asyncio.wait((self._replacing,))  # of a save that was cancelled
            count = self._blocks.budget.admission_count
            chunks: list[bytes] = []
            await self._compose(chunks.append)
            loop = asyncio.get_running_loop()
            self._replacing = loop.run_in_executor(None, _replace_file, self._rundir, chunks)
            try:
                is_done = await asyncio.shield(self._replacing)
            except OSError as error:
                self._complain(self._rundir, error)
            else:
                self._has_complained = False
                if is_done:
                    self._saved_count = count

    def _complain(self, rundir: Path, error: OSError) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.warning(
                "cannot keep the cache in %s: %s; make it writable, or a restart begins cold",
                rundir,
                error.strerror,
            )


def _read_boot_id() -> bytes:
    """Returns what tells boots apart, and time namespaces, whose clocks differ; b"" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""
    with contextlib.suppress(OSError):
        boot += Path("/proc/self/ns/time").readlink().name.encode()
    return boot[:255]


def _read_file(path: Path, limit: int) -> bytes:
    """Returns the content of a file of ours. Raises OSError and SnapshotError."""
    # O_NONBLOCK: a FIFO in its place must not hold up the thread.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise SnapshotError(f"{path} belongs to somebody else")
    return _read_descriptor(descriptor, limit)


def _read_descriptor(descriptor: int, limit: int) -> bytes:
    """Returns what is in a regular file, and closes it. Raises OSError and SnapshotError."""
    with open(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SnapshotError("it is no regular file")
        if found.st_size > limit:
            raise SnapshotError(f"it has {found.st_size} octets, more than the {limit} of our own")
        file.seek(0)
        parts = []
        left = found.st_size
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def _replace_file(rundir: Path, chunks: Sequence[bytes]) -> bool:
    """Puts a new file in the place of the old; False if another process is about to.

    Raises OSError; then the old one is as it was. Nothing is forced to the disk: what a crash of
    the machine could damage is void after it.
    """
    directory = os.open(rundir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        _write_draft(directory, chunks)
        os.replace(_DRAFT_NAME, FILE_NAME, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(_DRAFT_NAME, dir_fd=directory)
        raise
    finally:
        os.close(directory)
    return True


def _write_draft(directory: int, chunks: Sequence[bytes]) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_DRAFT_NAME, dir_fd=directory)  # of a process that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(_DRAFT_NAME, flags, 0o600, dir_fd=directory)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - pathlib knows no descriptors
        file.writelines(chunks)
