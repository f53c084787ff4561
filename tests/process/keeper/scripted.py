"""A keeper with a worker that does what the test wants: ``python -m ... KIND HOST PORT FOLDER``.

The worker answers every query NOERROR. What it does and hears goes to files in FOLDER. KIND may
have more behind a "+": "covered" for rules that lead to the cluster's DNS, "mortal" for a worker
that is killed after a second of silence, "patient" for one to which a successor comes when it is
told to end.
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
from unittest.mock import patch

from nodecache.process.channel import KeeperLink
from nodecache.process.keeper.log import Log
from nodecache.process.keeper.supervise import supervise

SELF_CHECK = bytes([0, 0, 0x78, *bytes(9)]) + b"a mark of its own"
_PR_SET_CHILD_SUBREAPER = 36
CONFIGURATION, CRASH = 2, 7
_STARTS_S = {"slow": 0.2, "slower": 2.0}
_CODES = {"1": 1, "2": CONFIGURATION, "hopeless": CRASH}


class Script:
    """One worker."""

    def __init__(self, kind: str, host: str, port: int, folder: Path, link: KeeperLink) -> None:
        self.kind, *self.options = kind.split("+")
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
        if restarts and self.kind in _STARTS_S:
            time.sleep(_STARTS_S[self.kind])
        return self.serve()

    def serve(self) -> int:
        """Answers until a signal says otherwise."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, _frame: self.signals.append(number))
        udp, tcp = self.listen()
        if self.kind == "two-faced":
            self.listen_elsewhere()
        self.say_serving()
        self.note("serving", str(os.getpid()))
        poll = select.poll()
        poll.register(udp, select.POLLIN)
        poll.register(tcp, select.POLLIN)
        while True:
            poll.poll(20)
            if not self.has_handed_over:
                self.answer_datagrams(udp)
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

    def listen_elsewhere(self) -> None:
        """Holds a socket that ``serving`` does not name."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((self.host, self.port + 1))
        self.link.hold(f"udp {self.host}:{self.port + 1}", sock)

    def say_serving(self) -> None:
        places = [(self.host, self.port)]
        refusing = [] if "covered" in self.options else places
        self.link.serving(SELF_CHECK, places, refusing, 1.0 if "mortal" in self.options else 0)

    def answer_datagrams(self, udp: socket.socket) -> None:
        while True:
            try:
                query, client = udp.recvfrom(4096)
            except BlockingIOError:
                return
            if len(query) >= 12:
                udp.sendto(query[:2] + b"\x81\x80" + query[4:], client)
            if query[2:] == SELF_CHECK[2:]:
                self.note("asked", str(client))

    def obey(self) -> int | None:
        """Does what signals ask for; returns an exit code to end."""
        if not self.signals:
            return None
        number = self.signals.pop(0)
        self.note("signals", signal.Signals(number).name)
        if number == signal.SIGUSR2:
            self.leave_an_orphan() if self.kind == "parent" else self.hand_over()
        if number == signal.SIGTERM and "patient" in self.options:
            self.hand_over()
        elif number == signal.SIGTERM and self.kind != "stubborn":
            return self.end()
        return None

    def end(self) -> int:
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

    def note_goodbye(sock: socket.socket, host: str) -> None:
        with (Path(folder) / "goodbyes").open("a") as file:
            file.write(f"{sock.getsockname()[1]} {host}\n")

    def run_worker(link: KeeperLink) -> int:
        return Script(kind, host, int(port), Path(folder), link).run()

    stays_by = kind.startswith("replaced") or None
    with patch("nodecache.process.keeper.held.say_goodbye", note_goodbye):
        return supervise(run_worker, Log(), stays_by=stays_by)


if __name__ == "__main__":
    sys.exit(main())
