"""Reading files that somebody else writes: never waits, never reads without end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from nodecache.files import check_regular, read_regular


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def link_to_terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")  # to open it would make a terminal


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_fifo, "it is a FIFO, not a file"),
        (make_socket, "it is a socket, not a file"),
        (link_to_terminal, "it is a device, not a file"),
        (Path.mkdir, "Is a directory"),
    ],
)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    path = tmp_path / "resolv.conf"
    make(path)
    for read in (check_regular, lambda path: read_regular(path, 100)):
        with pytest.raises(OSError, match=kind):
            read(str(path))


def test_fifo_that_takes_the_place_of_a_file_meanwhile_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_fifo(tmp_path / "fifo")
    monkeypatch.setattr("nodecache.files.check_regular", lambda path: None)
    with pytest.raises(OSError, match="it is a FIFO"):
        read_regular(str(tmp_path / "fifo"), 100)


def test_file_is_read_whole_up_to_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"x" * 2**20)
    assert read_regular(str(path), 2**20) == b"x" * 2**20
    path.write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(ValueError, match="longer than 1 MiB"):
        read_regular(str(path), 2**20)


def test_file_of_the_kernel_that_tells_no_size_is_read() -> None:
    assert b"MemTotal" in read_regular("/proc/meminfo", 2**20)
