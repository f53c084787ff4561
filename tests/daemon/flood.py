"""A flood of names that nobody asked for before, from many clients.

    python -m tests.daemon.flood HOST PORT RATE SECONDS CLIENTS

Prints one line of JSON: how many queries were sent, and the replies by RCODE.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

_TICK_S = 0.005
_REST = b"\5flood\4test\0\0\1\0\1"
_BUFFER_OCTETS = 1 << 20


def main(host: str, port: int, rate: int, seconds: float, clients: int) -> None:
    """Sends evenly, and counts what comes back meanwhile."""
    sockets = [_client(host, port, number) for number in range(clients)]
    rcodes: dict[int, int] = {}
    began, sent, full = time.monotonic(), 0, 0
    run = b"%08x" % (os.getpid() << 8 & 0xFFFFFFFF)
    while (now := time.monotonic() - began) < seconds:
        due = int(now * rate)
        while sent < due:
            header = (sent & 0xFFFF).to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0"
            try:
                sockets[sent % clients].send(header + b"\x10" + run + b"%08x" % sent + _REST)
            except OSError:
                full += 1
            sent += 1
        for sock in sockets:
            _drain(sock, rcodes)
        time.sleep(_TICK_S)
    print(json.dumps({"sent": sent, "full": full, "rcodes": rcodes}))


def _client(host: str, port: int, number: int) -> socket.socket:
    """Returns a socket of a client with an address of its own, if the server is on loopback."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
    sock.bind((f"127.250.{number // 250}.{number % 250 + 1}", 0))
    sock.connect((host, port))
    sock.setblocking(False)
    return sock


def _drain(sock: socket.socket, rcodes: dict[int, int]) -> None:
    try:
        while True:
            rcode = sock.recv(512)[3] & 15
            rcodes[rcode] = rcodes.get(rcode, 0) + 1
    except OSError:
        return


if __name__ == "__main__":
    _host, _port, _rate, _seconds, _clients = sys.argv[1:]
    main(_host, int(_port), int(_rate), float(_seconds), int(_clients))
