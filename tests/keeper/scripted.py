"""A keeper with a worker that does what the test wants: ``python -m ... KIND HOST PORT FOLDER``.

The worker answers every query NOERROR. What it does and hears goes to files in FOLDER.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from nodecache.channel import KeeperLink
from nodecache.keeper.lines import Lines
from nodecache.keeper.supervise import supervise

PROBE = bytes([0, 0, 0x78, *bytes(9)]) + b"a mark of its own"
_PR_SET_CHILD_SUBREAPER = 36
CONFIGURATION, CRASH = 2, 7
_CODES = {"1": 1, "2": CONFIGURATION, "hopeless": CRASH}


class Script:
    """One worker."""

    def __init__(self, kind: str, host: str, port: int, folder: Path, link: KeeperLink) -> None:
        self.kind = kind
        self.host = host
        self.port = port
        self.folder = folder
        self.link = link
        self.signals: list[int] = []
        self.has_handed_over = False
        self.note("started", f"{os.getpid()} {time.monotonic()} {link.history}")

    def note(self, name: str, text: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write(text + "\n")

    def run(self) -> int:
        restarts = self.link.history["restarts"]
        if self.kind == "raises" and not restarts:
            raise RuntimeError("a worker's own fault")
        if self.kind in _CODES:
            return _CODES[self.kind]
        if restarts and not (self.folder / "good").exists():
            if self.kind == "misconfigured":
                return CONFIGURATION
            if self.kind == "fades":
                return CRASH
            if self.kind == "hangs":
                time.sleep(1000)
        if restarts and self.kind == "slow":
            time.sleep(0.2)
        return self.serve()

    def serve(self) -> int:
        """Answers until a signal says otherwise."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, _frame: self.signals.append(number))
        udp, tcp = self.listen()
        if self.kind == "two-faced":
            self.listen_behind_the_redirect()
        self.link.serving(
            PROBE, [(self.host, self.port)], self.command("withdrawn"), self.command("restored")
        )
        self.note("serving", str(os.getpid()))
        poll = select.poll()
        poll.register(udp, select.POLLIN)
        poll.register(tcp, select.POLLIN)
        while True:
            poll.poll(20)
            if not self.has_handed_over:
                answer_datagrams(udp)
                answer_connection(tcp)
            code = self.obey()
            if code is not None:
                return code
            if self.kind == "replaced" and self.has_handed_over:
                return 0

    def listen(self) -> tuple[socket.socket, socket.socket]:
        """Takes the sockets that the keeper held, or makes them."""
        socks = []
        for name, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
            full = f"{name} {self.host}:{self.port}"
            sock = self.link.held.pop(full, None)
            if sock is None:
                sock = socket.socket(socket.AF_INET, kind)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((self.host, self.port))
                if kind == socket.SOCK_STREAM:
                    sock.listen(100)
            sock.setblocking(False)
            self.link.hold(full, sock)
            socks.append(sock)
        return socks[0], socks[1]

    def listen_behind_the_redirect(self) -> None:
        """Holds a socket that is not among the addresses that ``serving`` names."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((self.host, self.port + 1))
        self.link.hold(f"udp {self.host}:{self.port + 1}", sock)

    def command(self, deed: str) -> list[str]:
        if self.kind == "clumsy":
            return ["sh", "-c", f"echo tried >> {self.folder}/{deed}; echo no luck; exit 3"]
        return ["sh", "-c", f"echo done >> {self.folder}/{deed}"]

    def obey(self) -> int | None:
        """Does what signals ask for; returns an exit code to end."""
        if not self.signals:
            return None
        number = self.signals.pop(0)
        self.note("signals", signal.Signals(number).name)
        if number == signal.SIGUSR2:
            self.leave_an_orphan() if self.kind == "parent" else self.hand_over()
        if number != signal.SIGTERM or self.kind == "stubborn":
            return None
        if self.kind == "careless":
            return 3
        self.link.leaving()
        if self.kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def hand_over(self) -> None:
        self.has_handed_over = True
        self.link.handed_over()
        self.note("handed_over", "")

    def leave_an_orphan(self) -> None:
        """Starts a grandchild whose parent ends before it."""
        child = os.fork()
        if not child:
            grandchild = os.fork()
            if not grandchild:
                time.sleep(0.2)
                os._exit(0)
            self.note("orphan", str(grandchild))
            os._exit(0)
        os.waitpid(child, 0)


def answer_datagrams(udp: socket.socket) -> None:
    while True:
        try:
            query, client = udp.recvfrom(4096)
        except BlockingIOError:
            return
        if len(query) >= 12:
            udp.sendto(query[:2] + b"\x81\x80" + query[4:], client)


def answer_connection(tcp: socket.socket) -> None:
    try:
        connection, _ = tcp.accept()
    except BlockingIOError:
        return
    with connection:
        connection.settimeout(1.0)
        query = connection.recv(4096)
        connection.sendall(query[:4] + b"\x81\x80" + query[6:])


def main() -> int:
    kind, host, port, folder = sys.argv[1:5]
    if kind == "parent":
        # As PID 1 does without being told.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run_worker(link: KeeperLink) -> int:
        return Script(kind, host, int(port), Path(folder), link).run()

    return supervise(run_worker, Lines(), stays_by=kind == "replaced" or None)


if __name__ == "__main__":
    sys.exit(main())
