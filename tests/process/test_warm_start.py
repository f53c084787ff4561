"""The cache survives its process, and nothing that lies in its place does harm."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from nodecache.cache.admit import admit_response
from nodecache.cache.message import Message
from nodecache.cache.snapshot import write
from nodecache.config.model import (
    CLUSTER_DOMAIN,
    ROOT,
    Address,
    CachePolicy,
    Config,
    ForwardPolicy,
    Lifetime,
    Name,
    NxdomainScope,
    ServerBlock,
    Transport,
    Upstream,
)
from nodecache.counters import Counters
from nodecache.directives.hosts.model import HOSTS, HostsTable
from nodecache.directives.rewrite.model import (
    REWRITES,
    EdnsAction,
    EdnsVariable,
    Match,
    NameTest,
    RewriteEdns,
    RewriteName,
)
from nodecache.directives.template.model import TEMPLATES, AnswerTemplate
from nodecache.directives.whoami.model import WHOAMI
from nodecache.patterns import Pattern
from nodecache.process import warm_start
from nodecache.process.warm_start import FILE_NAME, WarmStart
from nodecache.serving.blocks import Blocks
from nodecache.serving.identity import identify_rules
from nodecache.templates import parse_record_text
from tests.cache.building import a, key, name, response
from tests.loops import Result, run, until

FIRST, SECOND = (Upstream(Address(f"192.0.2.{n}", 53)) for n in (1, 2))
FORWARD = ForwardPolicy(ROOT, (FIRST, SECOND))
CLUSTER = ServerBlock((CLUSTER_DOMAIN,), 53, cache=CachePolicy(), forwards=(FORWARD,))
REST = replace(CLUSTER, zones=(ROOT,))
EXAMPLE = Name("example.", name("example"))
UNCACHED = replace(REST, zones=(EXAMPLE,), cache=None)


class WarmHouse:
    """The caches of one process, and what keeps them."""

    def __init__(self, rundir: Path | None, *blocks: ServerBlock, octets: int = 1 << 24) -> None:
        self.blocks = Blocks(octets, Counters())
        self.apply(*(blocks or (CLUSTER, UNCACHED, REST)))
        self.warm_start = WarmStart(self.blocks, rundir)

    def apply(self, *blocks: ServerBlock) -> None:
        self.blocks.apply(Config(blocks), monotonic())

    def know(self, count: int = 3, start: int = 0, index: int = 0) -> None:
        messages = self.blocks.states[index].messages
        assert messages is not None
        for n in range(start, start + count):
            asked = key(f"{n}.cluster.local")
            octets = response(asked, [a(300)])
            assert admit_response(octets, asked, messages, monotonic(), 0.5) is not None

    def known(self, index: int = 0) -> list[Message]:
        messages = self.blocks.states[index].messages
        return [] if messages is None else messages.all_messages()


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def file_octets(rundir: Path) -> bytes:
    return (rundir / FILE_NAME).read_bytes()


def taken_over(octets: bytes, *blocks: ServerBlock) -> int:
    return run(WarmHouse(None, *blocks).warm_start.load(octets))


def test_successor_takes_over_all_caches(tmp_path: Path) -> None:
    house = WarmHouse(None)
    house.know(500)
    house.know(20, index=2)
    descriptor = run(house.warm_start.snapshot_to_memfd())
    assert descriptor is not None
    try:
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        successor = WarmHouse(None)
        assert run(successor.warm_start.load(descriptor)) == 520
        assert os.fstat(descriptor).st_size > 0  # still the caller's
    finally:
        os.close(descriptor)
    for index in (0, 2):
        kept, before = successor.known(index), house.known(index)
        assert {m.key: m.expires_at for m in kept} == {m.key: m.expires_at for m in before}
    assert successor.blocks.budget.octets == house.blocks.budget.octets


def test_restart_takes_over_the_file(tmp_path: Path) -> None:
    house = WarmHouse(tmp_path)
    house.know()
    run(house.warm_start.save_now())
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o7777 == 0o600
    assert names_in(tmp_path) == [FILE_NAME]
    assert run(WarmHouse(tmp_path).warm_start.load_file()) == 3


def test_without_a_file_the_start_is_cold_and_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(WarmHouse(tmp_path).warm_start.load_file()) == 0
    assert run(WarmHouse(None).warm_start.load_file()) == 0
    run(WarmHouse(None).warm_start.save_now())
    assert caplog.records == []


def test_other_rules_take_nothing(tmp_path: Path) -> None:
    house = WarmHouse(tmp_path)
    house.know()
    run(house.warm_start.save_now())
    octets = file_octets(tmp_path)
    assert taken_over(octets, CLUSTER) == 3
    shorter = replace(CLUSTER, cache=CachePolicy(success=Lifetime(100, 20)))
    assert taken_over(octets, shorter) == 3
    other = replace(FORWARD, upstreams=(FIRST,))
    assert taken_over(octets, replace(CLUSTER, forwards=(other,))) == 0
    assert taken_over(octets, replace(CLUSTER, port=54)) == 0


@pytest.mark.parametrize("spoil", [lambda o: o[:-1], lambda _: b"", lambda o: b"x" * len(o)])
def test_damaged_file_is_ignored_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    house = WarmHouse(tmp_path)
    house.know()
    run(house.warm_start.save_now())
    (tmp_path / FILE_NAME).write_bytes(spoil(file_octets(tmp_path)))
    assert run(WarmHouse(tmp_path).warm_start.load_file()) == 0
    assert len(caplog.records) == 1
    assert "the start is cold" in caplog.text


def test_snapshot_of_another_boot_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    octets = b"".join(write([], b"another boot", monotonic()))
    assert taken_over(octets) == 0
    assert "before the machine was started" in caplog.text


def put_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_large(path: Path) -> None:
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("put", [put_link, put_fifo, put_directory, put_large])
def test_what_is_no_file_of_ours_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, put: Callable[[Path], None]
) -> None:
    house = WarmHouse(tmp_path)
    house.know()
    run(house.warm_start.save_now())
    put(tmp_path / FILE_NAME)
    assert run(WarmHouse(tmp_path).warm_start.load_file()) == 0
    assert len(caplog.records) == 1


def test_file_of_somebody_else_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = WarmHouse(tmp_path)
    house.know()
    run(house.warm_start.save_now())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert run(WarmHouse(tmp_path).warm_start.load_file()) == 0
    assert "belongs to somebody else" in caplog.text


def test_descriptor_that_is_none_or_a_pipe_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    try:
        assert run(WarmHouse(None).warm_start.load(reader)) == 0
    finally:
        os.close(reader)
        os.close(writer)
    assert run(WarmHouse(None).warm_start.load(1 << 20)) == 0
    assert len(caplog.records) == 2


def test_unwritable_directory_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = WarmHouse(tmp_path / "missing")
    house.know()
    for _ in range(3):
        run(house.warm_start.save_now())
    assert len(caplog.records) == 1
    assert "cannot keep the cache" in caplog.text
    (tmp_path / "missing").mkdir()
    run(house.warm_start.save_now())
    assert taken_over(file_octets(tmp_path / "missing")) == 3


def test_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house = WarmHouse(tmp_path)
    house.know()
    run(house.warm_start.save_now())
    before = file_octets(tmp_path)

    def fail(*_: object) -> None:
        (tmp_path / ".cache.new").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(warm_start, "_write_draft", fail)
    run(house.warm_start.save_now())
    assert "No space left" in caplog.text
    assert names_in(tmp_path) == [FILE_NAME]
    assert file_octets(tmp_path) == before


def test_draft_of_a_killed_process_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".cache.new").symlink_to(tmp_path / "victim")
    house = WarmHouse(tmp_path)
    house.know()
    run(house.warm_start.save_now())
    assert names_in(tmp_path) == [FILE_NAME]


def test_directory_locked_by_another_process_is_left_alone(tmp_path: Path) -> None:
    house = WarmHouse(tmp_path)
    house.know()
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        run(house.warm_start.save_now())
        assert names_in(tmp_path) == []
    finally:
        os.close(directory)
    run(house.warm_start.save_now())
    assert names_in(tmp_path) == [FILE_NAME]


def test_file_is_written_again_only_when_something_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "_SAVE_S", 0.01)
    path = tmp_path / FILE_NAME

    async def scenario() -> None:
        house = WarmHouse(tmp_path)
        saving = asyncio.create_task(house.warm_start.run())
        await asyncio.sleep(0.1)
        assert not path.exists()
        house.know()
        await until(path.exists)
        first = path.stat().st_ino
        path.rename(tmp_path / "first")  # so that its number is not used again
        await asyncio.sleep(0.1)
        assert not path.exists()
        house.know(1, start=3)
        await until(path.exists)
        assert path.stat().st_ino != first
        saving.cancel()

    run(scenario())
    assert taken_over(file_octets(tmp_path)) == 4


def test_mistake_of_ours_does_not_end_the_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(warm_start, "_SAVE_S", 0.01)
    calls = 0

    def fail_first(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(warm_start, "write", fail_first)

    async def scenario() -> None:
        house = WarmHouse(tmp_path)
        house.know()
        saving = asyncio.create_task(house.warm_start.run())
        await until((tmp_path / FILE_NAME).exists)
        saving.cancel()

    run(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_save_at_the_end_follows_one_that_was_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "_SAVE_S", 0.0)
    replacing, pause = warm_start._replace_file, threading.Event()
    running: list[int] = []
    most = 0

    def slowly(rundir: Path, chunks: list[bytes]) -> bool:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        pause.wait(0.3)
        done = replacing(rundir, chunks)
        running.pop()
        return done

    monkeypatch.setattr(warm_start, "_replace_file", slowly)

    async def scenario() -> None:
        house = WarmHouse(tmp_path)
        house.know()
        saving = asyncio.create_task(house.warm_start.run())
        await until(lambda: bool(running))
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
        house.know(2, start=3)
        await house.warm_start.save_now()

    run(scenario())
    assert most == 1
    assert taken_over(file_octets(tmp_path)) == 5


def test_queries_are_served_while_a_snapshot_is_written_and_loaded() -> None:
    house = WarmHouse(None)
    house.know(2000)

    async def turns_during(job: Awaitable[Result]) -> tuple[Result, int]:
        task = asyncio.ensure_future(job)
        turns = 0
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        return task.result(), turns

    async def scenario() -> None:
        descriptor, turns = await turns_during(house.warm_start.snapshot_to_memfd())
        assert descriptor is not None
        assert turns >= 20
        count, turns = await turns_during(WarmHouse(None).warm_start.load(descriptor))
        os.close(descriptor)
        assert count == 2000
        assert turns >= 20

    run(scenario())


@pytest.mark.parametrize("block", [replace(CLUSTER, cache=CachePolicy(keep_ttl=True)), REST])
def test_reload_while_loading_leaves_no_octet_behind(block: ServerBlock) -> None:
    house = WarmHouse(None)
    house.know(2000)

    async def scenario() -> None:
        descriptor = await house.warm_start.snapshot_to_memfd()
        assert descriptor is not None
        successor = WarmHouse(None)
        loading = asyncio.create_task(successor.warm_start.load(descriptor))
        await until(lambda: bool(successor.known()))
        successor.apply(block)
        await loading
        os.close(descriptor)
        while successor.blocks.sweep(monotonic()):
            pass
        kept = successor.known()
        assert len(kept) < 2000
        assert successor.blocks.budget.octets == sum(message.size_octets for message in kept)

    run(scenario())


def test_reload_while_writing_loses_at_most_the_warm_start() -> None:
    house = WarmHouse(None)
    house.know(2000)

    async def scenario() -> None:
        writing = asyncio.create_task(house.warm_start.snapshot_to_memfd())
        for _ in range(200):
            await asyncio.sleep(0)
        house.apply(REST)
        descriptor = await writing
        assert descriptor is not None
        assert await WarmHouse(None).warm_start.load(descriptor) <= 2000
        os.close(descriptor)

    run(scenario())


def test_no_memory_file_means_no_warm_hand_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", fail)
    assert run(WarmHouse(None).warm_start.snapshot_to_memfd()) is None
    assert "not handed over" in caplog.text


def test_cancelled_hand_over_closes_its_descriptor(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = WarmHouse(tmp_path)
        house.know(2000)
        await house.warm_start.save_now()  # the rules are known then, which takes a thread
        before = names_in(Path("/proc/self/fd"))
        task = asyncio.create_task(house.warm_start.snapshot_to_memfd())
        await asyncio.sleep(0)
        assert len(names_in(Path("/proc/self/fd"))) > len(before)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert names_in(Path("/proc/self/fd")) == before

    run(scenario())


def test_larger_cache_of_the_predecessor_is_refused_with_both_sizes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = WarmHouse(None)
    house.know(2000)

    async def scenario() -> None:
        descriptor = await house.warm_start.snapshot_to_memfd()
        assert descriptor is not None
        assert await WarmHouse(None, octets=100_000).warm_start.load(descriptor) == 0
        os.close(descriptor)

    run(scenario())
    assert "more than the 75000 of our own" in caplog.text


TEMPLATE = AnswerTemplate(
    1,
    1,
    (ROOT,),
    (Pattern("^a", ("",), 5),),
    answer=(parse_record_text("{{ .Name }} 60 IN A 192.0.2.1"),),
)
RULES = (
    RewriteName(NameTest(Match.SUFFIX, "example."), "local."),
    RewriteEdns(EdnsAction.SET, 65001, EdnsVariable.QNAME),
)
TABLE = HostsTable((ROOT,), ((name("a.example"), (bytes(4),)),), file="/etc/hosts", entries=1)
BARE = replace(
    CLUSTER,
    forwards=(replace(FORWARD, next_rcodes=frozenset({3, 5, 2}), except_zones=(EXAMPLE, ROOT)),),
)
FULL = BARE.having(REWRITES, RULES).having(TEMPLATES, (TEMPLATE,)).having(HOSTS, TABLE)
FULL_FORWARD = FULL.forwards[0]


def test_rules_are_the_same_in_any_order_of_upstreams_and_zones() -> None:
    other = replace(
        FULL.having(HOSTS, replace(TABLE, file="/etc/other")),
        bind=("192.0.2.53",),
        forwards=(replace(FULL_FORWARD, upstreams=(SECOND, FIRST), except_zones=(ROOT, EXAMPLE)),),
        cache=None,
        line=7,
    )
    assert identify_rules(FULL, b"\0") == identify_rules(other, b"\0")


@pytest.mark.parametrize(
    "other",
    [
        replace(FULL, zones=(ROOT,)),
        replace(FULL, port=54),
        FULL.having(WHOAMI, True),
        replace(FULL, forwards=()),
        replace(FULL, forwards=(FULL_FORWARD, FULL_FORWARD)),
        replace(FULL, forwards=(replace(FULL_FORWARD, origin=CLUSTER_DOMAIN),)),
        replace(FULL, forwards=(replace(FULL_FORWARD, except_zones=()),)),
        replace(FULL, forwards=(replace(FULL_FORWARD, upstreams=(FIRST,)),)),
        replace(
            FULL,
            forwards=(
                replace(FULL_FORWARD, upstreams=(FIRST, replace(SECOND, transport=Transport.TCP))),
            ),
        ),
        replace(FULL, forwards=(replace(FULL_FORWARD, next_rcodes=frozenset({3})),)),
        FULL.having(REWRITES, RULES[::-1]),
        FULL.having(REWRITES, (replace(RULES[0], is_last=False), RULES[1])),
        FULL.having(TEMPLATES, ()),
        FULL.having(TEMPLATES, (replace(TEMPLATE, rcode=3),)),
        FULL.having(HOSTS, None),
        FULL.having(HOSTS, replace(TABLE, ttl_s=60)),
        FULL.having(HOSTS, replace(TABLE, addresses=((name("a.example"), (b"\0\0\0\1",)),))),
        FULL.having(HOSTS, replace(TABLE, names=TABLE.addresses, addresses=())),
        FULL.having(HOSTS, replace(TABLE, fallthrough=())),
    ],
)
def test_other_rules_differ(other: ServerBlock) -> None:
    assert identify_rules(FULL, b"\0") != identify_rules(other, b"\0")


def test_reach_of_an_nxdomain_belongs_to_the_rules() -> None:
    assert identify_rules(FULL, b"\0") != identify_rules(FULL, CLUSTER_DOMAIN.wire)
    house = WarmHouse(None, CLUSTER)
    house.know()

    async def scenario() -> None:
        descriptor = await house.warm_start.snapshot_to_memfd()
        assert descriptor is not None
        other = WarmHouse(None, CLUSTER)
        config = Config((CLUSTER,), nxdomain_scope=NxdomainScope.ALL)
        other.blocks.apply(config, monotonic())
        assert await other.warm_start.load(descriptor) == 0
        os.close(descriptor)

    run(scenario())


def test_rules_are_the_same_in_another_process() -> None:
    code = (
        "from tests.process.test_warm_start import FULL, identify_rules;"
        "print(identify_rules(FULL, b'\\0').hex())"
    )
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent.parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == identify_rules(FULL, b"\0").hex()


def test_rules_are_the_same_in_every_release_of_python() -> None:
    block = FULL.having(REWRITES, ()).having(TEMPLATES, ())
    assert identify_rules(block, b"\0").hex()[:16] == "93e5b597c9d30d41"


@pytest.fixture(autouse=True)
def _only_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "nodecache")
