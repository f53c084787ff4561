"""SIGKILL of the worker, of keeper and worker, under load and again and again."""

from __future__ import annotations

import time

import pytest

from tests.daemon.processes import wait_until
from tests.netns.children import NodeDaemon
from tests.netns.node import Bed, By, figure
from tests.netns.test_handover import hand_over, tell
from tests.netns.topology import ADDRESSES, CLUSTER, LOCAL

pytestmark = [pytest.mark.root, pytest.mark.netns]

FLAGS = ("-rules", "nftables")
WORKER_KILLS = 10
KILLS = 50
_A_STUBS_PATIENCE_S = 4.5
# What a worker has read and not answered dies with it: a stub has to ask again. At this load that
# is seldom as much as one query.
LOST_EACH_KILL = 1
# 700 ms and 1 s on a quiet machine.
LONGEST_MS, LONGEST_GAP_MS = 1500.0, 5000.0


def kill_worker(bed: Bed, daemon: NodeDaemon) -> None:
    """Kills the worker and returns when its successor serves."""
    killed = daemon.worker()
    killed.kill()

    def is_new() -> bool:
        return any(process.pid != killed.pid for process in daemon.children())

    wait_until(is_new, lambda: f"another worker: {daemon.tail()}")
    bed.wait_for(By.NODE, LOCAL, daemon)
    bed.wait_for_rules(daemon)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ten_killed_workers_under_load_lose_no_query(bed: Bed) -> None:
    daemon = bed.start(*FLAGS)
    loads = [bed.load(0, "--server", LOCAL), bed.load(1, "--server", CLUSTER)]
    for _ in range(WORKER_KILLS):
        time.sleep(0.5)  # a little load between two crashes
        kill_worker(bed, daemon)
        # A second crash within a minute would be answered with back-off; a new keeper has no past.
        daemon = hand_over(bed, daemon, *FLAGS)
        bed.wait_for_rules(daemon)
    reports = [load.finish() for load in loads]
    tell(f"{WORKER_KILLS} x SIGKILL of the worker", reports)
    assert sum(report.total("lost") for report in reports) <= WORKER_KILLS * LOST_EACH_KILL
    for report in reports:
        assert report.rcode(2) == 0, report
        assert report.longest_ms < LONGEST_MS, report
    assert bed.addresses() == sorted(ADDRESSES)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_that_dies_again_and_again_costs_stubs_no_lookup(bed: Bed) -> None:
    daemon = bed.start(*FLAGS)
    loads = [
        bed.load(0, "--server", LOCAL),
        bed.load(1, "--server", LOCAL, "--second-server", CLUSTER),
    ]
    for _ in range(6):
        time.sleep(0.2)
        kill_worker(bed, daemon)
    reports = [load.finish() for load in loads]
    tell("6 x SIGKILL of the same keeper's worker", reports)
    alone, with_second = reports
    assert alone.total("lost") <= 6 * LOST_EACH_KILL, alone
    assert with_second.total("lost") == 0, with_second
    assert alone.longest_ms < LONGEST_MS, alone
    # A query at the ClusterIP waits until the redirect is withdrawn; the stub asks again after 1 s.
    assert with_second.longest_ms < 2 * LONGEST_MS + 1000, with_second


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_daemon_that_starts_at_once_costs_no_lookup(bed: Bed, backend: str) -> None:
    flags = ("-rules", backend)
    daemon = bed.start(*flags)
    rules = bed.rules(backend)
    loads = [
        bed.load(0, "--server", LOCAL),
        bed.load(1, "--server", LOCAL, "--second-server", CLUSTER),
    ]
    for _ in range(3):
        time.sleep(_A_STUBS_PATIENCE_S)  # no lookup has to outlive two crashes
        daemon.kill_all()
        daemon = bed.start(*flags)
        assert bed.rules(backend) == rules
        assert bed.addresses() == sorted(ADDRESSES)
    alone, with_second = (load.finish() for load in loads)
    tell(f"3 x SIGKILL of keeper and worker ({backend})", [alone, with_second])
    gap_ms = alone.udp["longest_gap"][0]
    figure(
        f"longest gap at the local address {gap_ms:.0f} ms; sockets said {alone.udp['errors']};"
        f" with a second nameserver {with_second.udp['lost']} lookups lost,"
        f" {with_second.udp['errors']}"
    )
    assert gap_ms < LONGEST_GAP_MS
    assert with_second.udp["lost"] == 0, with_second


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_kills_leave_one_set_of_rules_and_addresses(bed: Bed, backend: str) -> None:
    flags = ("-rules", backend)
    daemon = bed.start(*flags)
    rules = bed.rules(backend)
    assert rules
    began = time.monotonic()
    for number in range(KILLS):
        daemon.kill_all()
        assert bed.rules(backend) == rules
        assert bed.addresses() == sorted(ADDRESSES)
        daemon = bed.launch(*flags)
        if number % 3:
            bed.wait_for(By.NODE, CLUSTER, daemon)
            bed.wait_for_rules(daemon)
        else:
            time.sleep(number * 0.02)  # dies while it starts, each time a little further on
    daemon.kill_all()
    figure(f"{KILLS} x SIGKILL and start ({backend}): {time.monotonic() - began:.0f} s in all")
    daemon = bed.start(*flags)
    assert bed.rules(backend) == rules
    assert bed.addresses() == sorted(ADDRESSES)
    assert daemon.stop() == 0
    assert (bed.rules(backend), bed.addresses()) == ([], [])
