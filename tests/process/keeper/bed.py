"""Runs ``scripted`` in a process of its own, and asks it as a stub resolver does."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.daemon.processes import HOST, PATIENCE_S, Child, free_port, wait_until

QUESTION = b"\3www\7example\0\0\1\0\1"
NOERROR, REFUSED = 0, 5


def query(message_id: int = 0x1234) -> bytes:
    return message_id.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + QUESTION


class KeeperProcess(Child):
    """A keeper with a scripted worker."""

    def __init__(self, kind: str, folder: Path, within: Sequence[str] = ()) -> None:
        self.folder = folder
        self.place = HOST, free_port()
        words = [kind, HOST, str(self.place[1]), str(folder)]
        super().__init__(
            [*within, sys.executable, "-m", "tests.process.keeper.scripted", *words], folder / "log"
        )

    def lines(self, name: str) -> list[str]:
        """Returns what was written to a file of that name."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).read_text().splitlines()
        return []

    def wait_for(self, name: str, count: int = 1) -> list[str]:
        """Returns the lines of a file as soon as there are so many."""
        wait_until(
            lambda: len(self.lines(name)) >= count,
            lambda: f"{count} lines in {name}: {self.lines(name)}\n{self.log()}",
        )
        return self.lines(name)

    def worker(self) -> int:
        """Returns the process that serves."""
        return int(self.wait_for("serving")[-1])

    def signal_worker(self, number: int) -> None:
        os.kill(self.worker(), number)

    def wait_for_end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def rcode(self, timeout_s: float = PATIENCE_S) -> int | None:
        """Returns the RCODE of the answer to one query over UDP, None for silence."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(self.place)
            sock.send(query())
            try:
                reply = sock.recv(4096)
            except TimeoutError:
                return None
        assert reply[:2] == query()[:2]
        assert reply[12:] == QUESTION
        return reply[3] & 0xF

    def rcode_over_tcp(self) -> int:
        with socket.create_connection(self.place, PATIENCE_S) as sock:
            frame = len(query()).to_bytes(2, "big") + query()
            sock.sendall(frame[:7])
            sock.sendall(frame[7:])
            reply = b""
            while octets := sock.recv(4096):
                reply += octets
        assert int.from_bytes(reply[:2], "big") == len(reply) - 2
        assert reply[2:4] == query()[:2]
        return reply[5] & 0xF

    def wait_for_rcode(self, rcode: int) -> None:
        wait_until(lambda: self.rcode(1.0) == rcode, lambda: f"RCODE {rcode}\n{self.log()}")
