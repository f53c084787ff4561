#!/usr/bin/env python3
"""Asks an installed nodecache one question; says whether its core is translated to C.

For wheels, by the Python that they were installed for: usage: smoke.py translated|pure
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PATIENCE_S = 60.0
_NAME = b"\5smoke\4test\0"
_QUERY = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + _NAME + b"\0\1\0\1"  # A, RFC 1035 section 4.1
_ADDRESS = "192.0.2.53"


def core_is_translated() -> bool:
    """Tells whether the resolver is machine code."""
    import nodecache.resolve.resolver as core  # noqa: PLC0415 # fails here if nothing is installed

    return not core.__file__.endswith(".py")


def ask(port: int, daemon: subprocess.Popen[bytes]) -> bytes:
    """Returns the response, as soon as somebody gives one."""
    end = time.monotonic() + _PATIENCE_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        asking.connect(("127.0.0.1", port))
        while time.monotonic() < end and daemon.poll() is None:
            try:
                asking.send(_QUERY)
                return asking.recv(512)
            except OSError:
                time.sleep(0.1)
    raise SystemExit(f"127.0.0.1:{port} has not answered.")


def free_port() -> int:
    """Returns a port that nobody has at present, over TCP nor UDP."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        ):
            stream.bind(("127.0.0.1", 0))
            port: int = stream.getsockname()[1]
            with contextlib.suppress(OSError):
                datagram.bind(("127.0.0.1", port))
                return port


def main(kind: str) -> None:
    """Raises SystemExit with the reason unless this is a wheel of that kind, and it serves."""
    if core_is_translated() != (kind == "translated"):
        raise SystemExit(f"This is no {kind} nodecache.")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        corefile = Path(folder, "Corefile")
        corefile.write_text(
            f".:{port} {{\n bind 127.0.0.1\n hosts {{\n  {_ADDRESS} smoke.test\n }}\n}}\n"
        )
        words = [sys.executable, "-m", "nodecache", "-localip", "127.0.0.1", "-rundir", ""]
        words += ["-setupinterface=false", "-setupiptables=false", "-metrics-listen-address", ""]
        words += ["-conf", str(corefile), "-basecorefile", str(corefile)]
        with subprocess.Popen(words, cwd=folder) as daemon:
            try:
                response = ask(port, daemon)
            finally:
                daemon.terminate()
            code = daemon.wait(_PATIENCE_S)
    if not response.endswith(socket.inet_aton(_ADDRESS)) or code != 0:
        raise SystemExit(f"The answer was {response.hex()}, the exit code {code}.")
    print(f"A {kind} nodecache has answered.")


if __name__ == "__main__":
    main(sys.argv[1])
