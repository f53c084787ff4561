from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodecache.host.addresses import addresses_of


def test_loopback_has_its_addresses() -> None:
    found = addresses_of("lo")
    assert "127.0.0.1" in found
    assert all(ipaddress.ip_address(text) for text in found)


@pytest.mark.parametrize("name", ["", "none", "lo:", "l", "lo%lo", "\N{SNOWMAN}", "x" * 300])
def test_what_is_no_interface_has_none(name: str) -> None:
    assert addresses_of(name) == ()


def test_looking_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(50):
        addresses_of("lo")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_want_of_descriptors_is_an_error_and_not_an_interface_without_addresses() -> None:
    code = (
        "import resource, sys; from nodecache.host.addresses import addresses_of\n"
        "addresses_of('lo')\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: addresses_of('lo')\n"
        "except OSError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "cannot list addresses: Too many open files" in done.stdout


def test_serving_process_does_without_pyroute2() -> None:
    code = (
        "import sys, nodecache.cli, nodecache.process.start, nodecache.loading\n"
        "nodecache.loading.FileReader().addresses('lo')\n"
        "assert not any(name.startswith('pyroute2') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
