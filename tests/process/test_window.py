"""What commands on the node see of a daemon, over a real socket."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from nodecache import __version__
from nodecache.commands.running import ask_running, find_running
from nodecache.errors import NotRunningError
from nodecache.process.window import Window
from nodecache.serving.views import compose_json
from nodecache.telemetry.http_server import PageRequest, Response
from tests.loops import run


async def say_hello(_request: PageRequest) -> Response:
    return compose_json({"hello": [1, "é"]})


def test_commands_learn_how_the_daemon_was_started_and_what_its_pages_say(tmp_path: Path) -> None:
    async def look() -> None:
        window = Window(tmp_path / "run", {"/hello": say_hello}, asyncio.get_running_loop())
        await window.open()
        running = await asyncio.to_thread(find_running, tmp_path / "run")
        assert (running.version, running.pid) == (__version__, os.getpid())
        assert running.folder == str(Path.cwd())
        assert running.environment == dict(os.environ)
        assert await asyncio.to_thread(ask_running, tmp_path / "run", "/hello") == {
            "hello": [1, "é"]
        }
        window.close()

    run(look())


def test_socket_is_for_our_own_user_alone_and_a_successor_takes_its_place(tmp_path: Path) -> None:
    async def look() -> None:
        loop = asyncio.get_running_loop()
        first, second = Window(tmp_path, {}, loop), Window(tmp_path, {"/hello": say_hello}, loop)
        await first.open()
        await second.open()
        assert (tmp_path / "window.sock").stat().st_mode & 0o777 == 0o600
        first.close()
        assert await asyncio.to_thread(ask_running, tmp_path, "/hello")
        second.close()

    run(look())


def test_who_is_not_there_or_not_understood_is_said_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match=r"no nodecache answers at .*window\.sock"):
        find_running(tmp_path)

    async def look() -> None:
        window = Window(tmp_path, {}, asyncio.get_running_loop())
        await window.open()
        with pytest.raises(NotRunningError, match="the same version"):
            await asyncio.to_thread(ask_running, tmp_path, "/nothing")
        window.close()

    run(look())


def test_daemon_serves_without_a_window_where_there_can_be_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    async def look() -> None:
        window = Window(tmp_path / "file", {}, asyncio.get_running_loop())
        await window.open()
        window.close()

    run(look())
    assert "commands on this node cannot look at this daemon" in caplog.text
