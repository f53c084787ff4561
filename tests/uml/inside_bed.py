"""The guest itself: what the other tests stand on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.daemon.processes import ROOT


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_the_kernel_loads_what_it_misses() -> None:
    assert run("ip", "link", "add", "bed0", "type", "dummy").returncode == 0
    assert run("ip", "link", "del", "bed0").returncode == 0
    assert run("iptables-legacy", "-t", "raw", "-S").stdout.splitlines() == [
        "-P PREROUTING ACCEPT",
        "-P OUTPUT ACCEPT",
    ]
    assert run("ipvsadm", "-Ln").returncode == 0


def test_files_outside_the_shared_folder_stay_in_the_guest() -> None:
    written = ROOT / ".uml-was-here"
    written.write_text("by the guest")
    assert written.read_text() == "by the guest"


def test_network_namespaces_work() -> None:
    assert run("ip", "netns", "add", "bed").returncode == 0
    assert "LOOPBACK" in run("ip", "-n", "bed", "link", "show", "lo").stdout
    assert run("ip", "netns", "del", "bed").returncode == 0


def test_nft_has_no_tables_here() -> None:
    assert run("nft", "add", "table", "inet", "bed").returncode != 0


def test_it_is_another_kernel() -> None:
    assert Path("/proc/mounts").read_text().startswith("root / overlay")
    if "uml" not in Path("/proc/cpuinfo").read_text().lower():
        pytest.fail("not User-Mode Linux")
