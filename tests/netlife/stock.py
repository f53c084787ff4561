"""What node-cache 1.26.8 does to a node, without its cache: enough to take over from it.

At start it puts its addresses on a link of its own, prepends its twelve rules for each of them to
the chains of raw and filter, and answers on sockets that others may share. On SIGTERM it deletes
the rules, then the link, whoever uses its addresses by then, and only then closes its sockets.
With --skipteardown as the first argument it leaves rules and link.

Standard library only, and no import of the tests: it is a program of its own.
"""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

_SKIP, _ALLOW = "NodeLocal DNS Cache: skip conntrack", "NodeLocal DNS Cache: allow DNS traffic"
_LINK = "nodelocaldns"
_RECORD = bytes.fromhex("c00c00010001 0000001e 0004c000024d")  # an A record, TTL 30


def _rules(address: str) -> Iterator[tuple[str, str, str, str]]:
    """Yields table, chain, what to match, and target with comment."""
    for table, chain, end, target, comment in (
        ("raw", "PREROUTING", "d", "NOTRACK", _SKIP),
        ("filter", "INPUT", "d", "ACCEPT", _ALLOW),
        ("raw", "OUTPUT", "s", "NOTRACK", _SKIP),
        ("filter", "OUTPUT", "s", "ACCEPT", _ALLOW),
        ("raw", "OUTPUT", "d", "NOTRACK", _SKIP),
    ):
        for proto in ("tcp", "udp"):
            match = f"-p {proto} -{end} {address} --{end}port 53"
            yield table, chain, match, f"-j {target}|{comment}"
    for end in ("d", "s"):
        yield "raw", "OUTPUT", f"-p tcp -{end} {address} --{end}port 8080", f"-j NOTRACK|{_SKIP}"


def _iptables(address: str, action: str) -> None:
    program = "ip6tables-nft" if ":" in address else "iptables-nft"
    for table, chain, match, rest in _rules(address):
        target, _, comment = rest.partition("|")
        words = [program, "-w", "5", "-t", table, action, chain, *match.split(), *target.split()]
        words += ["-m", "comment", "--comment", comment]
        subprocess.run(words, check=action == "-I", capture_output=True)


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], check=False, capture_output=True).returncode == 0


def _make_link(addresses: list[str]) -> None:
    """A bridge does as well where the kernel has no dummy driver; both may be there already."""
    _ = _ip("link", "add", _LINK, "type", "dummy") or _ip("link", "add", _LINK, "type", "bridge")
    for address in addresses:
        bits = 128 if ":" in address else 32
        _ip("address", "add", f"{address}/{bits}", "dev", _LINK, *("nodad",) * (bits == 128))
    _ip("link", "set", _LINK, "up")


def _answer(query: bytes) -> bytes:
    end = query.find(b"\0", 12) + 5
    is_a = query[end - 4 : end - 2] == b"\0\1"
    head = query[:2] + b"\x85\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + bytes(4)
    return head + query[12:end] + (_RECORD if is_a else b"")


def _serve_stream(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        data = connection.makefile("rb")
        while len(head := data.read(2)) == 2:
            reply = _answer(data.read(int.from_bytes(head, "big")))
            connection.sendall(len(reply).to_bytes(2, "big") + reply)


def _open(address: str, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, 53))
    if kind == socket.SOCK_STREAM:
        sock.listen(1024)
    return sock


def _serve(socks: list[socket.socket], stopping: threading.Event) -> None:
    selector = selectors.EpollSelector()
    for each in socks:
        selector.register(each, selectors.EVENT_READ, each)
    while not stopping.is_set():
        for key, _ in selector.select(0.05):
            sock: socket.socket = key.data
            if sock.type == socket.SOCK_STREAM:
                connection, _ = sock.accept()
                threading.Thread(target=_serve_stream, args=(connection,), daemon=True).start()
            else:
                query, peer = sock.recvfrom(2048)
                with suppress(OSError):
                    sock.sendto(_answer(query), peer)


def main() -> int:
    """Serves the addresses that are its arguments until SIGTERM."""
    stays = sys.argv[1] == "--skipteardown"
    addresses, ending, stopping = sys.argv[1 + stays :], threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    _make_link(addresses)
    kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    socks = [_open(address, kind) for address in addresses for kind in kinds]
    serving = threading.Thread(target=_serve, args=(socks, stopping))
    serving.start()
    for address in addresses:
        _iptables(address, "-I")
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    ending.wait()
    if not stays:
        for address in addresses:
            _iptables(address, "-D")
        _ip("link", "del", _LINK)
    stopping.set()
    serving.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
