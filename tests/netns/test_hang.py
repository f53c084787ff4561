"""A worker that stands still: it is killed, and another one serves a few seconds later."""

from __future__ import annotations

import time

import pytest

from tests.daemon.processes import wait_until
from tests.netns.children import NodeDaemon
from tests.netns.node import By, NodeBed, figure
from tests.netns.topology import ADDRESSES, CLUSTER, CLUSTER6, LOCAL

pytestmark = [pytest.mark.root, pytest.mark.netns]

# The keeper's three seconds, a start, and what a busy machine adds.
REPLACED_WITHIN_S = 10.0


def wait_for_another_worker(daemon: NodeDaemon, stuck_pid: int) -> None:
    def is_new() -> bool:
        return any(process.pid != stuck_pid for process in daemon.children())

    wait_until(is_new, lambda: f"another worker: {daemon.tail()}")


def test_a_stopped_worker_is_replaced_within_seconds(bed: NodeBed, backend: str) -> None:
    daemon = bed.start("-rules", backend)
    rules = bed.rules(backend)
    worker = daemon.worker()
    worker.suspend()
    stopped = time.monotonic()
    wait_for_another_worker(daemon, worker.pid)
    killed_s = time.monotonic() - stopped
    for server in ADDRESSES:
        bed.wait_for(By.NODE, server, daemon)
    served_s = time.monotonic() - stopped
    bed.wait_for_rules(daemon)
    figure(f"SIGSTOP ({backend}): killed after {killed_s:.2f} s, another serves at {served_s:.2f}")
    assert served_s < REPLACED_WITHIN_S
    assert daemon.worker().pid != worker.pid
    assert bed.rules(backend) == rules
    assert bed.addresses() == sorted(ADDRESSES)
    assert "the worker has not answered for 3" in daemon.log()


def test_clients_of_a_stopped_worker_reach_the_cluster_dns_meanwhile(bed: NodeBed) -> None:
    daemon = bed.start("-rules", "nftables", "-stuckafter", "20s")
    worker = daemon.worker()
    worker.suspend()
    stopped = time.monotonic()
    try:
        for server in (LOCAL, CLUSTER, CLUSTER6):
            bed.wait_for(By.CLUSTER, server, daemon)
        elsewhere_s = time.monotonic() - stopped
    finally:
        worker.resume()
    for server in ADDRESSES:
        bed.wait_for(By.NODE, server, daemon)
    figure(f"SIGSTOP: the cluster's DNS answers at all addresses after {elsewhere_s:.2f} s")
    assert daemon.worker().pid == worker.pid
    assert "the worker is silent: queries go to the cluster's DNS meanwhile" in daemon.log()


def test_a_stopped_worker_is_left_alone_where_that_is_asked_for(bed: NodeBed) -> None:
    daemon = bed.start("-rules", "nftables", "-stuckafter", "0")
    worker = daemon.worker()
    worker.suspend()
    try:
        time.sleep(5)  # longer than it is given by default
    finally:
        worker.resume()
    for server in ADDRESSES:
        bed.wait_for(By.NODE, server, daemon)
    assert daemon.worker().pid == worker.pid


def test_a_stopped_worker_costs_a_stub_with_two_nameservers_nothing(bed: NodeBed) -> None:
    daemon = bed.start("-rules", "nftables")
    load = bed.load(0, "--server", LOCAL, "--second-server", CLUSTER, "--rate", "200")
    time.sleep(1)
    worker = daemon.worker()
    worker.suspend()
    wait_for_another_worker(daemon, worker.pid)
    bed.wait_for(By.NODE, CLUSTER, daemon)
    report = load.finish()
    figure(
        f"SIGSTOP with a second nameserver: {report.udp['lost']} of {report.udp['sent']} lost,"
        f" {report.udp['by_server']} by server, longest {report.longest_ms:.0f} ms"
    )
    assert report.udp["lost"] == 0, report
