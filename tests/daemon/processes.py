"""Starts servers as child processes, keeps what they log, and ends them by their id."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 20.0  # a shared machine may rest for seconds; nothing here is a measurement

# An address of this test process alone: no other run, and no outgoing connection, uses it.
_PID = os.getpid()
HOST = f"127.{64 + _PID % 128}.{_PID // 128 % 250 + 1}.{_PID // 32_000 % 250 + 1}"


def own_host(second: int) -> str:
    """Returns another such address, in 127.SECOND: another worker may run the same test."""
    return f"127.{second}.{_PID % 250 + 1}.{_PID // 250 % 250 + 1}"


_given_ports: set[int] = set()


def free_port(host: str = HOST) -> int:
    """Returns a port of ``host`` that nobody uses, neither over UDP nor over TCP."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind((host, 0))
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind((host, port))
                if port not in _given_ports:
                    _given_ports.add(port)
                    return port


def wait_until(
    condition: Callable[[], object], what: str | Callable[[], str], timeout_s: float = PATIENCE_S
) -> None:
    """Returns when ``condition`` holds; raises AssertionError when it does not come to that."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {timeout_s:g} s: {text}")
        time.sleep(0.01)


class Child:
    """A running server; what it writes goes to a file."""

    def __init__(
        self,
        command: Sequence[str],
        log_file: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.command = list(command)
        self._log_file = log_file
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=None if environ is None else {**os.environ, **environ},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """Returns all that was written so far."""
        return self._log_file.read_text(errors="replace")

    def stop(self) -> int:
        """Asks it to end, waits, and returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends it as the kernel would for want of memory."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def wait_for_log(self, pattern: str, timeout_s: float = PATIENCE_S) -> None:
        """Returns once a line that matches ``pattern`` was written."""

        def is_there() -> bool:
            if re.search(pattern, self.log()):
                return True
            code = self.process.poll()
            assert code is None, f"{self.command[0]} ended with {code}:\n{self.log()}"
            return False

        wait_until(is_there, f"{pattern!r} in the log of {self.command}", timeout_s)


class Daemon(Child):
    """A nodecache that serves.

    Attributes:
        host, port: Where it answers DNS.
        metrics_port: Where it answers scrapes, on the same host.
    """

    def __init__(
        self,
        folder: Path,
        corefile: str,
        *,
        host: str = HOST,
        port: int,
        metrics_port: int,
        flags: Sequence[str] = (),
        within: Sequence[str] = (),
    ) -> None:
        """Starts it; ``corefile`` is the whole text, ``within`` stands before the command."""
        self.host = host
        self.port = port
        self.metrics_port = metrics_port
        path = folder / f"Corefile.{port}"
        path.write_text(corefile)
        super().__init__(
            [*within, *daemon_command(path, host, metrics_port), *flags],
            folder / f"nodecache.{port}.log",
        )

    def wait_until_serving(self) -> None:
        """Returns when its DNS sockets answer."""
        self.wait_for_log(r"caching up to")


def daemon_command(corefile: Path, host: str, metrics_port: int) -> list[str]:
    """Returns the command line of the daemon as node-cache's users write it."""
    return [
        sys.executable, "-m", "nodecache", "-localip", host,
        "-setupinterface=false", "-setupiptables=false", "-keeper=false", "-rundir=",
        "-conf", str(corefile), "-basecorefile", str(corefile),
        "-metrics-listen-address", f"{host}:{metrics_port}",
    ]  # fmt: skip


@contextlib.contextmanager
def faultless(daemon: Daemon) -> Iterator[Daemon]:
    """Ends the daemon at the end, and holds that nothing of ours escaped into its log."""
    try:
        yield daemon
        if daemon.process.poll() is None:
            assert daemon.stop() == 0, daemon.log()
        assert "Traceback" not in daemon.log(), daemon.log()
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
