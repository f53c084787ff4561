from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.daemon.faulty import ScriptedUpstream
from tests.daemon.processes import HOST, Daemon, faultless, free_port
from tests.daemon.servers import Upstream, start_bind, start_knot, start_unbound
from tests.kept import Kept


class StartDaemon(Protocol):
    """Starts a daemon that forwards to ``upstream``, and sees that it ends without a fault."""

    def __call__(
        self, upstream: Upstream | ScriptedUpstream | str, *, cache: str = ..., options: str = ...
    ) -> Daemon: ...


def corefile(port: int, metrics_port: int, target: str, cache: str, options: str) -> str:
    """Returns a Corefile as the issue shows it."""
    return f""".:{port} {{
    bind {HOST}
    errors
    cache {cache}
    forward . {target} {{
        {options}
    }}
    prometheus {HOST}:{metrics_port}
}}
"""


def start_daemon(
    folder: Path,
    upstream: Upstream | ScriptedUpstream | str,
    cache: str = "300",
    options: str = "force_tcp",
) -> Daemon:
    """Returns a daemon that serves."""
    port, metrics_port = free_port(), free_port()
    target = upstream if isinstance(upstream, str) else f"{upstream.host}:{upstream.port}"
    text = corefile(port, metrics_port, target, cache, options)
    daemon = Daemon(folder, text, port=port, metrics_port=metrics_port)
    daemon.wait_until_serving()
    return daemon


@pytest.fixture
def daemon_for(tmp_path: Path) -> Iterator[StartDaemon]:
    """Starts daemons that end with the test."""
    with ExitStack() as stack:

        def start(
            upstream: Upstream | ScriptedUpstream | str,
            *,
            cache: str = "300",
            options: str = "force_tcp",
        ) -> Daemon:
            return stack.enter_context(faultless(start_daemon(tmp_path, upstream, cache, options)))

        yield start


@pytest.fixture
def scripted() -> Iterator[ScriptedUpstream]:
    """An upstream of our own that does what the test says."""
    with ScriptedUpstream() as upstream:
        yield upstream


STARTERS: dict[str, Callable[[Path], Upstream]] = {
    "knot": start_knot,
    "unbound": start_unbound,
    "bind": start_bind,
}


class Houses:
    """The real servers and a daemon before each, started when first asked for."""

    def __init__(self, folder_of: Callable[[str], Path], stack: ExitStack) -> None:
        self._folder_of = folder_of
        self._stack = stack
        self._upstreams: dict[str, Upstream] = {}
        self._daemons: dict[str, Daemon] = {}

    def upstream(self, name: str) -> Upstream:
        """Returns the server; skips the test when it is not installed."""
        if name not in self._upstreams:
            upstream = STARTERS[name](self._folder_of(name))
            self._upstreams[name] = upstream
            self._stack.callback(upstream.stop)
            upstream.wait_until_serving()
        return self._upstreams[name]

    def daemon(self, name: str) -> Daemon:
        """Returns the daemon that forwards to it over TCP."""
        if name not in self._daemons:
            daemon = start_daemon(self._folder_of(f"before-{name}"), self.upstream(name))
            self._daemons[name] = self._stack.enter_context(faultless(daemon))
        return self._daemons[name]


@contextmanager
def open_houses(folder_of: Callable[[str], Path]) -> Iterator[Houses]:
    """Ends with the block whatever was started."""
    with ExitStack() as stack:
        yield Houses(folder_of, stack)


@pytest.fixture(scope="session")
def all_houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept[Houses]]:
    """What the whole session shares: random order of tests starts nothing twice."""
    with Kept(lambda: open_houses(tmp_path_factory.mktemp)) as kept:
        yield kept


@pytest.fixture
def houses(all_houses: Kept[Houses], request: pytest.FixtureRequest) -> Houses:
    """The real servers, and a daemon before each."""
    return all_houses.get(request)


@pytest.fixture
def knot(houses: Houses) -> Upstream:
    """Knot DNS."""
    return houses.upstream("knot")


@pytest.fixture(params=sorted(STARTERS))
def served(request: pytest.FixtureRequest, houses: Houses) -> Daemon:
    """A shared daemon before each of the real servers in turn."""
    return houses.daemon(request.param)
