"""`nodecache webhook` as a process, with certificates in files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.daemon.processes import free_port, wait_until
from tests.webhook.clients import ask_once, get

PATIENCE_S = 30.0
LOOPBACK = "127.0.0.1"


class Webhook:
    """One process; ``port`` is the one over TLS, ``plain_port`` that of the metrics."""

    def __init__(
        self,
        folder: Path,
        *more: str,
        command: Sequence[str] = (sys.executable, "-m", "nodecache", "webhook"),
    ) -> None:
        self.folder = folder
        self.port, self.plain_port = free_port(LOOPBACK), free_port(LOOPBACK)
        self._log = folder / "log"
        words = [
            *("-listen-address", f"127.0.0.1:{self.port}"),
            *("-metrics-listen-address", f"127.0.0.1:{self.plain_port}"),
            *("-tls-cert-file", str(folder / "tls.crt")),
            *("-tls-private-key-file", str(folder / "tls.key")),
            *("-cluster-dns", "10.96.0.10"),
        ]
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, *words, *more], stderr=log, env=environ)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def show(self, pair: tuple[bytes, bytes]) -> None:
        """Puts a pair in place of the former one, a file after the other."""
        for name, octets in zip(("tls.crt", "tls.key"), pair, strict=True):
            new = self.folder / f"{name}.new"
            new.write_bytes(octets)
            new.rename(self.folder / name)

    def status(self, path: str) -> int:
        """Returns what the plain listener says; 0 while nobody listens."""
        try:
            return ask_once(self.plain_port, None, get(path))[0]
        except OSError:
            return 0

    def series(self, name: str) -> float:
        text = ask_once(self.plain_port, None, get("/metrics"))[1].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def wait_until(self, is_so: Callable[[], object]) -> None:
        """Returns when it is so; fails if the process ends before, or it takes too long."""

        def lives_and_is_so() -> object:
            assert self.process.poll() is None, self.log
            return is_so()

        wait_until(lives_and_is_so, lambda: self.log, PATIENCE_S)

    def tell_to_end(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(folder: Path, *more: str, **options: Sequence[str]) -> Iterator[Webhook]:
    """Yields a process that lives, and ends it."""
    webhook = Webhook(folder, *more, **options)
    try:
        webhook.wait_until(lambda: webhook.status("/healthz") == 200)
        yield webhook
    finally:
        webhook.process.kill()
        webhook.process.wait()
