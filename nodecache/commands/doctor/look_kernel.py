"""Looks at what the kernel and the control group tell of tracking, queues, memory and clock."""

from __future__ import annotations

import datetime
from pathlib import Path

import nodecache
from nodecache.commands.doctor.seen import Holder, Kernel, Process
from nodecache.config.model import Address
from nodecache.config.node import NodePlan
from nodecache.host.listeners import who_serves
from nodecache.net.holders import describe_holder

_NETFILTER = Path("/proc/sys/net/netfilter")
_TRACKING = Path("/proc/net/stat/nf_conntrack")
_UDP = (Path("/proc/net/udp"), Path("/proc/net/udp6"))
_CGROUPS = Path("/sys/fs/cgroup")
_LOCAL_PORT, _DROPS = 1, -1  # fields of /proc/net/udp
_MOST_OCTETS = 4 << 20
_MOST_HOLDERS = 8


def look_at_kernel(processes: tuple[Process, ...], drops_before: int, port: int) -> Kernel:
    """Returns the figures; raises nothing.

    Args:
        processes: Of the daemon: the memory of their control group counts.
        drops_before: What ``count_drops`` said some seconds ago.
        port: Of DNS.
    """
    memory, most_memory = _memory(processes[0].pid) if processes else (-1, -1)
    return Kernel(
        tracked=_number(_NETFILTER / "nf_conntrack_count"),
        most_tracked=_number(_NETFILTER / "nf_conntrack_max"),
        insert_failed=_insert_failed(),
        queue_drops=max(0, count_drops(port) - drops_before),
        memory=memory,
        most_memory=most_memory,
        clock_behind_s=_clock_behind_s(),
    )


def count_drops(port: int) -> int:
    """Returns how many datagrams were dropped at the full queues of a port until now."""
    total = 0
    for line in (line for path in _UDP for line in _text(path).splitlines()[1:]):
        fields = line.split()
        if fields[_LOCAL_PORT].endswith(f":{port:04X}"):
            total += int(fields[_DROPS])
    return total


def look_at_holders(plan: NodePlan, but: frozenset[int]) -> tuple[Holder, ...]:
    """Returns who has the DNS port of the plan's addresses, beside sockets with these inodes.

    Raises:
        OSError: The kernel does not show its sockets.
    """
    found = []
    for place in who_serves(plan, but)[:_MOST_HOLDERS]:
        transport, _, name = place.partition(" ")
        host, _, port = name.rpartition(":")
        address = Address(host.strip("[]"), int(port))
        found.append(Holder(place, describe_holder(address, transport)))
    return tuple(found)


def _insert_failed() -> int:
    """Sums a column over all processors; newer kernels show none of it here."""
    lines = _text(_TRACKING).splitlines()
    if not lines or "insert_failed" not in lines[0].split():
        return -1
    column = lines[0].split().index("insert_failed")
    return sum(int(line.split()[column], 16) for line in lines[1:])


def _memory(pid: int) -> tuple[int, int]:
    """Returns what the control group of a process has, and may have; -1 for no limit."""
    groups = _text(Path(f"/proc/{pid}/cgroup")).splitlines()
    own = next((line[3:] for line in groups if line.startswith("0::")), "")
    for folder in (_CGROUPS / own.lstrip("/"), _CGROUPS / "memory" / own.lstrip("/")):
        has, most = _number(folder / "memory.current"), _number(folder / "memory.max")
        if has >= 0:
            return has, most
    return -1, -1


def _clock_behind_s() -> float:
    try:
        made_at = Path(nodecache.__file__).stat().st_mtime
    except OSError:
        return 0.0
    now = datetime.datetime.now(datetime.UTC).timestamp()
    return max(0.0, made_at - now)


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else -1


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_OCTETS)
    except OSError:
        return ""
